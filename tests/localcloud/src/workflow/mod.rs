//! AWS around a host: the shipped state machines, the real Lambdas, the real SSM document and the real worker, behind one port.
//!
//! ```text
//! EventBridge ─▶ Step Functions ─▶ Lambda (bootstraps) ─▶ SSM ─▶ sh ─▶ host-worker dispatch ─▶ host-worker task
//!                    ▲    └─▶ SNS, EC2 (staging hosts, each with a Qdrant of its own)             │
//!                    └──────────────────────── SendTaskHeartbeat, -Success, -Failure ─────────────┘
//! ```
//!
//! Nothing is edited: definitions and document are read from the repository as they are deployed. Time may run faster by a stated factor, for Step
//! Functions and for the worker alike.

mod gateway;
mod host;
mod machines;
mod sfn;
mod staging;
mod tasks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use functions::Function;
use serde_json::{Value, json};

use crate::{
    autoscaling::{AutoScaling, Standing},
    cloud::{BUCKET, Cloud, Program},
    cloudwatch::CloudWatch,
    ec2::{Ec2, Ec2Options},
    events::{Events, ExecutionRule, KeyPattern, ObjectRule, Sns, StartExecution},
    lambda::{FunctionOptions, Lambda, LambdaOptions},
    qdrant::{QdrantOptions, ServerOptions},
    serve::HttpServer,
    ssm::{Ssm, SsmOptions},
    stepfunctions::{Clock, Draws, Execution, Front, Options, Status, StepFunctions},
};

pub use self::{
    host::{INSTANCE, STAGING_TAG, TAG},
    machines::{Machine, NAMESPACE, definition},
    staging::StagingHosts,
};

