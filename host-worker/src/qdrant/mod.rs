//! The client for Qdrant: REST, for exactly the calls that a backup, a restore and their proof need.
//!
//! What it guarantees:
//! * Only reads are retried, a bounded number of times. Creating a snapshot and recovering are sent once: when the answer is lost, what
//!   became of them is looked up ([`Client::create_snapshot`], [`Client::recover`]), because the server goes on without its client.
//! * An answer never takes more memory than its stated bound, and no message shows the API key.
//! * A recovery always states the snapshot's SHA-256 and `priority=snapshot`, and never goes through an alias.
//! * No `Accept-Encoding`, no redirects, no proxies: the server would compress whole archives, and the key stays with the server it is for.

mod client;
mod collections;
mod error;
mod key;
mod metrics;
mod operation;
mod points;
mod snapshots;
mod telemetry;
pub mod version;

pub use client::{Auth, Client, Options};
pub use collections::{AliasChange, CollectionInfo, CollectionStatus, OptimizerStatus, check_config};
pub use error::{Cause, Error};
pub use key::{ApiKey, InvalidApiKey};
pub use metrics::{Metrics, WriteCounters};
pub use operation::Operation;
pub use points::{Point, Search};
pub use snapshots::{Checksum, CreatedSnapshot, InvalidChecksum, Recovery, SnapshotInfo};
pub use telemetry::Telemetry;
pub use version::Version;
