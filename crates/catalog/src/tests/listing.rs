//! The listing, proofs and the success marker.

use protocol::{FailureKind, Manifest, Proof, ProofLevel, key};

use super::support::{catalog, id, manifest, minute, published, text, upload};
use crate::{
    Error, PointerState, Proved, PublishPolicy,
    store::{Fault, Operation},
};

fn proof(n: i64, level: ProofLevel, at: i64) -> Proof {
    Proof { backup_id: id(n), level, proved_at: minute(at), tool: "host-worker 0.1.0".to_owned() }
}

#[tokio::test]
async fn everything_is_listed_newest_first_and_one_bad_manifest_hides_nothing() {
    let catalog = catalog();
    let store = catalog.store();
    for n in 1..=40 {
        published(&catalog, n).await;
    }
    let partial = Manifest { partial: true, ..upload(store, manifest(41)) };
    catalog.publish(&partial, &PublishPolicy::default()).await.unwrap();
    store.insert(&key::manifest(id(7)), "{");
    store.fail(Operation::Get, &key::manifest(id(8)), Fault::Denied);
    store.insert("qdrant/manifests/readme.txt", "not a manifest");
    catalog.put_proof(&proof(3, ProofLevel::ReRead, 50)).await.unwrap();
    catalog.put_proof(&proof(3, ProofLevel::Searched, 51)).await.unwrap();
    catalog.put_proof(&proof(3, ProofLevel::ReRead, 52)).await.unwrap();
    store.insert("qdrant/proofs/20261123T050400Z/20261201T000000.000Z.json", "damaged");

    let listing = catalog.list().await.unwrap();
    assert!(matches!(listing.pointer, PointerState::Names(named) if named == id(40)));
    let expected: Vec<_> = (1..=41).rev().map(id).collect();
    assert_eq!(listing.entries.iter().map(|entry| entry.backup_id).collect::<Vec<_>>(), expected);
    for entry in &listing.entries {
        assert_eq!(entry.is_pointer, entry.backup_id == id(40));
        let usable = ![id(7), id(8)].contains(&entry.backup_id);
        assert_eq!(entry.manifest.is_ok(), usable, "{}", entry.key);
        let proved =
            (entry.backup_id == id(3)).then_some(Proved { level: ProofLevel::Searched, at: minute(51) });
        assert_eq!(entry.proved, proved, "{}", entry.key);
        assert_eq!(entry.stored_at, minute(120));
    }
    let reason = |n| match listing.entries.iter().find(|entry| entry.backup_id == id(n)) {
        Some(entry) => text(entry.manifest.as_ref().unwrap_err()),
        None => panic!("{n} is not listed"),
    };
    assert!(reason(7).contains(&key::manifest(id(7))), "{}", reason(7));
    assert!(reason(8).contains("AccessDenied"), "{}", reason(8));
}

#[tokio::test]
async fn a_bad_pointer_or_refused_proofs_hide_nothing() {
    let catalog = catalog();
    published(&catalog, 1).await;
    catalog.store().insert(key::POINTER, "{");
    catalog.store().fail(Operation::List, key::PROOFS, Fault::Denied);
    let listing = catalog.list().await.unwrap();
    assert!(matches!(listing.pointer, PointerState::Unreadable(Error::ManifestInvalid { .. })));
    assert_eq!(listing.entries.len(), 1);
    catalog.store().remove(key::POINTER);
    assert!(matches!(catalog.list().await.unwrap().pointer, PointerState::Absent));
}

#[tokio::test]
async fn a_listing_that_fails_is_not_an_empty_one() {
    let catalog = catalog();
    for (key_part, fault) in [(key::MANIFESTS, Fault::Denied), (key::PROOFS, Fault::Unavailable)] {
        catalog.store().fail(Operation::List, key_part, fault);
        let error = catalog.list().await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::StoreUnavailable);
        assert!(text(&error).contains(key_part), "{}", text(&error));
    }
    assert!(catalog.list().await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn proofs_come_back_in_order_and_are_written_once() {
    let catalog = catalog();
    let (early, late) = (proof(1, ProofLevel::ReRead, 30), proof(1, ProofLevel::Searched, 40));
    catalog.put_proof(&late).await.unwrap();
    catalog.put_proof(&early).await.unwrap();
    catalog.put_proof(&early).await.unwrap();
    catalog.put_proof(&proof(2, ProofLevel::ReRead, 30)).await.unwrap();
    let misplaced = serde_json::to_vec(&proof(2, ProofLevel::FastEnough, 60)).unwrap();
    catalog.store().insert(&key::proof(id(1), minute(60)), misplaced);
    assert_eq!(catalog.proofs(id(1)).await.unwrap(), [early, late]);
    let other = proof(1, ProofLevel::Restored, 30);
    assert_eq!(catalog.put_proof(&other).await.unwrap_err().kind(), FailureKind::ManifestConflict);
}

#[tokio::test]
async fn the_success_marker_is_there_or_not_or_bad() {
    let catalog = catalog();
    let key = key::DEFAULT_SUCCESS_MARKER;
    assert_eq!(catalog.success_marker(key).await.unwrap(), None);
    catalog.store().insert(key, r#"{"batch_id":"b7","finished_at":"2026-11-23T05:14:00Z"}"#);
    assert_eq!(catalog.success_marker(key).await.unwrap().unwrap().batch_id, "b7");
    for bad in ["", "{}", r#"{"batch_id":"","finished_at":"2026-11-23T05:14:00Z"}"#] {
        catalog.store().insert(key, bad);
        let error = catalog.success_marker(key).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::IndexingIncomplete, "{bad}");
        assert!(text(&error).contains(key) && error.hint().unwrap().contains("docs/clients.md"));
    }
    catalog.store().fail(Operation::Get, key, Fault::Denied);
    assert_eq!(catalog.success_marker(key).await.unwrap_err().kind(), FailureKind::StoreUnavailable);
}
