//! What is chosen, out of a real catalogue over a store in memory.

use std::collections::BTreeMap;

use catalog::{
    Catalog, PublishPolicy,
    store::{Attributes, Fault, Memory, Operation},
};
use jiff::Timestamp;
use protocol::{
    AttemptId, BackupId, FailureKind, Layout, Manifest, Proof, ProofLevel, key,
    manifest::{Archive, FORMAT_VERSION, Origin, QdrantServer, Tool},
};

use crate::boot::{
    choose::choose,
    record::{LocalSnapshot, Rejected, Source},
};

fn layout() -> Layout {
    Layout::new(key::DEFAULT_PREFIX.parse().unwrap())
}

fn minute(n: u32) -> Timestamp {
    format!("2026-11-23T05:{n:02}:00Z").parse().unwrap()
}

fn id(n: u32) -> BackupId {
    BackupId::from_time(minute(n)).unwrap()
}

fn catalog() -> Catalog<Memory> {
    Catalog::new(Memory::new("2026-11-23T07:00:00Z".parse().unwrap()), "memory", layout())
}

/// Backup `n` of no collections, with its archive and what is beside it in the store.
fn stored(catalog: &Catalog<Memory>, n: u32, change: impl FnOnce(&mut Manifest)) -> Manifest {
    let key = layout().archive(id(n), AttemptId::from_bits(n));
    let hash = "ab".repeat(32);
    let mut manifest = Manifest {
        backup_and_restore_path: "/workspace/qdrant/data/".to_owned(),
        latest_snapshot: key.file_name(),
        latest_snapshot_from_path: "/workspace/qdrant/snapshots".to_owned(),
        latest_snapshot_to_path: format!("s3://memory/{key}"),
        latest_snapshot_size_in_mb: 0.1,
        multipart_upload_concurrency: 8,
        latest_snapshot_upload_duration_in_seconds: 1.25,
        format_version: FORMAT_VERSION,
        backup_id: id(n),
        created_at: minute(n),
        key,
        size_bytes: 1000,
        sha256: hash.clone(),
        crc64nvme: "rosUhgp5mIg=".to_owned(),
        version_id: None,
        archive: Archive {
            raw_bytes: 3000,
            frame_count: 7,
            frames_root: hash.clone(),
            golden_sha256: hash,
            entries: Vec::new(),
        },
        qdrant: QdrantServer { version: "1.18.3".to_owned(), image: None },
        collections: Vec::new(),
        aliases: BTreeMap::new(),
        quiesced: true,
        indexing: None,
        origin: None,
        partial: false,
        timings: Vec::new(),
        tool: Tool { name: "host-worker".to_owned(), version: "0.1.0".to_owned() },
        previous: None,
    };
    change(&mut manifest);
    let attributes =
        Attributes { size: 1000, crc64nvme: Some(manifest.crc64nvme.clone()), sse_kms_key_id: None };
    manifest.version_id = Some(catalog.store().insert_with(&manifest.key.to_string(), attributes));
    for key in [manifest.key.frames(), manifest.key.golden()] {
        catalog.store().insert(&key, "not looked into");
    }
    manifest
}

async fn published(catalog: &Catalog<Memory>, n: u32, change: impl FnOnce(&mut Manifest)) {
    let manifest = stored(catalog, n, change);
    catalog.publish(&manifest, &PublishPolicy::default()).await.unwrap();
}

async fn proved(catalog: &Catalog<Memory>, n: u32, level: ProofLevel) {
    let proof = Proof { backup_id: id(n), level, proved_at: minute(59), tool: "drill".to_owned() };
    catalog.put_proof(&proof).await.unwrap();
}

fn rejected(source: Source) -> Rejected {
    Rejected { source, kind: FailureKind::VerificationFailed, why: "a count differs".to_owned() }
}

fn backup(n: u32) -> Source {
    let (qdrant, why) = ("1.18.3".parse().unwrap(), String::new());
    Source::Backup { backup_id: id(n), qdrant, why, degraded: false }
}

fn local() -> Vec<LocalSnapshot> {
    let file = "docs/docs-1-2026-11-23-05-14-00.snapshot".to_owned();
    vec![LocalSnapshot { collection: "docs".parse().unwrap(), file, taken_at: minute(14) }]
}

async fn chosen(catalog: &Catalog<Memory>, tried: &[Source], on_disk: Vec<LocalSnapshot>) -> Option<Source> {
    let tried: Vec<Rejected> = tried.iter().cloned().map(rejected).collect();
    choose(catalog, &tried, on_disk).await.unwrap()
}

