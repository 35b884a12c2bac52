//! AWS around a host: the shipped state machine, the real Lambdas, the real SSM document and the real worker, behind one port.
//!
//! ```text
//! EventBridge ─▶ Step Functions ─▶ Lambda (bootstraps) ─▶ SSM ─▶ sh ─▶ host-worker dispatch ─▶ host-worker task
//!                    ▲    └─▶ SNS                                                                 │
//!                    └──────────────────────── SendTaskHeartbeat, -Success, -Failure ─────────────┘
//! ```
//!
//! Nothing is edited: definition and document are read from the repository as they are deployed. Time may run faster by a stated factor, for Step
//! Functions and for the worker alike.

mod gateway;
mod host;
mod tasks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use functions::Function;
use serde_json::Value;

use crate::{
    cloud::{BUCKET, Cloud, Program},
    events::{Events, KeyPattern, ObjectRule, Sns, StartExecution},
    lambda::{FunctionOptions, Lambda, LambdaOptions},
    serve::HttpServer,
    ssm::{Ssm, SsmOptions},
    stepfunctions::{Clock, Draws, Execution, Front, Options, StepFunctions, asl::substitute},
};

pub use self::host::{INSTANCE, STAGING_TAG, TAG};

/// The name of the state machine.
pub const MACHINE: &str = "qdrant-backup";
/// The name of the SSM document.
pub const DOCUMENT: &str = "QdrantBackup-HostTask";
/// The region of everything.
const REGION: &str = "us-east-1";
/// The account of everything.
const ACCOUNT: &str = "000000000000";

/// How the workflow is set up.
#[derive(Clone, Debug)]
pub struct WorkflowOptions {
    /// By what waits, time-outs and heartbeats are divided.
    pub divisor: u32,
    /// Whether retries are made at once, where their delay is drawn between nothing and its full length.
    pub eager: bool,
    /// How many looks at a command come too early for SSM to know it.
    pub unseen_calls: u32,
    /// The port of everything; 0 is a free one.
    pub port: u16,
    /// How long a Lambda may run, in seconds.
    pub function_timeout: u64,
    /// How long one second of Lambda and SSM lasts.
    pub second: Duration,
    /// Where the bootstraps are, as programs of their own; otherwise this program is all of them.
    pub bootstraps: Option<PathBuf>,
}

impl Default for WorkflowOptions {
    fn default() -> Self {
        Self {
            divisor: 30,
            eager: false,
            unseen_calls: 1,
            port: 0,
            function_timeout: 60,
            second: Duration::from_secs(1),
            bootstraps: None,
        }
    }
}

/// The services around a host. They end, with all that they started, when this is dropped.
#[derive(Debug)]
pub struct Workflow {
    /// Step Functions, with its script of faults.
    pub step_functions: Front,
    /// Systems Manager.
    pub ssm: Arc<Ssm>,
    /// Lambda.
    pub lambda: Arc<Lambda>,
    /// The topic of failures.
    pub sns: Arc<Sns>,
    /// EventBridge.
    pub events: Events,
    divisor: u32,
    machine: String,
    gateway: HttpServer,
}

impl Workflow {
    /// Starts the services around the host of `cloud`, which becomes the instance [`INSTANCE`]. Must be called within a runtime.
    pub fn start(cloud: &Cloud, options: &WorkflowOptions) -> anyhow::Result<Self> {
        let (access_key, secret_key) = cloud.s3.credentials();
        let lambda = Arc::new(Lambda::start(LambdaOptions {
            account: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
            credentials: (access_key.to_owned(), secret_key.to_owned()),
            second: options.second,
        })?);
        let ssm = Arc::new(Ssm::start(SsmOptions {
            second: options.second,
            unseen_calls: options.unseen_calls,
            ..SsmOptions::default()
        })?);
        ssm.create_document_from(DOCUMENT, &repository("infra/ssm/host-task.json"))?;
        let sns = Arc::new(Sns::default());
        sns.add_topic(&topic());
        let clock = Clock::wall().divided_by(options.divisor);
        let draws = Draws::random();
        let service = StepFunctions::with_supply(
            Options { clock, ..Options::default() },
            Arc::new(tasks::Router { lambda: Arc::clone(&lambda), sns: Arc::clone(&sns) }),
            Box::new(if options.eager { draws.without_delays() } else { draws }),
        );
        let step_functions = Front::new(service.clone());
        let machine = service
            .create_state_machine(
                MACHINE,
                &definition(|function| lambda.arn(function.name()))?,
                &format!("arn:aws:iam::{ACCOUNT}:role/{MACHINE}"),
            )
            .map_err(|error| anyhow::anyhow!("the state machine is refused: {error}"))?
            .arn;
        let router = gateway::router(step_functions.clone(), &ssm, &lambda);
        let gateway = HttpServer::start(router, options.port)?;
        add_functions(&lambda, cloud, options, &gateway.endpoint())?;
        let events =
            Events::start(Arc::new(Starter { service, runtime: tokio::runtime::Handle::current() }))?;
        events.add_rule(ObjectRule {
            name: "indexing-succeeded".to_owned(),
            bucket: BUCKET.to_owned(),
            key: KeyPattern::Exact(protocol::key::DEFAULT_SUCCESS_MARKER.to_owned()),
            state_machine: machine.clone(),
            input: serde_json::json!({ "trigger": "marker" }),
        });
        let divisor = options.divisor;
        let workflow = Self { step_functions, ssm, lambda, sns, events, divisor, machine, gateway };
        workflow.add_host(cloud, INSTANCE)?;
        Ok(workflow)
    }

