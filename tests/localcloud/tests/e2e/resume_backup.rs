//! A backup that was killed, or told to stop, goes on in the next: with the same snapshots, the same key and the parts that the store has.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use localcloud::s3::{Effect, Operation};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Fixture, LARGE_POINTS, Running, archive, failed, files_below, id, next_second, until};

/// Starts a backup whose second part hangs, the `run`-th that tries it, and waits until all others are stored.
async fn hanging(fixture: &Fixture, run: usize) -> Running {
    let never = Effect::Stall(Duration::from_secs(300));
    fixture.cloud.s3.faults().on(Operation::UploadPart).part(2).inject(never);
    let worker = fixture.start("backup --no-quiesce");
    until(|| {
        let calls = fixture.cloud.s3.calls();
        let tried = calls.iter().filter(|call| call.part_number == Some(2)).count();
        tried == run && fixture.stored_parts().len() == 2
    })
    .await;
    worker
}

/// What the bucket, the host and Qdrant's disk have no more when a backup is done.
async fn assert_tidy(fixture: &Fixture) {
    assert_eq!(fixture.uploads().await, 0);
    assert_eq!(fixture.snapshot_files().len(), 0);
    let left = files_below(&fixture.cloud.work_dir());
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("unfinished")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_upload_the_next_sends_only_what_is_missing() {
    let mut fixture = Fixture::large().await;
    let worker = hanging(&fixture, 1).await;
    worker.signal(Signal::KILL);
    assert_eq!(worker.finished().await.code(), None);
    fixture.cloud.s3.faults().clear();
    let first = fixture.cloud.s3.take_calls();
    let created = first.iter().find(|call| call.operation == Operation::CreateMultipartUpload).unwrap();
    assert_eq!(fixture.pointer().await, None);

    // More data has come in the meantime: what was begun is finished as it was.
    fixture.load("notes", 20).await;
    next_second().await;
    fixture.cloud.s3.faults().on(Operation::UploadPart).inject(Effect::ResetRequest { after: 1 << 20 });
    let result = fixture.ok("backup --no-quiesce").await;
    let calls = fixture.cloud.s3.take_calls();
    let sent: Vec<_> = calls
        .iter()
        .filter(|call| call.operation == Operation::UploadPart)
        .map(|call| call.part_number)
        .collect();
    assert_eq!(sent, [Some(2); 2], "only what was not stored; the first time it is cut off after a mebibyte");
    assert!(calls.iter().all(|call| call.operation != Operation::CreateMultipartUpload));
    assert_eq!(result["resumed_parts"], 2);
    let manifest = result["manifest"].clone();
    assert_eq!(Some(archive(&manifest)), created.key, "it is the same attempt");
    assert_eq!(manifest["collections"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&manifest)));
    assert_tidy(&fixture).await;

    assert_eq!(fixture.ok("verify --archive").await["passed"], true);
    fixture.restores().await;
    assert_eq!(fixture.count("large").await, LARGE_POINTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_ends_within_two_seconds_and_goes_on_later() {
    let fixture = Fixture::large().await;
    for (run, signal) in [(1, Signal::TERM), (2, Signal::INT), (3, Signal::TERM)] {
        let worker = hanging(&fixture, run).await;
        let begin = Instant::now();
        worker.signal(signal);
        let finished = worker.finished().await;
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        failed(&finished, "Cancelled", 1);
        fixture.cloud.s3.faults().clear();
        assert_eq!(fixture.uploads().await, 1, "it can be gone on with");
        assert_eq!(fixture.cloud.s3.count(Operation::AbortMultipartUpload), 0);
        assert_eq!(fixture.cloud.s3.count(Operation::CreateMultipartUpload), 1);
    }
    // Stopped three times, the parts that were stored in the first run were sent once.
    assert_eq!(fixture.ok("backup --no-quiesce").await["resumed_parts"], 2);
    let mut stored = fixture.stored_parts();
    stored.sort_unstable();
    assert_eq!(stored, [1, 2, 3]);
    assert_tidy(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_archive_it_is_found_and_published() {
    let never = Effect::Stall(Duration::from_secs(300));
    let fixture = Fixture::small().await;
    for operation in [Operation::HeadObject, Operation::PutObject] {
        let faults = fixture.cloud.s3.faults();
        if operation == Operation::HeadObject {
            // The store makes the object; the worker does not get to know it.
            faults.on(Operation::CompleteMultipartUpload).inject(Effect::LoseReply);
        }
        faults.on(operation).key_containing("qdrant_snapshot").inject(never);
        fixture.forget_calls();
        let worker = fixture.start("backup --no-quiesce");
        until(|| {
            let beside = |key: &String| key.contains("qdrant_snapshot");
            let calls = fixture.cloud.s3.calls();
            calls.iter().any(|call| call.operation == operation && call.key.as_ref().is_some_and(beside))
        })
        .await;
        worker.signal(Signal::KILL);
        assert_eq!(worker.finished().await.code(), None);
        fixture.cloud.s3.faults().clear();
        let archives = fixture.keys().await.into_iter().filter(|key| key.ends_with(".tar.zst"));
        let newest = archives.max().unwrap();
        fixture.forget_calls();
        next_second().await;
        let manifest = fixture.backup().await;
        assert_eq!(archive(&manifest), newest, "the archive that was there");
        assert_eq!(fixture.cloud.s3.count(Operation::UploadPart), 0);
        assert_eq!(fixture.pointer().await.as_deref(), Some(id(&manifest)));
        assert_tidy(&fixture).await;
        assert_eq!(fixture.ok("verify --archive").await["passed"], true);
    }
}

/// A backup that was killed when its archive was on its way.
async fn killed() -> (Fixture, String) {
    let fixture = Fixture::small().await;
    fixture.cloud.s3.faults().on(Operation::UploadPart).inject(Effect::Stall(Duration::from_secs(300)));
    let worker = fixture.start("backup --no-quiesce");
    fixture.until_asked(Operation::UploadPart).await;
    worker.signal(Signal::KILL);
    assert_eq!(worker.finished().await.code(), None);
    fixture.cloud.s3.faults().clear();
    let calls = fixture.cloud.s3.take_calls();
    let key =
        calls.iter().find(|call| call.operation == Operation::CreateMultipartUpload).unwrap().key.clone();
    next_second().await;
    (fixture, key.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_wish_is_another_backup_and_the_old_upload_is_aborted() {
    for line in [
        "backup --no-quiesce --fresh",
        "backup --no-quiesce --level 3",
        "backup --no-quiesce --collection docs",
    ] {
        let (fixture, key) = killed().await;
        let manifest = fixture.ok(line).await["manifest"].clone();
        assert_ne!(archive(&manifest), key, "{line}");
        assert_eq!(fixture.cloud.s3.count(Operation::AbortMultipartUpload), 1, "{line}");
        assert_tidy(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_torn_or_gone_is_taken_again() {
    let tear: [fn(&std::path::Path); 3] = [
        |path| {
            fs_err::remove_file(path).unwrap();
            fs_err::remove_file(path.with_extension("snapshot.checksum")).unwrap();
        },
        |path| fs_err::OpenOptions::new().append(true).open(path).unwrap().file().set_len(10).unwrap(),
        |path| {
            let mut bytes = fs_err::read(path).unwrap();
            bytes[1000] ^= 1;
            fs_err::write(path, bytes).unwrap();
        },
    ];
    for tear in tear {
        let (mut fixture, key) = killed().await;
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "snapshot");
        tear(&fixture.snapshot_files().into_iter().find(is_snapshot).unwrap());
        let manifest = fixture.backup().await;
        assert_ne!(archive(&manifest), key);
        assert_eq!(fixture.pointer().await.as_deref(), Some(id(&manifest)));
        assert_tidy(&fixture).await;
        fixture.restores().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_batch_a_restore_or_a_long_time_make_it_another_backup() {
    for how in ["batch", "restored", "hours", "set back"] {
        let (fixture, key) = killed().await;
        let state = fixture.cloud.work_dir().join("unfinished/backup.json");
        let mut unfinished: Value = serde_json::from_slice(&fs_err::read(&state).unwrap()).unwrap();
        let now = jiff::Timestamp::now();
        match how {
            "batch" => {
                unfinished["description"]["indexing"] = json!({
                    "batch_id": "before", "finished_at": "2026-11-23T05:00:00Z"
                })
            }
            "restored" => {
                unfinished["description"]["origin"] = json!({ "backup_id": null, "degraded": false })
            }
            "hours" => {
                let then = now - jiff::SignedDuration::from_hours(7);
                unfinished["description"]["created_at"] = then.to_string().into();
            }
            _ => {
                let then = now + jiff::SignedDuration::from_hours(1);
                unfinished["description"]["created_at"] = then.to_string().into();
            }
        }
        fs_err::write(&state, unfinished.to_string()).unwrap();
        let finished = fixture.run("backup --no-quiesce").await;
        assert!(finished.stderr.contains("beginning anew"), "{how}: {}", finished.stderr);
        let manifest = finished.success().unwrap()["manifest"].clone();
        assert_ne!(archive(&manifest), key, "{how}");
        assert_tidy(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_somebody_aborted_is_begun_anew() {
    let (fixture, key) = killed().await;
    let s3 = fixture.cloud.s3.client().await;
    let listed = s3.list_multipart_uploads().bucket(localcloud::cloud::BUCKET).send().await.unwrap();
    let upload = &listed.uploads()[0];
    s3.abort_multipart_upload()
        .bucket(localcloud::cloud::BUCKET)
        .key(&key)
        .upload_id(upload.upload_id().unwrap())
        .send()
        .await
        .unwrap();
    let finished = fixture.run("backup --no-quiesce").await;
    assert!(finished.stderr.contains("does not have it any more"), "{}", finished.stderr);
    let manifest = finished.success().unwrap()["manifest"].clone();
    assert_ne!(archive(&manifest), key);
    assert_tidy(&fixture).await;
}
