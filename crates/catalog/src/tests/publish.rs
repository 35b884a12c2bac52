//! Publication by one caller: order, duplicates, faults, partial, suspicious, rollback, what is refused.

use protocol::{FailureKind, Manifest, Proof, ProofLevel, key};
use serde_json::json;

use super::support::{
    KMS_KEY, attributes, catalog, check_forward, check_pointer, degraded, id, manifest, minute, named,
    published, text, upload, upload_with, with_counts,
};
use crate::{
    Error, Outcome, PublishPolicy, Suspicion,
    store::{Attributes, Condition, Fault, Operation},
};

fn plain() -> PublishPolicy {
    PublishPolicy::default()
}

fn forced() -> PublishPolicy {
    PublishPolicy { force: true, ..plain() }
}

fn rollback() -> PublishPolicy {
    PublishPolicy { rollback: true, ..plain() }
}

#[tokio::test]
async fn the_order_is_that_of_the_design() {
    let catalog = catalog();
    let store = catalog.store();
    let first = upload(store, manifest(1));
    let done = catalog.publish(&first, &plain()).await.unwrap();
    assert_eq!((done.pointer_moved, done.outcome), (true, Outcome::Published));
    let calls: Vec<_> =
        store.take_calls().into_iter().map(|call| (call.operation, call.key, call.condition)).collect();
    assert_eq!(
        calls,
        [
            (Operation::Head, first.key.to_string(), None),
            (Operation::Head, first.key.frames(), None),
            (Operation::Head, first.key.golden(), None),
            (Operation::Now, String::new(), None),
            (Operation::Put, key::manifest(id(1)), Some(Condition::IfAbsent)),
            (Operation::Get, key::POINTER.to_owned(), None),
            (Operation::Put, key::POINTER.to_owned(), Some(Condition::IfAbsent)),
        ]
    );
    assert_eq!(store.bytes(&key::manifest(id(1))).unwrap(), first.to_json());
    assert_eq!(store.bytes(key::POINTER).unwrap(), first.to_json());

    let pointer = catalog.pointer().await.unwrap().unwrap();
    let second = upload(store, manifest(2));
    store.take_calls();
    catalog.publish(&second, &plain()).await.unwrap();
    let last = store.take_calls().pop().unwrap();
    assert_eq!(last.condition, Some(Condition::IfMatch(pointer.etag)));
    let now = catalog.pointer().await.unwrap().unwrap();
    let previous = now.manifest.previous.unwrap();
    assert_eq!((previous.backup_id, previous.sha256), (id(1), pointer.bytes_sha256));
    check_forward(store);
}

#[tokio::test]
async fn duplicates_are_no_ops() {
    let catalog = catalog();
    let first = published(&catalog, 1).await;
    let second = published(&catalog, 2).await;
    let written = catalog.store().history(key::POINTER);
    let again = catalog.publish(&second, &plain()).await.unwrap();
    assert_eq!((again.pointer_moved, again.outcome), (false, Outcome::AlreadyPublished));
    // The pointer itself is a manifest with a link: publishing what was read from it is the same.
    let pointer = catalog.pointer().await.unwrap().unwrap().manifest;
    assert!(pointer.previous.is_some());
    assert_eq!(catalog.publish(&pointer, &forced()).await.unwrap().outcome, Outcome::AlreadyPublished);
    let late = catalog.publish(&first, &plain()).await.unwrap();
    assert_eq!((late.pointer_moved, late.outcome), (false, Outcome::Superseded { by: id(2) }));
    assert_eq!(catalog.store().history(key::POINTER), written);
}

#[tokio::test]
async fn an_older_backup_that_finishes_late_keeps_its_manifest() {
    let catalog = catalog();
    published(&catalog, 2).await;
    let late = upload(catalog.store(), manifest(1));
    let done = catalog.publish(&late, &forced()).await.unwrap();
    assert_eq!((done.pointer_moved, done.outcome), (false, Outcome::Superseded { by: id(2) }));
    assert_eq!(catalog.manifest(id(1)).await.unwrap(), late);
    assert_eq!(named(catalog.store()), Some(id(2)));
}

