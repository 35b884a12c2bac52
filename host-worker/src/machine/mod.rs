//! What boot needs of the machine below Qdrant, as narrow ports: its disks, the container that Qdrant runs in, its addresses, and what its
//! Auto Scaling group waits for.
//!
//! Nothing here decides. The order of things, and what is done when one of them fails, is `boot`'s. [`Machine`] is the machine that the worker runs on.

mod addresses;
mod disks;
mod docker;
mod error;
mod lifecycle;
mod program;

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::error::Error;
use self::{
    disks::Nvme,
    docker::{Docker, Owner, Paths},
    error::io_error,
    lifecycle::AutoScaling,
};
use crate::config::{BootSettings, Config};

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

/// The machine that this program runs on, as its settings describe it.
#[derive(Debug)]
pub struct Machine {
    disks: Nvme,
    docker: Docker,
    auto_scaling: AutoScaling,
}

impl Machine {
    /// Reads the settings; touches nothing yet. With `detached`, Qdrant's container belongs to a process of its own; otherwise to systemd, which must be there.
    pub async fn of(config: &Config, detached: bool) -> Result<Self, crate::Error> {
        let missing = crate::Error::MissingSetting { name: "boot" };
        let BootSettings { workspace, no_disks, environment_file, memory, grpc, .. } =
            config.boot().ok_or(missing)?;
        let paths = Paths::of(config, workspace)?;
        Ok(Self {
            disks: Nvme {
                workspace: workspace.clone(),
                no_disks: *no_disks,
                qdrants: vec![paths.storage.clone(), paths.snapshots.clone()],
                work_dir: paths.work_dir.clone(),
            },
            docker: Docker {
                owner: if detached {
                    Owner::Process(paths.work_dir.join("qdrant.log"))
                } else {
                    Owner::Systemd
                },
                environment_file: environment_file.clone(),
                memory: memory.map(|size| size.0),
                grpc: *grpc,
                port: config.qdrant_port()?,
                paths,
            },
            auto_scaling: AutoScaling::of(config).await,
        })
    }
}

impl Disks for Machine {
    async fn prepare(&self) -> Result<Prepared, Error> {
        self.disks.prepare().await
    }
}

impl Container for Machine {
    async fn running(&self) -> Result<Option<Launch>, Error> {
        self.docker.running().await
    }

    async fn start(&self, launch: &Launch) -> Result<(), Error> {
        self.docker.start(launch).await
    }

    async fn stop(&self) -> Result<(), Error> {
        self.docker.stop().await
    }
}

impl Addresses for Machine {
    fn has(&self, address: IpAddr) -> bool {
        addresses::has(address)
    }
}

impl Lifecycle for Machine {
    async fn heartbeat(&self) -> Result<bool, Error> {
        self.auto_scaling.heartbeat().await
    }

    async fn complete(&self) -> Result<(), Error> {
        self.auto_scaling.complete().await
    }
}
