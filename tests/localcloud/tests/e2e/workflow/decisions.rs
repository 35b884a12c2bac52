//! Whether a backup is made: what asks for it, what was backed up before, and who has the host.

use std::time::Duration;

use localcloud::{
    events::Effect,
    qdrant::{Trickle, Via},
    s3::{self, Operation},
    stepfunctions::Execution,
};
use serde_json::{Value, json};

use super::harness::Flow;
use crate::harness::next_second;

/// How long an event may take to start something.
const BOUND: Duration = Duration::from_secs(30);
/// How long an upload takes to begin that another execution is to run into.
const SLOW: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_not_understood_is_told_what_is_wrong_and_changes_nothing() {
    let flow = Flow::eager().await;
    let event = json!({
        "version": "0", "detail-type": "Object Created", "source": "aws.s3", "detail": { "object": { "key": "x" } }
    });
    let shape = r#"hint: it has the form {"trigger":"marker|schedule|console""#;
    for (input, texts) in [
        (json!([]), ["it is not an object", shape]),
        (json!("x"), ["it is not an object", shape]),
        (json!({ "forced": true }), ["unknown field `forced`", shape]),
        (json!({ "trigger": "cron" }), ["unknown variant `cron`", shape]),
        (json!({ "collections": ["docs", "docs"] }), ["collection `docs` is named twice", shape]),
        (event, ["`Object Created` of `aws.s3`", "give the rule's target an input of its own"]),
    ] {
        let execution = flow.run(input.clone()).await;
        flow.has_failed(&execution, "ConfigInvalid", &texts);
        assert_eq!(
            flow.states(&execution.arn),
            ["Begin", "Decide", "CountFailure", "NotifyFailure", "Failed"],
            "{input}"
        );
    }
    assert_eq!(flow.workflow.sns.messages().len(), 6);
    assert!(flow.workflow.ssm.commands().is_empty(), "the host hears of none of them");
    flow.fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_that_is_missing_old_or_backed_up_makes_no_backup() {
    let flow = Flow::eager().await;
    let by_marker = json!({ "trigger": "marker" });
    let missing = flow.run(by_marker.clone()).await;
    flow.has_failed(
        &missing,
        "IndexingIncomplete",
        &[
            "there is no success marker `s3://backups/qdrant/indexing/_SUCCESS.json`",
            "hint: the indexing job writes it when a batch is done (docs/clients.md); `\"trigger\":\"console\"` backs up without it",
        ],
    );
    flow.fixture.assert_nothing_left().await;

    flow.mark("batch-2", "2026-11-23T05:00:00Z").await;
    assert_eq!(flow.succeeds(by_marker.clone()).await, "BackedUp");
    let backups = flow.published().await;
    let again = flow.run(by_marker.clone()).await;
    assert_eq!(flow.is_success(&again), "AlreadyBackedUp");
    let reason = format!("batch `batch-2` is in backup {}", backups[0]);
    assert_eq!(again.output.as_ref().unwrap()["backup"]["reason"], json!(reason));

    flow.mark("batch-1", "2026-11-22T05:00:00Z").await;
    let older = flow.run(by_marker).await;
    flow.has_failed(
        &older,
        "IndexingIncomplete",
        &[
            "the success marker is of batch `batch-1`, finished 2026-11-22T05:00:00Z",
            &format!("backup {} has the later batch `batch-2`", backups[0]),
            "hint: ",
        ],
    );
    assert_eq!(flow.published().await, backups);
    assert_eq!(flow.workflow.ssm.commands().len(), 2, "one for each task of the one backup");
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_event_that_comes_twice_makes_one_backup() {
    let flow = Flow::eager().await;
    flow.workflow.listen(&flow.fixture.cloud);
    flow.workflow.events.faults().on("indexing-succeeded").inject(Effect::Twice);
    // Whoever comes second comes while the first is at it.
    flow.fixture.cloud.s3.faults().on(Operation::CreateMultipartUpload).inject(s3::Effect::Stall(SLOW));
    next_second().await;
    flow.mark("batch-1", "2026-11-23T05:00:00Z").await;
    let starts = flow.workflow.events.wait_for(BOUND, |starts| starts.len() == 2).await.unwrap();
    let mut ends = Vec::new();
    for start in &starts {
        let ended = flow.ended(start.execution.as_ref().unwrap()).await;
        ends.push(flow.is_success(&ended));
        if ends.last().unwrap() == "AlreadyBackedUp" {
            let states = flow.states(&ended.arn);
            assert!(states.iter().any(|state| state == "WaitForHost"), "{states:?}");
        }
    }
    ends.sort();
    assert_eq!(ends, ["AlreadyBackedUp", "BackedUp"]);
    let published = flow.published().await;
    assert_eq!(published.len(), 1);
    assert_eq!(flow.fixture.pointer().await.as_ref(), published.first());
    assert_eq!(flow.workflow.sns.messages(), []);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_that_comes_while_the_schedule_backs_up_finds_its_batch_backed_up() {
    let flow = Flow::eager().await;
    flow.mark("batch-1", "2026-11-23T05:00:00Z").await;
    flow.fixture.cloud.s3.faults().on(Operation::CreateMultipartUpload).inject(s3::Effect::Stall(SLOW));
    let schedule = flow.start(json!({ "trigger": "schedule" }));
    flow.fixture.until_asked(Operation::CreateMultipartUpload).await;
    let marker = flow.start(json!({ "trigger": "marker" }));
    let schedule = flow.ended(&schedule).await;
    assert_eq!(flow.is_success(&schedule), "BackedUp");
    let marker = flow.ended(&marker).await;
    assert_eq!(flow.is_success(&marker), "AlreadyBackedUp");
    assert_eq!(
        flow.states(&marker.arn),
        [
            "Begin",
            "Decide",
            "IsNeeded",
            "QuiesceCheck",
            "WaitForHost",
            "Decide",
            "IsNeeded",
            "AlreadyBackedUp"
        ]
    );
    assert_eq!(flow.errors(&marker.arn), ["Busy"]);
    let reason = format!("batch `batch-1` is in backup {}", flow.backup_of(&schedule));
    assert_eq!(marker.output.as_ref().unwrap()["backup"]["reason"], json!(reason));
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&schedule)));
    assert_eq!(flow.published().await.len(), 1);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_from_the_console_at_once_both_end_well() {
    let flow = Flow::eager().await;
    let first = flow.start(json!({}));
    next_second().await;
    let second = flow.start(json!({}));
    let (first, second) = (flow.ended(&first).await, flow.ended(&second).await);
    assert_eq!(flow.is_success(&second), "BackedUp");
    assert!(["BackedUp", "Superseded"].contains(&flow.is_success(&first).as_str()));
    assert_eq!(flow.published().await, [flow.backup_of(&first), flow.backup_of(&second)]);
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&second)));
    assert_eq!(flow.workflow.sns.messages(), []);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_do_not_end_fail_after_three_retries_and_what_was_tried_leaves_nothing() {
    let flow = Flow::eager().await;
    let settings = flow.fixture.cloud.dir().join("qdrant-backup.toml");
    fs_err::write(&settings, "[task]\nquiesce-timeout = 1\n").unwrap();
    let settings = settings.to_str().unwrap().to_owned();
    flow.change_host(|host| host.env.extend([("QDRANT_BACKUP_CONFIG".to_owned(), settings)]));
    let writer = flow.fixture.stand_in().start_writer(Trickle {
        collection: "notes".to_owned(),
        every: Duration::from_millis(50),
        batch: 1,
        first_id: 1_000_000,
        via: Via::Rest,
    });
    let execution = flow.run(json!({})).await;
    flow.has_failed(&execution, "NotQuiesced", &["collection `notes`", "hint: "]);
    assert_eq!(flow.errors(&execution.arn), ["NotQuiesced"; 4]);
    assert_eq!(
        flow.states(&execution.arn),
        ["Begin", "Decide", "IsNeeded", "QuiesceCheck", "CountFailure", "NotifyFailure", "Failed"]
    );
    flow.fixture.assert_nothing_left().await;
    flow.assert_put_away().await;

    writer.stop().await;
    let next = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&next), "BackedUp");
    assert_eq!(next.output.unwrap()["quiesced"]["backup_id"], Value::from(flow.published().await.remove(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_the_same_second_that_want_different_things_do_not_get_each_others() {
    let flow = Flow::eager().await;
    flow.fixture.cloud.s3.faults().on(Operation::CreateMultipartUpload).inject(s3::Effect::Stall(SLOW));
    next_second().await;
    let partial = flow.start(json!({ "collections": ["notes"] }));
    let whole = flow.start(json!({}));
    let (partial, whole) = (flow.ended(&partial).await, flow.ended(&whole).await);
    assert_eq!(flow.backup_of(&partial), flow.backup_of(&whole), "they were not started in the same second");
    let last = |execution: &Execution| flow.states(&execution.arn).pop().unwrap();
    match (last(&partial).as_str(), last(&whole).as_str()) {
        // A whole backup has every collection that is asked for.
        ("AlreadyBackedUp", "BackedUp") => {}
        ("BackedUp", "Failed") => {
            let texts = [
                "exists with other collections than asked for",
                "hint: two executions were started in the same second",
            ];
            flow.has_failed(&whole, "ManifestConflict", &texts);
        }
        other => panic!("{other:?}\n{}", flow.logs()),
    }
    assert_eq!(flow.published().await.len(), 1);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_is_not_taken_for_a_missing_marker() {
    let flow = Flow::eager().await;
    let by_marker = json!({ "trigger": "marker" });
    flow.mark("batch-1", "2026-11-23T05:00:00Z").await;
    let faults = flow.fixture.cloud.s3.faults();
    let marker = protocol::key::DEFAULT_SUCCESS_MARKER;
    faults.deny(Operation::GetObject, marker);
    let denied = flow.run(by_marker.clone()).await;
    flow.has_failed(&denied, "StoreUnavailable", &["AccessDenied", marker, "hint: "]);
    assert_eq!(flow.errors(&denied.arn), ["StoreUnavailable"; 5]);
    assert!(flow.workflow.ssm.commands().is_empty());

    faults.allow_all();
    faults.on(Operation::GetObject).key_containing(marker).times(4).inject(s3::Effect::SlowDown);
    let slow = flow.run(by_marker).await;
    assert_eq!(flow.is_success(&slow), "BackedUp");
    assert_eq!(flow.errors(&slow.arn), ["StoreUnavailable"], "the client has tried three times by then");
    assert_eq!(faults.unfired(), [""; 0]);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointer_that_cannot_be_read_hinders_no_backup_and_is_not_replaced_by_itself() {
    let flow = Flow::eager().await;
    flow.mark("batch-1", "2026-11-23T05:00:00Z").await;
    let s3 = flow.fixture.cloud.s3.client().await;
    let pointer = s3.put_object().bucket(localcloud::cloud::BUCKET).key(protocol::key::POINTER);
    pointer.body(b"{}".to_vec().into()).send().await.unwrap();
    let execution = flow.run(json!({ "trigger": "marker" })).await;
    flow.has_failed(
        &execution,
        "ManifestInvalid",
        &["latest_qdrant_backup.manifest.json", "hint: ", "--force"],
    );
    let id = flow.backup_of(&execution);
    assert_eq!(flow.published().await, [id.as_str()], "the backup is there");
    flow.fixture.ok(&format!("publish --backup {id} --force")).await;
    assert_eq!(flow.fixture.pointer().await, Some(id));
    flow.assert_put_away().await;
}
