//! The transfer as a whole, over the memory store: what goes up comes down, and everything that goes wrong has a name.
//!
//! Frames and parts are 64 KiB here, so that a small archive has many of both.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

mod conformance;
mod damage;
mod faults;
mod golden;
mod hostile;
mod leftovers;
mod restoring;
mod resume;
mod round_trip;
mod sizes;
mod sources;
mod throttling;
mod wire;