#[tokio::test]
async fn a_fault_of_any_call_is_finished_by_a_retry() {
    let calls = [
        (Operation::Head, "tar.zst"),
        (Operation::Head, "frames.json.zst"),
        (Operation::Head, "golden.json.zst"),
        (Operation::Now, ""),
        (Operation::Put, "qdrant/manifests/"),
        (Operation::Get, key::POINTER),
        (Operation::Put, key::POINTER),
    ];
    let faults = [
        Fault::Denied,
        Fault::Unavailable,
        Fault::NoSuchBucket,
        Fault::ReplyLost,
        Fault::Retried,
        Fault::Conflict,
    ];
    for (operation, key_part) in calls {
        for fault in faults {
            let catalog = catalog();
            published(&catalog, 1).await;
            let store = catalog.store();
            let second = upload(store, manifest(2));
            store.fail(operation, key_part, fault);
            let first_try = catalog.publish(&second, &plain()).await;
            let passes = matches!(fault, Fault::Retried | Fault::Conflict);
            match &first_try {
                Ok(done) => {
                    assert!(passes, "{operation} `{key_part}` {fault:?}");
                    assert!(done.pointer_moved, "{operation} `{key_part}` {fault:?}");
                }
                Err(error) => {
                    assert!(!passes, "{operation} `{key_part}` {fault:?}: {}", text(error));
                    let kind = match fault {
                        Fault::NoSuchBucket => FailureKind::ConfigInvalid,
                        Fault::Denied
                        | Fault::Unavailable
                        | Fault::ReplyLost
                        | Fault::Retried
                        | Fault::Conflict => FailureKind::StoreUnavailable,
                    };
                    assert_eq!(error.kind(), kind, "{}", text(error));
                }
            }
            check_forward(store);
            let retry = catalog.publish(&second, &plain()).await.unwrap();
            assert!(matches!(retry.outcome, Outcome::Published | Outcome::AlreadyPublished));
            assert_eq!(named(store), Some(id(2)));
            check_forward(store);
        }
    }
}

#[tokio::test]
async fn a_store_that_refuses_for_ever_is_given_up() {
    let catalog = catalog();
    let store = catalog.store();
    let first = upload(store, manifest(1));
    store.script(Operation::Put, key::POINTER, 0, usize::MAX, Fault::Conflict);
    let error = catalog.publish(&first, &plain()).await.unwrap_err();
    assert!(matches!(error, Error::Contended { attempts: 5, .. }), "{}", text(&error));
    assert_eq!(error.kind(), FailureKind::ManifestConflict);
    assert_eq!(named(store), None);
}

#[tokio::test]
async fn a_partial_backup_never_touches_the_pointer() {
    for policy in [plain(), forced(), rollback()] {
        let catalog = catalog();
        published(&catalog, 1).await;
        let partial = Manifest { partial: true, ..upload(catalog.store(), with_counts(2, &[("docs", 1)])) };
        catalog.store().take_calls();
        let done = catalog.publish(&partial, &policy).await.unwrap();
        assert_eq!((done.pointer_moved, done.outcome), (false, Outcome::Partial));
        assert!(catalog.store().take_calls().iter().all(|call| call.key != key::POINTER));
        assert_eq!(catalog.manifest(id(2)).await.unwrap(), partial);
        assert_eq!(named(catalog.store()), Some(id(1)));
    }
}

#[tokio::test]
async fn what_looks_like_damage_is_stored_and_waits_for_a_person() {
    let lost = with_counts(2, &[("docs", 499)]);
    for (what, suspect, count) in [("lost points", lost, 2), ("degraded", degraded(manifest(2)), 1)] {
        let catalog = catalog();
        published(&catalog, 1).await;
        let suspect = upload(catalog.store(), suspect);
        let error = catalog.publish(&suspect, &plain()).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Suspicious, "{what}");
        assert!(error.hint().unwrap().contains("--force"));
        assert_eq!(named(catalog.store()), Some(id(1)), "{what}");
        assert_eq!(catalog.manifest(id(2)).await.unwrap(), suspect, "{what}");
        let done = catalog.publish(&suspect, &forced()).await.unwrap();
        assert_eq!((done.pointer_moved, done.forced.len()), (true, count), "{what}");
        check_forward(catalog.store());
    }
}

