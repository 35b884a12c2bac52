//! The program on the Qdrant host: backup, restore, verify, and what a person types.

pub mod golden;
pub mod observe;
pub mod qdrant;
pub mod quiesce;
pub mod state;
