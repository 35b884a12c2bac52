//! The last backup of a host that its group is to terminate: it is made if it can be, the host goes whatever came of it, and what failed is told.

use localcloud::{
    autoscaling::{Effect, Standing},
    indexer::Client,
    ssm,
    stepfunctions::{self, Execution, Operation, Status},
    workflow::{INSTANCE, Machine},
};
use serde_json::json;

use super::harness::{Flow, NEVER};
use crate::harness::until;

const SUBJECT: &str = "qdrant-backup: before the termination of a host";
const HEARTBEAT: &str = "RecordLifecycleActionHeartbeat";
const COMPLETE: &str = "CompleteLifecycleAction";

impl Flow {
    /// Terminates the host as its group does, and waits for the end of what comes before.
    async fn terminated(&self) -> Execution {
        let execution = self.workflow.terminate(INSTANCE).unwrap();
        self.ended(&execution).await
    }

    fn standing(&self) -> Option<Standing> {
        self.workflow.autoscaling.standing()
    }

    /// How often the group was called so.
    fn called(&self, action: &str) -> usize {
        self.workflow.autoscaling.calls().iter().filter(|call| *call == action).count()
    }

    /// Fails unless the machine failed with this error, and somebody was told these texts once, beside what the backup told by itself.
    fn is_told(&self, execution: &Execution, error: &str, texts: &[&str]) {
        assert_eq!(execution.status, Status::Failed, "{}", self.logs());
        let cause = execution.failure.cause.clone().unwrap_or_default();
        assert_eq!(execution.failure.error.as_deref(), Some(error), "{cause}\n{}", self.logs());
        let messages = self.workflow.sns.messages();
        let mine: Vec<_> =
            messages.iter().filter(|message| message.subject.as_deref() == Some(SUBJECT)).collect();
        assert_eq!(mine.len(), 1, "{messages:?}");
        let text = &mine[0].text;
        let heading = format!("heading {error})");
        for expected in [INSTANCE, error, cause.as_str(), heading.as_str()].iter().chain(texts) {
            assert!(text.contains(expected), "`{expected}` is not in: {text}");
        }
    }

