//! What goes well, from the input to the pointer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use localcloud::{events::Schedule, stepfunctions::Execution, workflow::Machine};
use serde_json::{Value, json};

use super::harness::Flow;
use crate::harness::next_second;

/// How long an event may take to start something.
const BOUND: Duration = Duration::from_secs(30);

/// The states of a backup that is made and published.
const WAY: [&str; 8] = [
    "Begin",
    "Decide",
    "IsNeeded",
    "QuiesceCheck",
    "TriggerSnapshot",
    "PublishManifest",
    "IsSuperseded",
    "BackedUp",
];

fn output(execution: &Execution) -> &Value {
    execution.output.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_from_the_console_are_published_one_after_the_other() {
    let flow = Flow::small().await;
    let first = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&first), "BackedUp");
    assert_eq!(flow.states(&first.arn), WAY);
    let id = flow.backup_of(&first);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&id));
    assert_eq!(flow.published().await, [id.as_str()]);

    let said = output(&first);
    assert_eq!(said["backup"]["backup_id"], json!(id));
    assert_eq!(said["backup"]["decision"], "Proceed");
    assert_eq!(said["backup"]["reason"], "asked for by console");
    assert_eq!(said["quiesced"]["backup_id"], json!(id));
    assert_eq!(said["stored"]["points"], 80);
    assert_eq!(said["stored"]["collections"], 2);
    assert_eq!(said["stored"]["resumed"], false);
    assert_eq!(said["published"]["outcome"], "published");
    assert_eq!(said["published"]["publication"]["pointer_moved"], true);
    assert_eq!(said["published"]["publication"]["forced"], json!([]));

    let task = ["TaskScheduled", "TaskStarted", "TaskSucceeded"];
    let callback = ["TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded"];
    let mut events = vec!["ExecutionStarted", "PassStateEntered", "PassStateExited", "TaskStateEntered"];
    events.extend(task);
    events.extend(["TaskStateExited", "ChoiceStateEntered", "ChoiceStateExited"]);
    for task in [&callback[..], &callback, &task] {
        events.push("TaskStateEntered");
        events.extend(task);
        events.push("TaskStateExited");
    }
    events.extend(["ChoiceStateEntered", "ChoiceStateExited", "SucceedStateEntered", "SucceedStateExited"]);
    events.push("ExecutionSucceeded");
    assert_eq!(flow.events(&first.arn), events);
    flow.assert_put_away().await;

    flow.fixture.load("more", 30).await;
    let second = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&second), "BackedUp");
    assert_eq!(output(&second)["stored"]["points"], 110);
    assert_eq!(output(&second)["stored"]["resumed"], false);
    let newer = flow.backup_of(&second);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&newer));
    assert_eq!(flow.published().await, [id, newer]);
    flow.assert_put_away().await;
    assert_eq!(flow.workflow.sns.messages(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_starts_a_backup_by_itself_and_the_clock_another() {
    let flow = Flow::small().await;
    flow.workflow.listen(&flow.fixture.cloud);
    flow.mark("batch-1", "2026-11-23T05:00:00Z").await;
    let starts = flow.workflow.events.wait_for(BOUND, |starts| !starts.is_empty()).await.unwrap();
    assert_eq!(starts[0].rule, "indexing-succeeded");
    let marked = flow.ended(starts[0].execution.as_ref().unwrap()).await;
    assert_eq!(flow.is_success(&marked), "BackedUp");
    let decided = &output(&marked)["backup"];
    assert_eq!(decided["trigger"], "marker");
    assert_eq!(decided["batch_id"], "batch-1");
    assert_eq!(decided["reason"], "batch `batch-1` is not backed up: no backup is published yet");

    let first: Timestamp = "2026-11-24T03:00:00Z".parse().unwrap();
    let schedule = Schedule {
        name: "nightly".to_owned(),
        first,
        every: SignedDuration::from_hours(24),
        state_machine: flow.workflow.machine(Machine::Backup).to_owned(),
        input: json!({ "trigger": "schedule" }),
    };
    flow.workflow.events.add_schedule(schedule).unwrap();
    let starts = flow.workflow.events.tick(first).await;
    let timed = flow.ended(starts[0].execution.as_ref().unwrap()).await;
    assert_eq!(flow.is_success(&timed), "BackedUp");
    assert_eq!(output(&timed)["backup"]["trigger"], "schedule");
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&timed)));
    assert_eq!(flow.published().await.len(), 2);
    assert_eq!(flow.workflow.events.starts().len(), 2, "what a backup writes starts no other one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_backup_has_a_manifest_and_does_not_move_the_pointer() {
    let flow = Flow::small().await;
    let partial = flow.run(json!({ "collections": ["notes"] })).await;
    assert_eq!(flow.is_success(&partial), "BackedUp");
    assert_eq!(output(&partial)["published"]["outcome"], "partial");
    assert_eq!(output(&partial)["stored"]["points"], 20);
    assert_eq!(flow.fixture.pointer().await, None);
    let id = flow.backup_of(&partial);
    assert_eq!(flow.published().await, [id.as_str()]);
    let shown = flow.fixture.ok(&format!("show --backup {id}")).await;
    assert_eq!(shown["partial"], true);
    next_second().await;
    // What may stand for something else on the way there and back: in a document, a shell, a template.
    let odd = "no'where {} $HOME {{ Task }}";
    let missing = flow.run(json!({ "collections": [odd] })).await;
    flow.has_failed(&missing, "ConfigInvalid", &[odd]);
    flow.assert_put_away().await;
}
