//! A backup whose id is given, as a workflow asks for it: killed at any step and asked for again, it is one backup with one answer.
//!
//! The worker's library is called here, in this process; a kill is that its future is dropped.

use std::time::Duration;

use catalog::{Catalog, PublishPolicy};
use host_worker::{
    Error,
    backup::workflow,
    config::Config,
    lock::HostLock,
    progress::{Display, Phases},
    pulse::{Phase, Pulse, Seen},
    session::Session,
};
use jiff::{SignedDuration, Timestamp};
use localcloud::{
    cloud::BUCKET,
    s3::{Effect, Operation},
};
use protocol::{BackupId, Layout, Manifest, key, task::Stored};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{Fixture, archive, files_below, next_second};

const NEVER: Effect = Effect::Stall(Duration::from_secs(300));

/// The clients that the worker has on this cloud's host.
async fn session(fixture: &Fixture) -> Session {
    let settings = json!({
        "bucket": BUCKET,
        "qdrant-url": fixture.cloud.qdrant.url(),
        "snapshots-dir": fixture.cloud.qdrant.snapshots_dir(),
        "qdrant-snapshots-path": fixture.cloud.qdrant.server_snapshots_dir(),
        "success-marker": key::DEFAULT_SUCCESS_MARKER,
        "work-dir": fixture.cloud.work_dir(),
    });
    let api_key = fixture.cloud.qdrant.api_key().map(str::to_owned);
    let config = Config::new(serde_json::from_value(settings).unwrap(), None, api_key).unwrap();
    let client = fixture.cloud.s3.client().await;
    let documents = catalog::store::S3::new(client.clone(), BUCKET);
    let catalog = Catalog::new(documents, BUCKET, Layout::new(key::DEFAULT_PREFIX.parse().unwrap()));
    let objects = transfer::store::S3::new(client, BUCKET).with_signed_payloads(true);
    Session { config, catalog, objects, cancel: CancellationToken::new() }
}

/// The id of an execution that began an hour ago.
fn an_hour_ago() -> BackupId {
    BackupId::from_time(Timestamp::now() - SignedDuration::from_hours(1)).unwrap()
}

async fn store(session: &Session, id: BackupId, collections: &[&str]) -> Result<Stored, Error> {
    let lock = HostLock::acquire(&session.config.work_dir(), "backup").unwrap();
    let mut args = session.config.task_backup_args().clone();
    args.collections = collections.iter().map(|name| name.parse().unwrap()).collect();
    let phases = Phases::new(Display::Log);
    Box::pin(workflow::stored(session, &lock, id, &args, phases, Timestamp::now())).await
}

