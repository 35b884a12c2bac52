//! Tokens that are dead, late, doubled, outdated or not heard of: who answers by which, and what it means for what is stored.

use std::time::Duration;

use localcloud::{
    s3,
    ssm::Delivery,
    stepfunctions::{Effect, Operation, Status},
    workflow::INSTANCE,
};
use protocol::task::parameter;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use super::harness::{Flow, NEVER, signal};
use crate::harness::{Fixture, failed, finish, next_second, says, until};

const SNAPSHOT: &str = "TriggerSnapshot";
const LOST: &str = "States.Timeout";
/// The instance id of a host that takes the place of another.
const NEW_INSTANCE: &str = "i-0fedcba9876543210";

impl Flow {
    /// How many uploads were begun, and how many parts were sent.
    fn uploaded(&self) -> (usize, usize) {
        let s3 = &self.fixture.cloud.s3;
        (s3.count(s3::Operation::CreateMultipartUpload), s3.count(s3::Operation::UploadPart))
    }

    /// What `host-worker dispatch` has said to the agent, of the `nth` command.
    fn said(&self, nth: usize) -> Value {
        let command = &self.workflow.ssm.commands()[nth];
        serde_json::from_str(&command.invocations[0].stdout).unwrap_or_else(|_| panic!("{command:?}"))
    }

