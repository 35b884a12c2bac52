use catalog::store::{Fault, Operation};
use protocol::{FailureKind, Manifest, key};
use serde_json::{Value, json};

use crate::{
    Function,
    tests::{World, counted, id, manifest, minute, of_batch, told},
};

/// Backup 14 is asked for.
fn event(input: Value) -> Value {
    json!({"operation": "decide", "input": input, "execution": "nightly-1", "started_at": "2026-11-23T05:14:00.123Z"})
}

/// The answer; asked twice, for the same one.
async fn answer(world: &World, input: Value) -> Value {
    let first = world.call(Function::QuiesceCheck, event(input.clone())).await.unwrap();
    let again = world.call(Function::QuiesceCheck, event(input)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(counted(&first).len(), 1);
    first.body
}

async fn refused(world: &World, input: Value) -> (FailureKind, String) {
    let first = told(world.call(Function::QuiesceCheck, event(input.clone())).await);
    assert_eq!(told(world.call(Function::QuiesceCheck, event(input)).await), first);
    first
}

fn marker_input() -> Value {
    json!({"trigger": "marker"})
}

#[tokio::test]
async fn a_person_who_says_nothing_gets_a_whole_backup() {
    let world = World::new();
    assert_eq!(
        answer(&world, json!({})).await,
        json!({
            "decision": "Proceed", "backup_id": "20261123T051400Z", "trigger": "console", "force": false,
            "collections": [], "reason": "asked for by console",
        })
    );
    world.bucket.take_calls();
    answer(&world, json!({"trigger": "schedule"})).await;
    let keys: Vec<String> = world.bucket.take_calls().into_iter().map(|call| call.key).collect();
    assert_eq!(keys, vec![key::manifest(id(14)); 2], "neither the marker nor the pointer is needed");
}

#[tokio::test]
async fn what_was_asked_for_is_passed_on() {
    let world = World::new();
    world.mark("b7", minute(10));
    let input = json!({"trigger": "marker", "force": true, "collections": ["docs", "prix, été"]});
    let answer = answer(&world, input).await;
    assert_eq!((&answer["force"], &answer["trigger"]), (&json!(true), &json!("marker")));
    assert_eq!(answer["collections"], json!(["docs", "prix, été"]));
    assert_eq!((&answer["decision"], &answer["batch_id"]), (&json!("Proceed"), &json!("b7")));
}

#[tokio::test]
async fn a_batch_is_backed_up_once() {
    let world = World::new();
    let (kind, message) = refused(&world, marker_input()).await;
    assert_eq!(kind, FailureKind::IndexingIncomplete);
    assert!(
        message.contains("s3://memory/qdrant/indexing/_SUCCESS.json") && message.contains("docs/clients.md"),
        "{message}"
    );

    world.mark("b7", minute(5));
    let first = answer(&world, marker_input()).await;
    assert_eq!(first["reason"], "batch `b7` is not backed up: no backup is published yet");

    world.publish(of_batch(12, "b7")).await;
    let done = answer(&world, marker_input()).await;
    assert_eq!((&done["decision"], &done["batch_id"]), (&json!("AlreadyBackedUp"), &json!("b7")));
    assert_eq!(done["reason"], "batch `b7` is in backup 20261123T051200Z");
    // Also of chosen collections, and whatever the clock of the job says.
    world.mark("b7", minute(100));
    let some = answer(&world, json!({"trigger": "marker", "collections": ["docs"]})).await;
    assert_eq!(some["decision"], "AlreadyBackedUp");
    // But a schedule or a person gets a backup of its own.
    assert_eq!(answer(&world, json!({"trigger": "schedule"})).await["decision"], "Proceed");

    world.mark("b8", minute(13));
    let next = answer(&world, marker_input()).await;
    assert_eq!(next["reason"], "batch `b8` is not backed up: backup 20261123T051200Z has batch `b7`");
}

#[tokio::test]
async fn batches_are_told_apart_by_name_even_in_the_same_second() {
    let world = World::new();
    world.publish(of_batch(12, "b7")).await;
    world.mark("b8", minute(7));
    assert_eq!(answer(&world, marker_input()).await["decision"], "Proceed");
}

#[tokio::test]
async fn a_marker_that_went_back_names_both_batches() {
    let world = World::new();
    world.publish(of_batch(12, "b7")).await;
    world.mark("b6", minute(6));
    let (kind, message) = refused(&world, marker_input()).await;
    assert_eq!(kind, FailureKind::IndexingIncomplete);
    for part in ["`b6`", "`b7`", "20261123T051200Z", "2026-11-23T05:06:00Z", "2026-11-23T05:07:00Z"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_backup_without_a_batch_says_nothing_about_batches() {
    let world = World::new();
    world.publish(manifest(12)).await;
    world.mark("b7", minute(1));
    let answer = answer(&world, marker_input()).await;
    assert_eq!(
        answer["reason"],
        "batch `b7` is not backed up: no batch is recorded in backup 20261123T051200Z"
    );
}

#[tokio::test]
async fn a_marker_that_cannot_be_read_is_no_marker() {
    let world = World::new();
    for bytes in ["", "{", r#"{"batch_id":" ","finished_at":"2026-11-23T05:14:00Z"}"#] {
        world.bucket.insert(key::DEFAULT_SUCCESS_MARKER, bytes);
        let (kind, message) = refused(&world, marker_input()).await;
        assert_eq!(kind, FailureKind::IndexingIncomplete);
        assert!(
            message.contains("cannot be used") && message.contains("; hint: docs/clients.md"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_damaged_pointer_does_not_stop_a_backup() {
    let world = World::new();
    world.mark("b7", minute(10));
    let newer = String::from_utf8(manifest(1).to_json())
        .unwrap()
        .replace("\"format_version\": 1", "\"format_version\": 2");
    for bytes in ["{", newer.as_str()] {
        world.bucket.insert(key::POINTER, bytes.to_owned());
        for input in [marker_input(), json!({})] {
            assert_eq!(answer(&world, input).await["decision"], "Proceed");
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_an_absence() {
    for (part, fault, expected) in [
        ("manifests", Fault::Unavailable, FailureKind::StoreUnavailable),
        ("_SUCCESS", Fault::Denied, FailureKind::StoreUnavailable),
        ("latest", Fault::Unavailable, FailureKind::StoreUnavailable),
        ("latest", Fault::NoSuchBucket, FailureKind::ConfigInvalid),
    ] {
        let world = World::new();
        world.mark("b7", minute(10));
        world.bucket.fail(Operation::Get, part, fault);
        let (kind, message) = told(world.call(Function::QuiesceCheck, event(marker_input())).await);
        assert_eq!(kind, expected, "{part}: {message}");
        assert_eq!(answer(&world, marker_input()).await["decision"], "Proceed");
    }
}

#[tokio::test]
async fn an_id_is_used_once() {
    let partial = Manifest { partial: true, ..manifest(14) };
    for (stored, collections, decision) in [
        (manifest(14), json!([]), Some("AlreadyBackedUp")),
        (manifest(14), json!(["notes"]), Some("AlreadyBackedUp")),
        (partial.clone(), json!(["docs"]), Some("AlreadyBackedUp")),
        (partial.clone(), json!(["notes"]), None),
        (partial, json!([]), None),
    ] {
        let world = World::new();
        world.publish(stored).await;
        let input = json!({"collections": collections});
        match decision {
            Some(decision) => assert_eq!(answer(&world, input).await["decision"], decision, "{collections}"),
            None => {
                assert_eq!(refused(&world, input).await.0, FailureKind::ManifestConflict, "{collections}")
            }
        }
    }
    let world = World::new();
    world.bucket.insert(&key::manifest(id(14)), "{");
    assert_eq!(refused(&world, json!({})).await.0, FailureKind::ManifestInvalid);
}

#[tokio::test]
async fn an_execution_does_not_wait_for_its_host_for_ever() {
    let mut world = World::new();
    world.now = "2026-11-23T11:14:00.123Z".parse().unwrap();
    assert_eq!(answer(&world, json!({})).await["decision"], "Proceed");
    world.now = "2026-11-23T11:14:00.124Z".parse().unwrap();
    let (kind, message) = refused(&world, json!({})).await;
    assert_eq!(kind, FailureKind::Busy);
    assert!(message.contains("6 hours ago") && message.contains("start a new execution"), "{message}");
    // A clock that is behind the one of Step Functions is no reason either.
    world.now = minute(0);
    assert_eq!(answer(&world, json!({})).await["decision"], "Proceed");
}

#[tokio::test]
async fn an_input_that_is_not_understood_is_refused() {
    let world = World::new();
    let event_of_eventbridge = json!({"detail-type": "Object Created", "source": "aws.s3", "detail": {}});
    for (input, says) in [
        (json!({"trigger": "cron"}), "marker|schedule|console"),
        (json!({"collections": ["a", "a"]}), "named twice"),
        (event_of_eventbridge, "the rule's target"),
    ] {
        let (kind, message) = refused(&world, input).await;
        assert_eq!(kind, FailureKind::ConfigInvalid);
        assert!(message.contains(says), "{message}");
    }
    let mut event = event(json!({}));
    event["execution"] = json!("a b");
    let (kind, message) = told(world.call(Function::QuiesceCheck, event).await);
    assert_eq!(kind, FailureKind::ConfigInvalid);
    assert!(message.contains("is not the name of an execution"), "{message}");
}

#[tokio::test]
async fn batches_with_endless_names_are_told_apart_and_shown_in_part() {
    let world = World::new();
    let name = "n".repeat(1 << 20);
    world.mark(&name, minute(5));
    assert_eq!(answer(&world, marker_input()).await["decision"], "Proceed");
    world.publish(of_batch(12, &name)).await;
    let done = answer(&world, marker_input()).await;
    assert_eq!(done["decision"], "AlreadyBackedUp");
    assert!(done.to_string().len() < 1024);
    world.mark(&format!("{name}m"), minute(8));
    assert_eq!(answer(&world, marker_input()).await["decision"], "Proceed");
}
