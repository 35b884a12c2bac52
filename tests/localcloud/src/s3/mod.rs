//! The embedded S3: `s3s` over a wrapped `s3s-fs`, with the gaps closed that the product depends on.
