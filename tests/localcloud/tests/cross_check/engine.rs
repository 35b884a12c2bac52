//! An engine that runs states, behind the API of Step Functions.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aws_sdk_sfn::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::ExecutionStatus,
};
use serde_json::Value;

/// How long an execution may take on either.
const BOUND: Duration = Duration::from_secs(150);

/// What an execution came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) status: String,
    pub(crate) error: Option<String>,
    /// The kinds of all history events, in order.
    pub(crate) events: Vec<String>,
    /// The states that were entered, in order.
    pub(crate) states: Vec<String>,
}

impl Ended {
    pub(crate) fn last_state(&self) -> &str {
        self.states.last().map_or("", String::as_str)
    }
}

/// A client of one engine, with the state machine made there.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    client: Client,
    machine: String,
}

impl Engine {
    /// The engine at this endpoint, with this definition.
    pub(crate) async fn at(endpoint: &str, definition: &str) -> Self {
        let config = aws_sdk_sfn::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("cross", "check", None, None, "cross-check"))
            .endpoint_url(endpoint)
            .build();
        let client = Client::from_conf(config);
        let made = client
            .create_state_machine()
            .name("cross-check")
            .definition(definition)
            .role_arn("arn:aws:iam::000000000000:role/cross-check")
            .send()
            .await
            .unwrap();
        Self { client, machine: made.state_machine_arn }
    }

    pub(crate) async fn start(&self, input: &Value) -> String {
        let name = uuid::Uuid::new_v4().to_string();
        let call = self.client.start_execution().state_machine_arn(&self.machine).name(name);
        call.input(input.to_string()).send().await.unwrap().execution_arn
    }

    pub(crate) async fn stop(&self, execution: &str) {
        self.client.stop_execution().execution_arn(execution).send().await.unwrap();
    }

    /// Waits until a state was entered.
    pub(crate) async fn entered(&self, state: &str, execution: &str) {
        let begin = Instant::now();
        loop {
            let (_, states) = self.history(execution).await;
            if states.iter().any(|entered| entered == state) {
                return;
            }
            assert!(begin.elapsed() < BOUND, "{state} is not entered: {states:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the end of an execution.
    pub(crate) async fn ended(&self, execution: &str) -> Ended {
        let begin = Instant::now();
        loop {
            let seen = self.client.describe_execution().execution_arn(execution).send().await.unwrap();
            if seen.status != ExecutionStatus::Running {
                let (events, states) = self.history(execution).await;
                return Ended { status: seen.status.as_str().to_owned(), error: seen.error, events, states };
            }
            assert!(begin.elapsed() < BOUND, "it still runs: {:?}", self.history(execution).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn history(&self, execution: &str) -> (Vec<String>, Vec<String>) {
        let mut pages = self
            .client
            .get_execution_history()
            .execution_arn(execution)
            .max_results(500)
            .into_paginator()
            .items()
            .send();
        let (mut events, mut states) = (Vec::new(), Vec::new());
        while let Some(event) = pages.next().await {
            let event = event.unwrap();
            if let Some(entered) = &event.state_entered_event_details {
                states.push(entered.name.clone());
            }
            events.push(event.r#type.as_str().to_owned());
        }
        (events, states)
    }
}

/// moto as a process of its own. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Moto {
    child: Child,
    pub(crate) endpoint: String,
}

impl Moto {
    /// Starts it; its tasks go to the Lambda, EC2 and Systems Manager at `cloud`, and its waits are divided.
    pub(crate) fn start(cloud: &str, divisor: u32) -> Self {
        let launcher = folder().join("moto_stepfunctions.py");
        let mut child = Command::new(python())
            .arg(launcher)
            .args(["--endpoint", cloud, "--divisor", &divisor.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = line.trim().to_owned();
        assert!(endpoint.starts_with("http://"), "the launcher said `{endpoint}`");
        Self { child, endpoint }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross-check")
}

#[expect(clippy::disallowed_methods, reason = "the one switch of this target")]
fn python() -> String {
    std::env::var("CROSS_CHECK_PYTHON").expect(
        "CROSS_CHECK_PYTHON must name a Python with tests/cross-check/requirements.txt installed; .ci/run does that",
    )
}
