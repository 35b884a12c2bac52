//! host-worker
