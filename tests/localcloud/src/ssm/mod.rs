//! The embedded SSM Run Command: runs the real document's script on hosts that are folders and processes of this machine.
//!
//! What it guarantees:
//!
//! * a document is read strictly, and its parameters are judged at call time as AWS judges them;
//! * a script runs as the agent runs it: its own process group, its environment, its limits of time and output, exit code 194;
//! * an invocation goes the way of AWS's states, and is not seen by the first calls that ask for it;
//! * whatever a test scripts with [`Faults`] strikes exactly there, and [`Ssm::calls`] tells what was asked;
//! * nothing that was started outlives the stand-in but what gave itself a session of its own; and
//!   [`Ssm::kill_all_processes`] and [`Ssm::kill_everything`] find that too, by a variable in its environment.
//!
//! Not there: several steps, other actions, rate control over many hosts, output to S3 or CloudWatch, IAM.

mod agent;
mod api;
mod call;
mod command;
mod document;
mod fault;
mod host;
mod parameters;
mod process;
mod service;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

pub use self::call::{Call, Operation, Outcome};
pub use self::command::{Command, Invocation, Run, State};
pub use self::document::DocumentError;
pub use self::fault::{Delivery, Effect, Faults};
pub use self::host::{HostOptions, Presence};
pub use self::wire::Answer;

use self::host::Host;
use self::process::{Which, kill_marked};
use self::service::Service;
use crate::background::Background;

/// How the stand-in is set up.
#[derive(Clone, Debug)]
pub struct SsmOptions {
    /// The account in ARNs and messages.
    pub account: String,
    /// The region in ARNs.
    pub region: String,
    /// How many calls that ask for an invocation do not see it yet (`InvocationDoesNotExist`, or an empty list).
    pub unseen_calls: u32,
    /// How long one second of a document's or a command's time-out takes, so that a test need not wait for it.
    pub second: Duration,
    /// The most hosts that `DescribeInstanceInformation` looks at for one page.
    pub page_size: usize,
}

impl Default for SsmOptions {
    fn default() -> Self {
        Self {
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            unseen_calls: 1,
            second: Duration::from_secs(1),
            page_size: 50,
        }
    }
}

/// A running stand-in. It has a thread of its own, and ends what it started when it is dropped.
#[derive(Debug)]
pub struct Ssm {
    service: Arc<Service>,
    background: Option<Background>,
}

