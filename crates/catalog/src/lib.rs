//! Manifests, pointer, success marker, listing and fallback over S3: the one home of publication.
//!
//! The order of publication, and why it holds:
//!
//! 1. the archive and its side files are stored under keys that belong to one upload (not done here);
//! 2. the archive is looked at: size, CRC-64/NVME and KMS key are those that the manifest states ([`Catalog::check_object`]),
//!    and its side files are there;
//! 3. the immutable manifest of the backup is created, never overwritten;
//! 4. the pointer moves by compare-and-swap, forward only, and carries the hash of what it replaced ([`Catalog::publish`]).
//!
//! Every step may be repeated, by the same caller or another, and a crash between two of them leaves a store that the next
//! call finishes. Which pointer may follow which is decided by pure functions in [`rules`].
//!
//! No archive bytes pass through here: this crate holds whole objects in memory and refuses those above
//! [`store::MAX_OBJECT_BYTES`].

mod catalog;
mod check;
mod drills;
mod error;
mod listing;
mod probe;
mod prune;
mod publish;
mod resolve;
pub mod rules;
pub mod store;

pub use catalog::{Catalog, Pointer};
pub use check::{CheckedObject, Checksum};
pub use error::Error;
pub use listing::{Entry, Listing, PointerState, Proved};
pub use probe::{Check, Finding, Probe, Standing};
pub use prune::{Orphan, Removed};
pub use publish::{Outcome, PublishPolicy, Published};
pub use resolve::{How, Resolved, Selector, Skipped};
pub use rules::Suspicion;
pub use store::{Deletion, ObjectStore};

#[cfg(test)]
mod tests;