/// The backup that is chosen, and whether the host is degraded with it.
async fn number(catalog: &Catalog<Memory>, tried: &[Source]) -> Option<(BackupId, bool)> {
    let source = chosen(catalog, tried, Vec::new()).await?;
    Some((source.backup().unwrap(), source.degraded()))
}

#[tokio::test]
async fn the_pointer_s_own_comes_first_and_the_newest_usable_next() {
    let catalog = catalog();
    published(&catalog, 1, |_| ()).await;
    published(&catalog, 2, |_| ()).await;
    assert_eq!(number(&catalog, &[]).await, Some((id(2), false)));
    assert!(matches!(chosen(&catalog, &[], local()).await, Some(Source::Backup { .. })));
    catalog.store().insert(key::POINTER, "{");
    assert_eq!(number(&catalog, &[]).await, Some((id(2), true)));
    catalog.store().remove(&layout().archive(id(2), AttemptId::from_bits(2)).to_string());
    assert_eq!(number(&catalog, &[]).await, Some((id(1), true)));
}

#[tokio::test]
async fn only_older_and_proved_ones_take_the_place_of_one_that_failed() {
    let catalog = catalog();
    for n in 1..=6 {
        published(&catalog, n, |_| ()).await;
    }
    proved(&catalog, 6, ProofLevel::FastEnough).await;
    assert_eq!(number(&catalog, &[backup(6)]).await, None, "nobody has proved the others");
    proved(&catalog, 1, ProofLevel::Searched).await;
    proved(&catalog, 3, ProofLevel::ReRead).await;
    proved(&catalog, 4, ProofLevel::Checksummed).await;
    assert_eq!(
        number(&catalog, &[backup(6)]).await,
        Some((id(1), true)),
        "restored is better than read back"
    );
    assert_eq!(number(&catalog, &[backup(6), backup(1)]).await, None, "never newer than what failed last");
    proved(&catalog, 2, ProofLevel::Searched).await;
    assert_eq!(number(&catalog, &[backup(6)]).await, Some((id(2), true)));
    catalog.store().remove(&layout().archive(id(2), AttemptId::from_bits(2)).to_string());
    assert_eq!(number(&catalog, &[backup(6)]).await, Some((id(1), true)), "one that is gone is passed over");
}

#[tokio::test]
async fn one_of_a_degraded_host_comes_last() {
    let catalog = catalog();
    published(&catalog, 1, |_| ()).await;
    let doubtful = stored(&catalog, 2, |manifest| {
        manifest.origin = Some(Origin { backup_id: Some(id(1)), degraded: true });
    });
    let policy = PublishPolicy { force: true, ..PublishPolicy::default() };
    catalog.publish(&doubtful, &policy).await.unwrap();
    published(&catalog, 3, |_| ()).await;
    proved(&catalog, 1, ProofLevel::ReRead).await;
    proved(&catalog, 2, ProofLevel::FastEnough).await;
    assert_eq!(number(&catalog, &[backup(3)]).await, Some((id(1), true)));
}

#[tokio::test]
async fn empty_is_only_what_was_never_filled() {
    let catalog = catalog();
    assert_eq!(chosen(&catalog, &[], Vec::new()).await, Some(Source::Nothing));
    assert!(
        matches!(chosen(&catalog, &[], local()).await, Some(Source::LocalSnapshots { .. })),
        "better than nothing"
    );
    assert_eq!(chosen(&catalog, &[backup(1)], Vec::new()).await, None, "there was one a moment ago");
    let from_disk = Source::LocalSnapshots { files: local(), why: String::new() };
    assert_eq!(chosen(&catalog, &[from_disk], local()).await, None);

    // A manifest that cannot be used is not nothing.
    catalog.store().insert(&key::manifest(id(1)), "{");
    let error = choose(&catalog, &[], Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::ManifestMissing);
    assert!(matches!(chosen(&catalog, &[], local()).await, Some(Source::LocalSnapshots { .. })));
}

#[tokio::test]
async fn a_bucket_that_does_not_say_what_it_holds_is_an_error_even_with_local_snapshots() {
    for fault in [Fault::Denied, Fault::Unavailable, Fault::NoSuchBucket] {
        for operation in [Operation::Get, Operation::List] {
            let catalog = catalog();
            catalog.store().fail(operation, "", fault);
            assert!(choose(&catalog, &[], local()).await.is_err(), "{fault:?} on {operation:?}");
        }
    }
}