impl Ssm {
    /// Starts a stand-in without documents and hosts.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(options: SsmOptions) -> anyhow::Result<Self> {
        let background = Background::start("localcloud-ssm")?;
        let service = Service::new(options, background.spawner());
        Ok(Self { service: Arc::new(service), background: Some(background) })
    }

    /// Makes a document, or the next version of one that is there. Returns the version, which is the default from now on.
    ///
    /// # Errors
    /// When the document is not accepted.
    pub fn create_document(&self, name: &str, content: &str) -> Result<u64, DocumentError> {
        Ok(self.service.store_document(name, content)?.version)
    }

    /// Makes a document from a file, such as the one that is deployed.
    ///
    /// # Errors
    /// When it cannot be read or is not accepted.
    pub fn create_document_from(&self, name: &str, path: &Path) -> anyhow::Result<u64> {
        let content = fs_err::read_to_string(path)?;
        self.create_document(name, &content)
            .with_context(|| format!("the document `{}` was refused", path.display()))
    }

    /// Registers a host.
    ///
    /// # Errors
    /// When there is one of that id, or the agent's version is none.
    pub fn add_host(&self, options: HostOptions) -> anyhow::Result<()> {
        let id = options.instance_id.clone();
        let host = Host::new(options, &self.service.id)?;
        let mut state = self.service.state();
        ensure!(!state.hosts.contains_key(&id), "there is a host `{id}` already");
        state.hosts.insert(id, Arc::new(host));
        drop(state);
        self.service.changed();
        Ok(())
    }

    /// Changes whether a host can be reached. What runs on it goes on.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn set_presence(&self, instance_id: &str, presence: Presence) -> anyhow::Result<()> {
        self.host(instance_id)?.set_presence(presence);
        self.service.changed();
        Ok(())
    }

    /// Loses a host: every process of it dies, detached ones too, and nobody reports any more. It stays registered, offline,
    /// until [`Ssm::remove_host`]. Its folders are the caller's to wipe. Answers how many processes there were.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn lose_host(&self, instance_id: &str) -> anyhow::Result<usize> {
        let host = self.host(instance_id)?;
        host.set_presence(Presence::Offline);
        host.gone.cancel();
        let killed = host.kill_all_processes();
        self.service.changed();
        Ok(killed)
    }

    /// Takes a host off the register.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn remove_host(&self, instance_id: &str) -> anyhow::Result<()> {
        let removed = self.service.state().hosts.remove(instance_id);
        let Some(host) = removed else { bail!("there is no host `{instance_id}`") };
        host.set_presence(Presence::Offline);
        self.service.changed();
        Ok(())
    }

    /// Kills (SIGKILL) every process of a host, detached ones too, and answers how many there were. The agent goes on, and
    /// reports its scripts as ended.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn kill_all_processes(&self, instance_id: &str) -> anyhow::Result<usize> {
        Ok(self.host(instance_id)?.kill_all_processes())
    }

    /// Kills (SIGKILL) every process of every host there ever was, detached ones too, and answers how many there were: for the
    /// owner that leaves nothing behind.
    pub fn kill_everything(&self) -> usize {
        kill_marked(&self.service.id, Which::All)
    }

    /// The environment of a host's scripts, with the variable by which its processes are known: what a caller starts on a host
    /// by itself belongs to it when it is started with this.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn environment(&self, instance_id: &str) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(self.host(instance_id)?.environment())
    }

    /// How often a host was restarted by exit code 194.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn reboots(&self, instance_id: &str) -> anyhow::Result<u32> {
        Ok(self.host(instance_id)?.reboots.load(Ordering::SeqCst))
    }

    /// Delivers whatever [`Delivery::Hold`] holds back now.
    pub fn release(&self) {
        self.service.state().released += 1;
        self.service.changed();
    }

    /// The script of faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.service.calls.snapshot()
    }

    /// Every call since the last time, and forgets them.
    #[must_use]
    pub fn take_calls(&self) -> Vec<Call> {
        self.service.calls.take()
    }

    /// How many calls of that operation there were.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.service.calls.snapshot().iter().filter(|call| call.operation == operation).count()
    }

    /// Every command so far, oldest first, as it stands now.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        self.service.state().commands.clone()
    }

    /// An invocation as it stands now.
    #[must_use]
    pub fn invocation(&self, command_id: &str, instance_id: &str) -> Option<Invocation> {
        let state = self.service.state();
        let command = state.commands.iter().find(|command| command.id == command_id)?;
        command.invocation(instance_id).cloned()
    }

    /// Waits until `wanted` holds for an invocation.
    ///
    /// # Errors
    /// When it does not within `bound`; the error says how the invocation stood then.
    pub async fn wait_for(
        &self,
        command_id: &str,
        instance_id: &str,
        bound: Duration,
        wanted: impl Fn(&Invocation) -> bool,
    ) -> anyhow::Result<Invocation> {
        let holds = || self.invocation(command_id, instance_id).filter(&wanted);
        let reached = tokio::time::timeout(bound, self.service.until(|_| holds().is_some())).await;
        match holds() {
            Some(invocation) => Ok(invocation),
            None => {
                let last = self.invocation(command_id, instance_id);
                bail!(
                    "command `{command_id}` on `{instance_id}` did not get there in {bound:?} ({reached:?}): {last:?}"
                )
            }
        }
    }

    /// Answers a call of the JSON API by its `X-Amz-Target`.
    pub async fn handle(&self, target: &str, body: &[u8]) -> Answer {
        Service::handle(&self.service, target, body)
    }

    /// The API as a router: `POST /` with `X-Amz-Target: AmazonSSM.*`.
    pub fn router(&self) -> axum::Router {
        wire::router(Arc::clone(&self.service))
    }

    fn host(&self, instance_id: &str) -> anyhow::Result<Arc<Host>> {
        let state = self.service.state();
        state.hosts.get(instance_id).cloned().with_context(|| format!("there is no host `{instance_id}`"))
    }
}

impl Drop for Ssm {
    fn drop(&mut self) {
        // First nobody may start anything any more.
        drop(self.background.take());
        kill_marked(&self.service.id, Which::Attached);
    }
}
