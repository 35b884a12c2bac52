//! Whether data is safe, as it is seen from outside the host: what the watch publishes, and what it does not.

use jiff::{SignedDuration, Timestamp};
use localcloud::{
    cloudwatch,
    s3::Operation,
    stepfunctions::{self, Execution, Status},
    workflow::{Machine, NAMESPACE},
};
use serde_json::{Value, json};

use super::{drilling::BRISK, harness::Flow};

/// What an execution of this program may take, in seconds, between what it is about and the look at it.
const SLACK: f64 = 120.0;

impl Flow {
    /// Runs the watch to its end.
    async fn watch(&self, input: Value) -> Execution {
        let execution = self.workflow.start_execution_of(Machine::Watch, &input).unwrap();
        self.ended(&execution).await
    }

    /// Runs the watch, which must succeed.
    async fn watched(&self) {
        let execution = self.watch(json!({})).await;
        self.succeeded(&execution);
    }

    /// The last value of a metric.
    fn last(&self, metric: &str) -> Option<f64> {
        self.workflow.cloudwatch.values(metric).pop()
    }

    /// Fails unless a metric's last value is this, in seconds, or a moment more.
    fn lasts(&self, metric: &str, seconds: f64) {
        let value =
            self.last(metric).unwrap_or_else(|| panic!("{metric} was not published\n{}", self.logs()));
        assert!((seconds..seconds + SLACK).contains(&value), "{metric} is {value}, not about {seconds}");
    }

    /// Fails unless the watch failed with this error and these texts, published nothing and told nobody.
    async fn sees_nothing(&self, error: &str, texts: &[&str]) {
        let before = self.workflow.cloudwatch.data();
        let execution = self.watch(json!({})).await;
        assert_eq!(execution.status, Status::Failed, "{}", self.logs());
        let cause = execution.failure.cause.unwrap_or_default();
        assert_eq!(execution.failure.error.as_deref(), Some(error), "{cause}");
        for text in texts {
            assert!(cause.contains(text), "`{text}` is not in: {cause}");
        }
        assert_eq!(self.workflow.cloudwatch.data(), before, "a number was made up");
        assert_eq!(self.workflow.sns.messages(), [], "every quarter of an hour a message");
    }
}

