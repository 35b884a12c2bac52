//! Which backup is restored, and when nothing is.

use protocol::{FailureKind, Manifest, key};
use serde_json::json;

use super::support::{catalog, degraded, id, manifest, minute, published, text, upload, with_counts};
use crate::{
    Catalog, Error, How, PublishPolicy, Resolved, Selector,
    store::{Fault, Memory, Operation},
};

fn chosen(resolved: &Resolved) -> &Manifest {
    match resolved {
        Resolved::Found { manifest, .. } => manifest,
        Resolved::Empty => panic!("nothing was found"),
    }
}

/// Stores a backup and its manifest as a publication that ended before the pointer.
fn unpublished(catalog: &Catalog<Memory>, manifest: Manifest) -> Manifest {
    let manifest = upload(catalog.store(), manifest);
    catalog.store().insert(&key::manifest(manifest.backup_id), manifest.to_json());
    manifest
}

#[tokio::test]
async fn the_pointer_decides() {
    let catalog = catalog();
    published(&catalog, 1).await;
    published(&catalog, 2).await;
    unpublished(&catalog, manifest(3));
    for fallback in [false, true] {
        let resolved = catalog.resolve(fallback).await.unwrap();
        assert_eq!(chosen(&resolved).backup_id, id(2));
        assert!(!resolved.degraded());
        assert!(matches!(resolved, Resolved::Found { how: How::Pointer, .. }));
    }
    assert_eq!(catalog.find(Selector::Newest).await.unwrap().backup_id, id(2));
}

#[tokio::test]
async fn only_a_store_without_anything_is_empty() {
    let catalog = catalog();
    assert_eq!(catalog.resolve(true).await.unwrap(), Resolved::Empty);
    assert_eq!(catalog.resolve(false).await.unwrap(), Resolved::Empty);
    let error = catalog.find(Selector::Newest).await.unwrap_err();
    assert_eq!((error.kind(), text(&error).contains("memory")), (FailureKind::ManifestMissing, true));
    // The probe's own object says nothing; an archive that was never published does.
    catalog.probe(minute(120)).await;
    assert_eq!(catalog.resolve(true).await.unwrap(), Resolved::Empty);
    upload(catalog.store(), manifest(1));
    for fallback in [false, true] {
        let error = catalog.resolve(fallback).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ManifestMissing, "{}", text(&error));
    }
}

#[tokio::test]
async fn whatever_is_not_known_holds() {
    let reads = [
        (Operation::Get, key::POINTER),
        (Operation::List, key::MANIFESTS),
        (Operation::List, "qdrant/backups/"),
    ];
    for (operation, key_part) in reads {
        for fault in [Fault::Denied, Fault::Unavailable, Fault::NoSuchBucket, Fault::ReplyLost] {
            let catalog = catalog();
            catalog.store().fail(operation, key_part, fault);
            let error = catalog.resolve(true).await.unwrap_err();
            assert!(matches!(error, Error::Store(_)), "{operation} `{key_part}` {fault:?}: {}", text(&error));
        }
    }
    // With a pointer: its archive, and during the fallback each manifest and archive.
    let fallback_reads = [
        (Operation::Head, "tar.zst"),
        (Operation::Head, "frames.json.zst"),
        (Operation::List, key::MANIFESTS),
        (Operation::Get, key::MANIFESTS),
    ];
    for (operation, key_part) in fallback_reads {
        for fault in [Fault::Denied, Fault::Unavailable] {
            let catalog = catalog();
            published(&catalog, 1).await;
            catalog.store().remove(key::POINTER);
            let skip = usize::from(operation == Operation::List);
            catalog.store().script(operation, key_part, skip, 1, fault);
            let error = catalog.resolve(true).await.unwrap_err();
            assert!(matches!(error, Error::Store(_)), "{operation} `{key_part}` {fault:?}: {}", text(&error));
        }
    }
}

