//! Recording the golden set: what a restore will be compared with.
//!
//! [`Sample::take`] before the snapshots, [`finish`] after the last one. A sampled point counts only if it was the same at both times, so that it
//! is in the snapshot as recorded. The number of calls does not depend on the number of points.

mod record;
pub(crate) mod sample;
pub(crate) mod search;

pub use record::{Reference, finish};
pub use sample::Sample;
