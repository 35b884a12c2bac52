//! The container that Qdrant runs in, by the `docker` program: one name, one mount, published on one address.
//!
//! Where there is systemd the container is a transient unit, so that systemd starts it again when it fails and stops it before the disks go; otherwise it is
//! a process of its own with a log in the work dir. Either way `docker run` stays in the foreground of whoever owns it.

mod arguments;
mod environment;
mod inspect;
mod paths;

use std::{
    ffi::OsString,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use self::inspect::Inspected;
pub(super) use self::paths::Paths;
use super::{
    Error, Launch, io_error,
    program::{self, ask, run, words},
};

/// The container's name.
const NAME: &str = "qdrant";
/// The unit's name, where there is systemd.
const UNIT: &str = "qdrant.service";
/// How long Qdrant may take to end. It waits up to 30 s for open requests, and then writes what it holds.
const STOP_SECONDS: u64 = 120;
/// How long a program that only asks may take.
const ASK: Duration = Duration::from_secs(30);
/// How long one that stops a container may take.
const STOP: Duration = Duration::from_secs(STOP_SECONDS + 60);
/// How long a container may take to run (not to answer) on a host that is busy, and to be gone when it has ended.
const CHANGE: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// How Qdrant is run on this host.
#[derive(Clone, Debug)]
pub(super) struct Docker {
    pub(super) paths: Paths,
    pub(super) environment_file: PathBuf,
    /// Bytes that the container may use.
    pub(super) memory: Option<u64>,
    /// Whether gRPC is published.
    pub(super) grpc: bool,
    /// The port that REST is published at.
    pub(super) port: u16,
    pub(super) owner: Owner,
}

/// Who owns the container.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// A unit of systemd.
    Systemd,
    /// A process that goes on when this one ends, with its log in this file.
    Process(PathBuf),
}

impl Docker {
    pub(super) async fn running(&self) -> Result<Option<Launch>, Error> {
        let found = inspect().await?;
        Ok(found.filter(Inspected::runs).map(|container| container.launch(self.port, &self.paths.workspace)))
    }

    pub(super) async fn start(&self, launch: &Launch) -> Result<(), Error> {
        environment::check(&self.environment_file)?;
        require_image(&launch.image).await?;
        self.stop().await?;
        tracing::info!(image = launch.image, address = %launch.address, port = self.port, "start Qdrant");
        let started = match &self.owner {
            Owner::Systemd => self.start_unit(launch).await,
            Owner::Process(log) => self.start_process(launch, log).await,
        };
        if started.is_err()
            && let Err(error) = self.stop().await
        {
            tracing::warn!(%error, "the container that did not start could not be put away");
        }
        started
    }

