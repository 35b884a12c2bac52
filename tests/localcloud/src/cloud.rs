//! The embedded cloud as a whole: a bucket, a Qdrant, and the worker as a child process that knows both only by its settings.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    qdrant::{QdrantOptions, Server, ServerOptions},
    s3::{S3Options, S3Server},
};

/// The bucket of the embedded cloud.
pub const BUCKET: &str = "backups";
/// The read-write key of a Qdrant that is started here.
pub const API_KEY: &str = "localcloud-read-write-key";
/// The read-only key of a Qdrant that is started here.
pub const READ_ONLY_KEY: &str = "localcloud-read-only-key";

/// A bucket and a Qdrant, with a host's directory for the worker.
#[derive(Debug)]
pub struct Cloud {
    /// The object store.
    pub s3: S3Server,
    /// The Qdrant of the host.
    pub qdrant: Server,
    dir: PathBuf,
    worker: Program,
}

/// What to run as `host-worker`.
#[derive(Clone, Debug)]
pub enum Program {
    /// The `localcloud` program, which is the worker too when it is called as one.
    Localcloud(PathBuf),
    /// The worker as a program of its own.
    HostWorker(PathBuf),
}

/// How a worker ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

impl Finished {
    /// Its exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its `--json` result, or an error with all that it said.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| {
            format!("no JSON from the worker ({}): {}{}", self.status, self.stdout, self.stderr)
        })
    }

    /// Its `--json` result, of a worker that must have succeeded.
    pub fn success(&self) -> anyhow::Result<Value> {
        ensure!(
            self.status.success(),
            "the worker ended with {}: {}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.json()
    }
}

impl Cloud {
    /// Starts a bucket below `dir` and a Qdrant by the rules of [`Server::choose`], with the keys of this module.
    pub async fn start(dir: &Path, worker: Program, qdrant: ServerOptions) -> anyhow::Result<Self> {
        fs_err::create_dir_all(dir)?;
        let options = S3Options {
            root: Some(dir.join("s3")),
            buckets: vec![BUCKET.to_owned()],
            ..S3Options::default()
        };
        let s3 = S3Server::start(options).await?;
        let qdrant = Server::choose(qdrant).await?;
        Ok(Self { s3, qdrant, dir: dir.to_owned(), worker })
    }

    /// The options of a Qdrant that is protected by the keys of this module.
    pub fn protected(options: QdrantOptions) -> ServerOptions {
        let stand_in = QdrantOptions {
            api_key: Some(API_KEY.to_owned()),
            read_only_key: Some(READ_ONLY_KEY.to_owned()),
            ..options
        };
        ServerOptions { stand_in, ..ServerOptions::default() }
    }

    /// Where the worker keeps its lock and journals.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("host")
    }

    /// The worker with these arguments and this cloud's settings, ready to be started.
    pub fn worker<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Command> {
        let mut command = match &self.worker {
            Program::Localcloud(path) => {
                let mut command = Command::new(path);
                command.arg("host-worker");
                command
            }
            Program::HostWorker(path) => Command::new(path),
        };
        command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
        // A setting of the person who runs this must not leak into the embedded cloud.
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "QDRANT_API_KEY"] {
            command.env_remove(name);
        }
        command.envs(self.worker_environment()?);
        Ok(command)
    }

    /// The settings of the worker on this cloud's host, as environment variables. The key of Qdrant is in a file.
    pub fn worker_environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let (access_key, secret_key) = self.s3.credentials();
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path of the host is no text");
        let mut environment: BTreeMap<String, String> = [
            ("QDRANT_BACKUP_CONFIG", "/dev/null"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ACCESS_KEY_ID", access_key),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
            ("QDRANT_BACKUP_REGION", self.s3.region()),
            ("QDRANT_BACKUP_ENDPOINT_URL", self.s3.endpoint()),
            ("QDRANT_BACKUP_BUCKET", BUCKET),
            ("QDRANT_BACKUP_QDRANT_URL", &self.qdrant.url()),
            ("QDRANT_BACKUP_SUCCESS_MARKER", protocol::key::DEFAULT_SUCCESS_MARKER),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        for (name, path) in [
            ("QDRANT_BACKUP_SNAPSHOTS_DIR", self.qdrant.snapshots_dir()),
            ("QDRANT_BACKUP_QDRANT_SNAPSHOTS_PATH", self.qdrant.server_snapshots_dir()),
            ("QDRANT_BACKUP_WORK_DIR", &self.work_dir()),
        ] {
            environment.insert(name.to_owned(), text(path)?);
        }
        if let Some(key) = self.qdrant.api_key() {
            let path = self.dir.join("api-key");
            fs_err::write(&path, key)?;
            environment.insert("QDRANT_BACKUP_QDRANT_API_KEY_FILE".to_owned(), text(&path)?);
        }
        Ok(environment)
    }

    /// The directory of the host and of the bucket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is run as `host-worker`.
    pub fn program(&self) -> &Program {
        &self.worker
    }

    /// Runs the worker with `--json` to its end.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Finished> {
        let mut command = self.worker(arguments)?;
        finish(command.arg("--json")).await
    }

    /// A bucket's object as a plain file, for a person to look at.
    pub fn object_path(&self, key: &str) -> PathBuf {
        self.s3.root().join(BUCKET).join(key)
    }
}

/// Runs a command to its end and keeps what it says.
pub async fn finish(command: &mut Command) -> anyhow::Result<Finished> {
    let output =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.context("start the worker")?;
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
