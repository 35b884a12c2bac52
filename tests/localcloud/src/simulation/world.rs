//! What all ports of one run share: the plan, the numbering of calls, the stores, the hosts and the clock.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use protocol::Envelope;
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    fault::{Effect, Plan},
    invariant::Violation,
    run::Mutation,
};
use crate::stepfunctions::Clock;

/// Longer than a function may run, a heartbeat may stay away, a phase may stand still, and a dead token is waited over.
const DELAY: Duration = Duration::from_secs(20 * 60);

/// When a late write has its effect: after whoever was told that it is lost has tried again, or given up.
pub(super) const LATE: Duration = Duration::from_secs(90);

/// How long a call takes. Moving a part and asking Qdrant are the long ones: heartbeats go on beside them, and a second execution meets the first at work.
fn duration(what: &str) -> Duration {
    if what.starts_with("qdrant") {
        Duration::from_secs(40)
    } else if what.starts_with("part") || what.starts_with("complete") {
        Duration::from_secs(20)
    } else {
        Duration::from_millis(100)
    }
}

/// Who makes a call.
#[derive(Clone, Debug)]
pub(super) enum Actor {
    /// Step Functions itself, which does not crash.
    Workflow,
    /// One invocation of a function.
    Function { name: &'static str, crash: CancellationToken },
    /// The agent of a host, delivering a command.
    Agent,
    /// One process of the worker.
    Worker { host: usize, crash: CancellationToken },
}

impl Actor {
    /// Whether it can die. Step Functions and the agent do not: what would kill another is an error to them.
    fn is_mortal(&self) -> bool {
        matches!(self, Self::Function { .. } | Self::Worker { .. })
    }

    fn name(&self) -> String {
        match self {
            Self::Workflow => "step functions".to_owned(),
            Self::Function { name, .. } => (*name).to_owned(),
            Self::Agent => "ssm agent".to_owned(),
            Self::Worker { host, .. } => format!("worker on host {host}"),
        }
    }
}

/// One call that was made.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) actor: String,
    pub(super) what: String,
}

/// A command on its way to a host.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) host: usize,
    pub(super) command: usize,
    pub(super) envelope: Envelope,
}

/// A host: its number, its disk, and whether it is the one that is there.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) disk: TempDir,
    /// Cancelled when it is replaced.
    pub(super) gone: CancellationToken,
}

/// The world of one run. Clones are handles of the same.
#[derive(Clone, Debug)]
pub(super) struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: Plan,
    clock: Clock,
    folder: PathBuf,
    documents: catalog::store::Memory,
    archives: transfer::store::Memory,
    deliveries: mpsc::UnboundedSender<Delivery>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) calls: Vec<Call>,
    pub(super) hosts: Vec<HostState>,
    /// How every command fares: `None` until it has run.
    pub(super) commands: Vec<Option<bool>>,
    pub(super) attempts: u32,
    /// What is built wrong on purpose.
    pub(super) mutation: Mutation,
    pub(super) snapshots: u64,
    /// Keys of archives for which an upload was begun, with the host that began it.
    pub(super) begun: Vec<(String, usize)>,
    /// The backups that the pointer has named, in order.
    pub(super) pointers: Vec<protocol::BackupId>,
    pub(super) messages: usize,
    /// What happens on its own.
    pub(super) later: JoinSet<()>,
    /// Processes of workers that live.
    pub(super) processes: usize,
    pub(super) violations: Vec<Violation>,
}