/// An hour ago, as a job writes it.
fn an_hour_ago() -> String {
    (Timestamp::now() - SignedDuration::from_hours(1)).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_time_with_the_newest_batch_backed_up_is_safe_and_a_batch_that_waits_is_not() {
    let flow = Flow::eager().await;
    // The batch is old, and so is its backup's place in time: whatever the clock says, it is backed up.
    flow.mark("batch-1", "2026-01-01T00:00:00Z").await;
    assert_eq!(flow.succeeds(json!({ "trigger": "marker" })).await, "BackedUp");
    flow.watched().await;
    assert_eq!(flow.last("UnprotectedSeconds"), Some(0.0));
    flow.lasts("PointerAgeSeconds", 0.0);
    assert_eq!(flow.last("StuckExecutions"), Some(0.0));
    // No drill has passed: it is as old as the machine.
    flow.lasts("DrillAgeSeconds", 0.0);

    flow.mark("batch-2", &an_hour_ago()).await;
    flow.watched().await;
    flow.lasts("UnprotectedSeconds", 3600.0);
    flow.lasts("PointerAgeSeconds", 0.0);

    assert_eq!(flow.succeeds(json!({ "trigger": "marker" })).await, "BackedUp");
    flow.watched().await;
    assert_eq!(flow.last("UnprotectedSeconds"), Some(0.0));
    let published = flow.workflow.cloudwatch.data();
    assert!(published.iter().all(|datum| datum.namespace == NAMESPACE));
    let (failures, plain): (Vec<_>, Vec<_>) =
        published.iter().partition(|datum| datum.metric == "ExecutionFailures");
    assert!(failures.iter().all(|datum| datum.value == 0.0), "{failures:?}");
    assert!(plain.iter().all(|datum| datum.dimensions.is_empty()), "{plain:?}");
    assert_eq!((plain.len(), failures.len()), (3 * 4, 3 * 4), "{published:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_was_published_no_number_says_that_data_is_safe() {
    let flow = Flow::eager().await;
    flow.watched().await;
    flow.mark("batch-1", &an_hour_ago()).await;
    flow.watched().await;
    assert_eq!((flow.last("UnprotectedSeconds"), flow.last("PointerAgeSeconds")), (None, None));
    // The rest is known.
    assert_eq!(flow.workflow.cloudwatch.values("StuckExecutions"), [0.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_marker_the_backups_age_counts() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    flow.watched().await;
    assert_eq!(flow.last("UnprotectedSeconds"), flow.last("PointerAgeSeconds"));
    flow.lasts("UnprotectedSeconds", 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_refuses_publishes_nothing() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let faults = flow.fixture.cloud.s3.faults();
    faults.deny(Operation::GetObject, protocol::key::POINTER);
    flow.sees_nothing("StoreUnavailable", &["AccessDenied", protocol::key::POINTER]).await;
    faults.allow_all();
    flow.watched().await;
    flow.lasts("UnprotectedSeconds", 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_lacks_something_is_told_by_its_name() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let faults = flow.workflow.step_functions.faults();
    for operation in
        [stepfunctions::Operation::ListExecutions, stepfunctions::Operation::DescribeStateMachine]
    {
        faults.on(operation).times(5).inject(stepfunctions::Effect::AccessDenied);
        let texts =
            ["Sfn.SfnException", "not authorized", "hint: the role of this state machine needs states:"];
        flow.sees_nothing("Internal", &texts).await;
        assert_eq!(faults.unfired(), [""; 0], "it was tried four times again");
    }
    let effects = flow.workflow.cloudwatch.effects();
    effects.on(NAMESPACE).times(5).inject(cloudwatch::Effect::Denied);
    let texts = ["CloudWatch.CloudWatchException", "not authorized", "cloudwatch:PutMetricData in namespace"];
    flow.sees_nothing("Internal", &texts).await;
    effects.on(NAMESPACE).times(4).inject(cloudwatch::Effect::Throttled);
    flow.watched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_that_does_not_end_is_counted_and_one_that_was_asked_for_in_vain_counts_from_its_start()
{
    let flow = Flow::eager().await;
    flow.mark("batch-1", "2026-01-01T00:00:00Z").await;
    assert_eq!(flow.succeeds(json!({ "trigger": "marker" })).await, "BackedUp");
    crate::harness::next_second().await;
    // Nobody is heard from the host any more; each batch is as young as can be.
    let stuck = flow.uploading(super::harness::NEVER).await;
    let started = flow.workflow.service().describe_execution(&stuck).unwrap().started_at;
    crate::harness::next_second().await;
    flow.mark("batch-2", &Timestamp::now().to_string()).await;
    crate::harness::next_second().await;
    flow.watched().await;
    assert_eq!(flow.last("StuckExecutions"), Some(0.0), "not yet");
    let unprotected = flow.last("UnprotectedSeconds").unwrap();
    let since = Timestamp::now().duration_since(started).as_secs_f64();
    assert!(unprotected >= 2.0 && unprotected <= since, "{unprotected} of {since}");
    let execution = flow.watch(json!({ "stuck_after_seconds": 1 })).await;
    flow.succeeded(&execution);
    assert_eq!(flow.last("StuckExecutions"), Some(1.0));

    flow.workflow.service().stop_execution(&stuck, None, None).unwrap();
    let execution = flow.watch(json!({ "stuck_after_seconds": 1 })).await;
    flow.succeeded(&execution);
    assert_eq!(flow.last("StuckExecutions"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_passed_is_young_and_one_that_failed_is_none() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let machine = flow.workflow.machine(Machine::RestoreDrill).to_owned();
    let made = flow.workflow.service().describe_state_machine(&machine).unwrap().created_at;
    let failed = flow.drill(json!({ "backup_id": "20000101T000000Z" })).await;
    assert_eq!(failed.status, Status::Failed);
    let passed = flow.drill(json!({})).await;
    flow.succeeded(&passed);
    flow.watched().await;
    let age = flow.last("DrillAgeSeconds").unwrap();
    let now = Timestamp::now();
    let since = |moment: Timestamp| now.duration_since(moment).as_secs_f64();
    // Neither from the failure nor from the machine's making: those are longer ago by a whole drill.
    let stopped = passed.stopped_at.unwrap();
    assert!(age <= since(stopped), "{age}");
    assert!(since(made) >= since(stopped) + 2.0 && since(failed.stopped_at.unwrap()) >= since(stopped) + 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_not_understood_is_no_look() {
    let flow = Flow::eager().await;
    let execution = flow.watch(json!({ "stuck_after": 1 })).await;
    assert_eq!(execution.failure.error.as_deref(), Some("ConfigInvalid"));
    assert!(execution.failure.cause.unwrap().contains("unknown field `stuck_after`"));
    assert_eq!(flow.workflow.cloudwatch.data(), []);
}
