//! The end-to-end tests against a real Qdrant: source and target are two instances of the program that `QDRANT_BIN` names.
//!
//! A missing program is a failure, never a skip.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

#[path = "../e2e/collections.rs"]
mod collections;
#[expect(dead_code, reason = "the stand-in's faults are for the other target")]
#[path = "../e2e/harness.rs"]
mod harness;
#[path = "../e2e/main_job.rs"]
mod main_job;
#[path = "../e2e/publication.rs"]
mod publication;

/// Whether a real server is used: here always.
pub(crate) const REAL: bool = true;