    pub(super) async fn stop(&self) -> Result<(), Error> {
        if matches!(self.owner, Owner::Systemd) {
            let arguments = ["stop", UNIT];
            let ended = ask("systemctl", &arguments, STOP).await?;
            // 5 is a unit that is not loaded: there is none yet, or it has ended.
            if !ended.status.success() && ended.status.code() != Some(5) {
                return Err(program::failed("systemctl", &arguments, ended));
            }
        }
        let deadline = Instant::now() + CHANGE;
        while let Some(container) = inspect().await? {
            // A container that ends between two calls is what is wanted.
            let arguments = if container.runs() { ["stop", NAME] } else { ["rm", NAME] };
            let ended = ask("docker", &arguments, STOP).await?;
            let going =
                says(&ended.stderr, "no such container") || says(&ended.stderr, "already in progress");
            if (!ended.status.success() && !going) || Instant::now() >= deadline {
                return Err(program::failed("docker", &arguments, ended));
            }
            if going || container.runs() {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn start_unit(&self, launch: &Launch) -> Result<(), Error> {
        run("systemd-run", &arguments::unit(self, launch), ASK).await?;
        let deadline = Instant::now() + CHANGE;
        while self.running().await?.is_none() {
            let state = run("systemctl", &["show", "--property=ActiveState,SubState", UNIT], ASK).await?;
            // `activating` is a unit that failed and waits to be started again.
            let ended = !state.contains("ActiveState=active") && !state.contains("SubState=start");
            if ended || Instant::now() >= deadline {
                let journal = ["--unit", UNIT, "--lines", "5", "--output", "cat", "--no-pager"];
                let said = ask("journalctl", &journal, ASK).await?.stdout;
                return Err(Error::NotStarted { launch: launch.clone(), said: program::on_a_line(&said) });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn start_process(&self, launch: &Launch, log: &Path) -> Result<(), Error> {
        let (mut process, from) = spawn(&arguments::run(self, launch), log)?;
        let deadline = Instant::now() + CHANGE;
        while self.running().await?.is_none() {
            let ended =
                process.try_wait().map_err(|source| io_error("wait for `docker run`".to_owned(), source))?;
            if ended.is_some() || Instant::now() >= deadline {
                return Err(Error::NotStarted { launch: launch.clone(), said: said_since(log, from)? });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// The container in whatever state, if there is one.
async fn inspect() -> Result<Option<Inspected>, Error> {
    let arguments = ["container", "inspect", NAME];
    let ended = ask("docker", &arguments, ASK).await?;
    if ended.status.success() {
        inspect::parsed(&ended.stdout)
    } else if says(&ended.stderr, "no such container") {
        Ok(None)
    } else {
        Err(program::failed("docker", &arguments, ended))
    }
}

async fn require_image(image: &str) -> Result<(), Error> {
    let mut arguments = words(["image", "inspect", "--format", "{{.Id}}", "--"]);
    arguments.push(OsString::from(image));
    let ended = ask("docker", &arguments, ASK).await?;
    if ended.status.success() {
        Ok(())
    } else if says(&ended.stderr, "no such image") {
        Err(Error::NoImage { image: image.to_owned() })
    } else {
        Err(program::failed("docker", &arguments, ended))
    }
}

/// Docker's words differ in their capitals from version to version.
fn says(stderr: &str, words: &str) -> bool {
    stderr.to_ascii_lowercase().contains(words)
}

/// Starts `docker` in a group of its own, which goes on when this process ends; answers too where its words begin in the log.
fn spawn(arguments: &[OsString], log: &Path) -> Result<(Child, u64), Error> {
    let opened = |source| io_error("open Qdrant's log".to_owned(), source);
    let mut out = fs_err::OpenOptions::new().create(true).append(true).open(log).map_err(opened)?;
    let from = out.seek(SeekFrom::End(0)).map_err(opened)?;
    let out = out.into_parts().0;
    let errors = out.try_clone().map_err(opened)?;
    let mut command = Command::new("docker");
    command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(out).stderr(errors);
    let process = command.spawn().map_err(|source| Error::NotRun { program: "docker", source })?;
    Ok((process, from))
}

fn said_since(log: &Path, from: u64) -> Result<String, Error> {
    let read = |source| io_error("read Qdrant's log".to_owned(), source);
    let mut file = fs_err::File::open(log).map_err(read)?;
    file.seek(SeekFrom::Start(from)).map_err(read)?;
    let mut said = Vec::new();
    file.read_to_end(&mut said).map_err(read)?;
    Ok(program::on_a_line(&String::from_utf8_lossy(&said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a production host.
    pub(super) fn docker() -> Docker {
        Docker {
            paths: Paths {
                workspace: "/workspace/qdrant".into(),
                workspace_inside: "/workspace/qdrant".into(),
                storage: "/workspace/qdrant/data".into(),
                storage_inside: "/workspace/qdrant/data".into(),
                snapshots: "/workspace/qdrant/snapshots".into(),
                snapshots_inside: "/workspace/qdrant/snapshots".into(),
                work_dir: "/workspace/qdrant/backups".into(),
            },
            environment_file: "/run/qdrant-backup/qdrant.env".into(),
            memory: Some(24 << 30),
            grpc: true,
            port: 6333,
            owner: Owner::Systemd,
        }
    }
}
