//! The worker against scripted servers. One binary for all, so that they link once.

mod golden;
mod model;
mod qdrant;
mod quiesce;
mod server;
