//! The embedded cloud: everything that qdrant-backup talks to, in one process, without an account and without a container engine.
//!
//! It is a development crate. Nothing ships it and no product crate depends on it.

pub mod qdrant;
pub mod s3;