/// Stores, and drops that when the bucket is asked for `operation` on a key with `part`, which never answers.
async fn killed_at(fixture: &Fixture, session: &Session, id: BackupId, operation: Operation, part: &str) {
    fixture.cloud.s3.faults().on(operation).key_containing(part).inject(NEVER);
    fixture.forget_calls();
    let asked = async {
        loop {
            let calls = fixture.cloud.s3.calls();
            let here = |key: &Option<String>| key.as_ref().is_some_and(|key| key.contains(part));
            if calls.iter().any(|call| call.operation == operation && here(&call.key)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = asked => {}
        stored = store(session, id, &[]) => panic!("nothing hung at {operation:?}: {stored:?}"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it never came to {operation:?} of {part}"),
    }
    fixture.cloud.s3.faults().clear();
}

/// What is handed over for publication, which must be what was answered.
async fn handed_over(session: &Session, stored: &Stored) -> Manifest {
    let bytes = session.catalog.get_side_file(&stored.key.manifest(), 1 << 20).await.unwrap().unwrap();
    assert_eq!(Manifest::digest(&bytes), stored.manifest_sha256);
    let manifest = Manifest::from_json(&bytes).unwrap();
    assert_eq!((&manifest.key, manifest.backup_id), (&stored.key, stored.backup_id));
    manifest
}

async fn archives(fixture: &Fixture) -> Vec<String> {
    fixture.keys().await.into_iter().filter(|key| key.ends_with(".tar.zst")).collect()
}

/// The names in the work directory that have something to do with backups.
fn kept(fixture: &Fixture) -> Vec<String> {
    let files = files_below(&fixture.cloud.work_dir());
    let names = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let mut names: Vec<String> =
        names.filter(|name| !["lock", "local-snapshots.json"].contains(&name.as_str())).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_given_id_stays_and_the_answer_is_given_again() {
    let fixture = Fixture::small().await;
    let (session, id, begin) = (session(&fixture).await, an_hour_ago(), Timestamp::now());
    let stored = store(&session, id, &[]).await.unwrap();
    assert_eq!((stored.backup_id, stored.collections, stored.points), (id, 2, 80));
    assert!(!stored.resumed && !stored.read_back, "{stored:?}");
    let manifest = handed_over(&session, &stored).await;
    assert!(manifest.created_at > begin, "created when its capture began: {}", manifest.created_at);
    assert_eq!(stored.timings, manifest.timings);
    assert_eq!(fixture.pointer().await, None);
    assert_eq!(kept(&fixture), [format!("{id}.manifest.json")]);
    assert_eq!(fixture.snapshot_files().len(), 0);

    // The answer was lost. Qdrant and the marker are not asked any more.
    fixture.load("more", 20).await;
    fixture.forget_calls();
    assert_eq!(store(&session, id, &[]).await.unwrap(), stored);
    assert_eq!(fixture.cloud.s3.count(Operation::CreateMultipartUpload), 0);
    assert_eq!(archives(&fixture).await, [stored.key.to_string()]);
    let refused = store(&session, id, &["docs"]).await.unwrap_err();
    assert!(refused.to_string().contains("of other collections"), "{refused}");

    let published = session.catalog.publish(&manifest, &PublishPolicy::default()).await.unwrap();
    assert!(published.pointer_moved);
    let again = fixture.ok(&format!("publish --backup {id}")).await;
    assert_eq!(again["publication"]["outcome"]["outcome"], "already-published");
    assert_eq!(kept(&fixture), [""; 0]);
    assert_eq!(store(&session, id, &[]).await.unwrap(), stored, "the catalogue has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_is_one_backup_with_one_answer() {
    let fixture = Fixture::small().await;
    let session = session(&fixture).await;
    let first = an_hour_ago().time();
    for (number, (operation, part)) in [
        (Operation::UploadPart, "qdrant_snapshot"),
        (Operation::CompleteMultipartUpload, "qdrant_snapshot"),
        (Operation::PutObject, ".sha256"),
        (Operation::PutObject, ".golden"),
        (Operation::PutObject, ".manifest.json"),
        (Operation::HeadObject, ".frames"),
    ]
    .into_iter()
    .enumerate()
    {
        let id =
            BackupId::from_time(first + SignedDuration::from_secs(i64::try_from(number).unwrap())).unwrap();
        killed_at(&fixture, &session, id, operation, part).await;
        let before = archives(&fixture).await;
        let stored = store(&session, id, &[]).await.unwrap();
        assert_eq!(stored.backup_id, id);
        // Who finds the manifest answers as the one who wrote it would have.
        let had_manifest = matches!(part, ".manifest.json" | ".frames");
        assert_eq!(stored.resumed, !had_manifest, "{part}");
        assert_eq!(store(&session, id, &[]).await.unwrap(), stored);
        handed_over(&session, &stored).await;
        let after = archives(&fixture).await;
        assert_eq!(after.len(), number + 1, "one archive for each backup: {after:?}");
        assert!(before.iter().all(|key| after.contains(key)), "{part}");
        assert_eq!(fixture.uploads().await, 0, "{part}");
        assert_eq!(fixture.snapshot_files().len(), 0, "{part}");
        assert!(kept(&fixture).iter().all(|name| name.ends_with(".manifest.json")), "{:?}", kept(&fixture));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_id_is_another_backup_and_a_person_goes_on_with_any() {
    let fixture = Fixture::small().await;
    let session = session(&fixture).await;
    let first = an_hour_ago();
    killed_at(&fixture, &session, first, Operation::UploadPart, "qdrant_snapshot").await;
    let second = BackupId::from_time(first.time() + SignedDuration::from_secs(1)).unwrap();
    let stored = store(&session, second, &[]).await.unwrap();
    assert_eq!((stored.backup_id, stored.resumed), (second, false));
    assert_eq!(archives(&fixture).await, [stored.key.to_string()]);
    assert_eq!(fixture.uploads().await, 0, "the first is put away");

    let third = BackupId::from_time(first.time() + SignedDuration::from_secs(2)).unwrap();
    killed_at(&fixture, &session, third, Operation::UploadPart, "qdrant_snapshot").await;
    // A person's backup that waits for quiescence asks for the same.
    let published = fixture.ok("backup").await;
    assert_eq!(published["manifest"]["backup_id"], third.to_string());
    assert_eq!(published["resumed"], true);
    let answered = store(&session, third, &[]).await.unwrap();
    assert_eq!(answered.key.to_string(), archive(&published["manifest"]));
    assert_eq!(archives(&fixture).await.len(), 2, "the workflow's retry finds it in the catalogue");
    handed_over(&session, &answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_wait_are_removed_when_the_catalogue_has_them() {
    let fixture = Fixture::small().await;
    let session = session(&fixture).await;
    let first = fixture.ok("backup --no-quiesce --no-publish").await["manifest"].clone();
    let first: Manifest = serde_json::from_value(first).unwrap();
    let bytes = session.catalog.get_side_file(&first.key.manifest(), 1 << 20).await.unwrap().unwrap();
    assert_eq!(bytes, first.to_json(), "it is handed over too");
    next_second().await;
    let second = fixture.ok("backup --no-quiesce --no-publish").await["manifest"].clone();
    let second = second["backup_id"].as_str().unwrap();
    let names = [format!("{}.manifest.json", first.backup_id), format!("{second}.manifest.json")];
    assert_eq!(kept(&fixture), names);
    session.catalog.publish(&first, &PublishPolicy::default()).await.unwrap();
    next_second().await;
    fixture.backup().await;
    assert_eq!(kept(&fixture), names[1..], "the one that nobody has published stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_how_long_writes_took_to_end() {
    let fixture = Fixture::small().await;
    let (session, id) = (session(&fixture).await, an_hour_ago());
    let pulse = Pulse::default();
    let phases = || Phases::watched(Display::Log, pulse.clone());
    let lock = HostLock::acquire(&session.config.work_dir(), "quiesce").unwrap();
    let mut args = session.config.task_backup_args().clone();
    let quiesced = workflow::quiesced(&session, &lock, id, &args, phases()).await.unwrap();
    let Seen { phase, marks } = pulse.seen();
    assert_eq!(phase, Phase::Quiesce);
    assert!(marks > 3, "every poll is one: {marks}");
    assert_eq!(quiesced.backup_id, id);
    assert!(quiesced.waited_seconds > 3.0, "three polls: {}", quiesced.waited_seconds);
    args.quiesce_timeout = 1;
    let refused = workflow::quiesced(&session, &lock, id, &args, phases()).await.unwrap_err();
    assert_eq!(refused.kind(), protocol::FailureKind::NotQuiesced, "one poll is not enough");
    assert_eq!(fixture.keys().await, [""; 0]);
}
