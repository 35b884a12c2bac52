//! What a worker meets when it answers for its task, with the wire as bad as it can be.

use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use localcloud::stepfunctions::{Effect, Operation};
use serde_json::json;

use crate::support::{Cloud, waits};

#[tokio::test]
async fn a_worker_beats_and_then_answers() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", waits("echo", json!({"HeartbeatSeconds": 99_999}))).await;
    let (arn, token) = cloud.waiting(&machine).await;
    cloud.client.send_task_heartbeat().task_token(&token).send().await.unwrap();
    cloud.client.send_task_success().task_token(&token).output(r#"{"ok":true}"#).send().await.unwrap();
    let ended = cloud.ended(&arn).await;
    assert_eq!(ended.output.as_deref(), Some(r#"{"ok":true}"#));
}

#[tokio::test]
async fn a_worker_that_falls_silent_loses_its_token() {
    let cloud = Cloud::start().await;
    let catch = json!([{"ErrorEquals": ["States.Timeout"], "Next": "B"}]);
    let silent = waits("echo", json!({"HeartbeatSeconds": 20, "Catch": catch, "End": true}));
    let next = waits("echo", json!({"End": true}));
    let definition = json!({"StartAt": "A", "States": {"A": silent, "B": next}});
    let arn = cloud.run(&cloud.machine_of("m", definition).await).await;
    cloud.submitted(&arn, 2).await;
    let tokens = cloud.tokens();
    let [first, second] = tokens.as_slice() else { panic!("{} calls", tokens.len()) };
    let late = cloud.client.send_task_success().task_token(first).output("1").send().await;
    assert!(late.unwrap_err().into_service_error().is_task_timed_out());
    let fail = cloud.client.send_task_failure().task_token(second).error("Busy").cause("why");
    fail.send().await.unwrap();
    let ended = cloud.ended(&arn).await;
    assert_eq!(ended.status, ExecutionStatus::Failed);
    assert_eq!((ended.error.as_deref(), ended.cause.as_deref()), (Some("Busy"), Some("why")));
}

#[tokio::test]
async fn a_function_that_fails_ends_the_wait_at_once() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", waits("HostUnreachable", json!({}))).await;
    let ended = cloud.ended(&cloud.run(&machine).await).await;
    assert_eq!(ended.error.as_deref(), Some("HostUnreachable"));
    assert!(ended.cause.unwrap().contains("it failed"));
}

#[tokio::test]
async fn a_client_tries_again_what_was_refused_or_cut_off() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", waits("echo", json!({}))).await;
    for effect in
        [Effect::Unavailable, Effect::HangUp, Effect::Throttled, Effect::Stall(Duration::from_millis(50))]
    {
        let (arn, token) = cloud.waiting(&machine).await;
        let before = cloud.front.count(Operation::SendTaskSuccess);
        cloud.faults().on_callbacks().inject(effect);
        cloud.client.send_task_success().task_token(&token).output("1").send().await.unwrap();
        assert_eq!(cloud.ended(&arn).await.status, ExecutionStatus::Succeeded);
        assert!(cloud.faults().unfired().is_empty(), "{effect:?}");
        let calls = cloud.front.count(Operation::SendTaskSuccess) - before;
        assert_eq!(calls, if matches!(effect, Effect::Stall(_)) { 1 } else { 2 }, "{effect:?}");
    }
}

/// The success was taken and its answer lost: the client's second try finds the task closed. A worker cannot tell this from a task
/// that timed out.
#[tokio::test]
async fn a_lost_reply_looks_like_a_closed_task() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", waits("echo", json!({}))).await;
    let (arn, token) = cloud.waiting(&machine).await;
    cloud.faults().on(Operation::SendTaskSuccess).inject(Effect::LoseReply);
    let sent = cloud.client.send_task_success().task_token(&token).output("1").send().await;
    assert!(sent.unwrap_err().into_service_error().is_task_timed_out());
    assert_eq!(cloud.ended(&arn).await.status, ExecutionStatus::Succeeded);
}

#[tokio::test]
async fn a_missing_permission_is_not_tried_again() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", waits("echo", json!({}))).await;
    let (_, token) = cloud.waiting(&machine).await;
    cloud.faults().on(Operation::SendTaskFailure).times(u64::MAX).inject(Effect::AccessDenied);
    let sent = cloud.client.send_task_failure().task_token(&token).error("Busy").send().await;
    let error = sent.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("AccessDeniedException"));
    assert_eq!(cloud.front.count(Operation::SendTaskFailure), 1);
}

#[tokio::test]
async fn a_service_that_is_away_for_a_while_comes_back() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", waits("echo", json!({}))).await;
    let (arn, token) = cloud.waiting(&machine).await;
    cloud.faults().on_callbacks().times(u64::MAX).inject(Effect::HangUp);
    let sent = cloud.client.send_task_success().task_token(&token).output("1").send().await;
    assert!(sent.unwrap_err().as_service_error().is_none(), "nobody answered");
    cloud.faults().clear();
    cloud.client.send_task_success().task_token(&token).output("1").send().await.unwrap();
    assert_eq!(cloud.ended(&arn).await.status, ExecutionStatus::Succeeded);
}