#[tokio::test]
async fn an_unusable_pointer_gives_way_to_the_newest_usable_manifest() {
    type Damage = fn(&Memory, &Manifest);
    let damages: [(&str, Damage, FailureKind); 8] = [
        ("missing", |store, _| store.remove(key::POINTER), FailureKind::ManifestMissing),
        ("empty", |store, _| drop(store.insert(key::POINTER, "")), FailureKind::ManifestInvalid),
        (
            "cut",
            |store, _| {
                let bytes = store.bytes(key::POINTER).unwrap();
                store.insert(key::POINTER, bytes.slice(..bytes.len() / 2));
            },
            FailureKind::ManifestInvalid,
        ),
        (
            "contradictory",
            |store, newest| {
                let lying = Manifest { backup_id: id(7), ..newest.clone() };
                store.insert(key::POINTER, lying.to_json());
            },
            FailureKind::ManifestInvalid,
        ),
        (
            "without its archive",
            |store, newest| store.remove(&newest.key.to_string()),
            FailureKind::ManifestMissing,
        ),
        (
            "without its frame index",
            |store, newest| store.remove(&newest.key.frames()),
            FailureKind::ManifestMissing,
        ),
        (
            "without its golden set",
            |store, newest| store.remove(&newest.key.golden()),
            FailureKind::ManifestMissing,
        ),
        (
            "with another archive",
            |store, newest| {
                let lying = Manifest { size_bytes: 1, ..newest.clone() };
                store.insert(key::POINTER, lying.to_json());
            },
            FailureKind::ChecksumMismatch,
        ),
    ];
    for (what, damage, kind) in damages {
        let catalog = catalog();
        published(&catalog, 1).await;
        let newest = published(&catalog, 2).await;
        damage(catalog.store(), &newest);
        let error = catalog.resolve(false).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {}", text(&error));
        assert!(error.hint().is_some(), "{what}");
        assert_eq!(catalog.find(Selector::Newest).await.unwrap_err().kind(), kind, "{what}");

        let resolved = catalog.resolve(true).await.unwrap();
        let expected = if what.starts_with("without") { 1 } else { 2 };
        assert_eq!(chosen(&resolved).backup_id, id(expected), "{what}");
        assert!(resolved.degraded(), "{what}");
        let Resolved::Found { how, .. } = resolved else { panic!("{what}") };
        let How::NewestManifest { why, skipped } = &how else { panic!("{what}: {how}") };
        assert!(!why.is_empty());
        assert_eq!(skipped.len(), usize::from(expected == 1), "{what}: {how}");
    }
}

#[tokio::test]
async fn the_fallback_passes_over_what_may_not_stand_in() {
    let catalog = catalog();
    let store = catalog.store();
    published(&catalog, 1).await;
    store.remove(key::POINTER);
    unpublished(&catalog, Manifest { partial: true, ..manifest(2) });
    unpublished(&catalog, degraded(manifest(3)));
    store.insert(&key::manifest(id(4)), "not JSON");
    let misplaced = upload(store, manifest(5));
    store.insert(&key::manifest(id(6)), misplaced.to_json());
    let gone = unpublished(&catalog, manifest(7));
    store.remove(&gone.key.to_string());
    store.insert("qdrant/manifests/notes.txt", "not a manifest");

    let resolved = catalog.resolve(true).await.unwrap();
    assert_eq!(chosen(&resolved).backup_id, id(1));
    let Resolved::Found { how: How::NewestManifest { skipped, .. }, .. } = resolved else { panic!() };
    let whys: Vec<(i64, &str)> = skipped
        .iter()
        .map(|skipped| (skipped.backup_id.time().duration_since(id(0).time()).as_mins(), &*skipped.why))
        .collect();
    let expected = [
        (7, "does not exist"),
        (6, "is that of backup"),
        (4, "cannot be used"),
        (3, "degraded"),
        (2, "partial"),
    ];
    assert_eq!(whys.len(), expected.len(), "{whys:?}");
    for ((n, why), (expected_n, part)) in whys.iter().zip(expected) {
        assert!(*n == expected_n && why.contains(part), "{whys:?}");
    }
}

#[tokio::test]
async fn a_degraded_host_s_backup_is_better_than_none() {
    let catalog = catalog();
    unpublished(&catalog, degraded(manifest(1)));
    unpublished(&catalog, degraded(manifest(2)));
    let resolved = catalog.resolve(true).await.unwrap();
    assert_eq!(chosen(&resolved).backup_id, id(2));
    assert!(resolved.degraded());
}

