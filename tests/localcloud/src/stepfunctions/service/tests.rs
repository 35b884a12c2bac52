//! The service on a paused clock, on one thread, without a socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::stepfunctions::machine::{DATA_LIMIT, Happening};
use crate::stepfunctions::tasks::{LambdaCall, TaskError, TaskRequest};

/// Functions of a test: what is called decides what is answered.
#[derive(Default)]
struct Functions {
    calls: Mutex<Vec<LambdaCall>>,
}

impl Functions {
    fn token(&self, call: usize) -> String {
        self.calls.lock().unwrap()[call].payload["token"].as_str().unwrap().to_owned()
    }
}

#[async_trait]
impl Tasks for Functions {
    async fn call(&self, request: TaskRequest) -> Result<Value, TaskError> {
        let call = LambdaCall::read(&request.parameters)?;
        self.calls.lock().unwrap().push(call.clone());
        match call.function.as_str() {
            "echo" => Ok(call.payload),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Ok(Value::Null)
            }
            "panic" => panic!("the function panicked"),
            other => Err(TaskError::of_function(other, "failed")),
        }
    }
}

const START: &str = "2027-01-15T08:00:00Z";
const ROLE: &str = "arn:aws:iam::000000000000:role/r";

struct Bench {
    service: StepFunctions,
    functions: Arc<Functions>,
    machine: String,
}

fn bench(state: Value) -> Bench {
    bench_with(state, Options { clock: Clock::starting_at(START.parse().unwrap()), ..Options::default() })
}

fn bench_with(mut state: Value, options: Options) -> Bench {
    let functions = Arc::new(Functions::default());
    let tasks: Arc<dyn Tasks> = functions.clone();
    let service = StepFunctions::with_supply(options, tasks, Box::new(Draws::seeded(1)));
    state["End"] = json!(true);
    let definition = json!({"StartAt": "A", "States": {"A": state}}).to_string();
    let machine = service.create_state_machine("machine", &definition, ROLE).unwrap().arn;
    Bench { service, functions, machine }
}

fn calls(function: &str, extra: Value) -> Value {
    let mut state = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload.$": "$"},
    });
    state.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    state
}

fn waits(function: &str, extra: Value) -> Value {
    let parameters = json!({"FunctionName": function, "Payload": {"token.$": "$$.Task.Token"}});
    let mut state = calls(function, extra);
    state["Resource"] = "arn:aws:states:::lambda:invoke.waitForTaskToken".into();
    state["Parameters"] = parameters;
    state
}

impl Bench {
    fn start(&self, input: &str) -> String {
        self.service.start_execution(&self.machine, None, Some(input)).unwrap().arn
    }