/// The launch template of staging hosts, and its version.
const TEMPLATE: (&str, &str) = ("lt-0123456789abcdef0", "1");
/// How long EventBridge takes to tell of an execution's end, in the time of Step Functions.
const EVENT_DELAY: Duration = Duration::from_secs(5);
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
    /// How long instances take, in the time of Step Functions.
    pub ec2: Ec2Options,
    /// The Qdrant of a staging host.
    pub staging_qdrant: ServerOptions,
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
            ec2: Ec2Options::default(),
            staging_qdrant: ServerOptions {
                only_stand_in: true,
                ..Cloud::protected(QdrantOptions::default())
            },
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
    /// EC2.
    pub ec2: Arc<Ec2>,
    /// The staging hosts that EC2 has launched.
    pub staging: Arc<StagingHosts>,
    /// The topic of failures.
    pub sns: Arc<Sns>,
    /// CloudWatch.
    pub cloudwatch: Arc<CloudWatch>,
    /// The Auto Scaling group of the host.
    pub autoscaling: Arc<AutoScaling>,
    /// EventBridge.
    pub events: Events,
    divisor: u32,
    machines: BTreeMap<Machine, String>,
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
        let dir = cloud.dir().join("staging");
        let staging = Arc::new(StagingHosts::new(Arc::clone(&ssm), dir, options.staging_qdrant.clone()));
        let ec2 = Ec2::start(divided(&options.ec2, options.divisor), Arc::<StagingHosts>::clone(&staging))?;
        ec2.add_template(TEMPLATE.0, TEMPLATE.1);
        let cloudwatch = Arc::<CloudWatch>::default();
        let autoscaling = Arc::new(AutoScaling::start()?);
        let tasks = Arc::new(tasks::Router {
            lambda: Arc::clone(&lambda),
            sns: Arc::clone(&sns),
            ec2: Arc::new(ec2),
            ssm: Arc::clone(&ssm),
            cloudwatch: Arc::clone(&cloudwatch),
            autoscaling: Arc::clone(&autoscaling),
            step_functions: OnceLock::new(),
        });
        let clock = Clock::wall().divided_by(options.divisor);
        let draws = Draws::random();
        let service = StepFunctions::with_supply(
            Options { clock, ..Options::default() },
            Arc::<tasks::Router>::clone(&tasks),
            Box::new(if options.eager { draws.without_delays() } else { draws }),
        );
        let step_functions = Front::new(service.clone());
        let _first_time = tasks.step_functions.set(step_functions.clone());
        let machines = deploy(&service, &lambda)?;
        let router = gateway::router(step_functions.clone(), &ssm, &lambda, &tasks);
        let gateway = HttpServer::start(router, options.port)?;
        add_functions(&lambda, cloud, options, &gateway.endpoint())?;
        let events = Events::start(Arc::new(Starter {
            service: service.clone(),
            runtime: tokio::runtime::Handle::current(),
        }))?;
        add_rules(&events, &machines, options.divisor);
        events.watch(service.ended_executions());
        let divisor = options.divisor;
        let ec2 = Arc::clone(&tasks.ec2);
        let workflow = Self {
            step_functions,
            ssm,
            lambda,
            ec2,
            staging,
            sns,
            cloudwatch,
            autoscaling,
            events,
            divisor,
            machines,
            gateway,
        };
        workflow.add_host(cloud, INSTANCE)?;
        workflow.staging.set_base(host::options(cloud, INSTANCE, &workflow.endpoint(), divisor)?);
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

    /// The ARN of a state machine.
    pub fn machine(&self, machine: Machine) -> &str {
        self.machines.get(&machine).map_or("", String::as_str)
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

    /// Lets staging hosts that come up from here on answer to the Step Functions at `step_functions`: somebody else's.
    pub fn stage_for(&self, cloud: &Cloud, step_functions: &str) -> anyhow::Result<()> {
        self.staging.set_base(host::options(cloud, INSTANCE, step_functions, self.divisor)?);
        Ok(())
    }

    /// A shipped definition with this cloud's substitutions.
    pub fn definition(&self, machine: Machine) -> anyhow::Result<String> {
        definition(machine, |function| self.lambda.arn(function.name()))
    }

    /// Starts an execution of the backup, as the console does. Must be called within a runtime.
    pub fn start_execution(&self, input: &Value) -> anyhow::Result<String> {
        self.start_execution_of(Machine::Backup, input)
    }

    /// Starts an execution, as the console does. Must be called within a runtime.
    pub fn start_execution_of(&self, machine: Machine, input: &Value) -> anyhow::Result<String> {
        let started = self.service().start_execution(self.machine(machine), None, Some(&input.to_string()));
        Ok(started.map_err(|error| anyhow::anyhow!("{error}"))?.arn)
    }

    /// Terminates an instance as its group does when it is replaced on purpose: the hook waits, and its event starts the machine. Must be called within a
    /// runtime.
    pub fn terminate(&self, instance_id: &str) -> anyhow::Result<String> {
        self.autoscaling.set(instance_id, Standing::Terminating);
        let event = json!({
            "version": "0",
            "id": uuid::Uuid::new_v4(),
            "detail-type": "EC2 Instance-terminate Lifecycle Action",
            "source": "aws.autoscaling",
            "account": ACCOUNT,
            "time": jiff::Timestamp::now(),
            "region": REGION,
            "resources": [],
            "detail": {
                "LifecycleActionToken": uuid::Uuid::new_v4(),
                "AutoScalingGroupName": AutoScaling::GROUP,
                "LifecycleHookName": AutoScaling::LAST_HOOK,
                "EC2InstanceId": instance_id,
                "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
                "Origin": "AutoScalingGroup",
                "Destination": "EC2",
            },
        });
        self.start_execution_of(Machine::BeforeTermination, &event)
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

/// Makes every machine, and answers with their ARNs.
fn deploy(service: &StepFunctions, lambda: &Lambda) -> anyhow::Result<BTreeMap<Machine, String>> {
    let deploy = |machine: Machine| {
        let name = machine.name();
        let made = service
            .create_state_machine(
                name,
                &definition(machine, |function| lambda.arn(function.name()))?,
                &format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
            )
            .map_err(|error| anyhow::anyhow!("state machine `{name}` is refused: {error}"))?;
        Ok((machine, made.arn))
    };
    Machine::ALL.into_iter().map(deploy).collect()
}

/// A success marker starts a backup, and a drill that ended badly the search for what it has left.
fn add_rules(events: &Events, machines: &BTreeMap<Machine, String>, divisor: u32) {
    let arn = |machine| machines.get(&machine).cloned().unwrap_or_default();
    events.add_rule(ObjectRule {
        name: "indexing-succeeded".to_owned(),
        bucket: BUCKET.to_owned(),
        key: KeyPattern::Exact(protocol::key::DEFAULT_SUCCESS_MARKER.to_owned()),
        state_machine: arn(Machine::Backup),
        input: serde_json::json!({ "trigger": "marker" }),
    });
    events.add_execution_rule(ExecutionRule {
        name: "drill-ended-badly".to_owned(),
        of: arn(Machine::RestoreDrill),
        statuses: vec![Status::Failed, Status::TimedOut, Status::Aborted],
        delay: EVENT_DELAY / divisor.max(1),
        state_machine: arn(Machine::TerminateStaging),
    });
}

/// Instances in time that is divided.
fn divided(options: &Ec2Options, divisor: u32) -> Ec2Options {
    let divisor = divisor.max(1);
    Ec2Options {
        pending: options.pending / divisor,
        boot: options.boot / divisor,
        shutting_down: options.shutting_down / divisor,
        hidden: options.hidden / divisor,
    }
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
