//! What boot needs of the machine below Qdrant, as narrow ports: its disks, the container that Qdrant runs in, its addresses, and what its
//! Auto Scaling group waits for.
//!
//! Nothing here decides. The order of things, and what is done when one of them fails, is `boot`'s.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The instance's own NVMe disks, as one file system.
pub trait Disks {
    /// Finds the disks, makes a file system where there is none at all, mounts it, makes the directories below it and gives them to Qdrant's
    /// user. May be called again after any interruption, and on a machine whose disks are prepared already. Never makes a file system over
    /// another one, nor over anything else that is not blank.
    fn prepare(&self) -> impl Future<Output = Result<Prepared, Error>>;
}

/// What preparing the disks came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// How the file system came to be mounted.
    pub how: FileSystem,
    /// The disks below it; empty where a directory stands in for them.
    pub devices: Vec<PathBuf>,
}

/// How the file system came to be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// It was mounted already.
    Mounted,
    /// It was on the disks, as after a reboot, and is mounted now.
    Found,
    /// The disks were blank.
    Made,
}

/// The container that Qdrant runs in. There is at most one.
pub trait Container {
    /// What runs now; `None` when nothing does.
    fn running(&self) -> impl Future<Output = Result<Option<Launch>, Error>>;

    /// Stops whatever runs, gracefully, then starts this. Does not wait until Qdrant answers.
    fn start(&self, launch: &Launch) -> impl Future<Output = Result<(), Error>>;

    /// Stops whatever runs, gracefully. Nothing runs afterwards, and nothing starts it again.
    fn stop(&self) -> impl Future<Output = Result<(), Error>>;
}

/// What to run, and who may talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The image, as `qdrant/qdrant:v1.18.3-unprivileged` or by digest.
    pub image: String,
    /// The address that its ports are published on.
    pub address: IpAddr,
}

/// The machine's addresses.
pub trait Addresses {
    /// Whether one of the machine's interfaces has this address now.
    fn has(&self, address: IpAddr) -> bool;
}

/// What the Auto Scaling group waits for while an instance is `Pending:Wait`.
pub trait Lifecycle {
    /// Asks for more time. Answers whether somebody waits at all: an instance that is in service, or in no group, has nothing to complete.
    fn heartbeat(&self) -> impl Future<Output = Result<bool, Error>>;

    /// Says that the instance is ready (CONTINUE). Saying so twice is no error.
    fn complete(&self) -> impl Future<Output = Result<(), Error>>;
}

/// Why the machine did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the machine's could not be run.
    #[error("cannot run `{program}`")]
    NotRun {
        /// The program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A program of the machine's failed.
    #[error("`{program} {arguments}` ended with {status}: {stderr}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its arguments, which hold no secret.
        arguments: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said, on one line.
        stderr: String,
    },
}