    /// `host-worker dispatch`, as the agent would run it for the `nth` command again.
    fn dispatch_again(&self, nth: usize) -> Command {
        let mut command = Command::new(self.fixture.cloud.dir().join("bin/host-worker"));
        command.args(["dispatch", "--json"]).kill_on_drop(true);
        command.envs(self.workflow.ssm.environment(INSTANCE).unwrap());
        for (name, values) in &self.workflow.ssm.commands()[nth].parameters {
            command.env(parameter::variable(name), &values[0]);
        }
        command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_that_a_person_stops_takes_its_worker_with_it_after_the_grace_period() {
    let flow = Flow::small().await.impatient();
    // Something moves after three seconds: otherwise the worker would stop because it stands still, just before it stops because of its token.
    let execution = flow.uploading(Duration::from_secs(3)).await;
    let s3 = &flow.fixture.cloud.s3;
    s3.faults().on(s3::Operation::CompleteMultipartUpload).inject(s3::Effect::Stall(NEVER));
    flow.workflow.service().stop_execution(&execution, Some("Stopped"), Some("by a person")).unwrap();
    flow.assert_host_is_free().await;

    let ended = flow.ended(&execution).await;
    assert_eq!(ended.status, Status::Aborted);
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["open"]);
    assert!(flow.logs().contains("its token is dead"), "{}", flow.logs());
    assert_eq!((flow.fixture.pointer().await, flow.archives().await.len()), (None, 0));
    assert_eq!(flow.fixture.uploads().await, 1);
    assert!(flow.fixture.cloud.work_dir().join("unfinished/upload.journal").exists());
    assert_eq!(flow.workflow.sns.messages(), [], "who stops an execution knows of it");

    // The next execution asks for another backup.
    s3.faults().clear();
    next_second().await;
    let next = flow.run(json!({})).await;
    flow.is_the_only_backup(&next).await;
    assert_eq!(s3.count(s3::Operation::AbortMultipartUpload), 1);
    assert_eq!(flow.uploaded().0, 2, "it began anew");
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_dead_when_it_arrives_starts_nothing() {
    let flow = Flow::small().await;
    flow.workflow.ssm.faults().on_delivery().nth(2).inject(Delivery::Hold);
    let execution = flow.start(json!({}));
    until(|| flow.workflow.ssm.commands().len() == 2).await;
    flow.workflow.service().stop_execution(&execution, None, None).unwrap();
    flow.fixture.forget_calls();
    flow.workflow.ssm.release();
    until(|| flow.logs().contains("nothing is done")).await;
    flow.assert_host_is_free().await;
    assert_eq!(flow.said(1)["dispatched"], "started");
    assert_eq!(flow.fixture.cloud.s3.calls(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_token_that_arrives_after_a_newer_one_says_nothing() {
    for late in [Delivery::AfterNewer, Delivery::Hold] {
        let flow = Flow::small().await;
        flow.workflow.ssm.faults().on_delivery().nth(2).inject(late);
        let execution = flow.start(json!({}));
        let ended = flow.ended(&execution).await;
        flow.workflow.ssm.release();
        flow.is_the_only_backup(&ended).await;
        assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"], "{late:?}");
        let ended =
            || flow.workflow.ssm.commands().iter().all(|command| command.invocations[0].ended.is_some());
        until(ended).await;
        assert_eq!(flow.said(1)["dispatched"], "outdated", "{late:?}");
        assert_eq!(flow.uploaded(), (1, 1), "{late:?}");
        flow.assert_host_is_free().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_arrives_as_the_worker_finishes_gets_the_same_result() {
    let flow = Flow::small().await;
    let faults = flow.workflow.step_functions.faults();
    faults.on(Operation::SendTaskSuccess).nth(2).inject(Effect::Stall(Duration::from_secs(6)));
    let execution = flow.start(json!({}));
    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [LOST, "done"]);
    assert_eq!(flow.uploaded(), (1, 1));
    assert!(flow.logs().contains("its result is given again"), "{}", flow.logs());
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_twice_is_done_once() {
    for twice in [Delivery::Twice, Delivery::TwiceAtOnce] {
        let flow = Flow::small().await;
        flow.workflow.ssm.faults().on_delivery().times(u64::MAX).inject(twice);
        let execution = flow.start(json!({}));
        let ended = flow.ended(&execution).await;
        flow.is_the_only_backup(&ended).await;
        flow.assert_host_is_free().await;
        assert_eq!(flow.attempts(&execution, SNAPSHOT), ["done"], "{twice:?}");
        assert_eq!(flow.uploaded(), (1, 1), "{twice:?}");
        let commands = flow.workflow.ssm.commands();
        assert_eq!(commands.len(), 2, "{twice:?}");
        for command in commands {
            let codes: Vec<_> = command.invocations[0].runs.iter().map(|run| run.exit_code).collect();
            assert_eq!(codes, [Some(0); 2], "{twice:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_whose_reply_is_lost_is_one_success() {
    let flow = Flow::small().await;
    let faults = flow.workflow.step_functions.faults();
    // The second call is the first again, which hears that the task waits no more; the third is that of the other task.
    for nth in [1, 3] {
        faults.on(Operation::SendTaskSuccess).nth(nth).inject(Effect::LoseReply);
    }
    let execution = flow.start(json!({}));
    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.attempts(&execution, "QuiesceCheck"), ["done"]);
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["done"]);
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_whose_reply_is_lost_is_one_failure() {
    let flow = Flow::small().await;
    let faults = flow.workflow.step_functions.faults();
    faults.on(Operation::SendTaskFailure).inject(Effect::LoseReply);
    let execution = flow.uploading(NEVER).await;
    signal(flow.worker("backup").await, Signal::TERM);
    let ended = flow.ended(&execution).await;
    flow.is_failure(&ended, "Cancelled", &["stopped on request"]);
    assert_eq!(flow.attempts(&execution, SNAPSHOT), ["Cancelled"]);
    assert_eq!((flow.fixture.pointer().await, faults.unfired()), (None, Vec::new()));
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_the_place_of_another_begins_anew_under_another_key() {
    let mut flow = Flow::small().await;
    let execution = flow.uploading(NEVER).await;
    let calls = flow.fixture.cloud.s3.take_calls();
    let created = calls.iter().find(|call| call.operation == s3::Operation::CreateMultipartUpload).unwrap();
    assert!(flow.workflow.ssm.lose_host(INSTANCE).unwrap() > 0);
    flow.fixture.replace_host().await;
    flow.fixture.fill_small().await;
    flow.workflow.add_host(&flow.fixture.cloud, NEW_INSTANCE).unwrap();

    let ended = flow.ended(&execution).await;
    assert_eq!(flow.is_success(&ended), "BackedUp");
    assert_eq!(flow.attempts(&execution, SNAPSHOT)[0], LOST);
    assert_eq!(flow.attempts(&execution, SNAPSHOT).last().unwrap(), "done");
    let archives = flow.archives().await;
    assert_eq!(archives.len(), 1, "{archives:?}");
    assert_ne!(archives[0], created.key.clone().unwrap(), "nobody writes to another one's key");
    assert_eq!(flow.fixture.ok("show").await["key"], archives[0]);
    assert_eq!(flow.uploaded(), (1, 1));
    // Whoever knew of it is gone: it is the bucket's lifecycle rule that aborts it.
    assert_eq!(flow.fixture.uploads().await, 1);
    let last = flow.workflow.ssm.commands().pop().unwrap();
    assert_eq!(last.invocations[0].instance_id, NEW_INSTANCE);
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_missing_is_named_in_the_log_of_the_host() {
    let flow = Flow::small().await;
    let faults = flow.workflow.step_functions.faults();
    faults.on_callbacks().times(u64::MAX).inject(Effect::AccessDenied);
    let execution = flow.start(json!({}));
    let ended = flow.ended(&execution).await;
    flow.is_failure(&ended, "HostUnreachable", &["nothing was heard in time", LOST]);
    assert_eq!(flow.attempts(&execution, "QuiesceCheck"), [LOST; 3]);
    assert_eq!(flow.attempts(&execution, SNAPSHOT), [""; 0]);
    let logs = flow.logs();
    let needs = "this host's role needs states:SendTaskSuccess, SendTaskFailure and SendTaskHeartbeat";
    assert!(logs.contains("AccessDeniedException") && logs.contains(needs), "{logs}");
    faults.clear();
    flow.assert_host_is_free().await;
    assert_eq!(flow.uploaded(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_that_are_throttled_come_through_later() {
    let flow = Flow::small().await;
    let faults = flow.workflow.step_functions.faults();
    for nth in [1, 2, 4, 6, 7, 9] {
        faults.on_callbacks().nth(nth).inject(Effect::Throttled);
    }
    let execution = flow.start(json!({}));
    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    assert_eq!(flow.uploaded(), (1, 1));
    flow.assert_host_is_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_tokens_again_change_nothing() {
    let flow = Flow::small().await;
    let execution = flow.start(json!({}));
    let ended = flow.ended(&execution).await;
    flow.is_the_only_backup(&ended).await;
    flow.assert_host_is_free().await;
    let pointer = flow.fixture.pointer().await;
    let results = || {
        let files = crate::harness::files_below(&flow.fixture.cloud.work_dir().join("tasks"));
        let results = files.into_iter().filter(|path| path.ends_with("result.json"));
        results.map(|path| (fs_err::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = results();
    assert_eq!(before.len(), 1, "of the backup; what was seen at rest is not kept");
    let tokens = crate::harness::files_below(&flow.fixture.cloud.work_dir());
    let mut tokens: Vec<_> =
        tokens.iter().filter(|path| path.extension().is_some_and(|e| e == "token")).collect();
    assert_eq!(tokens.len(), 2);
    tokens.retain(|path| fs_err::metadata(path).unwrap().len() > 0);
    assert!(tokens.is_empty(), "{tokens:?} are not spent");

    flow.fixture.forget_calls();
    for nth in [1, 0, 1] {
        let said = finish(&mut flow.dispatch_again(nth)).await.success().unwrap();
        assert_eq!(said["dispatched"], "started");
    }
    until(|| flow.logs().matches("the task was answered already").count() == 3).await;
    flow.assert_host_is_free().await;
    assert_eq!(results(), before);
    assert_eq!(flow.fixture.cloud.s3.calls(), []);
    assert_eq!(flow.fixture.pointer().await, pointer);
}

/// `host-worker dispatch` with the variables of the agent.
fn dispatch(fixture: &Fixture) -> Command {
    let mut command = fixture.command("dispatch --detached");
    for (name, value) in [
        (parameter::TASK, "backup"),
        (parameter::BACKUP_ID, "20261123T051400Z"),
        (parameter::COLLECTIONS, "*"),
        (parameter::EXECUTION, "nightly"),
        (parameter::ENTERED_AT, "2026-11-23T05:14:00Z"),
        (parameter::RETRY_COUNT, "0"),
        (parameter::TASK_TOKEN, "AAAAsecret"),
    ] {
        command.env(parameter::variable(name), value);
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatch_that_cannot_be_understood_says_which_parameter() {
    let fixture = Fixture::empty().await;
    for name in parameter::ALL {
        let finished = finish(dispatch(&fixture).env_remove(parameter::variable(name))).await;
        says(&failed(&finished, "ConfigInvalid", 2), &[name, "is missing"]);
        assert!(!finished.stdout.contains("AAAAsecret") && !finished.stderr.contains("AAAAsecret"));
    }
    for (name, value) in [
        (parameter::TASK, "reboot"),
        (parameter::TASK, "backup; reboot"),
        (parameter::BACKUP_ID, "../../etc"),
        (parameter::COLLECTIONS, "a/b"),
        (parameter::EXECUTION, ".."),
        (parameter::EXECUTION, "a/b"),
        (parameter::ENTERED_AT, "yesterday"),
        (parameter::RETRY_COUNT, "194x"),
        (parameter::TASK_TOKEN, ""),
    ] {
        let finished = finish(dispatch(&fixture).env(parameter::variable(name), value)).await;
        says(&failed(&finished, "ConfigInvalid", 2), &[name]);
    }
    assert!(!fixture.cloud.work_dir().join("tasks").exists(), "something is kept of what was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatch_that_cannot_keep_its_task_says_where() {
    let fixture = Fixture::empty().await;
    let file = fixture.cloud.dir().join("file");
    fs_err::write(&file, "").unwrap();
    let work_dir = file.join("below");
    let finished = finish(dispatch(&fixture).env("QDRANT_BACKUP_WORK_DIR", &work_dir)).await;
    let said: Value = finished.json().unwrap();
    assert_eq!(finished.code(), Some(2), "{said:#}");
    says(&said, &[work_dir.to_str().unwrap()]);
    assert!(!finished.stdout.contains("AAAAsecret") && !finished.stderr.contains("AAAAsecret"));
}
