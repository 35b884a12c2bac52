//! One run: a world, an execution or several, and virtual time until everything has come to rest.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_trait::async_trait;
use catalog::Catalog;
use functions::Function;
use host_worker::task::{Host, Inbox, Offer, Timing, deliver, read_envelope};
use jiff::Timestamp;
use protocol::key;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    fault::Plan,
    invariant::{self, Violation},
    ports::{Answers, BUCKET, Documents, Fleet},
    work::{SmallWork, layout, work_dir},
    world::{Actor, Delivery, World},
};
use crate::stepfunctions::{
    Draws, Execution, LambdaCall, Options, Status, StepFunctions, TaskError, TaskRequest, Tasks,
};

/// How long a function may run before AWS ends it.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(120);
/// How long everything may take, in the world's time.
const BOUND: Duration = Duration::from_secs(48 * 3600);
/// How long workers may take to end after the last execution: the grace of a dead token, a delayed call, and some.
const AFTERWARDS: Duration = Duration::from_secs(3 * 3600);

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// One execution from the console.
    Console,
    /// The marker's event, delivered twice.
    MarkerTwice,
    /// A schedule and a person, half a minute apart.
    TwoAtOnce,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 3] = [Self::Console, Self::MarkerTwice, Self::TwoAtOnce];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::MarkerTwice => "marker-twice",
            Self::TwoAtOnce => "two-at-once",
        }
    }

    /// The inputs, each with the time after which it is started.
    fn inputs(self) -> Vec<(Duration, Value)> {
        let at = Duration::from_secs;
        match self {
            Self::Console => vec![(at(0), json!({}))],
            Self::MarkerTwice => {
                vec![(at(0), json!({ "trigger": "marker" })), (at(1), json!({ "trigger": "marker" }))]
            }
            Self::TwoAtOnce => vec![(at(0), json!({ "trigger": "schedule" })), (at(30), json!({}))],
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The calls, in order: who, and what.
    pub calls: Vec<(String, String)>,
    /// How each execution ended, with its error.
    pub ends: Vec<(Status, Option<String>)>,
    /// How many backups the pointer has named.
    pub published: usize,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// Something that is built wrong on purpose, to show that the rules notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutation {
    /// The store takes every write, whatever its condition.
    pub store_ignores_conditions: bool,
    /// The worker moves the pointer itself when its archive is stored.
    pub worker_publishes: bool,
    /// Every upload of a backup has the same key, on whichever host.
    pub one_key: bool,
}

/// Runs a scenario under a plan. `folder` is where the hosts' disks are made; `definition` is the shipped one, filled in.
pub(super) fn run(
    scenario: Scenario,
    plan: Plan,
    mutation: Mutation,
    folder: &Path,
    definition: &str,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("build the runtime")?;
    let local = LocalSet::new();
    local.block_on(&runtime, simulate(scenario, plan, mutation, folder, definition))
}

async fn simulate(
    scenario: Scenario,
    plan: Plan,
    mutation: Mutation,
    folder: &Path,
    definition: &str,
) -> anyhow::Result<Outcome> {
    let epoch: Timestamp = "2026-11-23T05:14:00Z".parse()?;
    let (sender, deliveries) = mpsc::unbounded_channel();
    let world = World::new(plan, epoch, folder, sender)?;
    world.state().mutation = mutation;
    if mutation.store_ignores_conditions {
        world.documents().ignore_conditions();
    }
    let marker = json!({ "batch_id": "b1", "finished_at": "2026-11-23T05:00:00Z" });
    world.documents().insert(key::DEFAULT_SUCCESS_MARKER, marker.to_string().into_bytes());
    let options = Options { clock: world.clock().clone(), ..Options::default() };
    let tasks = Arc::new(Router { world: world.clone(), settings: settings()? });
    let service = StepFunctions::with_supply(options, tasks, Box::new(Draws::seeded(7)));
    let machine = service
        .create_state_machine("backup", definition, "arn:aws:iam::000000000000:role/backup")
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .arn;

    let mut hosts = JoinSet::new();
    hosts.spawn_local(agents(world.clone(), service.clone(), deliveries));
    let mut arns = Vec::new();
    for (after, input) in scenario.inputs() {
        sleep(after).await;
        let started = service.start_execution(&machine, None, Some(&input.to_string()));
        arns.push(started.map_err(|error| anyhow::anyhow!("{error}"))?.arn);
    }
    let mut ended = Vec::new();
    for arn in &arns {
        ended.push(until_end(&service, arn).await?);
    }
    let left = quiet(&world).await;
    invariant::at_the_end(&world, &ended, left);
    service.halt();
    hosts.shutdown().await;
    let state = world.state();
    Ok(Outcome {
        calls: state.calls.iter().map(|call| (call.actor.clone(), call.what.clone())).collect(),
        ends: ended.into_iter().map(|execution| (execution.status, execution.failure.error)).collect(),
        published: state.pointers.len(),
        violations: state.violations.clone(),
    })
}

async fn until_end(service: &StepFunctions, arn: &str) -> anyhow::Result<Execution> {
    let execution = match timeout(BOUND, service.ended(arn)).await {
        Ok(ended) => ended,
        Err(_elapsed) => service.describe_execution(arn),
    };
    execution.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Waits until no process of any worker is left and no late write is on its way; how many are, when that takes too long.
async fn quiet(world: &World) -> usize {
    let begin = tokio::time::Instant::now();
    loop {
        let (left, later) = {
            let mut state = world.state();
            while state.later.try_join_next().is_some() {}
            (state.processes, state.later.len())
        };
        if left + later == 0 || begin.elapsed() > AFTERWARDS {
            return left;
        }
        sleep(Duration::from_secs(30)).await;
    }
}

/// The agents of all hosts: what arrives is offered to the host's inbox, and gets a process.
async fn agents(world: World, service: StepFunctions, mut deliveries: mpsc::UnboundedReceiver<Delivery>) {
    let mut processes = JoinSet::new();
    while let Some(delivery) = deliveries.recv().await {
        processes.spawn_local(delivered(world.clone(), service.clone(), delivery));
    }
}

/// What the document's script does on a host, and the process that it starts.
async fn delivered(world: World, service: StepFunctions, delivery: Delivery) {
    let gone = world.gone(delivery.host);
    let dispatched = world
        .call(&Actor::Agent, "deliver", || async { dispatch(&world, &delivery).is_some() }, || false)
        .await;
    let arrived = dispatched && !gone.is_cancelled();
    world.state().commands[delivery.command] = Some(arrived);
    let Some(file) = dispatch(&world, &delivery).filter(|_| arrived) else { return };
    let Ok(Some(envelope)) = read_envelope(&file) else { return };
    let crash = CancellationToken::new();
    let actor = Actor::Worker { host: delivery.host, crash: crash.clone() };
    let disk = world.disk(delivery.host);
    let host = Host {
        work_dir: work_dir(&disk),
        callbacks: Answers { world: world.clone(), actor: actor.clone(), service },
        work: SmallWork { world: world.clone(), actor, host: delivery.host, disk },
        timing: Timing::STANDARD,
        cancel: CancellationToken::new(),
    };
    world.state().processes += 1;
    tokio::select! {
        _ended = deliver(&host, &envelope) => {}
        () = crash.cancelled() => {}
        () = gone.cancelled() => {}
    }
    world.state().processes -= 1;
}

/// Keeps the envelope on the host's disk, as `host-worker dispatch` does; `None` when there is nothing to do.
fn dispatch(world: &World, delivery: &Delivery) -> Option<std::path::PathBuf> {
    let envelope = &delivery.envelope;
    let inbox = Inbox::of(&work_dir(&world.disk(delivery.host)), envelope.task, &envelope.execution);
    match inbox.offer(envelope).ok()? {
        Offer::Newest(file) => Some(file),
        Offer::Outdated { .. } => None,
    }
}

/// Where the tasks of the state machine go.
struct Router {
    world: World,
    settings: functions::Settings,
}

#[async_trait]
impl Tasks for Router {
    async fn call(&self, request: TaskRequest) -> Result<Value, TaskError> {
        let nobody = |what: &str| Err(TaskError::new(what, "no answer, as planned"));
        if request.resource.service() == "sns" {
            let publish = || async {
                self.world.state().messages += 1;
                Ok(json!({ "MessageId": "m" }))
            };
            let lost = || nobody("SNS.SdkClientException");
            return self.world.call(&Actor::Workflow, "notify", publish, lost).await;
        }
        if request.resource.service() == "aws-sdk:cloudwatch" {
            let count = || async { Ok(json!({})) };
            let lost = || nobody("CloudWatch.SdkClientException");
            return self.world.call(&Actor::Workflow, "count", count, lost).await;
        }
        let call = LambdaCall::read(&request.parameters)?;
        let Ok(function) = call.function.parse::<Function>() else {
            return nobody("Lambda.ResourceNotFoundException");
        };
        let invoke = || self.invoke(function, call.payload.clone());
        let lost = || nobody("Lambda.SdkClientException");
        self.world.call(&Actor::Workflow, format!("invoke {function}"), invoke, lost).await
    }
}

impl Router {
    /// One invocation, which may crash or run out of time.
    async fn invoke(&self, function: Function, event: Value) -> Result<Value, TaskError> {
        let crash = CancellationToken::new();
        let actor = Actor::Function { name: function.name(), crash: crash.clone() };
        let documents = Documents { world: self.world.clone(), actor: actor.clone() };
        let catalog = Catalog::new(documents, BUCKET, layout());
        let hosts = Fleet { world: self.world.clone(), actor };
        let now = self.world.clock().now();
        let handled = Box::pin(functions::handle(function, &self.settings, &catalog, &hosts, event, now));
        tokio::select! {
            handled = timeout(FUNCTION_TIMEOUT, handled) => match handled {
                Ok(Ok(reply)) => Ok(reply.body),
                Ok(Err(error)) => Err(TaskError::of_function(error.kind().name(), &error.to_string())),
                Err(_elapsed) => Err(TaskError::of_function("Sandbox.Timedout", "Task timed out")),
            },
            () = crash.cancelled() => Err(TaskError::of_function("Runtime.ExitError", "it crashed, as planned")),
        }
    }
}

fn settings() -> anyhow::Result<functions::Settings> {
    let values = BTreeMap::from([
        ("QDRANT_BACKUP_BUCKET", BUCKET),
        ("QDRANT_BACKUP_DOCUMENT", "host-task"),
        ("QDRANT_BACKUP_HOST_TAG", "QdrantBackup=production"),
        ("QDRANT_BACKUP_STAGING_TAG", "QdrantBackup=staging"),
    ]);
    functions::Settings::from_lookup(|name| values.get(name).map(|value| (*value).to_owned()))
        .map_err(|error| anyhow::anyhow!("{error}"))
}
