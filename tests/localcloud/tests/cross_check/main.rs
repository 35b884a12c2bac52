//! The same scenarios on two engines: the embedded Step Functions, and moto's (LocalStack's interpreter), which others wrote and recorded against AWS.
//! Definition, Lambdas, document and worker are the same; only who runs the states differs. Status, error name and the kinds of history events must be equal,
//! but for what `tests/cross-check/README.md` lists.
//!
//! `CROSS_CHECK_PYTHON` names a Python that has `tests/cross-check/requirements.txt`; without it every test fails. `.ci/run` installs one.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod engine;
mod scenario;

use std::collections::BTreeSet;

use localcloud::{
    autoscaling::{AutoScaling, Standing},
    cloud::BUCKET,
    cloudwatch, ec2,
    lambda::{Effect, FunctionError},
    workflow::{INSTANCE, Machine, NAMESPACE},
};
use serde_json::json;

use self::scenario::{EXECUTION, Run, compare, compare_of, on_both};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_published() {
    let ended = compare(async |run: Run| run.execution(json!({})).await).await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "BackedUp"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_backed_up_is_not_backed_up_again() {
    let ended = compare(async |run: Run| {
        run.mark("b1").await;
        run.execution(json!({ "trigger": "marker" })).await;
        run.execution(json!({ "trigger": "marker" })).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "AlreadyBackedUp"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_function_is_notified_and_keeps_its_name() {
    let ended = compare(async |run: Run| run.execution(json!({ "trigger": "marker" })).await).await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("IndexingIncomplete")));
    assert!(ended.states.contains(&"NotifyFailure".to_owned()), "{:?}", ended.states);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_no_object_is_refused() {
    let ended = compare(async |run: Run| run.execution(json!(["docs"])).await).await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("ConfigInvalid")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_throws_before_it_hands_over_fails_the_callback_at_once() {
    let ended = compare(async |run: Run| {
        let error = FunctionError::new("LowDisk", "scripted");
        run.workflow.lambda.faults().on("trigger-snapshot".to_owned()).inject(Effect::Fail(error));
        run.execution(json!({})).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("LowDisk")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_function_is_invoked_again() {
    let ended = compare(async |run: Run| {
        run.workflow.lambda.faults().on("publish-manifest".to_owned()).inject(Effect::Throttle);
        run.execution(json!({})).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "BackedUp"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_worker_says_of_its_failure_is_the_executions() {
    let ended = compare(async |run: Run| {
        run.spoil_the_key();
        run.execution(json!({})).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("QdrantUnauthorized")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_loses_its_heartbeat_and_the_retry_goes_on() {
    let ended = compare(async |run: Run| {
        run.let_the_upload_hang();
        let execution = run.begin(json!({})).await;
        run.kill_the_worker_in("TriggerSnapshot", &execution).await;
        run.ended(&execution).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "BackedUp"));
    assert!(ended.events.contains(&"TaskTimedOut".to_owned()), "{:?}", ended.events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_busy_is_waited_for() {
    let ended = compare(async |run: Run| {
        let lock = run.hold_the_host();
        let execution = run.begin(json!({})).await;
        run.entered("WaitForHost", &execution).await;
        drop(lock);
        run.ended(&execution).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "BackedUp"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_like_damage_is_held_back() {
    let ended = compare(async |run: Run| {
        run.execution(json!({})).await;
        run.delete_a_collection().await;
        run.execution(json!({})).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("Suspicious")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_that_is_stopped_is_aborted() {
    let (ours, theirs) = on_both(async |run: Run| {
        run.let_the_upload_hang();
        let execution = run.begin(json!({})).await;
        run.entered("TriggerSnapshot", &execution).await;
        run.stop(&execution).await;
        run.ended(&execution).await
    })
    .await;
    assert_eq!((ours.status.as_str(), &ours.error), ("ABORTED", &None));
    // moto wakes the task that waits, takes that for a time-out, and lets the execution fail with it. AWS documents ABORTED.
    assert_eq!((theirs.status.as_str(), theirs.error.as_deref()), ("FAILED", Some("States.Timeout")));
    assert_eq!(ours.states, theirs.states);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_proves_a_backup_and_terminates_its_host() {
    let ended = compare_of(Machine::RestoreDrill, async |run: Run| {
        run.back_up().await;
        let ended = run.execution(json!({})).await;
        assert_eq!(run.instances(), (0, 1), "{ended:?}");
        ended
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "Succeeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_of_a_damaged_backup_fails_by_its_name_and_terminates_its_host() {
    let ended = compare_of(Machine::RestoreDrill, async |run: Run| {
        let archive = run.back_up().await;
        run.cloud.s3.corrupt(BUCKET, &archive, 2000, 0x40).unwrap();
        let ended = run.execution(json!({})).await;
        assert_eq!(run.instances(), (0, 1), "{ended:?}");
        ended
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("ArchiveCorrupt")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_whose_answers_are_all_lost_is_found_and_terminated() {
    let ended = compare_of(Machine::RestoreDrill, async |run: Run| {
        run.back_up().await;
        run.workflow.ec2.faults().on(ec2::Operation::RunInstances).times(6).inject(ec2::Effect::LoseReply);
        let ended = run.execution(json!({})).await;
        assert_eq!(run.instances(), (0, 1), "{ended:?}");
        ended
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("HostUnreachable")));
    assert!(ended.states.contains(&"Found".to_owned()), "{:?}", ended.states);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drill_has_left_is_terminated_by_its_event_and_by_its_age() {
    for input in [
        json!({ "detail": { "executionArn": EXECUTION, "status": "ABORTED" } }),
        json!({ "older_than_seconds": 0 }),
    ] {
        let ended = compare_of(Machine::TerminateStaging, async |run: Run| {
            for token in ["one", "two"] {
                run.launch_as_a_drill(token).await;
            }
            // EC2 tells whole seconds.
            tokio::time::sleep(std::time::Duration::from_millis(1_010)).await;
            let mut ended = run.execution(input.clone()).await;
            assert_eq!(run.instances(), (0, 2), "{ended:?}");
            // What runs side by side has no order.
            ended.events.sort();
            ended.states.sort();
            ended
        })
        .await;
        assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("SUCCEEDED", None));
        assert_eq!(ended.states.iter().filter(|state| *state == "NotifyTerminated").count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_publishes_its_numbers() {
    let ended = compare_of(Machine::Watch, async |run: Run| {
        run.back_up().await;
        run.mark("batch-1").await;
        let ended = run.execution(json!({})).await;
        let published = run.workflow.cloudwatch.data();
        let names: Vec<&str> = published.iter().map(|datum| datum.metric.as_str()).collect();
        let numbers = ["PointerAgeSeconds", "UnprotectedSeconds", "StuckExecutions", "DrillAgeSeconds"];
        assert_eq!(names, [&numbers[..], &["ExecutionFailures"; functions::ADDED_UP.len()]].concat());
        ended
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "Succeeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_may_not_publish_fails() {
    let ended = compare_of(Machine::Watch, async |run: Run| {
        run.workflow.cloudwatch.effects().on(NAMESPACE).times(5).inject(cloudwatch::Effect::Denied);
        run.execution(json!({})).await
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.error.as_deref()), ("FAILED", Some("Internal")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_backed_up_before_its_termination_and_let_go() {
    let ended = compare_of(Machine::BeforeTermination, async |run: Run| {
        run.workflow.autoscaling.set(INSTANCE, Standing::Terminating);
        run.answer_to_ours();
        let ended = run.execution(json!({ "detail": {
            "AutoScalingGroupName": AutoScaling::GROUP,
            "LifecycleHookName": AutoScaling::LAST_HOOK,
            "EC2InstanceId": INSTANCE,
        }}));
        let mut ended = ended.await;
        assert_eq!(run.workflow.autoscaling.standing(), Some(Standing::Gone));
        // How often it looks depends on how fast the backup is.
        let mut seen = BTreeSet::new();
        ended.states.retain(|state| seen.insert(state.clone()));
        ended.events = Vec::new();
        ended
    })
    .await;
    assert_eq!((ended.status.as_str(), ended.last_state()), ("SUCCEEDED", "Succeeded"));
}
