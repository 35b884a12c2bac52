//! Removing: the order, what interrupts it, who comes in between.

use jiff::SignedDuration;
use protocol::{Proof, ProofLevel, key};

use super::support::{catalog, id, manifest, minute, published, upload};
use crate::{
    Catalog, Error, PublishPolicy, Removed,
    store::{Attributes, Fault, Memory, Operation},
};

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Backups 1 and 2, the second published, the first proved.
async fn two() -> Catalog<Memory> {
    let catalog = catalog();
    published(&catalog, 1).await;
    published(&catalog, 2).await;
    let proof =
        Proof { backup_id: id(1), level: ProofLevel::ReRead, proved_at: minute(60), tool: "test".to_owned() };
    catalog.put_proof(&proof).await.unwrap();
    catalog
}

fn of_first(catalog: &Catalog<Memory>) -> Vec<String> {
    let text = id(1).to_string();
    catalog.store().keys().into_iter().filter(|key| key.contains(&text)).collect()
}

#[tokio::test]
async fn a_backup_goes_manifest_first_and_leaves_nothing() {
    let catalog = two().await;
    let there = of_first(&catalog);
    assert!(there.len() >= 5, "{there:?}");
    catalog.store().take_calls();
    let removed = catalog.remove(&manifest(1)).await.unwrap();
    assert_eq!(removed.objects, there.len() as u64);
    assert_eq!(of_first(&catalog), [""; 0]);
    let calls = catalog.store().take_calls();
    let mut deleted =
        calls.iter().filter(|call| call.operation == Operation::Delete).map(|call| call.key.as_str());
    assert_eq!(deleted.next(), Some(key::manifest(id(1)).as_str()));
    // The second is whole.
    assert_eq!(catalog.list().await.unwrap().entries.len(), 1);
    catalog.check_object(&manifest(2), None).await.unwrap();
}

#[tokio::test]
async fn what_the_pointer_names_is_never_removed() {
    let catalog = two().await;
    let before = catalog.store().keys();
    assert!(matches!(catalog.remove(&manifest(2)).await, Err(Error::NamedMeanwhile { .. })));
    assert_eq!(catalog.store().keys(), before);
}

#[tokio::test]
async fn a_rollback_in_between_keeps_the_data() {
    // After each number of calls that a removal makes, somebody rolls the pointer back to what is being removed.
    for calls in 0..3 {
        let catalog = two().await;
        let store = catalog.store().clone();
        store.set_stepping(true);
        let mut removal = Box::pin(async { catalog.remove(&manifest(1)).await });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..=calls {
            assert!(removal.as_mut().poll(&mut context).is_pending());
        }
        store.set_stepping(false);
        let policy = PublishPolicy { rollback: true, ..PublishPolicy::default() };
        let rolled_back = catalog.publish(&manifest(1), &policy).await;
        let removed = removal.await;
        if rolled_back.is_ok() && matches!(removed, Err(Error::NamedMeanwhile { .. })) {
            catalog.check_object(&manifest(1), None).await.unwrap();
        }
        let named = catalog.pointer().await.unwrap().unwrap().manifest;
        assert_eq!(catalog.manifest(named.backup_id).await.unwrap().key, named.key, "after {calls} calls");
        catalog
            .check_object(&named, None)
            .await
            .unwrap_or_else(|error| panic!("after {calls} calls: {error}"));
    }
}

#[tokio::test]
async fn an_interrupted_removal_is_finished_by_the_next() {
    for skip in 0..5 {
        for fault in [Fault::Unavailable, Fault::ReplyLost, Fault::Denied] {
            let catalog = two().await;
            catalog.store().script(Operation::Delete, "", skip, 1, fault);
            let first = catalog.remove(&manifest(1)).await;
            assert!(first.is_err(), "{skip} {fault:?}");
            let listing = catalog.list().await.unwrap();
            match listing.entries.iter().find(|entry| entry.backup_id == id(1)) {
                // Still listed is still whole.
                Some(entry) => {
                    let manifest = entry.manifest.as_ref().unwrap();
                    catalog.check_object(manifest, None).await.unwrap();
                    catalog.remove(manifest).await.unwrap();
                }
                None => {
                    catalog.store().set_now(minute(120) + WEEK);
                    for orphan in catalog.orphans(&listing, WEEK).await.unwrap() {
                        catalog.remove_orphan(&orphan).await.unwrap();
                    }
                }
            }
            let left = of_first(&catalog);
            assert!(left.iter().all(|key| key.starts_with(key::PROOFS)), "{skip} {fault:?}: {left:?}");
            catalog.check_object(&manifest(2), None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn only_what_nobody_names_and_nobody_touches_is_an_orphan() {
    let catalog = two().await;
    let unfinished = upload(catalog.store(), manifest(3));
    catalog
        .store()
        .insert_with("qdrant/backups/.doctor", Attributes { size: 1, crc64nvme: None, sse_kms_key_id: None });
    let listing = catalog.list().await.unwrap();
    assert_eq!(catalog.orphans(&listing, WEEK).await.unwrap(), [], "it may still be in the making");
    catalog.store().set_now(minute(120) + WEEK);
    let orphans = catalog.orphans(&listing, WEEK).await.unwrap();
    assert_eq!(orphans.iter().map(|orphan| &orphan.archive).collect::<Vec<_>>(), [&unfinished.key]);

    // Somebody publishes it after all.
    catalog.store().set_now(minute(120));
    catalog.publish(&unfinished, &PublishPolicy::default()).await.unwrap();
    assert_eq!(catalog.remove_orphan(&orphans[0]).await.unwrap(), Removed::default());
    catalog.check_object(&unfinished, None).await.unwrap();
}

#[tokio::test]
async fn an_unreadable_manifest_keeps_everything_of_its_backup() {
    let catalog = two().await;
    catalog.store().insert(&key::manifest(id(1)), "{");
    catalog.store().set_now(minute(120) + WEEK);
    let listing = catalog.list().await.unwrap();
    assert_eq!(catalog.orphans(&listing, WEEK).await.unwrap(), []);
}
