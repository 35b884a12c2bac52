//! The embedded EC2, as far as a restore drill uses it: instances that are launched once per client token, come up, and are terminated.
//!
//! What it guarantees:
//!
//! * an instance goes the way of AWS's states, each for as long as [`Ec2Options`] says, and is not shown at once;
//! * what an instance *is* belongs to a [`Fleet`]: it boots when the instance has run for a while, and halts before the instance is `shutting-down`;
//! * a launch with a known client token is the launch of before; with other parameters it is `IdempotentParameterMismatch`;
//! * whatever a test scripts with [`Faults`] strikes exactly there, and [`Ec2::calls`] tells what was asked.
//!
//! It is called as Step Functions' SDK integrations call it, in their casing and with their names of errors. Not there: the Query API for `aws ec2`, start and stop,
//! launch templates' contents, pages.

mod api;
mod fault;
mod instance;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::sync::watch;

pub use self::fault::{Effect, Fate, Faults, Operation};
pub use self::instance::{Instance, State};
pub use self::wire::Call;

use self::api::Launch;
use crate::background::{Background, Spawner};
use crate::stepfunctions::TaskError;

/// What instances are.
#[async_trait::async_trait]
pub trait Fleet: fmt::Debug + Send + Sync {
    /// The instance's system is up: it becomes whatever it is launched for.
    async fn boot(&self, instance: &Instance) -> anyhow::Result<()>;
    /// The instance goes: everything of it ends now. One that has not booted may be told so too.
    async fn halt(&self, instance_id: &str);
}

/// How the stand-in is set up.
#[derive(Clone, Debug)]
pub struct Ec2Options {
    /// How long an instance is `pending`.
    pub pending: Duration,
    /// How long it then takes to boot.
    pub boot: Duration,
    /// How long it is `shutting-down`.
    pub shutting_down: Duration,
    /// How long `DescribeInstances` does not show an instance that was launched.
    pub hidden: Duration,
}

impl Default for Ec2Options {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(10),
            boot: Duration::from_secs(30),
            shutting_down: Duration::from_secs(30),
            hidden: Duration::from_secs(5),
        }
    }
}

/// A running stand-in. It has a thread of its own, and its instances halt when it is dropped.
#[derive(Debug)]
pub struct Ec2 {
    service: Arc<Service>,
    _background: Background,
}

#[derive(Debug)]
struct Service {
    options: Ec2Options,
    fleet: Arc<dyn Fleet>,
    templates: Mutex<BTreeSet<(String, String)>>,
    launches: Mutex<BTreeMap<String, Launch>>,
    instances: watch::Sender<Vec<Instance>>,
    calls: Mutex<Vec<Call>>,
    faults: Faults,
    spawner: Spawner,
}

impl Ec2 {
    /// Starts a stand-in without templates and instances.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(options: Ec2Options, fleet: Arc<dyn Fleet>) -> anyhow::Result<Self> {
        let background = Background::start("localcloud-ec2")?;
        let service = Service {
            options,
            fleet,
            templates: Mutex::default(),
            launches: Mutex::default(),
            instances: watch::Sender::new(Vec::new()),
            calls: Mutex::default(),
            faults: Faults::default(),
            spawner: background.spawner(),
        };
        Ok(Self { service: Arc::new(service), _background: background })
    }

    /// Makes a version of a launch template.
    pub fn add_template(&self, id: &str, version: &str) {
        lock(&self.service.templates).insert((id.to_owned(), version.to_owned()));
    }

    /// Carries out `arn:aws:states:::aws-sdk:ec2:ACTION`.
    ///
    /// # Errors
    /// As a state machine sees them: `Ec2.Ec2Exception` for all that EC2 refuses, `Ec2.SdkClientException` for an answer that did not come.
    pub async fn task(&self, action: &str, parameters: &Value) -> Result<Value, TaskError> {
        wire::task(&self.service, action, parameters).await
    }

    /// Every instance so far, oldest first, as it stands now.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        self.service.instances.borrow().clone()
    }

    /// Waits until the instances are as wanted.
    ///
    /// # Errors
    /// When they are not within `bound`; the error says what they were then.
    pub async fn wait_for(
        &self,
        bound: Duration,
        wanted: impl Fn(&[Instance]) -> bool,
    ) -> anyhow::Result<Vec<Instance>> {
        let mut instances = self.service.instances.subscribe();
        match tokio::time::timeout(bound, instances.wait_for(|instances| wanted(instances))).await {
            Ok(Ok(instances)) => Ok(instances.clone()),
            Ok(Err(_)) | Err(_) => {
                bail!("the instances did not get there in {bound:?}: {:?}", self.instances())
            }
        }
    }

    /// Loses an instance, as when its hardware fails: it halts, and is `terminated` without anybody's doing.
    ///
    /// # Errors
    /// When there is no such instance.
    pub async fn lose(&self, instance_id: &str) -> anyhow::Result<()> {
        let known = self.instances().iter().any(|instance| instance.id == instance_id);
        known.then_some(()).with_context(|| format!("there is no instance `{instance_id}`"))?;
        self.service.die(instance_id).await;
        Ok(())
    }

    /// The script of faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.service.calls).clone()
    }

    /// How many calls of that operation there were.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        lock(&self.service.calls).iter().filter(|call| call.operation == operation).count()
    }
}

impl Service {
    /// Changes an instance, unless it has ended; answers whether it was changed.
    fn change(&self, instance_id: &str, change: impl FnOnce(&mut Instance)) -> bool {
        let alive =
            |instance: &&mut Instance| instance.id == instance_id && instance.state != State::Terminated;
        self.instances.send_if_modified(|instances| {
            let found = instances.iter_mut().find(alive);
            found.map(change).is_some()
        })
    }

    /// Moves an instance from one state to the next, if it is still in the first.
    fn advance(&self, instance_id: &str, from: State, to: State) -> bool {
        self.instances.send_if_modified(|instances| {
            let found =
                instances.iter_mut().find(|instance| instance.id == instance_id && instance.state == from);
            found.map(|instance| instance.state = to).is_some()
        })
    }

    async fn die(&self, instance_id: &str) {
        // First it is gone, then that is seen.
        self.fleet.halt(instance_id).await;
        self.change(instance_id, |instance| instance.state = State::Terminated);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