#[tokio::test]
async fn the_reasons_are_in_the_message() {
    let catalog = catalog();
    published(&catalog, 1).await;
    let suspect = upload(catalog.store(), degraded(with_counts(2, &[("docs", 499)])));
    let error = catalog.publish(&suspect, &plain()).await.unwrap_err();
    assert_eq!(
        text(&error),
        "backup 20261123T050200Z does not become the newest by itself: the host was restored from 20261123T050000Z \
         after a fallback (degraded); collection `docs` fell from 1000 to 499 points; collection `notes` with 10 \
         points is gone"
    );
}

#[tokio::test]
async fn going_back_is_a_command_and_stays_until_a_later_backup() {
    let catalog = catalog();
    let store = catalog.store();
    published(&catalog, 1).await;
    let bad = published(&catalog, 2).await;
    let old = catalog.manifest(id(1)).await.unwrap();
    let done = catalog.publish(&old, &rollback()).await.unwrap();
    assert_eq!((done.pointer_moved, done.outcome), (true, Outcome::Published));
    let pointer = catalog.pointer().await.unwrap().unwrap().manifest;
    assert_eq!((pointer.backup_id, pointer.previous.unwrap().backup_id), (id(1), id(2)));
    // A late duplicate of what was rolled back from does not undo it, nor does one that was still running then.
    let again = catalog.publish(&bad, &plain()).await.unwrap();
    assert_eq!((again.pointer_moved, again.outcome), (false, Outcome::Superseded { by: id(1) }));
    let running = upload(store, manifest(119));
    assert_eq!(catalog.publish(&running, &plain()).await.unwrap().outcome, Outcome::Superseded { by: id(1) });
    // Rolling back once more is no change, and forward again is possible by hand.
    assert_eq!(catalog.publish(&old, &rollback()).await.unwrap().outcome, Outcome::AlreadyPublished);
    store.set_now(minute(130));
    let next = upload(store, manifest(125));
    assert!(catalog.publish(&next, &plain()).await.unwrap().pointer_moved);
    assert_eq!(named(store), Some(id(125)));
    check_pointer(store);
}

#[tokio::test]
async fn the_same_id_with_another_content_is_a_conflict() {
    let catalog = catalog();
    let first = published(&catalog, 1).await;
    let other = upload(catalog.store(), with_counts(1, &[("docs", 7)]));
    for policy in [plain(), forced(), rollback()] {
        let error = catalog.publish(&other, &policy).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ManifestConflict, "{}", text(&error));
        assert!(text(&error).contains(&key::manifest(id(1))));
        assert!(text(&error).contains(&Manifest::digest(&first.to_json())));
    }
    assert_eq!(catalog.manifest(id(1)).await.unwrap(), first);
}

#[tokio::test]
async fn fields_of_a_later_release_are_no_conflict() {
    let catalog = catalog();
    let first = upload(catalog.store(), manifest(1));
    let mut stored = serde_json::to_value(&first).unwrap();
    stored["invented_later"] = json!(true);
    catalog.store().insert(&key::manifest(id(1)), stored.to_string());
    assert!(catalog.publish(&first, &plain()).await.unwrap().pointer_moved);
}

#[tokio::test]
async fn a_pointer_to_another_archive_of_the_same_backup_is_a_conflict() {
    let catalog = catalog();
    let first = published(&catalog, 1).await;
    let mut foreign = first.clone();
    foreign.sha256 = "cd".repeat(32);
    catalog.store().insert(key::POINTER, foreign.to_json());
    let error = catalog.publish(&first, &forced()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ManifestConflict);
    assert!(matches!(error, Error::PointerContradicts { .. }));
}

