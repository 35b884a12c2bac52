//! The embedded cloud: everything that qdrant-backup talks to, in one process, without an account and without a container engine.
//!
//! It is a development crate. Nothing ships it and no product crate depends on it.

pub mod autoscaling;
mod background;
pub mod cli;
pub mod cloud;
pub mod cloudwatch;
pub mod corpus;
pub mod demo;
pub mod disks;
pub mod docker;
pub mod ec2;
pub mod events;
pub mod indexer;
pub mod instance;
pub mod lambda;
pub mod lost_host;
mod process;
pub mod qdrant;
pub mod s3;
pub mod script;
pub mod serve;
pub mod simulation;
pub mod ssm;
pub mod stepfunctions;
pub mod up;
pub mod workflow;
