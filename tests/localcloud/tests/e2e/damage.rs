//! Stored objects that are damaged, cut, exchanged, gone, or from the future.

use localcloud::cloud::BUCKET;
use serde_json::Value;
use transfer::FrameIndex;

use crate::harness::{ALIAS, Fixture, archive, beside, id, next_second, says};

const POINTER: &str = protocol::key::POINTER;

/// A fixture with a backup, on a host that has lost everything.
async fn lost() -> (Fixture, Value) {
    let mut fixture = Fixture::small().await;
    let manifest = fixture.backup().await;
    fixture.replace_host().await;
    (fixture, manifest)
}

/// `verify --archive`, which must find something and say it so.
async fn assert_found(fixture: &Fixture, texts: &[&str]) -> Value {
    let finished = fixture.run("verify --archive").await;
    assert_eq!(finished.code(), Some(3), "{}{}", finished.stdout, finished.stderr);
    let found = finished.json().unwrap();
    assert_eq!(found["passed"], false);
    assert_eq!(found["proof_stored"], false);
    says(&found["findings"], texts);
    found
}

/// `restore`, which must fail so and leave nothing.
async fn assert_not_restored(fixture: &Fixture, line: &str, kind: &str, texts: &[&str]) {
    says(&fixture.fails(line, kind, 1).await, texts);
    fixture.assert_nothing_restored().await;
}

/// Replaces an object as somebody who may write it would, with checksums that are right.
async fn overwrite(fixture: &Fixture, key: &str, bytes: Vec<u8>) {
    let s3 = fixture.cloud.s3.client().await;
    s3.put_object().bucket(BUCKET).key(key).body(bytes.into()).send().await.unwrap();
}

fn stored(fixture: &Fixture, key: &str) -> Vec<u8> {
    fs_err::read(fixture.cloud.object_path(key)).unwrap()
}

