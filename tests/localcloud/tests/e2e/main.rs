//! The product as a user has it: the worker as a child process, a bucket over the wire, a Qdrant over the wire.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod away;
mod boot;
mod collections;
mod damage;
mod harness;
mod main_job;
mod neighbour;
mod planted;
mod prune;
mod publication;
mod qdrant_faults;
mod restore;
mod resume_backup;
mod resume_restore;
mod resume_workflow;
mod safety;
mod secrets;
mod store_faults;
mod usage;
mod workflow;

/// Whether a real server is used: here never, in the target `real_qdrant` always.
pub(crate) const REAL: bool = false;
