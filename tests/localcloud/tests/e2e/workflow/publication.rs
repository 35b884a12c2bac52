//! What stands between a stored archive and the pointer, and what a person is told of it.

use std::time::Duration;

use localcloud::{
    cloud::BUCKET,
    events::SnsEffect,
    s3::{Call, Effect, Operation},
    stepfunctions::Status,
};
use protocol::key::POINTER;
use serde_json::json;

use super::harness::Flow;
use crate::harness::{next_second, until};

/// The key of what ends like this; there is one.
async fn key(flow: &Flow, ending: &str) -> String {
    let keys = flow.fixture.keys().await;
    let mut fitting = keys.iter().filter(|key| key.starts_with("qdrant/backups/") && key.ends_with(ending));
    let (Some(key), None) = (fitting.next(), fitting.next()) else { panic!("{ending}: {keys:?}") };
    key.clone()
}

/// The handed-over manifest's key.
async fn handed_over(flow: &Flow) -> String {
    key(flow, ".manifest.json").await
}

/// Writes over an object, as somebody with the right to would.
async fn write(flow: &Flow, key: &str, bytes: Vec<u8>) {
    let s3 = flow.fixture.cloud.s3.client().await;
    s3.put_object().bucket(BUCKET).key(key).body(bytes.into()).send().await.unwrap();
}

