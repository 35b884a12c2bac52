//! A machine with its programs and services, and calls of the adapters on it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use localcloud::{
    autoscaling::AutoScaling,
    disks::{self, Disks},
    docker::{self, Engine},
    qdrant::QdrantOptions,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::adapter::{ACT, RESULT, SETTINGS, SYSTEMD};

/// The read-write key, which nobody may read.
pub(crate) const KEY: &str = "s3cr3t-of-the-container";
/// An image that the engine has.
pub(crate) const IMAGE: &str = "qdrant/qdrant:v1.18.3-unprivileged";

pub(crate) struct Host {
    pub(crate) disks: Disks,
    pub(crate) docker: Engine,
    pub(crate) auto_scaling: AutoScaling,
    pub(crate) port: u16,
    /// Of the engine, as the programs are told it.
    pub(crate) engine: String,
    /// Whether systemd is to own the container.
    pub(crate) systemd: bool,
    dir: TempDir,
}

impl Host {
    /// A machine with so many blank disks of its own.
    pub(crate) fn with_disks(disks: usize) -> Self {
        Self::new(disks, "")
    }

    /// A machine whose workspace is a directory, which is there.
    pub(crate) async fn without_disks() -> Self {
        let host = Self::new(0, "no-disks = true");
        host.done("prepare").await;
        host
    }

    /// With these lines in the table `[boot]` and after it.
    pub(crate) fn new(disks: usize, boot: &str) -> Self {
        let dir = TempDir::with_prefix("localcloud-machine-").unwrap();
        let docker = Engine::start(QdrantOptions::default(), None).unwrap();
        let host = Self {
            disks: Disks::new(&dir.path().join("disks"), disks).unwrap(),
            auto_scaling: AutoScaling::start().unwrap(),
            port: free_port(),
            engine: docker.endpoint(),
            docker,
            systemd: false,
            dir,
        };
        fs_err::create_dir_all(host.bin()).unwrap();
        let localcloud = Path::new(env!("CARGO_BIN_EXE_localcloud"));
        for name in disks::PROGRAMS.into_iter().chain(["docker"]) {
            let there = host.bin().join(name);
            fs_err::hard_link(localcloud, &there)
                .or_else(|_other| fs_err::copy(localcloud, &there).map(drop))
                .unwrap();
        }
        let keys = format!("QDRANT__SERVICE__API_KEY={KEY}\nQDRANT__SERVICE__READ_ONLY_API_KEY={KEY}-ro\n");
        fs_err::write(host.environment_file(), keys).unwrap();
        fs_err::set_permissions(host.environment_file(), std::fs::Permissions::from_mode(0o600)).unwrap();
        host.write_settings(boot);
        host
    }

    fn write_settings(&self, boot: &str) {
        let (workspace, port) = (self.workspace(), self.port);
        let (workspace, file) = (workspace.display(), self.environment_file());
        let settings = format!(
            "qdrant-url = \"http://127.0.0.2:{port}\"\nregion = \"us-east-1\"\ntime-divisor = 100\n\
             data-dir = \"{workspace}/data\"\nsnapshots-dir = \"{workspace}/snapshots\"\nwork-dir = \"{workspace}/backups\"\n\
             [boot]\nworkspace = \"{workspace}\"\nimage = \"{IMAGE}\"\nenvironment-file = \"{}\"\n{boot}\n",
            file.display()
        );
        fs_err::write(self.dir.path().join("settings.toml"), settings).unwrap();
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) fn environment_file(&self) -> PathBuf {
        self.dir.path().join("qdrant.env")
    }

    /// One call of an adapter, ready to be started.
    pub(crate) fn call(&self, act: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["adapter::adapter", "--exact", "--ignored", "--nocapture"])
            .env_clear()
            // No real program may be found that changes a disk.
            .env("PATH", self.bin())
            .env(ACT, act)
            .env(SETTINGS, self.dir.path().join("settings.toml"))
            .env(disks::VARIABLE, self.disks.dir())
            .env(docker::VARIABLE, &self.engine)
            .env("AWS_ENDPOINT_URL_AUTO_SCALING", self.auto_scaling.endpoint())
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.auto_scaling.endpoint())
            .env("AWS_ACCESS_KEY_ID", "AKIALOCALCLOUD000000")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if self.systemd {
            command.env(SYSTEMD, "true");
        }
        command
    }

    /// What a call comes to; `None` when it was killed.
    pub(crate) async fn outcome(&self, act: &str) -> Option<Value> {
        let output = self.call(act).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let result = said.lines().find_map(|line| line.split_once(RESULT).map(|(_, result)| result));
        let killed = output.status.code().is_none();
        assert!(result.is_some() || killed, "{act}: {said}{}", String::from_utf8_lossy(&output.stderr));
        result.map(|result| serde_json::from_str(result).unwrap())
    }

    /// A call that succeeds.
    pub(crate) async fn done(&self, act: &str) -> Value {
        let outcome = self.outcome(act).await.expect("nobody kills it");
        outcome.get("done").unwrap_or_else(|| panic!("{act}: {outcome}")).clone()
    }

    /// A call that fails, with the error and the hint.
    pub(crate) async fn fails(&self, act: &str) -> (String, String) {
        let outcome = self.outcome(act).await.expect("nobody kills it");
        let text = |name: &str| outcome[name].as_str().unwrap_or_default().to_owned();
        assert!(outcome.get("error").is_some(), "{act}: {outcome}");
        (text("error"), text("hint"))
    }
}

/// Free on both addresses, and none that the system gives to somebody by itself.
fn free_port() -> u16 {
    loop {
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 12_000 + u16::from_be_bytes([high, low]) % 16_000;
        let free =
            |address: [u8; 4]| std::net::TcpListener::bind((std::net::IpAddr::from(address), port)).is_ok();
        if free([127, 0, 0, 1]) && free([127, 0, 0, 2]) {
            return port;
        }
    }
}
