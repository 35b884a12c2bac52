//! The worker's adapters of the machine, against the stand-ins of its programs and services: disks, Docker, Auto Scaling, the metadata service.
//!
//! An adapter finds programs on its path and services by its environment, so that each call of one is a process of its own: this very program.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod adapter;
mod container;
mod disks;
mod host;
mod lifecycle;
mod systemd;