impl World {
    pub(super) fn new(
        plan: Plan,
        epoch: Timestamp,
        folder: &Path,
        deliveries: mpsc::UnboundedSender<Delivery>,
    ) -> anyhow::Result<Self> {
        let world = Self(Arc::new(Inner {
            plan,
            clock: Clock::starting_at(epoch),
            folder: folder.to_owned(),
            documents: catalog::store::Memory::new(epoch),
            archives: transfer::store::Memory::default(),
            deliveries,
            state: Mutex::default(),
        }));
        world.add_host()?;
        Ok(world)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn documents(&self) -> &catalog::store::Memory {
        // The store's clock goes with the world's.
        self.0.documents.set_now(self.0.clock.now());
        &self.0.documents
    }

    pub(super) fn archives(&self) -> &transfer::store::Memory {
        &self.0.archives
    }

    /// The number of the host that is there.
    pub(super) fn host(&self) -> usize {
        self.state().hosts.len() - 1
    }

    pub(super) fn disk(&self, host: usize) -> PathBuf {
        self.state().hosts[host].disk.path().to_owned()
    }

    pub(super) fn gone(&self, host: usize) -> CancellationToken {
        self.state().hosts[host].gone.clone()
    }

    pub(super) fn deliver(&self, delivery: Delivery) {
        // Nobody receives once the run is over.
        let _over = self.0.deliveries.send(delivery);
    }

    pub(super) fn violated(&self, rule: &'static str, what: impl Into<String>) {
        self.state().violations.push(Violation { rule, what: what.into() });
    }

    fn add_host(&self) -> anyhow::Result<()> {
        let disk = TempDir::new_in(&self.0.folder)?;
        self.state().hosts.push(HostState { disk, gone: CancellationToken::new() });
        Ok(())
    }

    fn replace_host(&self) {
        let gone = self.gone(self.host());
        gone.cancel();
        if let Err(error) = self.add_host() {
            self.violated("the simulation works", format!("{error:#}"));
        }
    }

    /// Makes a call: numbers it, and does to it what the plan says.
    pub(super) async fn call<T, F>(
        &self,
        actor: &Actor,
        what: impl Into<String>,
        perform: impl Fn() -> F,
        lost: impl FnOnce() -> T,
    ) -> T
    where
        F: Future<Output = T>,
    {
        let what = what.into();
        let took = duration(&what);
        let effect = self.number(actor, what);
        sleep(took).await;
        match effect {
            Some(Effect::CrashBefore) if !actor.is_mortal() => return lost(),
            Some(Effect::CrashBefore) => self.crash(actor).await,
            Some(Effect::Delayed) => sleep(DELAY).await,
            Some(Effect::HostReplaced) => {
                self.replace_host();
                if matches!(actor, Actor::Worker { .. }) {
                    self.crash(actor).await;
                }
            }
            Some(Effect::Late) => return lost(),
            Some(Effect::CrashAfter | Effect::ReplyLost | Effect::Twice) | None => {}
        }
        let result = perform().await;
        match effect {
            Some(Effect::CrashAfter) if actor.is_mortal() => {
                self.crash(actor).await;
                result
            }
            Some(Effect::ReplyLost | Effect::CrashAfter) => lost(),
            Some(Effect::Twice) => perform().await,
            Some(Effect::CrashBefore | Effect::Delayed | Effect::Late | Effect::HostReplaced) | None => {
                result
            }
        }
    }

    /// Whether the call that is about to be made is to have its effect late, and its caller is to be told that it is lost.
    pub(super) fn is_late(&self) -> bool {
        let next = self.state().calls.len() + 1;
        self.0.plan.at(next) == Some(Effect::Late)
    }

    /// Lets something happen on its own.
    pub(super) fn later(&self, happening: impl Future<Output = ()> + Send + 'static) {
        self.state().later.spawn(happening);
    }

    fn number(&self, actor: &Actor, what: String) -> Option<Effect> {
        let mut state = self.state();
        state.calls.push(Call { actor: actor.name(), what });
        self.0.plan.at(state.calls.len())
    }

    /// Ends whoever calls.
    async fn crash(&self, actor: &Actor) {
        if let Actor::Function { crash, .. } | Actor::Worker { crash, .. } = actor {
            crash.cancel();
            // Whoever runs it drops it now.
            std::future::pending::<()>().await;
        }
    }
}
