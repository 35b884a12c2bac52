//! The worker is killed, stopped, wedged, cut off or in somebody's way: what becomes of the execution, and what is left.

use std::time::Duration;

use localcloud::{
    s3,
    ssm::Delivery,
    stepfunctions::{Effect, Operation},
    workflow::WorkflowOptions,
};
use rustix::process::Signal;
use serde_json::json;

use super::harness::{Flow, NEVER, signal};
use crate::harness::{Fixture, next_second, until};

const SNAPSHOT: &str = "TriggerSnapshot";
const LOST: &str = "States.Timeout";

impl Flow {
    /// Kills the worker of a backup.
    async fn kill_worker(&self) {
        signal(self.worker("backup").await, Signal::KILL);
    }

    /// Waits until every fault of Step Functions has struck.
    async fn until_told(&self) {
        until(|| self.workflow.step_functions.faults().unfired().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_its_first_heartbeat() {
    let flow = Flow::small().await;
    flow.workflow.ssm.faults().on_delivery().nth(2).inject(Delivery::Hold);
    let execution = flow.start(json!({}));
    until(|| flow.workflow.ssm.commands().len() == 2).await;
    let faults = flow.workflow.step_functions.faults();
    faults.on(Operation::SendTaskHeartbeat).inject(Effect::Stall(NEVER));
    flow.workflow.ssm.release();
    flow.until_told().await;
    // It has no lock yet, by which others are found.
    for worker in flow.workers() {
        signal(worker, Signal::KILL);
    }

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(flow.tokens().len(), 3);
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_waits_for_quiescence() {
    let flow = Flow::small().await;
    flow.workflow.step_functions.faults().on(Operation::SendTaskSuccess).inject(Effect::Unavailable);
    let execution = flow.start(json!({}));
    flow.until_told().await;
    for worker in flow.workers() {
        signal(worker, Signal::KILL);
    }
    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, "QuiesceCheck").last().unwrap(), "done");
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["done"]);
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_mid_upload_the_retry_sends_what_is_missing() {
    let flow = Flow::around(Fixture::large().await, &WorkflowOptions::default());
    let s3 = &flow.fixture.cloud.s3;
    s3.faults().on(s3::Operation::UploadPart).part(2).inject(s3::Effect::Stall(NEVER));
    let execution = flow.start(json!({}));
    until(|| flow.fixture.stored_parts().len() == 2).await;
    flow.kill_worker().await;
    s3.faults().clear();
    let first = s3.take_calls();
    let created = first.iter().find(|call| call.operation == s3::Operation::CreateMultipartUpload).unwrap();

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(flow.fixture.stored_parts(), [2], "what was stored is sent again");
    assert_eq!(s3.count(s3::Operation::CreateMultipartUpload), 0);
    assert_eq!(flow.archives().await, [created.key.clone().unwrap()], "it is the same attempt");
    assert_eq!(flow.fixture.ok("verify --archive").await["passed"], true);
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_the_archive_it_is_not_sent_again() {
    let flow = Flow::small().await;
    let s3 = &flow.fixture.cloud.s3;
    // What goes beside the archive is written after it.
    s3.faults()
        .on(s3::Operation::PutObject)
        .key_containing("qdrant_snapshot")
        .inject(s3::Effect::Stall(NEVER));
    let execution = flow.start(json!({}));
    until(|| s3.faults().unfired().is_empty()).await;
    assert_eq!(s3.count(s3::Operation::CompleteMultipartUpload), 1);
    flow.kill_worker().await;
    flow.fixture.forget_calls();

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(s3.count(s3::Operation::UploadPart), 0);
    assert_eq!(s3.count(s3::Operation::CompleteMultipartUpload), 0);
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_it_could_say_so_the_result_is_given_again() {
    let flow = Flow::small().await;
    // The first success is that of the quiesce task.
    let faults = flow.workflow.step_functions.faults();
    faults.on(Operation::SendTaskSuccess).nth(2).inject(Effect::Stall(NEVER));
    let execution = flow.start(json!({}));
    flow.until_told().await;
    let results = crate::harness::files_below(&flow.fixture.cloud.work_dir().join("tasks"));
    assert_eq!(results.iter().filter(|path| path.ends_with("result.json")).count(), 1, "{results:?}");
    flow.kill_worker().await;
    flow.fixture.forget_calls();

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::UploadPart), 0);
    assert!(flow.logs().contains("its result is given again"), "{}", flow.logs());
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_it_has_said_so_nothing_is_missing() {
    let flow = Flow::small().await;
    let faults = flow.workflow.step_functions.faults();
    faults.on(Operation::SendTaskSuccess).nth(2).inject(Effect::LoseReply);
    faults.on(Operation::SendTaskSuccess).nth(3).inject(Effect::Stall(NEVER));
    let execution = flow.start(json!({}));
    flow.until_told().await;
    flow.kill_worker().await;

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["done"]);
    until(|| flow.workers().is_empty()).await;
    // Whoever was killed cannot empty its token, and the next backup is another one.
    next_second().await;
    assert_eq!(flow.succeeds(json!({})).await, "BackedUp");
    assert_eq!(flow.archives().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_says_so_and_is_not_tried_again() {
    let flow = Flow::small().await;
    let execution = flow.uploading(NEVER).await;
    signal(flow.worker("backup").await, Signal::TERM);

    let ended = flow.ended(&execution).await;
    flow.is_failure(&ended, "Cancelled", &["stopped on request"]);
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["Cancelled"]);
    assert_eq!((flow.fixture.pointer().await, flow.archives().await.len()), (None, 0));
    assert_eq!(flow.fixture.uploads().await, 1, "it could be gone on with");
    flow.assert_host_is_free().await;

    // The next execution is another backup: it clears away what this one has left.
    next_second().await;
    let next = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&next), "BackedUp");
    assert_eq!((flow.fixture.uploads().await, flow.archives().await.len()), (0, 1));
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_continued_in_time_it_answers_by_the_token_of_the_retry() {
    let flow = Flow::small().await;
    let execution = flow.uploading(Duration::from_secs(9)).await;
    let worker = flow.worker("backup").await;
    signal(worker, Signal::STOP);
    flow.until_attempts(&execution, SNAPSHOT, &[LOST, "open"]).await;
    until(|| flow.workers().len() == 2).await;
    signal(worker, Signal::CONT);

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::UploadPart), 1);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::CreateMultipartUpload), 1);
    assert!(flow.logs().contains("a newer token is taken over"), "{}", flow.logs());
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_for_good_the_execution_ends_and_who_wakes_up_later_publishes_nothing() {
    let flow = Flow::small().await;
    let execution = flow.uploading(Duration::from_secs(1)).await;
    let worker = flow.worker("backup").await;
    signal(worker, Signal::STOP);

    let ended = flow.ended(&execution).await;
    flow.is_failure(&ended, "HostUnreachable", &["nothing was heard in time", LOST]);
    let told = &flow.workflow.sns.messages()[0].text;
    assert!(told.ends_with("docs/operations.md, heading HostUnreachable)"), "{told}");
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST; 3]);
    assert_eq!((flow.fixture.pointer().await, flow.archives().await.len()), (None, 0));

    // Whoever is stopped has the lock: the next execution waits for the host.
    let next = flow.start(json!({}));
    flow.until_attempts(&next, "QuiesceCheck", &["Busy"]).await;
    signal(worker, Signal::CONT);
    flow.assert_host_is_free().await;
    assert_eq!(flow.fixture.pointer().await, None);
    assert_eq!(flow.archives().await.len(), 1, "it was at the end of its upload");
    assert_eq!(flow.fixture.uploads().await, 0);
    // The backup of the next execution is another one.
    let next = flow.ended(&next).await;
    assert_eq!(flow.is_success(&next), "BackedUp");
    let pointer = flow.fixture.pointer().await.unwrap();
    assert!(flow.archives().await.iter().max().unwrap().contains(&pointer), "{pointer}");
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_stands_still_is_given_up_and_gone_on_with() {
    let flow = Flow::small().await.impatient();
    let execution = flow.uploading(NEVER).await;
    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["Stalled", "done"]);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::CreateMultipartUpload), 1);
    assert!(flow.logs().contains("phase `upload` made no progress for 6 s"), "{}", flow.logs());
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_backs_up_meanwhile_and_the_execution_waits_for_the_host() {
    let flow = Flow::small().await;
    let s3 = &flow.fixture.cloud.s3;
    s3.faults().on(s3::Operation::UploadPart).inject(s3::Effect::Stall(Duration::from_secs(6)));
    let person = flow.fixture.start("backup --no-quiesce");
    flow.fixture.until_asked(s3::Operation::UploadPart).await;
    next_second().await;
    let execution = flow.start(json!({}));
    flow.until_attempts(&execution, "QuiesceCheck", &["Busy"]).await;
    let own = person.finished().await.success().unwrap()["manifest"]["backup_id"].clone();
    assert_eq!(flow.fixture.pointer().await.as_deref(), own.as_str());

    let ended = flow.ended(&execution).await;
    assert_eq!(flow.is_success(&ended), "BackedUp");
    let states = flow.states(&execution);
    let waited = states.iter().filter(|state| *state == "WaitForHost").count();
    assert_eq!(waited, 1, "{states:?}");
    assert_eq!(flow.attempts(&execution, "QuiesceCheck"), ["Busy", "done"]);
    assert_eq!(flow.archives().await.len(), 2);
    assert_ne!(flow.fixture.pointer().await.as_deref(), own.as_str());
    let busy = flow.workflow.service().history(&execution).unwrap();
    let told = busy.iter().any(|event| event.to_json().to_string().contains("is held by: backup (process"));
    assert!(told, "nobody says who has the host");
    assert_eq!(flow.workflow.sns.messages(), [], "to wait is no failure");
    flow.assert_host_is_free().await;
}

