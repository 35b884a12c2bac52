//! The worker against scripted servers. One binary for all, so that they link once.

#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, and their helpers are tests, too"
)]

mod boot;
mod drill_report;
mod drill_samples;
mod golden;
mod model;
mod qdrant;
mod quiesce;
mod real_replies;
mod server;
mod task;
mod verdicts;