/// Fails unless nothing became a backup, and the host is as after one.
async fn nothing_is_published(flow: &Flow) {
    assert_eq!(flow.fixture.pointer().await, None);
    assert_eq!(flow.published().await, [""; 0]);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_a_newer_one_has_overtaken_is_superseded() {
    let flow = Flow::eager().await;
    let late = flow
        .run_with_a_break(json!({}), async |flow| {
            next_second().await;
            flow.fixture.ok("backup --no-quiesce").await;
        })
        .await;
    assert_eq!(flow.is_success(&late), "Superseded");
    let newer = flow.fixture.pointer().await.unwrap();
    let late_id = flow.backup_of(&late);
    assert!(late_id < newer);
    let output = late.output.as_ref().unwrap();
    assert_eq!(output["published"]["outcome"], "superseded");
    assert_eq!(output["published"]["publication"]["by"], json!(newer));
    assert_eq!(output["published"]["publication"]["pointer_moved"], false);
    assert_eq!(flow.published().await, [late_id, newer], "the late one has a manifest and stays");
    assert_eq!(flow.workflow.sns.messages(), []);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointer_that_moves_under_its_hands_is_looked_at_again() {
    let flow = Flow::eager().await;
    let stall = Effect::Stall(Duration::from_secs(5));
    flow.fixture.cloud.s3.faults().on(Operation::PutObject).key_containing(POINTER).inject(stall);
    let execution = flow.start(json!({}));
    let moves = |call: &Call| call.operation == Operation::PutObject && call.key.as_deref() == Some(POINTER);
    until(|| flow.fixture.cloud.s3.calls().iter().any(moves)).await;
    let newer = flow.fixture.backup().await["backup_id"].as_str().unwrap().to_owned();
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&newer), "before the function's write is done");
    let ended = flow.ended(&execution).await;
    assert_eq!(flow.is_success(&ended), "Superseded");
    assert_eq!(flow.errors(&execution), [""; 0]);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&newer));
    assert_eq!(flow.published().await, [flow.backup_of(&ended), newer]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointer_that_was_written_and_not_acknowledged_is_known_again() {
    let flow = Flow::eager().await;
    let first = flow.fixture.backup().await;
    next_second().await;
    flow.fixture.cloud.s3.faults().on(Operation::PutObject).key_containing(POINTER).inject(Effect::LoseReply);
    let execution = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(flow.fixture.cloud.s3.faults().unfired(), [""; 0]);
    let ids = [first["backup_id"].as_str().unwrap().to_owned(), flow.backup_of(&execution)];
    assert_eq!(flow.published().await, ids);
    assert_eq!(flow.fixture.pointer().await.as_ref(), ids.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_like_damage_is_held_back_until_somebody_says_force() {
    let flow = Flow::eager().await;
    let good = flow.fixture.backup().await["backup_id"].as_str().unwrap().to_owned();
    flow.fixture.delete_points("docs", 40).await;
    flow.fixture.client().call(reqwest::Method::DELETE, "/collections/notes", None).await.unwrap();
    next_second().await;
    let suspicious = flow.run(json!({})).await;
    flow.has_failed(
        &suspicious,
        "Suspicious",
        &[
            "collection `docs` fell from 60 to 20 points",
            "collection `notes` with 20 points is gone",
            "hint: ",
            "force",
        ],
    );
    assert_eq!(flow.errors(&suspicious.arn), ["Suspicious"]);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&good));
    let held_back = flow.backup_of(&suspicious);
    assert_eq!(flow.published().await, [good, held_back.clone()], "its own manifest is stored");
    flow.assert_put_away().await;

    let forced = flow.run(json!({ "force": true })).await;
    assert_eq!(flow.is_success(&forced), "BackedUp");
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&forced)));
    let reasons = &forced.output.as_ref().unwrap()["published"]["publication"]["forced"];
    assert_eq!(reasons.as_array().unwrap().len(), 2, "{reasons}");
    assert!(flow.published().await.contains(&held_back));
    assert_eq!(flow.workflow.sns.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_somebody_writes_over_is_published_as_the_version_that_was_stored() {
    let mut flow = Flow::eager().await;
    let execution = flow
        .run_with_a_break(json!({}), async |flow| {
            let archive = key(flow, ".tar.zst").await;
            write(flow, &archive, b"not an archive".to_vec()).await;
        })
        .await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&execution)));
    flow.fixture.restores().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_gone_or_short_is_not_published() {
    let flow = Flow::eager().await;
    let gone = flow
        .run_with_a_break(json!({}), async |flow| {
            flow.fixture.cloud.s3.remove(BUCKET, &key(flow, ".tar.zst").await).unwrap();
        })
        .await;
    flow.has_failed(&gone, "ManifestMissing", &[".tar.zst", "hint: "]);
    nothing_is_published(&flow).await;

    let flow = Flow::eager().await;
    let short = flow
        .run_with_a_break(json!({}), async |flow| {
            flow.fixture.cloud.s3.truncate(BUCKET, &key(flow, ".tar.zst").await, 1000).unwrap();
        })
        .await;
    flow.has_failed(&short, "ChecksumMismatch", &[".tar.zst", "1000", "hint: "]);
    nothing_is_published(&flow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_the_host_did_not_hand_over_is_not_believed() {
    let flow = Flow::eager().await;
    let gone = flow
        .run_with_a_break(json!({}), async |flow| {
            flow.fixture.cloud.s3.remove(BUCKET, &handed_over(flow).await).unwrap();
        })
        .await;
    flow.has_failed(
        &gone,
        "ManifestMissing",
        &["which the host says that it has stored", "hint: see who else may write"],
    );
    nothing_is_published(&flow).await;

    let flow = Flow::eager().await;
    let other = flow
        .run_with_a_break(json!({}), async |flow| {
            let manifest = handed_over(flow).await;
            let text = fs_err::read_to_string(flow.fixture.cloud.object_path(&manifest)).unwrap();
            write(flow, &manifest, text.replace("60", "61").into_bytes()).await;
        })
        .await;
    flow.has_failed(
        &other,
        "ChecksumMismatch",
        &["has the SHA-256", "and the host stored", "hint: see who else may write"],
    );
    nothing_is_published(&flow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_asks_to_slow_down_is_tried_again_by_the_client_and_by_the_state() {
    let flow = Flow::eager().await;
    let execution = flow
        .run_with_a_break(json!({}), async |flow| {
            let faults = flow.fixture.cloud.s3.faults();
            faults
                .on(Operation::PutObject)
                .key_containing("qdrant/manifests/")
                .times(7)
                .inject(Effect::SlowDown);
            faults.on(Operation::PutObject).key_containing(POINTER).times(2).inject(Effect::SlowDown);
        })
        .await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(flow.fixture.cloud.s3.faults().unfired(), [""; 0]);
    let errors = flow.errors(&execution.arn);
    assert!(errors.contains(&"StoreUnavailable".to_owned()), "{errors:?}");
    assert_eq!(flow.published().await, [flow.backup_of(&execution)]);
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&execution)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_takes_the_manifest_fails_the_execution_and_the_archive_stays() {
    let flow = Flow::eager().await;
    let execution = flow
        .run_with_a_break(json!({}), async |flow| {
            flow.fixture.cloud.s3.faults().deny(Operation::PutObject, "qdrant/manifests/");
        })
        .await;
    flow.has_failed(&execution, "StoreUnavailable", &["AccessDenied", "qdrant/manifests/", "hint: "]);
    let errors = flow.errors(&execution.arn);
    assert_eq!(errors.iter().filter(|error| *error == "StoreUnavailable").count(), 7, "{errors:?}");
    assert!(key(&flow, ".tar.zst").await.contains(&flow.backup_of(&execution)));
    nothing_is_published(&flow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_refuses_does_not_hide_the_failure() {
    let flow = Flow::eager().await;
    let topic = "arn:aws:sns:us-east-1:000000000000:qdrant-backup-alarms";
    flow.workflow.sns.faults().on(topic).times(u64::MAX).inject(SnsEffect::InternalError);
    let execution = flow.run(json!({ "trigger": "marker" })).await;
    assert_eq!(execution.status, Status::Failed);
    assert_eq!(execution.failure.error.as_deref(), Some("IndexingIncomplete"));
    assert!(execution.failure.cause.as_ref().unwrap().contains("there is no success marker"));
    assert_eq!(flow.states(&execution.arn), ["Begin", "Decide", "CountFailure", "NotifyFailure", "Failed"]);
    let errors = flow.errors(&execution.arn);
    assert_eq!(errors[0], "IndexingIncomplete");
    assert_eq!(errors[1..], ["SNS.InternalErrorException"; 5]);
    assert_eq!(flow.workflow.sns.messages(), []);

    flow.workflow.sns.faults().clear();
    flow.workflow.sns.faults().on(topic).inject(SnsEffect::LoseReply);
    let execution = flow.run(json!({ "trigger": "marker" })).await;
    assert_eq!(execution.failure.error.as_deref(), Some("IndexingIncomplete"));
    assert_eq!(flow.workflow.sns.messages().len(), 2, "told twice rather than not at all");
}
