//! Real servers: a `qdrant` program as a child process, or the image through the `docker` program.

use anyhow::{Context as _, bail, ensure};
use fs_err as fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Command;

/// The image that is run when Docker is used: pinned, and without root inside.
const IMAGE: &str = "qdrant/qdrant:v1.18.3-unprivileged";
/// How long a server may take to load what it has.
const START_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Bytes of a log that an error quotes.
const LOG_TAIL: usize = 4_000;

/// The keys of a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) read_write: Option<String>,
    pub(super) read_only: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    fn environment(&self) -> Vec<(&'static str, String)> {
        [
            ("QDRANT__SERVICE__API_KEY", &self.read_write),
            ("QDRANT__SERVICE__READ_ONLY_API_KEY", &self.read_only),
        ]
        .into_iter()
        .filter_map(|(name, key)| key.clone().map(|key| (name, key)))
        .collect()
    }
}

/// The program to run, when the environment has one: `QDRANT_BIN`, or `qdrant` on the path.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of localcloud that looks for a program in the environment"
)]
pub(super) fn find_binary() -> anyhow::Result<Option<PathBuf>> {
    if let Ok(given) = std::env::var("QDRANT_BIN")
        && !given.is_empty()
    {
        let path = fs::canonicalize(&given).context("QDRANT_BIN names no program")?;
        return Ok(Some(path));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    Ok(std::env::split_paths(&path).map(|dir| dir.join("qdrant")).find(|program| program.is_file()))
}

/// True when a Docker daemon answers.
pub(super) async fn docker_answers() -> bool {
    let info = Command::new("docker")
        .args(["info", "--format", "{{.ServerVersion}}"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(tokio::time::timeout(Duration::from_secs(10), info).await, Ok(Ok(status)) if status.success())
}

/// A `qdrant` program, in a temporary directory, on free ports of the loopback. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    binary: PathBuf,
    keys: Keys,
    http_port: u16,
    grpc_port: u16,
    dir: TempDir,
    snapshots_dir: PathBuf,
    process: Option<tokio::process::Child>,
}

impl Child {
    pub(super) async fn start(binary: PathBuf, keys: Keys) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("qdrant-").tempdir()?;
        let snapshots_dir = dir.path().join("snapshots");
        fs::create_dir_all(&snapshots_dir)?;
        let [http_port, grpc_port] = free_ports()?;
        let mut child = Self { binary, keys, http_port, grpc_port, dir, snapshots_dir, process: None };
        child.restart().await?;
        Ok(child)
    }

    /// `http://127.0.0.1:port`, the same after a restart.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Where its snapshots are.
    pub fn snapshots_dir(&self) -> &Path {
        &self.snapshots_dir
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// What it has written to its output so far, all starts together.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await.context("kill qdrant")?;
        }
        Ok(())
    }

    /// Kills it if it runs, starts it on the same ports and directory, and waits until it has loaded everything.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path())?.into_file();
        let process = Command::new(&self.binary)
            .current_dir(self.dir.path())
            // Nothing that the environment says about another Qdrant may reach this one.
            .env_clear()
            .envs(self.keys.environment())
            .env("QDRANT__SERVICE__HOST", "127.0.0.1")
            .env("QDRANT__SERVICE__HTTP_PORT", self.http_port.to_string())
            .env("QDRANT__SERVICE__GRPC_PORT", self.grpc_port.to_string())
            .env("QDRANT__STORAGE__STORAGE_PATH", self.dir.path().join("storage"))
            .env("QDRANT__STORAGE__SNAPSHOTS_PATH", &self.snapshots_dir)
            .env("QDRANT__TELEMETRY_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("run `{}`", self.binary.display()))?;
        self.process = Some(process);
        self.wait_ready().await
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if is_ready(&self.url()).await {
                return Ok(());
            }
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                bail!(
                    "`{}` ended with {status} before it was ready; its log ends with:\n{}",
                    self.binary.display(),
                    self.log_tail()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "`{}` is not ready after {START_DEADLINE:?}; its log ends with:\n{}",
                self.binary.display(),
                self.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.char_indices().map(|(at, _)| at).find(|at| log.len() - at <= LOG_TAIL).unwrap_or(0);
        log.get(from..).unwrap_or_default().to_owned()
    }
}

/// The server's image under Docker, with one mount and as the user that runs this.
#[derive(Debug)]
pub struct Container {
    name: String,
    http_port: u16,
    snapshots_dir: PathBuf,
    _dir: TempDir,
}

impl Container {
    pub(super) async fn start(keys: &Keys) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("qdrant-").tempdir()?;
        let snapshots_dir = dir.path().join("snapshots");
        fs::create_dir_all(&snapshots_dir)?;
        let [http_port, _] = free_ports()?;
        let name = format!("localcloud-qdrant-{}-{http_port}", std::process::id());
        let container = Self { name: name.clone(), http_port, snapshots_dir, _dir: dir };
        let user = format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--name", &name, "--user", &user])
            .args(["--publish", &format!("127.0.0.1:{http_port}:6333")])
            // One mount for both, or every snapshot would be copied between them.
            .args(["--volume", &format!("{}:/qdrant/data", container._dir.path().display())])
            .args(["--env", "QDRANT__STORAGE__STORAGE_PATH=/qdrant/data/storage"])
            .args(["--env", "QDRANT__STORAGE__SNAPSHOTS_PATH=/qdrant/data/snapshots"])
            .args(["--env", "QDRANT_INIT_FILE_PATH=/qdrant/data/.qdrant-initialized"])
            .args(["--env", "QDRANT__TELEMETRY_DISABLED=true"]);
        for (variable, key) in keys.environment() {
            // Named only: the value comes from the client's environment and stays out of its arguments.
            run.args(["--env", variable]).env(variable, key);
        }
        // The image's own entry point ends before the server does.
        docker(run.args(["--entrypoint", "./qdrant", IMAGE])).await?;
        container.wait_ready().await?;
        Ok(container)
    }

    /// `http://127.0.0.1:port`, the same after a restart.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Where its snapshots are on this side of the mount.
    pub fn snapshots_dir(&self) -> &Path {
        &self.snapshots_dir
    }

    /// Where its snapshots are on its side of the mount.
    pub fn inner_snapshots_dir(&self) -> &'static Path {
        Path::new("/qdrant/data/snapshots")
    }

    /// The container's output so far.
    pub async fn log(&self) -> anyhow::Result<String> {
        docker(Command::new("docker").args(["logs", &self.name])).await
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        docker(Command::new("docker").args(["kill", &self.name])).await.map(|_| ())
    }

    /// Kills it if it runs, starts it again, and waits until it has loaded everything.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        docker(Command::new("docker").args(["restart", "--time", "0", &self.name])).await?;
        self.wait_ready().await
    }

    async fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while !is_ready(&self.url()).await {
            if Instant::now() >= deadline {
                let log = self.log().await?;
                bail!("container `{}` is not ready after {START_DEADLINE:?}; its log:\n{log}", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let removed = std::process::Command::new("docker")
            .args(["rm", "--force", "--volumes", &self.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = removed {
            tracing::warn!(container = self.name, %error, "the container could not be removed");
        }
    }
}

async fn docker(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("run docker")?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "docker ended with {}: {}", output.status, said(&output.stderr));
    Ok(said(&output.stdout))
}

/// Two ports that were free a moment ago; both are held until both are known.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let listeners =
        [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    let [first, second] = &listeners;
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}

async fn is_ready(url: &str) -> bool {
    let Ok(client) = client() else {
        return false;
    };
    let answer = client.get(format!("{url}/readyz")).timeout(Duration::from_secs(5)).send().await;
    answer.is_ok_and(|response| response.status().is_success())
}

/// A client that goes straight to the loopback, whatever proxy the environment names.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}
