//! The embedded SSM behaves as AWS's and its agent do, and fails as it is told to. Driven through the SDK, as its users do.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod calls;
mod faults;
mod scripts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use localcloud::serve::HttpServer;
use localcloud::ssm::{HostOptions, Invocation, Ssm, SsmOptions};
use serde_json::json;
use tempfile::TempDir;

/// The host of every test.
pub(crate) const HOST: &str = "i-0123456789abcdef0";
/// Longer than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// A stand-in with a server, a host, and a folder for both.
pub(crate) struct Bench {
    pub(crate) ssm: Ssm,
    pub(crate) server: HttpServer,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(SsmOptions::default())
    }

    /// One in which a second of a time-out takes ten milliseconds.
    pub(crate) fn quick() -> Self {
        Self::with(SsmOptions { second: Duration::from_millis(10), ..SsmOptions::default() })
    }

    pub(crate) fn with(options: SsmOptions) -> Self {
        let dir = TempDir::new().unwrap();
        let ssm = Ssm::start(options).unwrap();
        let server = HttpServer::start(ssm.router(), 0).unwrap();
        let bench = Self { ssm, server, dir };
        bench.ssm.add_host(bench.host(HOST)).unwrap();
        bench
    }

    /// The options of a host with `bin` first on its path and `OUT` for what its scripts write.
    pub(crate) fn host(&self, id: &str) -> HostOptions {
        let out = self.out(id);
        fs_err::create_dir_all(&out).unwrap();
        let bin = self.dir.path().join("bin");
        fs_err::create_dir_all(&bin).unwrap();
        HostOptions::new(id, self.dir.path().join(id).join("orchestration"))
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("OUT", out.display().to_string())
    }

    /// Where the scripts of a host write.
    pub(crate) fn out(&self, id: &str) -> PathBuf {
        self.dir.path().join(id).join("out")
    }

    /// Puts a program on the path of the hosts.
    pub(crate) fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join("bin").join(name);
        let text = self.dir.path().join(format!("{name}.txt"));
        fs_err::write(&text, script).unwrap();
        // Copied by another process, because a file cannot be executed while a child that another thread has just forked
        // holds it open for writing.
        assert!(std::process::Command::new("cp").args([&text, &path]).status().unwrap().success());
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes a document that runs these lines, and names it after itself.
    pub(crate) fn document(&self, name: &str, timeout: u64, lines: &[&str]) {
        let content = json!({
            "schemaVersion": "2.2",
            "parameters": { "Word": { "type": "String", "default": "" } },
            "mainSteps": [{
                "action": "aws:runShellScript",
                "name": "run",
                "inputs": { "timeoutSeconds": timeout.to_string(), "runCommand": lines },
            }],
        });
        self.ssm.create_document(name, &content.to_string()).unwrap();
    }

    /// A client that never retries, so that a test sees each answer.
    pub(crate) fn client(&self) -> Client {
        Client::from_conf(self.config().retry_config(RetryConfig::disabled()).build())
    }

    pub(crate) fn config(&self) -> aws_sdk_ssm::config::Builder {
        aws_sdk_ssm::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.server.endpoint())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
    }

    /// Sends a document to the host and answers the command's id.
    pub(crate) async fn send(&self, document: &str) -> String {
        let sent = self.client().send_command().document_name(document).instance_ids(HOST).send().await;
        sent.unwrap().command.unwrap().command_id.unwrap()
    }

    /// Waits until a command has ended on the host.
    pub(crate) async fn ended(&self, command: &str) -> Invocation {
        self.reached(command, |invocation| invocation.state.is_final()).await
    }

    /// Waits until the invocation on the host is as wanted.
    pub(crate) async fn reached(&self, command: &str, wanted: impl Fn(&Invocation) -> bool) -> Invocation {
        self.ssm.wait_for(command, HOST, BOUND, wanted).await.unwrap()
    }

    /// Waits until a script of the host has written this file, and answers what is in it.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.out(HOST).join(name);
        let read = async {
            loop {
                match fs_err::read_to_string(&path) {
                    Ok(text) if text.ends_with('\n') => return text,
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        let read = tokio::time::timeout(BOUND, read).await;
        read.unwrap_or_else(|_| panic!("`{}` was not written", path.display()))
    }
}

/// The service's code for a refusal.
pub(crate) fn code<T: std::fmt::Debug, E: ProvideErrorMetadata>(result: Result<T, SdkError<E>>) -> String {
    match result {
        Ok(answer) => panic!("the call succeeded: {answer:?}"),
        Err(error) => error.code().unwrap_or("no code").to_owned(),
    }
}

/// Waits until a process is gone, or dead and not waited for.
pub(crate) async fn died(pid: &str) {
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(BOUND, gone).await.unwrap_or_else(|_| panic!("process {pid} lives"));
}

/// Whether a process runs.
pub(crate) fn alive(pid: &str) -> bool {
    let stat = fs_err::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// The document that is deployed.
pub(crate) fn host_task() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/ssm/host-task.json")
}