    async fn submitted(&self, arn: &str) {
        let submitted = |_: &Execution, history: &[HistoryEvent]| {
            matches!(history.last()?.happening, Happening::TaskSubmitted { .. }).then_some(())
        };
        self.service.until(arn, submitted).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_functions_answer_comes_in_awss_envelope() {
    let bench = bench(calls("echo", json!({})));
    let arn = bench.start(r#"{"a":1}"#);
    assert_eq!(bench.service.describe_execution(&arn).unwrap().status, Status::Running);
    let execution = bench.service.ended(&arn).await.unwrap();
    assert_eq!(execution.status, Status::Succeeded);
    let output = execution.output.unwrap();
    assert_eq!(output["Payload"], json!({"a": 1}));
    assert_eq!(output["StatusCode"], 200);
    assert_eq!(output["ExecutedVersion"], "$LATEST");
    assert_eq!(execution.started_at, START.parse().unwrap());
    assert_eq!(execution.stopped_at, Some(execution.started_at), "no time has gone by");
}

#[tokio::test(start_paused = true)]
async fn a_failing_function_fails_the_execution_by_its_own_name() {
    let bench = bench(calls("Busy", json!({})));
    let execution = bench.service.ended(&bench.start("{}")).await.unwrap();
    assert_eq!(execution.status, Status::Failed);
    assert_eq!(execution.failure.error.as_deref(), Some("Busy"));
    assert_eq!(execution.output, None);
}

#[tokio::test(start_paused = true)]
async fn a_token_answers_once() {
    let bench = bench(waits("echo", json!({})));
    let arn = bench.start("{}");
    bench.submitted(&arn).await;
    let token = bench.functions.token(0);
    bench.service.send_task_heartbeat(&token).unwrap();
    bench.service.send_task_success(&token, r#"{"done":true}"#).unwrap();
    assert_eq!(bench.service.describe_execution(&arn).unwrap().output, Some(json!({"done": true})));
    for late in [
        bench.service.send_task_success(&token, "1"),
        bench.service.send_task_failure(&token, Some("E"), None),
        bench.service.send_task_heartbeat(&token),
    ] {
        let error = late.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TaskTimedOut);
        assert_eq!(error.message, "Task Timed Out: 'Provided task does not exist anymore'");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_never_was_is_told_from_one_that_is_dead() {
    let bench = bench(waits("echo", json!({})));
    let kind = |token: &str| bench.service.send_task_heartbeat(token).unwrap_err().kind;
    assert_eq!(kind("FakeTaskToken"), ErrorKind::InvalidToken);
    assert_eq!(kind("AAAAfake"), ErrorKind::TaskDoesNotExist);
    assert_eq!(kind(""), ErrorKind::ValidationException);
    assert_eq!(kind(&"A".repeat(2049)), ErrorKind::ValidationException);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_is_noticed_by_its_heartbeat() {
    let state = waits(
        "echo",
        json!({"HeartbeatSeconds": 60, "TimeoutSeconds": 600, "Retry": [{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1}]}),
    );
    let bench = bench(state);
    let arn = bench.start("{}");
    bench.submitted(&arn).await;
    let first = bench.functions.token(0);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(50)).await;
    bench.service.send_task_heartbeat(&first).unwrap();
    let second_call = |_: &Execution, history: &[HistoryEvent]| {
        let submitted = |event: &&HistoryEvent| matches!(event.happening, Happening::TaskSubmitted { .. });
        (history.iter().filter(submitted).count() == 2).then_some(())
    };
    bench.service.until(&arn, second_call).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 50 + 60 + 1, "heartbeat, silence, retry");
    assert_eq!(bench.service.send_task_heartbeat(&first).unwrap_err().kind, ErrorKind::TaskTimedOut);
    let second = bench.functions.token(1);
    assert_ne!(first, second);
    bench.service.send_task_failure(&second, Some("Cancelled"), Some("by hand")).unwrap();
    let execution = bench.service.describe_execution(&arn).unwrap();
    assert_eq!(execution.failure, Failure::new("Cancelled", "by hand"));
}

#[tokio::test(start_paused = true)]
async fn divided_time_divides_durations_and_no_timestamps() {
    let clock = Clock::starting_at(START.parse().unwrap()).divided_by(60);
    let state = json!({"Type": "Wait", "Seconds": 3600});
    let bench = bench_with(state, Options { clock, ..Options::default() });
    let begun = Instant::now();
    let execution = bench.service.ended(&bench.start("{}")).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(execution.stopped_at, Some("2027-01-15T08:01:00Z".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_started_once() {
    let bench = bench(json!({"Type": "Wait", "Seconds": 10}));
    let start = |input: &str| bench.service.start_execution(&bench.machine, Some("backup-1"), Some(input));
    let first = start("{}").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(start("{}").unwrap(), first, "the same, while it runs");
    assert_eq!(start(r#"{"a":1}"#).unwrap_err().kind, ErrorKind::ExecutionAlreadyExists);
    bench.service.ended(&first.arn).await.unwrap();
    assert_eq!(start("{}").unwrap_err().kind, ErrorKind::ExecutionAlreadyExists, "once it has ended");
    assert!(first.arn.ends_with(":execution:machine:backup-1"), "{}", first.arn);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_does_not_take_is_refused() {
    let bench = bench(json!({"Type": "Pass"}));
    let kind = |name: Option<&str>, input: Option<&str>| {
        bench.service.start_execution(&bench.machine, name, input).map(|_| ()).unwrap_err().kind
    };
    assert_eq!(kind(Some("a:b"), None), ErrorKind::InvalidName);
    assert_eq!(kind(Some("a b"), None), ErrorKind::InvalidName);
    assert_eq!(kind(Some(&"x".repeat(81)), None), ErrorKind::ValidationException);
    assert_eq!(kind(None, Some("{")), ErrorKind::InvalidExecutionInput);
    assert_eq!(kind(None, Some(&"x".repeat(DATA_LIMIT + 1))), ErrorKind::ValidationException);
    let missing = bench.service.start_execution("arn:aws:states:us-east-1:0:stateMachine:x", None, None);
    assert_eq!(missing.unwrap_err().kind, ErrorKind::StateMachineDoesNotExist);
    let wrong = bench.service.describe_execution("x").unwrap_err();
    assert_eq!(wrong.to_string(), "InvalidArn: Invalid Arn: 'Invalid ARN prefix: x'");
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_an_answer_are_kept() {
    let bench = bench(waits("echo", json!({})));
    let arn = bench.start("{}");
    bench.submitted(&arn).await;
    let token = bench.functions.token(0);
    let service = &bench.service;
    for (refused, kind) in [
        (service.send_task_failure(&token, Some(&"e".repeat(257)), None), ErrorKind::ValidationException),
        (service.send_task_failure(&token, None, Some(&"c".repeat(32_769))), ErrorKind::ValidationException),
        (service.send_task_success(&token, &"1".repeat(DATA_LIMIT + 1)), ErrorKind::ValidationException),
        (service.send_task_success(&token, "{"), ErrorKind::InvalidOutput),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(!error.message.contains(&token));
    }
    assert_eq!(service.describe_execution(&arn).unwrap().status, Status::Running, "nothing was done");
    service.send_task_failure(&token, Some(&"e".repeat(256)), Some(&"c".repeat(32_768))).unwrap();
}

#[tokio::test(start_paused = true)]
async fn machines_are_created_again_only_as_they_are() {
    let bench = bench(json!({"Type": "Wait", "Seconds": 10}));
    let machine = bench.service.describe_state_machine(&bench.machine).unwrap();
    let create = |definition: &str| bench.service.create_state_machine("machine", definition, ROLE);
    assert_eq!(create(&machine.definition_text).unwrap().created_at, machine.created_at);
    let other = r#"{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}"#;
    assert_eq!(create(other).unwrap_err().kind, ErrorKind::StateMachineAlreadyExists);
    let refused = create(r#"{"StartAt": "B", "States": {"B": {"Type": "Pass"}}}"#).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidDefinition);
    assert!(refused.message.contains("state `B`: it has neither `Next` nor `End`"), "{refused}");

    let running = bench.start("{}");
    bench.service.update_state_machine(&bench.machine, Some(other), None).unwrap();
    let after = bench.start("{}");
    let ended = bench.service.describe_execution(&after).unwrap();
    assert_eq!(ended.status, Status::Succeeded, "the new definition does not wait");
    assert_eq!(bench.service.describe_execution(&running).unwrap().status, Status::Running);
    let nothing = bench.service.update_state_machine(&bench.machine, None, None).unwrap_err();
    assert_eq!(nothing.kind, ErrorKind::MissingRequiredParameter);
}

#[tokio::test(start_paused = true)]
async fn stopping_an_execution_kills_its_token() {
    let bench = bench(waits("echo", json!({"HeartbeatSeconds": 60})));
    let arn = bench.start("{}");
    bench.submitted(&arn).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped_at = bench.service.stop_execution(&arn, Some("Cancelled"), None).unwrap();
    let execution = bench.service.describe_execution(&arn).unwrap();
    assert_eq!((execution.status, execution.stopped_at), (Status::Aborted, Some(stopped_at)));
    let token = bench.functions.token(0);
    assert_eq!(bench.service.send_task_heartbeat(&token).unwrap_err().kind, ErrorKind::TaskTimedOut);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.service.stop_execution(&arn, None, None).unwrap(), stopped_at, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let bench = bench(json!({"Type": "Pass"}));
    let arns: Vec<String> = (0..5).map(|_| bench.start("{}")).collect();
    let mut seen = Vec::new();
    let mut page = Page { max_results: Some(2), next_token: None };
    loop {
        let listed = bench.service.list_executions(&bench.machine, Some(Status::Succeeded), &page).unwrap();
        assert!(listed.executions.len() <= 2);
        seen.extend(listed.executions.into_iter().map(|execution| execution.arn));
        page.next_token = listed.next_token;
        if page.next_token.is_none() {
            break;
        }
    }
    seen.reverse();
    assert_eq!(seen, arns, "newest first");
    let running = bench.service.list_executions(&bench.machine, Some(Status::Running), &Page::default());
    assert!(running.unwrap().executions.is_empty());

    let page = Page { max_results: Some(3), next_token: None };
    let history = bench.service.get_execution_history(&arns[0], true, &page).unwrap();
    assert_eq!(history.events.iter().map(|event| event.id).collect::<Vec<_>>(), [4, 3, 2]);
    let page = Page { next_token: history.next_token, ..page };
    let rest = bench.service.get_execution_history(&arns[0], true, &page).unwrap();
    assert_eq!(rest.events.iter().map(|event| event.id).collect::<Vec<_>>(), [1]);
    assert_eq!(rest.next_token, None);
    for (page, kind) in [
        (Page { max_results: Some(1001), next_token: None }, ErrorKind::ValidationException),
        (Page { max_results: None, next_token: Some("99".into()) }, ErrorKind::InvalidToken),
        (Page { max_results: None, next_token: Some("x".into()) }, ErrorKind::InvalidToken),
    ] {
        let refused = bench.service.get_execution_history(&arns[0], false, &page).unwrap_err();
        assert_eq!(refused.kind, kind);
    }
    assert_eq!(bench.service.list_state_machines(&Page::default()).unwrap().machines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_function_comes_out_where_somebody_waits() {
    let bench = bench(calls("panic", json!({})));
    let arn = bench.start("{}");
    for _ in 0..2 {
        let (service, arn) = (bench.service.clone(), arn.clone());
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(async move { service.ended(&arn).await });
        let payload = waiting.join_next().await.unwrap().unwrap_err().into_panic();
        let message = payload.downcast_ref::<String>().unwrap();
        assert!(message.contains("the function panicked"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_service_drops_its_calls() {
    let bench = bench(calls("slow", json!({})));
    bench.start("{}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let functions = Arc::downgrade(&bench.functions);
    drop(bench);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(functions.upgrade().is_none(), "the call still holds its port");
}

#[tokio::test(start_paused = true)]
async fn halting_is_a_power_cut() {
    let bench = bench(json!({"Type": "Wait", "Seconds": 10}));
    let arn = bench.start("{}");
    bench.service.halt();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.service.describe_execution(&arn).unwrap().status, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_runs_the_same() {
    let run = || async {
        let state = waits("Busy", json!({"Retry": [{"ErrorEquals": ["Busy"], "JitterStrategy": "FULL"}]}));
        let bench = bench(state);
        let arn = bench.start("{}");
        let begun = Instant::now();
        bench.service.ended(&arn).await.unwrap();
        let history: Vec<Value> =
            bench.service.history(&arn).unwrap().iter().map(HistoryEvent::to_json).collect();
        (arn, begun.elapsed(), history)
    };
    assert_eq!(run().await, run().await);
}