fn manifest_key(manifest: &Value) -> String {
    format!("qdrant/manifests/{}.json", id(manifest))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_in_every_frame() {
    let (fixture, manifest) = lost().await;
    let frames = manifest["archive"]["frame_count"].as_u64().unwrap();
    let index = FrameIndex::from_json_zst(&stored(&fixture, &beside(&manifest, "frames")), frames).unwrap();
    let offsets = index.offsets();
    let key = archive(&manifest);
    // Two snapshots, backup.json, and the headers before each.
    assert!(frames >= 5, "{frames} frames");
    let holds_snapshot = |frame: u64| {
        let entries = manifest["archive"]["entries"].as_array().unwrap();
        entries[..2].iter().any(|entry| entry["first_frame"] == frame)
    };
    let mut not_restored = 0;
    for (frame, bounds) in (0..frames).zip(offsets.windows(2)) {
        let middle = bounds[0].midpoint(bounds[1]);
        fixture.cloud.s3.corrupt(BUCKET, &key, middle, 0x10).unwrap();
        let found =
            assert_found(&fixture, &[&format!("frame {frame} at byte {}", bounds[0]), "SHA-256"]).await;
        assert_eq!(found["frames_good"], frames - 1);
        // Headers and backup.json are not needed to restore.
        if holds_snapshot(frame) {
            let text = format!("frame {frame} of `{key}` is damaged");
            assert_not_restored(&fixture, "restore", "ArchiveCorrupt", &[&text, "verify --archive"]).await;
            not_restored += 1;
        }
        fixture.cloud.s3.corrupt(BUCKET, &key, middle, 0x10).unwrap();
    }
    assert_eq!(not_restored, 2);
    // The seek table at the end is for other readers.
    fixture.cloud.s3.corrupt(BUCKET, &key, manifest["size_bytes"].as_u64().unwrap() - 3, 0x10).unwrap();
    assert_found(&fixture, &["seek table"]).await;
    assert_eq!(fixture.ok("restore").await["verdict"]["passed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_archive_is_not_restored_and_verify_says_what_is_left() {
    let (fixture, manifest) = lost().await;
    let (key, size) = (archive(&manifest), manifest["size_bytes"].as_u64().unwrap());
    for left in [size - 1, size / 2, 0] {
        fixture.cloud.s3.truncate(BUCKET, &key, left).unwrap();
        let text = format!("has size in bytes {left}, its manifest says {size}");
        assert_not_restored(&fixture, "restore", "ChecksumMismatch", &[&text, "do not restore from it"])
            .await;
        let found = assert_found(&fixture, &[&format!("the object has {left} bytes, not {size}")]).await;
        let frames_lost = manifest["archive"]["frame_count"].as_u64() > found["frames_good"].as_u64();
        assert_eq!(frames_lost, left < size - 1, "{found:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_side_file_is_found_before_anything_is_touched() {
    let (fixture, manifest) = lost().await;
    for (what, kind, text) in [
        ("frames", "ArchiveCorrupt", "read the frame index"),
        ("golden", "ChecksumMismatch", "is not the one that the manifest names"),
    ] {
        let key = beside(&manifest, what);
        let good = stored(&fixture, &key);
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for bad in [flipped, good[..good.len() - 5].to_vec(), Vec::new(), b"{}".to_vec()] {
            overwrite(&fixture, &key, bad).await;
            assert_not_restored(&fixture, "restore", kind, &[text, &key]).await;
            assert_found(&fixture, &[text, &key]).await;
        }
        fixture.cloud.s3.remove(BUCKET, &key).unwrap();
        assert_not_restored(&fixture, "restore", "ManifestMissing", &[&key]).await;
        assert_found(&fixture, &[&key]).await;
        overwrite(&fixture, &key, good).await;
    }
    assert_eq!(fixture.ok("verify --archive").await["passed"], true);
    fixture.ok("restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanged_objects_are_not_taken_for_each_other() {
    let mut fixture = Fixture::small().await;
    let first = fixture.backup().await;
    fixture.delete_points("docs", 5).await;
    next_second().await;
    let second = fixture.backup().await;
    fixture.replace_host().await;

    // A new version under the same key is another object: the manifest names its own.
    overwrite(&fixture, &archive(&second), stored(&fixture, &archive(&first))).await;
    assert_eq!(fixture.ok("verify --archive").await["passed"], true);
    fixture.cloud.s3.remove(BUCKET, &archive(&second)).unwrap();
    overwrite(&fixture, &archive(&second), stored(&fixture, &archive(&first))).await;
    assert_not_restored(&fixture, "restore", "ManifestMissing", &["does not exist", "version"]).await;

    for (what, kind) in [("frames", "ArchiveCorrupt"), ("golden", "ChecksumMismatch")] {
        let (ours, theirs) = (beside(&first, what), beside(&second, what));
        let good = stored(&fixture, &ours);
        overwrite(&fixture, &ours, stored(&fixture, &theirs)).await;
        let line = format!("restore --backup {}", id(&first));
        assert_not_restored(&fixture, &line, kind, &[&ours]).await;
        overwrite(&fixture, &ours, good).await;
    }
    overwrite(&fixture, &manifest_key(&first), stored(&fixture, &manifest_key(&second))).await;
    let text = format!("is that of backup {}", id(&second));
    assert_not_restored(&fixture, &format!("restore --backup {}", id(&first)), "ManifestInvalid", &[&text])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_is_invalid_and_fallback_reads_the_other() {
    let mut fixture = Fixture::small().await;
    let older = fixture.backup().await;
    next_second().await;
    let newer = fixture.backup().await;
    fixture.replace_host().await;
    let good = stored(&fixture, POINTER);
    for bad in [b"[".to_vec(), good[..good.len() / 2].to_vec(), Vec::new(), good[1..].to_vec()] {
        overwrite(&fixture, POINTER, bad).await;
        assert_not_restored(&fixture, "restore", "ManifestInvalid", &[POINTER, "list-object-versions"]).await;
    }
    let list = fixture.ok("list").await;
    says(&list, &["pointer_problem", id(&newer), id(&older)]);
    assert_eq!(fixture.run("doctor").await.code(), Some(1));
    let said = fixture.fails(&format!("publish --backup {}", id(&newer)), "ManifestInvalid", 1).await;
    says(&said, &[POINTER]);

    let key = manifest_key(&newer);
    overwrite(&fixture, &key, b"{\"format_version\":1}".to_vec()).await;
    let line = format!("restore --backup {}", id(&newer));
    assert_not_restored(&fixture, &line, "ManifestInvalid", &[&key]).await;
    let restored = fixture.ok("restore --fallback").await;
    assert_eq!(restored["backup_id"], older["backup_id"]);
    says(&restored, &["the newest usable manifest, because", "was passed over"]);

    // The host is degraded now: its backups do not become the newest by themselves.
    let repaired = fixture.ok(&format!("publish --backup {} --rollback", id(&older))).await;
    assert_eq!(repaired["publication"]["outcome"]["outcome"], "published");
    next_second().await;
    let said = fixture.fails("backup --no-quiesce", "Suspicious", 1).await;
    says(&said, &["degraded", id(&older)]);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&older)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_match_the_stores_own_checksum_are_not_believed() {
    let (fixture, manifest) = lost().await;
    // A digit of a count: the JSON stays good.
    let text = String::from_utf8(stored(&fixture, POINTER)).unwrap();
    let at = text.find("\"points_after\": 60").unwrap() + "\"points_after\": ".len();
    fixture.cloud.s3.corrupt(BUCKET, POINTER, at as u64, 1).unwrap();
    assert_not_restored(&fixture, "restore", "ChecksumMismatch", &[POINTER, "checksum"]).await;
    let restored = fixture.ok("restore --fallback").await;
    assert_eq!(restored["backup_id"], manifest["backup_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_a_newer_format_is_refused_and_never_fallen_back_from() {
    let (fixture, manifest) = lost().await;
    let mut newer: Value = serde_json::from_slice(&stored(&fixture, POINTER)).unwrap();
    newer["format_version"] = 2.into();
    newer["collections"] = "in a form of the future".into();
    overwrite(&fixture, POINTER, serde_json::to_vec(&newer).unwrap()).await;
    for line in ["restore", "restore --fallback"] {
        assert_not_restored(&fixture, line, "ManifestInvalid", &["version 2", "install the release"]).await;
    }
    for line in ["verify --archive", "show"] {
        fixture.fails(line, "ManifestInvalid", 1).await;
    }
    let publish = format!("publish --backup {} --force", id(&manifest));
    says(&fixture.fails(&publish, "ManifestInvalid", 1).await, &["install the release"]);
    // Unknown fields of this format are a matter of course.
    newer["format_version"] = 1.into();
    newer["collections"] = manifest["collections"].clone();
    newer["of_a_later_release"] = "ignored".into();
    overwrite(&fixture, POINTER, serde_json::to_vec(&newer).unwrap()).await;
    fixture.ok("restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_to_nothing_is_told_and_fallback_finds_the_older_backup() {
    let mut fixture = Fixture::small().await;
    let older = fixture.backup().await;
    next_second().await;
    let newer = fixture.backup().await;
    fixture.replace_host().await;
    let s3 = fixture.cloud.s3.client().await;
    s3.delete_object().bucket(BUCKET).key(archive(&newer)).send().await.unwrap();
    let verified = fixture.ok("verify --archive").await;
    assert_eq!(verified["passed"], true, "a deletion hides it; the version that the manifest names is there");

    let version = newer["version_id"].as_str().unwrap();
    s3.delete_object().bucket(BUCKET).key(archive(&newer)).version_id(version).send().await.unwrap();
    let text = format!("of backup {} does not exist", id(&newer));
    assert_not_restored(&fixture, "restore", "ManifestMissing", &[&text, "list-object-versions"]).await;
    assert_found(&fixture, &[&archive(&newer), "does not exist"]).await;
    let restored = fixture.ok("restore --fallback").await;
    assert_eq!(restored["backup_id"], older["backup_id"]);
    assert_eq!(restored["verdict"]["passed"], true);
    assert_eq!(fixture.aliases().await, serde_json::json!({ ALIAS: "docs" }));

    fixture.replace_host().await;
    fixture.cloud.s3.remove(BUCKET, &archive(&older)).unwrap();
    let text = format!("{} was passed over", id(&older));
    assert_not_restored(&fixture, "restore --fallback", "ManifestMissing", &[&text, "--backup ID"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_that_is_gone_is_no_empty_bucket() {
    let (fixture, manifest) = lost().await;
    fixture.cloud.s3.remove(BUCKET, POINTER).unwrap();
    let text = "there is no pointer in bucket `backups`";
    assert_not_restored(&fixture, "restore", "ManifestMissing", &[text, "host-worker publish"]).await;
    let restored = fixture.ok("restore --fallback").await;
    assert_eq!(restored["backup_id"], manifest["backup_id"]);
}