#[tokio::test]
async fn a_newer_manifest_stands_in_only_if_it_could_have_become_the_pointer() {
    // The pointer can be read and its archive is gone: what came after it is judged against it.
    for (what, newer, expected) in [
        ("a crash before the pointer moved", manifest(3), 3),
        ("a suspicious one", with_counts(3, &[("docs", 1)]), 1),
    ] {
        let catalog = catalog();
        published(&catalog, 1).await;
        let named = published(&catalog, 2).await;
        unpublished(&catalog, newer);
        catalog.store().remove(&named.key.to_string());
        assert_eq!(chosen(&catalog.resolve(true).await.unwrap()).backup_id, id(expected), "{what}");
    }
    // A person rolled back from 3 to 2, and then 2 was lost.
    let catalog = catalog();
    published(&catalog, 1).await;
    let two = published(&catalog, 2).await;
    published(&catalog, 3).await;
    let policy = PublishPolicy { rollback: true, ..PublishPolicy::default() };
    catalog.publish(&two, &policy).await.unwrap();
    catalog.store().remove(&two.key.to_string());
    assert_eq!(chosen(&catalog.resolve(true).await.unwrap()).backup_id, id(1));
}

#[tokio::test]
async fn when_nothing_is_usable_everything_is_named() {
    let catalog = catalog();
    let only = published(&catalog, 1).await;
    catalog.store().remove(&only.key.to_string());
    let error = catalog.resolve(true).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ManifestMissing);
    assert!(matches!(error, Error::NothingUsable { .. }));
    let message = text(&error);
    assert!(message.contains(&id(1).to_string()) && message.contains(&only.key.to_string()), "{message}");
    assert!(error.hint().unwrap().contains("--backup"));
}

#[tokio::test]
async fn a_newer_format_holds_instead_of_falling_back() {
    for key in [key::POINTER.to_owned(), key::manifest(id(2))] {
        let catalog = catalog();
        published(&catalog, 1).await;
        let newest = published(&catalog, 2).await;
        let mut newer = serde_json::to_value(&newest).unwrap();
        newer["format_version"] = json!(9);
        if key != key::POINTER {
            catalog.store().remove(key::POINTER);
        }
        catalog.store().insert(&key, newer.to_string());
        let error = catalog.resolve(true).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::ManifestInvalid, "{}", text(&error));
        assert!(text(&error).contains(&key) && text(&error).contains('9'), "{}", text(&error));
    }
}

#[tokio::test]
async fn a_person_chooses_by_id_or_time() {
    let catalog = catalog();
    published(&catalog, 1).await;
    published(&catalog, 2).await;
    let partial = Manifest { partial: true, ..upload(catalog.store(), manifest(3)) };
    catalog.publish(&partial, &PublishPolicy::default()).await.unwrap();
    catalog.store().insert(&key::manifest(id(4)), "not JSON");
    published(&catalog, 5).await;

    assert_eq!(catalog.find(Selector::Id(id(3))).await.unwrap(), partial);
    let before = |n, partial| Selector::Before { time: minute(n), partial };
    for (selector, expected) in [
        (before(100, false), 5),
        (before(6, false), 5),
        (before(5, false), 2),
        (before(5, true), 3),
        (before(2, true), 1),
    ] {
        assert_eq!(catalog.find(selector).await.unwrap().backup_id, id(expected), "{selector:?}");
    }
    let error = catalog.find(before(1, true)).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ManifestMissing);
    let error = catalog.find(Selector::Id(id(9))).await.unwrap_err();
    assert!(text(&error).contains(&key::manifest(id(9))), "{}", text(&error));
    assert!(matches!(catalog.find(Selector::Id(id(4))).await, Err(Error::ManifestInvalid { .. })));
    catalog.store().remove(&partial.key.to_string());
    assert!(matches!(catalog.find(Selector::Id(id(3))).await, Err(Error::ObjectMissing { .. })));
}

#[tokio::test]
async fn within_a_second_the_date_counts() {
    let catalog = catalog();
    let mut late = manifest(1);
    late.created_at = "2026-11-23T05:01:00.75Z".parse().unwrap();
    unpublished(&catalog, late);
    let before = |text: &str| Selector::Before { time: text.parse().unwrap(), partial: false };
    assert!(catalog.find(before("2026-11-23T05:01:00.5Z")).await.is_err());
    assert!(catalog.find(before("2026-11-23T05:01:00.8Z")).await.is_ok());
}
