//! Publication on a store in memory: tables for the rules, every interleaving of two publishers, every fault of a call.

mod interleave;
mod listing;
mod probe;
mod prune;
mod publish;
mod resolve;
mod rules;
mod support;
mod wire;

use crate::{
    ObjectStore, PublishPolicy, Selector,
    store::{S3, conformance},
};

use support::{catalog, manifest};

#[tokio::test]
async fn the_store_in_memory_conforms() {
    let catalog = catalog();
    conformance::run(catalog.store(), "conformance/").await;
    conformance::run(catalog.store(), "conformance/again/").await;
    conformance::what_is_deleted_is_gone(catalog.store(), "conformance/").await;
}

/// Callers put these futures on a runtime with several threads.
#[test]
fn every_operation_may_change_threads() {
    fn sendable<T: Send>(_: &T) {}
    fn check<S: ObjectStore>(catalog: &crate::Catalog<S>) {
        let (manifest, policy) = (manifest(1), PublishPolicy::default());
        sendable(&catalog.publish(&manifest, &policy));
        sendable(&catalog.list());
        sendable(&catalog.resolve(true));
        sendable(&catalog.find(Selector::Newest));
        sendable(&catalog.proofs(manifest.backup_id));
        sendable(&catalog.put_side_file("k", "bytes"));
        sendable(&catalog.probe(manifest.created_at));
    }
    check(&catalog());
    let _ = check::<S3>;
}