    /// The only backup execution there is.
    fn last_backup(&self) -> Execution {
        let machine = self.workflow.machine(Machine::Backup);
        let listed = self.workflow.service().list_executions(machine, None, &stepfunctions::Page::default());
        let [one] = listed.unwrap().executions.try_into().unwrap();
        one
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_replaced_on_purpose_is_backed_up_first_and_then_let_go() {
    let flow = Flow::eager().await;
    // What was written since the last backup, and no batch was marked.
    let client = Client::new(&flow.fixture.cloud.qdrant.url(), flow.fixture.cloud.qdrant.api_key());
    client.create_collection("late").await.unwrap();
    let execution = flow.terminated().await;
    flow.succeeded(&execution);
    assert_eq!(flow.standing(), Some(Standing::Gone));
    assert_eq!(flow.called(COMPLETE), 1);
    assert!(flow.called(HEARTBEAT) >= 1);
    let backup = flow.last_backup();
    assert_eq!(flow.is_success(&backup), "BackedUp");
    assert_eq!(
        (backup.name.as_str(), backup.input.as_str()),
        (execution.name.as_str(), r#"{"trigger":"console"}"#)
    );
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&backup)));
    let shown = flow.fixture.ok("show").await;
    assert!(shown["collections"].to_string().contains("late"), "{shown}");
    assert_eq!(flow.workflow.sns.messages(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_backup_runs_the_hook_is_kept_alive() {
    let flow = Flow::eager().await;
    let faults = flow.fixture.cloud.s3.faults();
    faults
        .on(localcloud::s3::Operation::UploadPart)
        .part(1)
        .inject(localcloud::s3::Effect::Stall(std::time::Duration::from_secs(8)));
    let execution = flow.workflow.terminate(INSTANCE).unwrap();
    until(|| flow.called(HEARTBEAT) >= 3).await;
    assert_eq!(flow.standing(), Some(Standing::Terminating), "the group waits");
    flow.succeeded(&flow.ended(&execution).await);
    assert_eq!(flow.standing(), Some(Standing::Gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_fails_does_not_keep_the_host() {
    let flow = Flow::eager().await;
    fs_err::write(flow.fixture.cloud.dir().join("api-key"), "not-the-key").unwrap();
    let execution = flow.terminated().await;
    flow.is_told(&execution, "QdrantUnauthorized", &["The group goes on with the termination."]);
    assert_eq!(flow.standing(), Some(Standing::Gone));
    assert_eq!(flow.failures_counted(), ["QdrantUnauthorized"], "once, by the backup itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_gone_is_let_go_at_once() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.remove_host(INSTANCE).unwrap();
    let execution = flow.terminated().await;
    flow.is_told(&execution, "HostUnreachable", &["is not online", "The group goes on with the termination"]);
    assert_eq!((flow.called(COMPLETE), flow.called(HEARTBEAT)), (1, 0));
    let machine = flow.workflow.machine(Machine::Backup);
    let backups = flow.workflow.service().list_executions(machine, None, &stepfunctions::Page::default());
    assert_eq!(backups.unwrap().executions.len(), 0, "the next host waits for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_still_seems_to_be_there_fails_its_last_backup_and_holds_up_nothing() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.remove_host(INSTANCE).unwrap();
    // Whether its agent answers cannot be seen.
    let faults = flow.workflow.ssm.faults();
    faults.on(ssm::Operation::DescribeInstanceInformation).times(4).inject(ssm::Effect::Throttle);
    // The group has given up too.
    flow.workflow.autoscaling.effects().on(HEARTBEAT).inject(Effect::Over);
    let execution = flow.terminated().await;
    let texts = [
        "Auto Scaling did not take the completion",
        "No active Lifecycle Action",
        "time-out of hook last-backup",
    ];
    flow.is_told(&execution, "HostUnreachable", &texts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_stopped_is_told_as_such() {
    let flow = Flow::eager().await;
    let faults = flow.fixture.cloud.s3.faults();
    faults.on(localcloud::s3::Operation::UploadPart).part(1).inject(localcloud::s3::Effect::Stall(NEVER));
    let execution = flow.workflow.terminate(INSTANCE).unwrap();
    flow.fixture.until_asked(localcloud::s3::Operation::UploadPart).await;
    flow.workflow.service().stop_execution(&flow.last_backup().arn, None, None).unwrap();
    let execution = flow.ended(&execution).await;
    flow.is_told(&execution, "Cancelled", &["was stopped (ABORTED)", "goes on with the termination"]);
    assert_eq!(flow.standing(), Some(Standing::Gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_scaling_that_refuses_leaves_the_host_to_the_time_out_of_the_hook() {
    let flow = Flow::eager().await;
    let effects = flow.workflow.autoscaling.effects();
    effects.on(HEARTBEAT).times(u64::MAX).inject(Effect::Denied);
    effects.on(COMPLETE).times(u64::MAX).inject(Effect::Denied);
    let execution = flow.terminated().await;
    let texts = [
        "the last backup was made",
        "not authorized",
        "the group goes on when the time-out of hook last-backup is over",
    ];
    flow.is_told(&execution, "Internal", &texts);
    assert_eq!(flow.standing(), Some(Standing::Terminating));
    assert_eq!(flow.called(COMPLETE), 5);
    assert_eq!(flow.is_success(&flow.last_backup()), "BackedUp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_start_one_backup_and_complete_once() {
    let flow = Flow::eager().await;
    let faults = flow.workflow.step_functions.faults();
    faults.on(Operation::StartExecution).inject(stepfunctions::Effect::LoseReply);
    faults.on(Operation::DescribeExecution).inject(stepfunctions::Effect::LoseReply);
    flow.workflow.autoscaling.effects().on(HEARTBEAT).inject(Effect::LoseReply);
    let execution = flow.terminated().await;
    flow.succeeded(&execution);
    assert_eq!(flow.is_success(&flow.last_backup()), "BackedUp");
    assert_eq!(flow.standing(), Some(Standing::Gone));
    assert_eq!(faults.unfired(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_cannot_be_started_or_seen_lets_the_host_go() {
    for (operation, texts) in [
        (
            Operation::StartExecution,
            ["could not be started (Sfn.SfnException)", "needs states:StartExecution"],
        ),
        (
            Operation::DescribeExecution,
            ["cannot be seen (Sfn.SfnException)", "needs states:DescribeExecution"],
        ),
    ] {
        let flow = Flow::eager().await;
        let faults = flow.workflow.step_functions.faults();
        faults.on(operation).times(5).inject(stepfunctions::Effect::AccessDenied);
        let execution = flow.terminated().await;
        flow.is_told(&execution, "Internal", &texts);
        assert_eq!(flow.standing(), Some(Standing::Gone), "{operation}");
        assert_eq!(faults.unfired(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_of_the_hook_completes_nothing() {
    let flow = Flow::eager().await;
    for (nth, input) in
        [json!({}), json!({ "detail": { "EC2InstanceId": INSTANCE } })].into_iter().enumerate()
    {
        let execution = flow.workflow.start_execution_of(Machine::BeforeTermination, &input).unwrap();
        let execution = flow.ended(&execution).await;
        assert_eq!(execution.failure.error.as_deref(), Some("ConfigInvalid"));
        assert_eq!(flow.states(&execution.arn), ["Begin", "NotAnEvent", "NotifyFailure", "Failed"]);
        let messages = flow.workflow.sns.messages();
        assert_eq!(messages.len(), nth + 1);
        assert!(messages[nth].text.contains("No lifecycle action was completed."), "{messages:?}");
    }
    assert_eq!(flow.workflow.autoscaling.calls(), [""; 0]);
}
