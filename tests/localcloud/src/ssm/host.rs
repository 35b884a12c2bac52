//! A host with an agent: who it is, whether it can be reached, and what its scripts find.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::process::{MARKER, Which, kill_marked};

/// How many commands an agent runs at once (`CommandWorkersLimit`).
const WORKERS: usize = 5;
/// The first agent that knows `interpolationType: ENV_VAR`.
const ENV_VAR_SINCE: [u64; 4] = [3, 3, 2746, 0];

/// Whether the service can reach the agent of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It answers.
    Online,
    /// It has not answered for some minutes. The service still takes commands for it, which wait until they time out.
    ConnectionLost,
    /// The instance is stopped or gone: the service takes no command for it (`InvalidInstanceId`).
    Offline,
}

impl Presence {
    /// AWS's name for it.
    pub(super) fn ping_status(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::ConnectionLost => "ConnectionLost",
            Self::Offline => "Inactive",
        }
    }
}

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// `i-…`.
    pub instance_id: String,
    /// The tags of the instance.
    pub tags: BTreeMap<String, String>,
    /// Whether it can be reached.
    pub presence: Presence,
    /// The agent's version: one before 3.3.2746.0 does not know `ENV_VAR` and sets no variables.
    pub agent_version: String,
    /// The environment of scripts, all of it: also `PATH`, which must lead to what they call.
    pub env: BTreeMap<String, String>,
    /// Where the agent keeps scripts and their output: `<command id>/<step>/{_script.sh,stdout,stderr}`.
    pub orchestration: PathBuf,
}

impl HostOptions {
    /// An online host with a present agent, no tags, and this process's `PATH`.
    pub fn new(instance_id: impl Into<String>, orchestration: impl Into<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").and_then(|path| path.into_string().ok());
        Self {
            instance_id: instance_id.into(),
            tags: BTreeMap::new(),
            presence: Presence::Online,
            agent_version: "3.3.3050.0".to_owned(),
            env: path.map(|path| ("PATH".to_owned(), path)).into_iter().collect(),
            orchestration: orchestration.into(),
        }
    }

    /// The same with a tag.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with a variable for its scripts.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }
}

/// A registered host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) options: HostOptions,
    presence: Mutex<Presence>,
    /// What its processes are known by.
    marker: String,
    pub(super) knows_env_var: bool,
    pub(super) workers: Arc<Semaphore>,
    /// The machine is lost, for good.
    pub(super) gone: CancellationToken,
    pub(super) reboots: AtomicU32,
    pub(super) registered: jiff::Timestamp,
}

impl Host {
    pub(super) fn new(options: HostOptions, stand_in: &str) -> anyhow::Result<Self> {
        let version: Vec<u64> = options
            .agent_version
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("`{}` is no version of an agent", options.agent_version))?;
        Ok(Self {
            presence: Mutex::new(options.presence),
            marker: format!("{stand_in}/{}/", options.instance_id),
            knows_env_var: version.as_slice() >= ENV_VAR_SINCE.as_slice(),
            workers: Arc::new(Semaphore::new(WORKERS)),
            gone: CancellationToken::new(),
            reboots: AtomicU32::new(0),
            registered: jiff::Timestamp::now(),
            options,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.options.instance_id
    }

    pub(super) fn presence(&self) -> Presence {
        *self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_presence(&self, presence: Presence) {
        *self.presence.lock().unwrap_or_else(PoisonError::into_inner) = presence;
    }

    /// The environment of its processes.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = self.options.env.clone();
        environment.insert(MARKER.to_owned(), self.marker.clone());
        environment
    }

    /// Kills every process of the host, detached ones too.
    pub(super) fn kill_all_processes(&self) -> usize {
        kill_marked(&self.marker, Which::All)
    }

    /// The machine restarts: no process survives it.
    pub(super) fn reboot(&self) {
        self.reboots.fetch_add(1, Ordering::SeqCst);
        self.kill_all_processes();
    }
}