/// The worker cannot reach Step Functions for longer than a heartbeat may stay away, and then can again.
async fn cut_off(effect: Effect) {
    let flow = Flow::small().await;
    let execution = flow.uploading(Duration::from_secs(12)).await;
    let faults = flow.workflow.step_functions.faults();
    faults.on_callbacks().times(u64::MAX).inject(effect);
    flow.until_attempts(&execution, SNAPSHOT, &[LOST, "open"]).await;
    faults.clear();

    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::UploadPart), 1);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::CreateMultipartUpload), 1);
    for text in ["a heartbeat is lost", "a newer token is taken over"] {
        assert!(flow.logs().contains(text), "{text}: {}", flow.logs());
    }
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_by_step_functions_it_works_on_and_answers_by_the_token_of_the_retry() {
    cut_off(Effect::Unavailable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_from_step_functions_it_works_on_and_answers_by_the_token_of_the_retry() {
    cut_off(Effect::HangUp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_for_too_long_nothing_is_published_and_the_worker_ends_when_it_hears_so() {
    let flow = Flow::small().await;
    let execution = flow.uploading(Duration::from_secs(2)).await;
    let faults = flow.workflow.step_functions.faults();
    faults.on_callbacks().times(u64::MAX).inject(Effect::HangUp);

    let ended = flow.ended(&execution).await;
    flow.is_failure(&ended, "HostUnreachable", &["nothing was heard in time", LOST]);
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST; 3]);
    assert_eq!(flow.fixture.cloud.s3.count(s3::Operation::CreateMultipartUpload), 1);
    assert_eq!(flow.fixture.pointer().await, None);
    assert!(!flow.workers().is_empty(), "it goes on trying to say that it is done");

    faults.clear();
    flow.assert_host_is_free().await;
    assert_eq!(flow.fixture.pointer().await, None);
    next_second().await;
    assert_eq!(flow.succeeds(json!({})).await, "BackedUp");
    flow.assert_host_is_free().await;
}
