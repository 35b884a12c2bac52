use catalog::store::{Fault, Operation};
use protocol::{FailureKind, key};
use serde_json::{Value, json};

use super::*;
use crate::{
    Function,
    tests::{World, marker, minute, of_batch, told},
};

/// An hour after the beginning.
fn now() -> Timestamp {
    minute(60)
}

fn published(created: i64, batch: Option<&str>) -> Option<Published> {
    let batch = batch.map(|batch| marker(batch, minute(created - 5)));
    Some(Published { created_at: minute(created), batch })
}

fn execution(started: i64, status: &str) -> Value {
    json!({"StartDate": minute(started), "Status": status, "Name": "n", "ExecutionArn": "a"})
}

fn event(backups: &[Value], drills: &Value) -> Value {
    let running: Vec<&Value> = backups.iter().filter(|one| one["Status"] == "RUNNING").collect();
    json!({
        "operation": "freshness", "input": {}, "execution": "watch-1",
        "backups": {"recent": backups, "running": running},
        "drills": drills,
    })
}

fn no_drills() -> Value {
    json!({"schedule": "none", "created_at": minute(0), "running": [], "passed": []})
}

fn read(mut event: Value) -> Freshness {
    crate::event::operation(&mut event);
    crate::event::freshness(event).unwrap()
}

/// The value of a metric, if it is said at all.
fn value(fresh: &Fresh, name: &str) -> Option<u64> {
    let data = serde_json::to_value(&fresh.metric_data).unwrap();
    let mut named = data.as_array().unwrap().iter().filter(|datum| datum["MetricName"] == name);
    let found = named.next()?["Value"].as_u64();
    assert!(named.next().is_none(), "{name} is said twice");
    found
}

#[test]
fn how_long_data_has_been_without_a_backup() {
    let failed = |started| execution(started, "FAILED");
    let done = |started| execution(started, "SUCCEEDED");
    for (case, published, marker, executions, unprotected) in [
        ("nothing at all", None, None, vec![], None),
        ("a batch, and nothing was ever published", None, Some(marker("b1", minute(10))), vec![], None),
        ("no marker: the backup's age", published(20, None), None, vec![], Some(40)),
        (
            "backed up, and quiet since",
            published(20, Some("b1")),
            Some(marker("b1", minute(15))),
            vec![],
            Some(0),
        ),
        (
            "the same batch, whatever its clock says",
            published(20, Some("b1")),
            Some(marker("b1", minute(59))),
            vec![],
            Some(0),
        ),
        (
            "backed up: a schedule that fails is no matter of this",
            published(20, Some("b1")),
            Some(marker("b1", minute(15))),
            vec![failed(30)],
            Some(0),
        ),
        (
            "a batch waits",
            published(20, Some("b1")),
            Some(marker("b2", minute(35))),
            vec![execution(35, "RUNNING")],
            Some(25),
        ),
        (
            "the event of a marker may be under way",
            published(20, Some("b1")),
            Some(marker("b2", minute(45))),
            vec![],
            Some(15),
        ),
        (
            "nobody reacts to markers, and how many there were is not known",
            published(20, Some("b1")),
            Some(marker("b2", minute(44))),
            vec![],
            Some(40),
        ),
        (
            "a backup of no batch covers none",
            published(50, None),
            Some(marker("b2", minute(35))),
            vec![],
            Some(25),
        ),
        (
            "a clock that is far ahead is no credit",
            published(20, Some("b1")),
            Some(marker("b2", minute(90))),
            vec![execution(59, "RUNNING")],
            Some(40),
        ),
        (
            "a clock that is ahead by minutes is as good as any",
            published(20, Some("b1")),
            Some(marker("b2", minute(64))),
            vec![execution(60, "RUNNING")],
            Some(0),
        ),
        (
            "a batch each time, and none is backed up",
            published(20, Some("b1")),
            Some(marker("b9", minute(59))),
            vec![
                execution(59, "RUNNING"),
                failed(45),
                execution(35, "ABORTED"),
                failed(30),
                done(20),
                failed(2),
            ],
            Some(30),
        ),
        (
            "a success that published nothing is no end of it: it was partial, or had nothing to do",
            published(20, Some("b1")),
            Some(marker("b2", minute(55))),
            vec![execution(56, "RUNNING"), done(40), failed(30)],
            Some(30),
        ),
        (
            "and none by itself",
            published(20, Some("b1")),
            Some(marker("b2", minute(40))),
            vec![done(41)],
            Some(40),
        ),
        (
            "what failed before the published backup is over, whoever published it",
            published(40, Some("b1")),
            Some(marker("b2", minute(55))),
            vec![execution(56, "RUNNING"), failed(30)],
            Some(5),
        ),
    ] {
        let event = read(event(&executions, &no_drills()));
        let fresh = measured(published.as_ref(), marker.as_ref(), &event, now());
        assert_eq!(value(&fresh, "UnprotectedSeconds"), unprotected.map(|minutes| minutes * 60), "{case}");
        let age =
            published.map(|published| u64::try_from((now() - published.created_at).get_seconds()).unwrap());
        assert_eq!(value(&fresh, "PointerAgeSeconds"), age, "{case}");
        assert_eq!(value(&fresh, "StuckExecutions"), Some(0), "{case}");
        assert_eq!(value(&fresh, "DrillAgeSeconds"), None, "{case}");
    }
}

