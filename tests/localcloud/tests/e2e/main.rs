//! The product as a user has it: the worker as a child process, a bucket over the wire, a Qdrant over the wire.

mod collections;
mod harness;
mod main_job;

/// Whether a real server is used: here never, in the target `real_qdrant` always.
pub(crate) const REAL: bool = false;
