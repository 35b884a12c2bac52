//! For tests of drills: a published backup and the machines around it, and what must be true when a drill is over.

use std::time::Duration;

use localcloud::{
    ec2::Instance,
    indexer::Client,
    s3::{Effect, Operation},
    stepfunctions::{Execution, Status},
    workflow::{Machine, WorkflowOptions},
};
use serde_json::{Value, json};

use super::harness::{Flow, NEVER, workers_below};
use crate::harness::{Fixture, until};

/// By what time is divided where workers run: they have two seconds between two heartbeats.
pub(crate) const BRISK: u32 = 60;
/// By what time is divided where none does.
pub(crate) const QUICK: u32 = 120;
/// The states of a drill that goes well, without the repetitions of its loop.
pub(crate) const WAY: [&str; 20] = [
    "Begin",
    "ReadManifest",
    "LaunchStaging",
    "WaitForAgent",
    "CountLook",
    "DescribeAgent",
    "IsOnline",
    "DescribeStaging",
    "IsStarting",
    "RestoreAndVerify",
    "Judge",
    "RecordOutcome",
    "IsLaunched",
    "TerminateStaging",
    "WaitForTermination",
    "CountTermination",
    "DescribeTermination",
    "IsTerminated",
    "HasFailed",
    "Succeeded",
];

impl Flow {
    /// A cloud with one backup of the data of [`Fixture::small`], in which nothing waits for longer than it must.
    pub(crate) async fn with_backup(divisor: u32) -> (Self, Value) {
        let fixture = Fixture::small().await;
        let backup = fixture.backup().await;
        let options = WorkflowOptions { divisor, eager: true, unseen_calls: 0, ..WorkflowOptions::default() };
        (Self::around(fixture, &options), backup)
    }

    /// Starts a drill.
    pub(crate) fn start_drill(&self, input: &Value) -> String {
        self.workflow.start_execution_of(Machine::RestoreDrill, input).unwrap()
    }

    /// Runs a drill to its end.
    pub(crate) async fn drill(&self, input: Value) -> Execution {
        let execution = self.start_drill(&input);
        self.ended(&execution).await
    }

    /// Starts a drill of the newest backup whose download stands still, and waits until it does; answers with the staging instance too.
    pub(crate) async fn drilling(&self) -> (String, String) {
        let s3 = &self.fixture.cloud.s3;
        s3.faults()
            .on(Operation::GetObject)
            .key_containing(".tar.zst")
            .times(u64::MAX)
            .inject(Effect::Stall(NEVER));
        let before = self.downloads();
        let execution = self.start_drill(&json!({}));
        until(|| self.downloads() > before).await;
        (execution, self.alive().pop().unwrap().id)
    }

    /// How often a part of an archive was asked for.
    fn downloads(&self) -> usize {
        let calls = self.fixture.cloud.s3.calls();
        let asks = calls.iter().filter(|call| call.operation == Operation::GetObject);
        asks.filter(|call| call.key.as_deref().is_some_and(|key| key.ends_with(".tar.zst"))).count()
    }

    /// The instances that are neither terminated nor on the way there.
    pub(crate) fn alive(&self) -> Vec<Instance> {
        self.workflow.ec2.instances().into_iter().filter(Instance::is_alive).collect()
    }

    /// Fails unless every staging host is gone, with its processes, its directories and its place in Systems Manager.
    pub(crate) async fn assert_no_staging(&self) {
        assert_eq!(self.alive(), [], "a staging host is left");
        let staging = self.fixture.cloud.dir().join("staging");
        until(|| self.workflow.staging.ids().is_empty() && self.workflow.staging.dirs().is_empty()).await;
        assert_eq!(workers_below(&staging), [], "a worker of a staging host is left");
        for instance in self.workflow.ec2.instances() {
            assert!(self.workflow.ssm.environment(&instance.id).is_err(), "{} is still known", instance.id);
        }
    }

    /// A client of a staging host's Qdrant.
    pub(crate) fn staging_client(&self, instance: &str) -> Client {
        let client = |qdrant: &localcloud::qdrant::Server| Client::new(&qdrant.url(), qdrant.api_key());
        self.workflow.staging.with_qdrant(instance, client).unwrap()
    }

    /// What was counted of drills: whether each passed, and what it failed with.
    pub(crate) fn counted(&self) -> Vec<(bool, Option<String>)> {
        let logs = self.workflow.lambda.logs();
        let lines = logs.iter().filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
        lines
            .filter(|line| line["DrillPassed"].is_u64())
            .map(|line| {
                assert_eq!(line["DrillFailed"], json!(1 - line["DrillPassed"].as_u64().unwrap()));
                assert!(line["DrillSeconds"].as_f64().unwrap() > 0.0, "{line}");
                (line["DrillPassed"] == 1, line["FailureKind"].as_str().map(str::to_owned))
            })
            .collect()
    }

    /// Fails unless a drill failed with this error in words that have all of these, somebody was told and it was counted; and the staging host is gone.
    pub(crate) async fn drill_has_failed(&self, execution: &Execution, error: &str, texts: &[&str]) {
        self.has_failed(execution, error, texts);
        assert_eq!(self.counted().last(), Some(&(false, Some(error.to_owned()))));
        self.assert_no_staging().await;
    }

    /// The states of an execution without what follows on itself in a loop.
    pub(crate) fn distinct_states(&self, execution: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for state in self.states(execution) {
            if !seen.contains(&state) {
                seen.push(state);
            }
        }
        seen
    }

    /// Waits until EventBridge has started `terminate-staging` this often, and for the end of the last.
    pub(crate) async fn janitor(&self, nth: usize) -> Execution {
        let events = &self.workflow.events;
        let starts = events.wait_for(Duration::from_secs(30), |starts| starts.len() >= nth).await.unwrap();
        let execution = starts[nth - 1].execution.clone().unwrap();
        self.ended(&execution).await
    }

    /// The subjects of what somebody was told, in order.
    pub(crate) fn subjects(&self) -> Vec<String> {
        self.workflow.sns.messages().into_iter().filter_map(|message| message.subject).collect()
    }

    /// Fails unless an execution has succeeded, whatever it is of.
    pub(crate) fn succeeded(&self, execution: &Execution) {
        assert_eq!(execution.status, Status::Succeeded, "{:?}\n{}", execution.failure, self.logs());
    }
}
