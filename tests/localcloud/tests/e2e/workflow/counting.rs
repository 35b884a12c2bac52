//! Failed executions are counted by their kind, for the alarms; and a count that is refused hides no failure.

use localcloud::{cloudwatch::Effect, stepfunctions::Status, workflow::NAMESPACE};
use serde_json::json;

use super::{drilling::QUICK, harness::Flow};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_fails_is_counted_by_its_kind_and_one_that_succeeds_is_not() {
    let flow = Flow::eager().await;
    assert_eq!(flow.succeeds(json!({})).await, "BackedUp");
    assert_eq!(flow.failures_counted(), [""; 0]);
    let execution = flow.run(json!({ "trigger": "marker" })).await;
    flow.has_failed(&execution, "IndexingIncomplete", &["there is no success marker"]);
    assert_eq!(flow.failures_counted(), ["IndexingIncomplete"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_that_is_refused_hides_no_failure() {
    let flow = Flow::eager().await;
    flow.workflow.cloudwatch.effects().on(NAMESPACE).times(u64::MAX).inject(Effect::Denied);
    let execution = flow.run(json!({ "trigger": "marker" })).await;
    assert_eq!(execution.status, Status::Failed);
    assert_eq!(execution.failure.error.as_deref(), Some("IndexingIncomplete"));
    assert_eq!(flow.states(&execution.arn), ["Begin", "Decide", "CountFailure", "NotifyFailure", "Failed"]);
    assert_eq!(flow.attempts(&execution.arn, "CountFailure"), ["CloudWatch.CloudWatchException"; 4]);
    let messages = flow.workflow.sns.messages();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].text.contains("failed with IndexingIncomplete"), "{messages:?}");
    assert_eq!(flow.failures_counted(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_whose_answer_is_lost_goes_on_to_the_notification() {
    let flow = Flow::eager().await;
    flow.workflow.cloudwatch.effects().on(NAMESPACE).inject(Effect::LoseReply);
    let execution = flow.run(json!({ "trigger": "marker" })).await;
    flow.has_failed(&execution, "IndexingIncomplete", &["there is no success marker"]);
    // Twice, which is no matter to an alarm on at least one.
    assert_eq!(flow.failures_counted(), ["IndexingIncomplete"; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_fails_is_counted_by_its_kind() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    let execution = flow.drill(json!({ "backup_id": "20000101T000000Z" })).await;
    flow.drill_has_failed(&execution, "ManifestMissing", &["20000101T000000Z"]).await;
    assert_eq!(flow.failures_counted(), ["ManifestMissing"]);
}
