//! A service on a port, functions that a test can look into, and the real client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::retry::RetryConfig;
use aws_sdk_sfn::config::{BehaviorVersion, Credentials, Region};
use localcloud::serve::HttpServer;
use localcloud::stepfunctions::{
    Clock, Faults, Front, HistoryEvent, LambdaCall, Options, StepFunctions, TaskError, TaskRequest, Tasks,
};
use serde_json::{Value, json};

/// So much faster than AWS goes the time of these tests.
pub(crate) const DIVISOR: u32 = 100;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const ROLE: &str = "arn:aws:iam::000000000000:role/machine";

pub(crate) struct Cloud {
    pub(crate) front: Front,
    _server: HttpServer,
    pub(crate) client: Client,
    functions: Arc<Functions>,
}

#[derive(Default)]
struct Functions {
    calls: Mutex<Vec<LambdaCall>>,
}

/// `echo` answers with its payload, any other function fails by its own name.
#[async_trait]
impl Tasks for Functions {
    async fn call(&self, request: TaskRequest) -> Result<Value, TaskError> {
        let call = LambdaCall::read(&request.parameters)?;
        self.calls.lock().unwrap().push(call.clone());
        match call.function.as_str() {
            "echo" => Ok(call.payload),
            other => Err(TaskError::of_function(other, "it failed")),
        }
    }
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let functions = Arc::new(Functions::default());
        let options = Options { clock: Clock::wall().divided_by(DIVISOR), ..Options::default() };
        let tasks: Arc<dyn Tasks> = functions.clone();
        let front = Front::new(StepFunctions::new(options, tasks));
        let server = HttpServer::start(front.router(), 0).unwrap();
        let config = aws_sdk_sfn::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(server.endpoint())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(10)))
            .build();
        Self { front, _server: server, client: Client::from_conf(config), functions }
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.front.faults()
    }

    /// A machine of one state.
    pub(crate) async fn machine(&self, name: &str, mut state: Value) -> String {
        state["End"] = json!(true);
        self.machine_of(name, json!({"StartAt": "A", "States": {"A": state}})).await
    }

    pub(crate) async fn machine_of(&self, name: &str, definition: Value) -> String {
        let definition = definition.to_string();
        let created =
            self.client.create_state_machine().name(name).role_arn(ROLE).definition(definition).send().await;
        created.unwrap().state_machine_arn
    }

    pub(crate) async fn run(&self, machine: &str) -> String {
        self.client.start_execution().state_machine_arn(machine).send().await.unwrap().execution_arn
    }

    /// Starts an execution of a callback task and waits until the task waits for its token, which is the answer.
    pub(crate) async fn waiting(&self, machine: &str) -> (String, String) {
        let arn = self.run(machine).await;
        self.submitted(&arn, 1).await;
        (arn, self.last_token())
    }

    /// Waits for the n-th `TaskSubmitted`.
    pub(crate) async fn submitted(&self, arn: &str, n: usize) {
        let look = |_: &_, history: &[HistoryEvent]| {
            let submitted = history.iter().filter(|event| event.type_name() == "TaskSubmitted").count();
            (submitted >= n).then_some(())
        };
        let service = self.front.service();
        let waited = tokio::time::timeout(PATIENCE, service.until(arn, look)).await;
        waited.unwrap_or_else(|_| panic!("{:#?}", service.history(arn))).unwrap();
    }

    /// The token that the last call got.
    pub(crate) fn last_token(&self) -> String {
        self.tokens().pop().unwrap()
    }

    /// The tokens of all calls so far.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let calls = self.functions.calls.lock().unwrap();
        calls.iter().map(|call| call.payload["token"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for the end, and answers as `DescribeExecution` does.
    pub(crate) async fn ended(
        &self,
        arn: &str,
    ) -> aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput {
        let service = self.front.service();
        let waited = tokio::time::timeout(PATIENCE, service.ended(arn)).await;
        waited.unwrap_or_else(|_| panic!("{:#?}", service.history(arn))).unwrap();
        self.client.describe_execution().execution_arn(arn).send().await.unwrap()
    }
}

pub(crate) fn calls(function: &str) -> Value {
    json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload.$": "$"}, "OutputPath": "$.Payload",
    })
}

pub(crate) fn waits(function: &str, extra: Value) -> Value {
    let mut state = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "Parameters": {"FunctionName": function, "Payload": {"token.$": "$$.Task.Token"}},
    });
    state.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    state
}