    /// Starts executions when the indexing job marks success, from here on.
    pub fn listen(&self, cloud: &Cloud) {
        self.events.listen(cloud.s3.object_created());
    }

    /// The one endpoint of Step Functions, Systems Manager and Lambda.
    pub fn endpoint(&self) -> String {
        self.gateway.endpoint()
    }

    /// The ARN of the state machine.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Registers the host of `cloud` under another instance id, as after a replacement.
    pub fn add_host(&self, cloud: &Cloud, instance_id: &str) -> anyhow::Result<()> {
        self.add_host_of(cloud, instance_id, &self.endpoint())
    }

    /// Registers the host of `cloud`, whose worker answers to the Step Functions at `step_functions`: somebody else's.
    pub fn add_host_of(&self, cloud: &Cloud, instance_id: &str, step_functions: &str) -> anyhow::Result<()> {
        let options = host::options(cloud, instance_id, step_functions, self.divisor)?;
        self.ssm.add_host(options)
    }

    /// The shipped definition with this cloud's substitutions.
    pub fn definition(&self) -> anyhow::Result<String> {
        definition(|function| self.lambda.arn(function.name()))
    }

    /// Starts an execution, as the console does. Must be called within a runtime.
    pub fn start_execution(&self, input: &Value) -> anyhow::Result<String> {
        let started = self.service().start_execution(&self.machine, None, Some(&input.to_string()));
        Ok(started.map_err(|error| anyhow::anyhow!("{error}"))?.arn)
    }

    /// Waits until an execution has ended.
    pub async fn ended(&self, execution: &str, bound: Duration) -> anyhow::Result<Execution> {
        let ended = tokio::time::timeout(bound, self.service().ended(execution)).await;
        let ended = ended.with_context(|| {
            format!("the execution still runs after {bound:?}: {:?}", self.last_events(execution))
        })?;
        ended.map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// The service behind the port.
    pub fn service(&self) -> &StepFunctions {
        self.step_functions.service()
    }

    /// The kinds of the last events of an execution, for messages.
    fn last_events(&self, execution: &str) -> Vec<String> {
        let history = self.service().history(execution).unwrap_or_default();
        history.iter().rev().take(6).map(|event| event.type_name()).collect()
    }
}

impl Drop for Workflow {
    fn drop(&mut self) {
        self.service().halt();
        // Workers are detached from the agent that started them, and outlive it on a real host.
        self.ssm.kill_everything();
    }
}

/// The shipped definition with its substitutions, as `DefinitionSubstitutions` makes them; `name_of` says how a function is called.
pub fn definition(name_of: impl Fn(Function) -> String) -> anyhow::Result<String> {
    let text = fs_err::read_to_string(repository("state-machines/backup.asl.json"))?;
    let values = BTreeMap::from([
        ("QuiesceCheckFunction".to_owned(), name_of(Function::QuiesceCheck)),
        ("TriggerSnapshotFunction".to_owned(), name_of(Function::TriggerSnapshot)),
        ("PublishManifestFunction".to_owned(), name_of(Function::PublishManifest)),
        ("AlarmTopic".to_owned(), topic()),
    ]);
    substitute(&text, &values).context("fill in the state machine's substitutions")
}

fn topic() -> String {
    format!("arn:aws:sns:{REGION}:{ACCOUNT}:qdrant-backup-alarms")
}

/// A file of the repository: what is deployed is what is run.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn add_functions(
    lambda: &Lambda,
    cloud: &Cloud,
    options: &WorkflowOptions,
    endpoint: &str,
) -> anyhow::Result<()> {
    let env: BTreeMap<String, String> = [
        ("QDRANT_BACKUP_BUCKET", BUCKET),
        ("QDRANT_BACKUP_DOCUMENT", DOCUMENT),
        ("QDRANT_BACKUP_HOST_TAG", TAG),
        ("QDRANT_BACKUP_STAGING_TAG", STAGING_TAG),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ENDPOINT_URL_S3", cloud.s3.endpoint()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for function in Function::ALL {
        let (program, args) = match (&options.bootstraps, cloud.program()) {
            (Some(dir), _) => (dir.join(function.name()), Vec::new()),
            (None, Program::Localcloud(path)) => {
                (path.clone(), vec!["lambda".into(), function.name().into()])
            }
            (None, Program::HostWorker(path)) => (path.with_file_name(function.name()), Vec::new()),
        };
        lambda.add_function(FunctionOptions {
            args,
            env: env.clone(),
            timeout: options.function_timeout,
            memory: 256,
            ..FunctionOptions::new(function.name(), program)
        })?;
    }
    Ok(())
}

/// What EventBridge starts: executions, on the runtime that the workflow was started in.
#[derive(Debug)]
struct Starter {
    service: StepFunctions,
    runtime: tokio::runtime::Handle,
}

#[async_trait::async_trait]
impl StartExecution for Starter {
    async fn start_execution(&self, state_machine: &str, input: Value) -> anyhow::Result<String> {
        let _within = self.runtime.enter();
        let started = self.service.start_execution(state_machine, None, Some(&input.to_string()));
        Ok(started.map_err(|error| anyhow::anyhow!("{error}"))?.arn)
    }
}
