//! What all parts of the system agree on: ids, S3 keys, manifest, golden set, failure kinds and verdicts.
//!
//! Nothing here does I/O, is async or knows AWS: a Lambda, the worker and a test can all hold these values, and every rule
//! in here is a pure function that is tested as a table.

pub mod digest;
pub mod drill;
pub mod failure;
pub mod golden;
pub mod id;
pub mod key;
pub mod manifest;
pub mod marker;
pub mod point_id;
pub mod proof;
pub mod retention;
pub mod task;
pub mod verdict;

pub use drill::DrillReport;
pub use failure::FailureKind;
pub use golden::GoldenSet;
pub use id::{AttemptId, BackupId, CollectionName, PointId};
pub use key::Layout;
pub use manifest::Manifest;
pub use marker::SuccessMarker;
pub use proof::{Proof, ProofLevel};
pub use task::{Envelope, ExecutionName, TaskId, TaskKind, TaskToken, TokenOrder};
pub use verdict::Verdict;