#[tokio::test]
async fn only_the_archive_described_is_published() {
    type Change = fn(&mut Attributes);
    let cases: [(&str, Change, FailureKind); 3] = [
        ("size", |a| a.size -= 1, FailureKind::ChecksumMismatch),
        ("checksum", |a| a.crc64nvme = Some("AAAAAAAAAAA=".to_owned()), FailureKind::ChecksumMismatch),
        ("no checksum", |a| a.crc64nvme = None, FailureKind::ChecksumMismatch),
    ];
    for (what, change, kind) in cases {
        let catalog = catalog();
        let first = manifest(1);
        let mut wrong = attributes(&first);
        change(&mut wrong);
        let first = upload_with(catalog.store(), first, wrong);
        let stored = catalog.store().keys();
        let error = catalog.publish(&first, &forced()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {}", text(&error));
        assert!(text(&error).contains(&first.key.to_string()), "{what}: {}", text(&error));
        assert_eq!(catalog.store().keys(), stored, "{what}: nothing may be written");
    }
}

#[tokio::test]
async fn a_missing_archive_or_version_is_named() {
    let catalog = catalog();
    let mut first = manifest(1);
    let error = catalog.publish(&first, &plain()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ManifestMissing);
    assert!(text(&error).contains(&format!("s3://memory/{}", first.key)), "{}", text(&error));
    // Another version under the key is not the one that was uploaded.
    let pinned = upload(catalog.store(), first.clone());
    catalog.store().remove(&first.key.to_string());
    first = upload(catalog.store(), first);
    let error = catalog.publish(&pinned, &plain()).await.unwrap_err();
    assert!(text(&error).contains("(version `v1`)"), "{}", text(&error));
    assert!(catalog.publish(&first, &plain()).await.unwrap().pointer_moved);
}

#[tokio::test]
async fn nothing_is_published_without_what_a_restore_needs() {
    for key in [manifest(1).key.frames(), manifest(1).key.golden()] {
        let catalog = catalog();
        let first = upload(catalog.store(), manifest(1));
        catalog.store().remove(&key);
        let error = catalog.publish(&first, &forced()).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ManifestMissing);
        assert!(text(&error).contains(&key) && error.hint().is_some(), "{}", text(&error));
        assert_eq!(named(catalog.store()), None);
        assert!(catalog.manifest(id(1)).await.is_err());
    }
}

#[tokio::test]
async fn a_lost_reply_does_not_hide_what_was_forced() {
    let catalog = catalog();
    published(&catalog, 1).await;
    let suspect = upload(catalog.store(), with_counts(2, &[("docs", 499)]));
    catalog.store().fail(Operation::Put, key::POINTER, Fault::Retried);
    let done = catalog.publish(&suspect, &forced()).await.unwrap();
    assert_eq!((done.pointer_moved, done.forced.len()), (true, 2));
    check_forward(catalog.store());
}

#[tokio::test]
async fn without_a_checksum_somebody_must_have_read_it_back() {
    let read_back = PublishPolicy { read_back: true, ..plain() };
    for level in [None, Some(ProofLevel::Checksummed), Some(ProofLevel::ReRead), Some(ProofLevel::Searched)] {
        let catalog = catalog();
        let first = manifest(1);
        let silent = Attributes { crc64nvme: None, ..attributes(&first) };
        let first = upload_with(catalog.store(), first, silent);
        if let Some(level) = level {
            let tool = "host-worker 0.1.0".to_owned();
            let proof = Proof { backup_id: id(1), level, proved_at: minute(30), tool };
            catalog.put_proof(&proof).await.unwrap();
        }
        let enough = level.is_some_and(|level| level >= ProofLevel::ReRead);
        let done = catalog.publish(&first, &plain()).await;
        assert_eq!(done.is_ok(), enough, "{level:?}");
        if let Err(error) = done {
            assert!(matches!(error, Error::ObjectUnchecked { .. }), "{}", text(&error));
            assert!(catalog.publish(&first, &read_back).await.unwrap().pointer_moved);
        }
    }
}

#[tokio::test]
async fn the_kms_key_is_the_configured_one() {
    let id_only = KMS_KEY.rsplit('/').next().unwrap();
    for (expected, passes) in [(KMS_KEY, true), (id_only, true), ("another", false)] {
        let catalog = catalog();
        let first = upload(catalog.store(), manifest(1));
        let policy = PublishPolicy { expected_kms_key: Some(expected.to_owned()), ..plain() };
        let done = catalog.publish(&first, &policy).await;
        assert_eq!(done.is_ok(), passes, "{expected}");
        if let Err(error) = done {
            assert_eq!(error.kind(), FailureKind::ConfigInvalid);
            assert!(text(&error).contains(KMS_KEY), "{}", text(&error));
        }
    }
}

