//! The object store refuses, fails, stalls, loses answers or goes away; workers are stopped, killed, and meet each other.

use std::time::Duration;

use localcloud::{
    cloud::{BUCKET, Cloud},
    qdrant::{QdrantOptions, Server, ServerOptions},
    s3::{Effect, Operation},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Fixture, Running, archive, corpus, encoded, failed, finish, id, next_second, says, until,
};

/// The archive and its side files, apart from manifests.
const ARCHIVES: &str = "qdrant/backups/";

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_a_setting_to_correct() {
    let fixture = Fixture::small().await;
    for line in ["backup --no-quiesce --bucket nowhere", "restore --bucket nowhere", "list --bucket nowhere"]
    {
        let said = fixture.fails(line, "ConfigInvalid", 2).await;
        says(&said, &["the bucket does not exist", "check the name `nowhere`"]);
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_publishes_nothing_and_is_gone_on_with_when_it_is_allowed() {
    for (operation, text) in [
        (Operation::CreateMultipartUpload, "start the upload of"),
        (Operation::UploadPart, "upload part 1 of"),
        (Operation::CompleteMultipartUpload, "complete the upload of"),
    ] {
        let fixture = Fixture::small().await;
        let faults = fixture.cloud.s3.faults();
        faults.deny(operation, "");
        let said = fixture.fails("backup --no-quiesce", "StoreUnavailable", 1).await;
        says(&said, &[text, "AccessDenied", "check the credentials"]);
        faults.allow_all();
        assert_eq!(fixture.keys().await, [""; 0]);
        assert!(!fixture.snapshot_files().is_empty(), "they wait for the policy to be put right");
        fixture.forget_calls();
        next_second().await;
        fixture.backup().await;
        assert_eq!(fixture.uploads().await, 0);
        assert_eq!(fixture.snapshot_files().len(), 0);
        let made_anew = operation == Operation::CreateMultipartUpload;
        assert_eq!(fixture.cloud.s3.count(Operation::CreateMultipartUpload), usize::from(made_anew));
    }

    // Where nothing can be published, nothing is stored.
    let fixture = Fixture::small().await;
    let faults = fixture.cloud.s3.faults();
    faults.deny(Operation::PutObject, "");
    let said = fixture.fails("backup --no-quiesce", "StoreUnavailable", 1).await;
    says(&said, &["the bucket cannot be published to", "s3:PutObject"]);
    fixture.assert_nothing_left().await;

    // The archive is stored, and nothing that would make it a backup.
    faults.deny(Operation::PutObject, "qdrant/backups/qdrant_snapshot");
    let said = fixture.fails("backup --no-quiesce", "StoreUnavailable", 1).await;
    says(&said, &["access is refused", "s3:PutObject"]);
    faults.clear();
    let keys = fixture.keys().await;
    assert!(keys.len() == 1 && keys[0].ends_with(".tar.zst"), "{keys:?}");

    // A role that may store and not publish: the archive is not stored again.
    fixture.forget_calls();
    faults.deny(Operation::PutObject, protocol::key::POINTER);
    next_second().await;
    fixture.fails("backup --no-quiesce", "StoreUnavailable", 1).await;
    faults.clear();
    assert_eq!(fixture.pointer().await, None);
    assert_eq!(fixture.snapshot_files().len(), 0, "what is stored needs them no more");
    let manifest = fixture.backup().await;
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&manifest)));
    assert_eq!(archive(&manifest), keys[0], "it is the first run's backup, published at last");
    assert_eq!(fixture.cloud.s3.count(Operation::UploadPart), 0);
    assert_eq!(fixture.uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_read_is_never_taken_for_an_absence() {
    let mut fixture = Fixture::small().await;
    let faults = fixture.cloud.s3.faults();
    // Nothing is stored, and these credentials may not know it.
    faults.deny(Operation::ListObjectsV2, "");
    for line in ["restore", "list", "backup --no-quiesce", "verify --archive"] {
        let said = fixture.fails(line, "StoreUnavailable", 1).await;
        says(&said, &["access is refused", "s3:ListBucket"]);
    }
    faults.clear();
    fixture.backup().await;
    fixture.replace_host().await;
    let faults = fixture.cloud.s3.faults();
    for (prefix, text) in [("", "latest_qdrant_backup.manifest.json"), (ARCHIVES, "AccessDenied")] {
        for fallback in ["", " --fallback"] {
            faults.deny(Operation::GetObject, prefix);
            let said = fixture.fails(&format!("restore{fallback}"), "StoreUnavailable", 1).await;
            says(&said, &[text]);
            faults.clear();
            fixture.assert_nothing_restored().await;
        }
    }
    faults.deny(Operation::HeadObject, ARCHIVES);
    fixture.fails("restore --fallback", "StoreUnavailable", 1).await;
    fixture.fails("verify --archive", "StoreUnavailable", 1).await;
    faults.clear();
    fixture.assert_nothing_restored().await;
    fixture.ok("restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_a_refusal() {
    let fixture = Fixture::small().await;
    for line in ["backup --no-quiesce", "restore", "list"] {
        let finished = finish(fixture.command(line).env("AWS_SECRET_ACCESS_KEY", "mistyped")).await;
        let said = failed(&finished, "StoreUnavailable", 1);
        says(&said, &["access is refused", "SignatureDoesNotMatch", "these credentials need"]);
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_backup_and_a_restore_may_fail_once_or_twice() {
    let mut fixture = Fixture::small().await;
    let faults = fixture.cloud.s3.faults();
    for operation in [
        Operation::CreateMultipartUpload,
        Operation::UploadPart,
        Operation::ListParts,
        Operation::CompleteMultipartUpload,
        Operation::HeadObject,
        Operation::PutObject,
    ] {
        faults.on(operation).inject(Effect::InternalError);
        faults.on(operation).nth(2).inject(Effect::SlowDown);
    }
    fixture.backup().await;
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(fixture.uploads().await, 0);
    faults.on(Operation::ListObjectsV2).inject(Effect::InternalError);
    faults.on(Operation::ListObjectsV2).nth(2).inject(Effect::SlowDown);
    assert_eq!(fixture.ok("list").await["backups"][0]["published"], true);
    assert_eq!(faults.unfired(), [""; 0]);

    fixture.replace_host().await;
    let faults = fixture.cloud.s3.faults();
    faults.on(Operation::GetObject).inject(Effect::SlowDown);
    faults.on(Operation::GetObject).key_containing("latest").nth(2).inject(Effect::CutReply { after: 100 });
    faults.on(Operation::GetObject).key_containing(".tar.zst").times(2).inject(Effect::InternalError);
    faults.on(Operation::GetObject).key_containing(".tar.zst").inject(Effect::CutReply { after: 1000 });
    faults.on(Operation::GetObject).key_containing(".frames").inject(Effect::LoseReply);
    faults.on(Operation::HeadObject).inject(Effect::InternalError);
    assert_eq!(fixture.ok("restore").await["verdict"]["passed"], true);
    assert_eq!(fixture.cloud.s3.faults().unfired(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_may_be_reset_lost_stalled_or_slow() {
    let mut fixture = Fixture::small().await;
    let faults = fixture.cloud.s3.faults();
    faults.on(Operation::UploadPart).inject(Effect::ResetRequest { after: 50_000 });
    faults.on(Operation::UploadPart).nth(2).inject(Effect::LoseReply);
    faults.on(Operation::UploadPart).nth(3).inject(Effect::ResetRequest { after: 1 });
    faults.on(Operation::UploadPart).nth(4).inject(Effect::Stall(Duration::from_millis(700)));
    fixture.backup().await;
    assert_eq!(faults.unfired(), [""; 0]);
    next_second().await;
    faults.on(Operation::UploadPart).inject(Effect::Throttle { bytes_per_second: 150_000 });
    fixture.backup().await;
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(fixture.ok("verify --archive").await["passed"], true);

    fixture.replace_host().await;
    let faults = fixture.cloud.s3.faults();
    faults
        .on(Operation::GetObject)
        .key_containing(".tar.zst")
        .inject(Effect::Throttle { bytes_per_second: 150_000 });
    faults.on(Operation::GetObject).inject(Effect::Stall(Duration::from_millis(700)));
    fixture.ok("restore").await;
    assert_eq!(fixture.cloud.s3.faults().unfired(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_found_out_about() {
    let fixture = Fixture::small().await;
    let faults = fixture.cloud.s3.faults();
    faults.on(Operation::CreateMultipartUpload).inject(Effect::LoseReply);
    faults.on(Operation::CompleteMultipartUpload).inject(Effect::LoseReply);
    for key in [".sha256", ".frames", ".golden", "qdrant/manifests/", protocol::key::POINTER] {
        faults.on(Operation::PutObject).key_containing(key).inject(Effect::LoseReply);
    }
    let first = fixture.ok("backup --no-quiesce").await;
    assert_eq!(first["publication"]["outcome"]["outcome"], "published", "{first:#}");
    assert_eq!(first["publication"]["pointer_moved"], true);
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(fixture.uploads().await, 0, "the upload whose start was not answered is aborted");
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&first["manifest"])));

    // The same where the pointer is replaced and not created.
    next_second().await;
    faults.on(Operation::PutObject).key_containing(protocol::key::POINTER).inject(Effect::LoseReply);
    let second = fixture.ok("backup --no-quiesce").await;
    assert_eq!(second["publication"]["outcome"]["outcome"], "published", "{second:#}");
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&second["manifest"])));
    assert_eq!(fixture.ok("verify --archive").await["passed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_the_store_keeps_wrong_is_found_by_reading_again() {
    let mut fixture = Fixture::small().await;
    let faults = fixture.cloud.s3.faults();
    faults.on(Operation::UploadPart).inject(Effect::WrongByte { offset: 30_000 });
    fixture.backup().await;
    assert_eq!(faults.unfired(), [""; 0]);
    let verified = fixture.run("verify --archive").await;
    assert_eq!(verified.code(), Some(3), "{}{}", verified.stdout, verified.stderr);
    let verified = verified.json().unwrap();
    assert_eq!(verified["passed"], false);
    assert_eq!(verified["proof_stored"], false);
    says(&verified, &["frame 1 at byte"]);
    fixture.replace_host().await;
    says(&fixture.fails("restore", "ArchiveCorrupt", 1).await, &["frame 1 of", "is damaged"]);
    fixture.assert_nothing_restored().await;
}

/// A worker that stands in the middle of its upload.
async fn uploading(fixture: &Fixture) -> Running {
    fixture.cloud.s3.faults().on(Operation::UploadPart).inject(Effect::Throttle { bytes_per_second: 20_000 });
    let worker = fixture.start("backup --no-quiesce");
    fixture.until_asked(Operation::UploadPart).await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_for_rest_or_a_snapshot_stops_when_told() {
    let fixture = Fixture::small_with(QdrantOptions {
        snapshot_bytes_per_second: Some(100_000),
        ..QdrantOptions::default()
    })
    .await;
    let begin = std::time::Instant::now();
    let worker = fixture.start("backup");
    until(|| fixture.stand_in().calls().iter().any(|call| call.route == "/metrics")).await;
    worker.signal(Signal::TERM);
    failed(&worker.finished().await, "Cancelled", 1);

    fixture.stand_in().clear_calls();
    let worker = fixture.start("backup --no-quiesce");
    fixture.until_qdrant_is_asked("POST", "/collections/docs/snapshots").await;
    worker.signal(Signal::TERM);
    failed(&worker.finished().await, "Cancelled", 1);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(fixture.keys().await, [""; 0]);
    // Qdrant finishes what nobody waits for any more; the next backup knows whose it is.
    until(|| !fixture.snapshots_of("docs").is_empty()).await;
    fixture.backup().await;
    assert_eq!(fixture.snapshot_files().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_no_hindrance_to_the_next() {
    let mut fixture = Fixture::small().await;
    let before = fixture.backup().await;
    next_second().await;
    fixture.forget_calls();
    let worker = uploading(&fixture).await;
    worker.signal(Signal::KILL);
    assert_eq!(worker.finished().await.code(), None);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&before)), "the pointer was never wrong");
    assert!(!fixture.snapshot_files().is_empty(), "nobody could clean up");
    assert_eq!(fixture.uploads().await, 1);

    fixture.cloud.s3.faults().clear();
    next_second().await;
    let after = fixture.ok("backup --no-quiesce --fresh").await["manifest"].clone();
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&after)));
    assert_eq!(fixture.snapshot_files().len(), 0, "what the killed one left is removed");
    assert_eq!(fixture.uploads().await, 0);
    fixture.restores().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_backups_on_one_host_one_is_busy() {
    let fixture = Fixture::small().await;
    let stall = Effect::Stall(Duration::from_secs(3));
    fixture.cloud.s3.faults().on(Operation::UploadPart).inject(stall);
    let first = fixture.start("backup --no-quiesce");
    let pid = first.pid();
    fixture.until_asked(Operation::UploadPart).await;
    for line in ["backup --no-quiesce", "restore --as -x"] {
        let said = fixture.fails(line, "Busy", 1).await;
        assert_eq!(said["transient"], true);
        says(&said, &[&format!("is held by: backup (process {pid})"), "wait until it has ended"]);
    }
    // Looking is always allowed.
    fixture.ok("list").await;
    let first = first.finished().await.success().unwrap();
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&first["manifest"])));
}

/// Another host with a Qdrant of its own that backs up into the same bucket.
async fn other_host(fixture: &Fixture, points: usize) -> (Server, tokio::process::Command) {
    let options = ServerOptions { only_stand_in: true, ..Cloud::protected(QdrantOptions::default()) };
    let other = Server::choose(options).await.unwrap();
    let client = localcloud::indexer::Client::new(&other.url(), other.api_key());
    client.create_collection(&encoded("docs")).await.unwrap();
    client.index("docs", corpus().points().take(points)).await.unwrap();
    let mut command = fixture.command("backup --no-quiesce");
    command
        .env("QDRANT_BACKUP_QDRANT_URL", other.url())
        .env("QDRANT_BACKUP_SNAPSHOTS_DIR", other.snapshots_dir())
        .env("QDRANT_BACKUP_QDRANT_SNAPSHOTS_PATH", other.snapshots_dir())
        .env("QDRANT_BACKUP_WORK_DIR", fixture.cloud.work_dir().with_extension("other"));
    (other, command)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_the_younger_backup_wins_however_late_the_older_is() {
    let fixture = Fixture::empty().await;
    fixture.load("docs", 60).await;
    let (_other, mut command) = other_host(&fixture, 50).await;
    let late = Effect::Stall(Duration::from_secs(4));
    fixture.cloud.s3.faults().on(Operation::PutObject).key_containing(protocol::key::POINTER).inject(late);
    let older = fixture.start("backup --no-quiesce");
    until(|| {
        let calls = fixture.cloud.s3.calls();
        calls.iter().any(|call| {
            call.operation == Operation::PutObject && call.key.as_deref() == Some(protocol::key::POINTER)
        })
    })
    .await;
    next_second().await;
    let younger = finish(&mut command).await.success().unwrap();
    assert_eq!(younger["publication"]["outcome"]["outcome"], "published");
    let older = older.finished().await.success().unwrap();
    assert_eq!(older["publication"]["outcome"]["outcome"], "superseded", "{older:#}");
    assert_eq!(older["publication"]["outcome"]["by"], younger["manifest"]["backup_id"]);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&younger["manifest"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_in_the_same_second_do_not_mix() {
    let fixture = Fixture::empty().await;
    fixture.load("docs", 60).await;
    let (_other, mut command) = other_host(&fixture, 60).await;
    let into_second = u64::try_from(jiff::Timestamp::now().subsec_millisecond()).unwrap();
    tokio::time::sleep(Duration::from_millis(1000 - into_second)).await;
    let (first, second) = (fixture.start("backup --no-quiesce"), Running::start(&mut command));
    let (first, second) = tokio::join!(first.finished(), second.finished());
    let mut manifests: Vec<Value> = Vec::new();
    for finished in [first, second] {
        if finished.code() == Some(0) {
            manifests.push(finished.json().unwrap()["manifest"].clone());
        } else {
            // The same id for another content.
            failed(&finished, "ManifestConflict", 1);
        }
    }
    let newest =
        manifests.iter().max_by_key(|manifest| id(manifest).to_owned()).expect("one of them is a backup");
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(newest)));
    let shown = fixture.ok("show").await;
    assert!(manifests.iter().any(|manifest| archive(manifest) == archive(&shown)), "{shown:#}");
    let object = fixture
        .cloud
        .s3
        .client()
        .await
        .head_object()
        .bucket(BUCKET)
        .key(archive(&shown))
        .send()
        .await
        .unwrap();
    assert_eq!(object.content_length(), shown["size_bytes"].as_i64());
    assert_eq!(fixture.ok("verify --archive").await["passed"], true);
}
