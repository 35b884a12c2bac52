//! The archive codec (tar in multi-frame zstd) and the parallel S3 transfer.
