//! A scenario: what is done to a cloud, on each engine in turn, and what must come out equal.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use host_worker::lock::HostLock;
use localcloud::{
    cloud::{BUCKET, Cloud, Program},
    corpus::Corpus,
    ec2::Ec2Options,
    indexer::Client,
    qdrant::QdrantOptions,
    s3::{Effect, Operation},
    workflow::{INSTANCE, Machine, Workflow, WorkflowOptions},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::engine::{Ended, Engine, Moto};

/// The execution that [`Run::launch_as_a_drill`] is of.
pub(crate) const EXECUTION: &str = "arn:aws:states:us-east-1:000000000000:execution:qdrant-backup-drill:gone";

/// A cloud, and the engine that runs its state machine.
pub(crate) struct Run {
    pub(crate) workflow: Workflow,
    pub(crate) cloud: Cloud,
    engine: Engine,
    _moto: Option<Moto>,
    _dir: TempDir,
}

/// Runs a scenario of the backup on both engines: what it comes to on ours, and on moto.
pub(crate) async fn on_both(scenario: impl AsyncFn(Run) -> Ended) -> (Ended, Ended) {
    both(Machine::Backup, scenario).await
}

async fn both(machine: Machine, scenario: impl AsyncFn(Run) -> Ended) -> (Ended, Ended) {
    let ours = scenario(Run::start(machine, false).await).await;
    (ours, scenario(Run::start(machine, true).await).await)
}

/// Runs a scenario of the backup on both engines, and fails unless they come to the same; answers with what.
pub(crate) async fn compare(scenario: impl AsyncFn(Run) -> Ended) -> Ended {
    compare_of(Machine::Backup, scenario).await
}

/// The same for a scenario of another machine.
pub(crate) async fn compare_of(machine: Machine, scenario: impl AsyncFn(Run) -> Ended) -> Ended {
    let (ours, theirs) = both(machine, scenario).await;
    assert_eq!(ours.status, theirs.status, "status\nembedded {ours:#?}\nmoto {theirs:#?}");
    assert_eq!(ours.error, theirs.error, "error\nembedded {ours:#?}\nmoto {theirs:#?}");
    assert_eq!(ours.states, theirs.states, "states");
    assert_eq!(ours.events, theirs.events, "kinds of history events");
    ours
}

impl Run {
    async fn start(machine: Machine, on_moto: bool) -> Self {
        let dir = TempDir::with_prefix("cross-check-").unwrap();
        let program = Program::Localcloud(PathBuf::from(env!("CARGO_BIN_EXE_localcloud")));
        let mut options = Cloud::protected(QdrantOptions::default());
        options.only_stand_in = true;
        let cloud = Cloud::start(dir.path(), program, options).await.unwrap();
        let client = Client::new(&cloud.qdrant.url(), cloud.qdrant.api_key());
        let corpus = Corpus::load().unwrap();
        for (collection, points) in [("docs", 60), ("notes", 20)] {
            client.create_collection(collection).await.unwrap();
            client.index(collection, corpus.points().take(points)).await.unwrap();
        }
        // An instance that is up at the first look is looked at as often on both engines.
        let ec2 = Ec2Options {
            pending: Duration::ZERO,
            boot: Duration::ZERO,
            hidden: Duration::ZERO,
            ..Ec2Options::default()
        };
        let options = WorkflowOptions { ec2, ..WorkflowOptions::default() };
        let workflow = Workflow::start(&cloud, &options).unwrap();
        let moto = on_moto.then(|| Moto::start(&workflow.endpoint(), options.divisor));
        let endpoint = moto.as_ref().map_or_else(|| workflow.endpoint(), |moto| moto.endpoint.clone());
        // Before the first command: the worker answers to whoever runs the states.
        workflow.ssm.remove_host(INSTANCE).unwrap();
        workflow.add_host_of(&cloud, INSTANCE, &endpoint).unwrap();
        workflow.stage_for(&cloud, &endpoint).unwrap();
        let engine = Engine::at(&endpoint, &workflow.definition(machine).unwrap()).await;
        Self { workflow, cloud, engine, _moto: moto, _dir: dir }
    }

    /// Starts an execution.
    pub(crate) async fn begin(&self, input: Value) -> String {
        self.engine.start(&input).await
    }

    /// Runs an execution to its end. Backup ids have whole seconds: the next one is another only after the clock has moved on.
    pub(crate) async fn execution(&self, input: Value) -> Ended {
        let execution = self.engine.start(&input).await;
        let ended = self.engine.ended(&execution).await;
        tokio::time::sleep(Duration::from_millis(1_010)).await;
        ended
    }

    pub(crate) async fn ended(&self, execution: &str) -> Ended {
        self.engine.ended(execution).await
    }

    pub(crate) async fn entered(&self, state: &str, execution: &str) {
        self.engine.entered(state, execution).await;
    }

    pub(crate) async fn stop(&self, execution: &str) {
        self.engine.stop(execution).await;
    }

    pub(crate) async fn mark(&self, batch: &str) {
        let s3 = self.cloud.s3.client().await;
        let marker = json!({ "batch_id": batch, "finished_at": "2026-01-01T00:00:00Z" });
        let put = s3.put_object().bucket(BUCKET).key(protocol::key::DEFAULT_SUCCESS_MARKER);
        put.body(marker.to_string().into_bytes().into()).send().await.unwrap();
    }

    /// Backs up without the state machine; answers with the key of the archive.
    pub(crate) async fn back_up(&self) -> String {
        let made = self.cloud.run(["backup", "--no-quiesce"]).await.unwrap().success().unwrap();
        made["manifest"]["key"].as_str().unwrap().to_owned()
    }

    /// How many instances are neither terminated nor on the way there, of how many.
    pub(crate) fn instances(&self) -> (usize, usize) {
        let all = self.workflow.ec2.instances();
        (all.iter().filter(|instance| instance.is_alive()).count(), all.len())
    }

    /// Launches an instance as a drill does.
    pub(crate) async fn launch_as_a_drill(&self, token: &str) {
        let definition: Value =
            serde_json::from_str(&self.workflow.definition(Machine::RestoreDrill).unwrap()).unwrap();
        let mut parameters = definition["States"]["LaunchStaging"]["Parameters"].clone();
        let asked = parameters.as_object_mut().unwrap();
        asked.remove("ClientToken.$");
        asked.insert("ClientToken".to_owned(), json!(token));
        asked.insert(
            "TagSpecifications".to_owned(),
            json!([{ "ResourceType": "instance", "Tags": [
                { "Key": "QdrantBackup", "Value": "staging" },
                { "Key": "qdrant-backup:execution", "Value": EXECUTION },
            ]}]),
        );
        self.workflow.ec2.task("runInstances", &parameters).await.unwrap();
    }

    /// Lets the worker answer to the Step Functions of the embedded cloud, which runs what another machine starts.
    pub(crate) fn answer_to_ours(&self) {
        self.workflow.ssm.remove_host(INSTANCE).unwrap();
        self.workflow.add_host(&self.cloud, INSTANCE).unwrap();
    }

    /// Gives the worker a key that Qdrant refuses.
    pub(crate) fn spoil_the_key(&self) {
        fs_err::write(self.cloud.dir().join("api-key"), "not-the-key").unwrap();
    }

    /// Holds the host as other work does.
    pub(crate) fn hold_the_host(&self) -> HostLock {
        HostLock::acquire(&self.cloud.work_dir(), "cross-check").unwrap()
    }

    /// Lets the worker stand still in mid-backup, whatever the machine's speed.
    pub(crate) fn let_the_upload_hang(&self) {
        let never = Effect::Stall(Duration::from_secs(600));
        self.cloud.s3.faults().on(Operation::CreateMultipartUpload).inject(never);
    }

    /// Kills the worker while the execution is in a state, once it stands still.
    pub(crate) async fn kill_the_worker_in(&self, state: &str, execution: &str) {
        self.engine.entered(state, execution).await;
        let begin = Instant::now();
        while self.cloud.s3.count(Operation::CreateMultipartUpload) == 0 {
            assert!(begin.elapsed() < Duration::from_secs(60), "the worker does not upload");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.workflow.ssm.kill_all_processes(INSTANCE).unwrap() > 0, "there is no worker");
        self.cloud.s3.faults().clear();
    }

    pub(crate) async fn delete_a_collection(&self) {
        let client = Client::new(&self.cloud.qdrant.url(), self.cloud.qdrant.api_key());
        client.call(reqwest::Method::DELETE, "/collections/notes", None).await.unwrap();
    }
}