#[tokio::test]
async fn a_backup_from_the_future_is_refused_before_anything_is_written() {
    let catalog = catalog();
    let future = upload(catalog.store(), manifest(126));
    let stored = catalog.store().keys();
    let error = catalog.publish(&future, &forced()).await.unwrap_err();
    assert!(matches!(error, Error::ClockAhead { .. }), "{}", text(&error));
    assert_eq!(catalog.store().keys(), stored);
    let soon = upload(catalog.store(), manifest(125));
    assert!(catalog.publish(&soon, &plain()).await.unwrap().pointer_moved);
}

#[tokio::test]
async fn a_damaged_pointer_is_replaced_only_by_hand() {
    for damage in ["", "{", "null"] {
        let catalog = catalog();
        published(&catalog, 1).await;
        let second = upload(catalog.store(), manifest(2));
        catalog.store().insert(key::POINTER, damage);
        let error = catalog.publish(&second, &plain()).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ManifestInvalid, "{damage}");
        assert!(text(&error).contains(key::POINTER), "{}", text(&error));
        assert!(catalog.publish(&second, &rollback()).await.unwrap().pointer_moved, "{damage}");
        assert_eq!(named(catalog.store()), Some(id(2)));
    }
}

#[tokio::test]
async fn a_pointer_of_a_newer_format_is_never_replaced() {
    let catalog = catalog();
    let first = published(&catalog, 1).await;
    let mut newer = serde_json::to_value(&first).unwrap();
    newer["format_version"] = json!(2);
    catalog.store().insert(key::POINTER, newer.to_string());
    let second = upload(catalog.store(), manifest(2));
    for policy in [plain(), forced(), rollback()] {
        let error = catalog.publish(&second, &policy).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ManifestInvalid);
        assert!(text(&error).contains("format version 2"), "{}", text(&error));
        assert!(error.hint().unwrap().contains("release"));
    }
    assert_eq!(catalog.store().bytes(key::POINTER).unwrap(), newer.to_string());
}

#[tokio::test]
async fn refused_access_to_the_pointer_is_not_an_absent_pointer() {
    let catalog = catalog();
    published(&catalog, 2).await;
    let first = upload(catalog.store(), manifest(1));
    catalog.store().fail(Operation::Get, key::POINTER, Fault::Denied);
    let error = catalog.publish(&first, &plain()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::StoreUnavailable);
    assert!(text(&error).contains("AccessDenied") && text(&error).contains(key::POINTER), "{}", text(&error));
    assert!(error.hint().unwrap().contains("s3:ListBucket"));
    assert_eq!(named(catalog.store()), Some(id(2)));
}

#[tokio::test]
async fn side_files_are_written_once() {
    let catalog = catalog();
    let key = manifest(1).key.golden();
    assert_eq!(catalog.get_side_file(&key, 100).await.unwrap(), None);
    catalog.put_side_file(&key, "golden").await.unwrap();
    catalog.put_side_file(&key, "golden").await.unwrap();
    let error = catalog.put_side_file(&key, "other").await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ManifestConflict);
    assert_eq!(catalog.get_side_file(&key, 6).await.unwrap().unwrap(), "golden");
    let error = catalog.get_side_file(&key, 5).await.unwrap_err();
    assert!(text(&error).contains("6 bytes") && text(&error).contains('5'), "{}", text(&error));
    for fault in [Fault::Retried, Fault::Conflict] {
        let key = format!("{key}-{fault:?}");
        catalog.store().fail(Operation::Put, &key, fault);
        catalog.put_side_file(&key, "golden").await.unwrap();
        assert_eq!(catalog.store().bytes(&key).unwrap(), "golden");
    }
}

#[tokio::test]
async fn suspicions_are_machine_readable() {
    let fell = Suspicion::Fell { collection: "docs".parse().unwrap(), from: 10, to: 1 };
    assert_eq!(
        serde_json::to_value(&fell).unwrap(),
        json!({"suspicion": "fell", "collection": "docs", "from": 10, "to": 1})
    );
    let published = Outcome::Superseded { by: id(1) };
    assert_eq!(
        serde_json::to_value(published).unwrap(),
        json!({"outcome": "superseded", "by": "20261123T050100Z"})
    );
}