#[test]
fn more_executions_than_are_listed_are_no_young_failure() {
    let failed: Vec<Value> = (0..LISTED).map(|_| execution(50, "FAILED")).collect();
    let marker = marker("b9", minute(59));
    let of = |executions: &[Value]| {
        let event = read(event(executions, &no_drills()));
        value(
            &measured(published(20, Some("b1")).as_ref(), Some(&marker), &event, now()),
            "UnprotectedSeconds",
        )
    };
    assert_eq!(of(&failed), Some(40 * 60));
    assert_eq!(of(&failed[1..]), Some(10 * 60));
    let watch: Value = serde_json::from_str(include_str!("../../../state-machines/watch.asl.json")).unwrap();
    assert_eq!(watch["States"]["ListBackups"]["Parameters"]["MaxResults"], LISTED);
}

#[test]
fn an_execution_that_runs_for_more_than_a_day_is_stuck() {
    let minutes = STUCK_AFTER.as_mins();
    let running = [execution(60 - minutes, "RUNNING"), execution(59 - minutes, "RUNNING")];
    let mut drills = no_drills();
    drills["running"] = json!([execution(-9999, "RUNNING"), execution(50, "RUNNING")]);
    let mut asked = event(&running, &drills);
    assert_eq!(value(&measured(None, None, &read(asked.clone()), now()), "StuckExecutions"), Some(2));
    asked["input"] = json!({"stuck_after_seconds": 60});
    assert_eq!(value(&measured(None, None, &read(asked), now()), "StuckExecutions"), Some(4));
}

#[test]
fn a_drill_is_as_old_as_its_end_and_before_the_first_as_old_as_its_machine() {
    let passed =
        json!({"StartDate": minute(30), "StopDate": "2026-11-23T05:40:00.5Z", "Status": "SUCCEEDED"});
    // As an API of Step Functions itself writes times: 05:50.
    let seconds = json!({"StartDate": 1_795_413_000.0, "StopDate": 1_795_413_000.0, "Status": "SUCCEEDED"});
    for (schedule, passed, age) in [
        ("monthly", json!([]), Some(60 * 60)),
        ("weekly", json!([passed]), Some(19 * 60 + 59)),
        ("monthly", json!([seconds]), Some(10 * 60)),
        ("none", json!([passed]), None),
    ] {
        let drills = json!({"schedule": schedule, "created_at": minute(0), "running": [], "passed": passed});
        let fresh = measured(None, None, &read(event(&[], &drills)), now());
        assert_eq!(value(&fresh, "DrillAgeSeconds"), age, "{schedule} {passed}");
    }
}

#[tokio::test]
async fn pointer_and_marker_are_read_and_the_answer_is_what_cloudwatch_takes() {
    let world = World::new();
    world.publish(of_batch(12, "b7")).await;
    world.mark("b8", minute(100));
    let answer = world.call(Function::QuiesceCheck, event(&[], &no_drills())).await.unwrap();
    let none = |kind: &str| {
        let dimensions = [json!({"Name": "FailureKind", "Value": kind})];
        json!({"MetricName": "ExecutionFailures", "Unit": "Count", "Value": 0, "Dimensions": dimensions})
    };
    assert_eq!(
        answer.body,
        json!({
            "metric_data": [
                {"MetricName": "PointerAgeSeconds", "Unit": "Seconds", "Value": 108 * 60},
                {"MetricName": "UnprotectedSeconds", "Unit": "Seconds", "Value": 108 * 60},
                {"MetricName": "StuckExecutions", "Unit": "Count", "Value": 0},
                none("ArchiveCorrupt"),
                none("ChecksumMismatch"),
                none("StoreUnavailable"),
                none("UploadFailed"),
            ],
            "reason": "nothing was started for the newest batch: the published backup's age counts",
        })
    );
    assert_eq!(answer.metrics, [], "the machine publishes them");
    world.mark("b7", minute(100));
    let answer = world.call(Function::QuiesceCheck, event(&[], &no_drills())).await.unwrap();
    assert_eq!(answer.body["metric_data"][1]["Value"], 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_failure_and_no_number() {
    let world = World::new();
    world.publish(of_batch(12, "b7")).await;
    world.mark("b7", minute(5));
    for denied in [key::POINTER, key::DEFAULT_SUCCESS_MARKER] {
        world.bucket.script(Operation::Get, denied, 0, 1, Fault::Denied);
        let (kind, message) = told(world.call(Function::QuiesceCheck, event(&[], &no_drills())).await);
        assert_eq!(kind, FailureKind::StoreUnavailable, "{message}");
        assert!(message.contains(denied), "{message}");
    }
    for (spoilt, expected) in [
        (key::DEFAULT_SUCCESS_MARKER, FailureKind::IndexingIncomplete),
        (key::POINTER, FailureKind::ManifestInvalid),
    ] {
        world.bucket.insert(spoilt, "{}");
        let (kind, message) = told(world.call(Function::QuiesceCheck, event(&[], &no_drills())).await);
        assert_eq!(kind, expected, "{message}");
    }
}

#[tokio::test]
async fn an_event_of_another_form_is_refused() {
    let world = World::new();
    let good = event(&[], &no_drills());
    for (place, wrong, says) in [
        ("/input", json!({"stuck_after": 1}), "unknown field `stuck_after`"),
        ("/input", json!([]), "it is not an object"),
        ("/drills/schedule", json!("yearly"), "unknown variant `yearly`"),
        ("/drills/passed", json!([{"Status": "SUCCEEDED"}]), "missing field `StartDate`"),
        ("/backups/running", json!(null), "invalid type: null"),
        ("/drills/created_at", json!("yesterday"), "did not match"),
    ] {
        let mut event = good.clone();
        *event.pointer_mut(place).unwrap() = wrong;
        let (kind, message) = told(world.call(Function::QuiesceCheck, event).await);
        assert_eq!(kind, FailureKind::ConfigInvalid, "{message}");
        assert!(message.contains(says) && message.contains("hint: it has the form"), "{message}");
    }
}
