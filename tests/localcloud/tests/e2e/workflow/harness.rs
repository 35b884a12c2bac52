//! A cloud with everything around it, and short words for what happens to executions.

use std::time::Duration;

use localcloud::{
    stepfunctions::{Execution, Status},
    workflow::{Workflow, WorkflowOptions},
};
use serde_json::{Value, json};

use crate::harness::Fixture;

/// How long an execution of a test may take, whatever happens to it.
const BOUND: Duration = Duration::from_secs(120);

/// A host with its Qdrant and bucket, and the workflow around it.
pub(crate) struct Flow {
    pub(crate) workflow: Workflow,
    pub(crate) fixture: Fixture,
}

impl Flow {
    /// A cloud with the data of [`Fixture::small`].
    pub(crate) async fn small() -> Self {
        Self::around(Fixture::small().await, &WorkflowOptions::default())
    }

    /// The workflow around a cloud.
    pub(crate) fn around(fixture: Fixture, options: &WorkflowOptions) -> Self {
        let workflow = Workflow::start(&fixture.cloud, options).unwrap();
        Self { workflow, fixture }
    }

    /// Writes the indexing job's success marker.
    pub(crate) async fn mark(&self, batch: &str, finished_at: &str) {
        let s3 = self.fixture.cloud.s3.client().await;
        let marker = json!({ "batch_id": batch, "finished_at": finished_at });
        s3.put_object()
            .bucket(localcloud::cloud::BUCKET)
            .key(protocol::key::DEFAULT_SUCCESS_MARKER)
            .body(marker.to_string().into_bytes().into())
            .send()
            .await
            .unwrap();
    }

    /// Starts an execution.
    pub(crate) fn start(&self, input: Value) -> String {
        self.workflow.start_execution(&input).unwrap()
    }

    /// Waits for the end of an execution.
    pub(crate) async fn ended(&self, execution: &str) -> Execution {
        match self.workflow.ended(execution, BOUND).await {
            Ok(ended) => ended,
            Err(error) => panic!("{error:#}\n{}", self.logs()),
        }
    }

    /// Runs an execution to its end.
    pub(crate) async fn run(&self, input: Value) -> Execution {
        let execution = self.start(input);
        self.ended(&execution).await
    }

    /// Runs an execution that must succeed, and answers with its last state.
    pub(crate) async fn succeeds(&self, input: Value) -> String {
        let execution = self.run(input).await;
        self.is_success(&execution)
    }

    /// Fails unless an execution succeeded; answers with its last state.
    pub(crate) fn is_success(&self, execution: &Execution) -> String {
        assert_eq!(execution.status, Status::Succeeded, "{:?}\n{}", execution.failure, self.logs());
        self.states(&execution.arn).pop().unwrap()
    }

    /// The states that an execution has entered, in order.
    pub(crate) fn states(&self, execution: &str) -> Vec<String> {
        let history = self.workflow.service().history(execution).unwrap();
        let entered = history.iter().map(|event| event.to_json());
        entered
            .filter_map(|event| event["stateEnteredEventDetails"]["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// The kinds of the events of an execution.
    pub(crate) fn events(&self, execution: &str) -> Vec<String> {
        self.workflow.service().history(execution).unwrap().iter().map(|event| event.type_name()).collect()
    }

    /// All that Lambdas and workers have said.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for line in self.workflow.lambda.logs() {
            logs += &format!("{}: {}\n", line.function, line.text);
        }
        for file in crate::harness::files_below(&self.fixture.cloud.work_dir()) {
            if file.extension().is_some_and(|extension| extension == "log") {
                logs += &format!("{}:\n{}\n", file.display(), fs_err::read_to_string(&file).unwrap());
            }
        }
        for command in self.workflow.ssm.commands() {
            logs += &format!("{command:?}\n");
        }
        logs
    }
}
