//! A catalogue in memory, backups to publish, and what must be true of the store after every step.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use protocol::{
    AttemptId, BackupId, Layout, Manifest, key,
    manifest::{
        Archive, ArchiveEntry, CollectionRecord, FORMAT_VERSION, GoldenSummary, Origin, Previous,
        QdrantServer, Tool,
    },
};
use serde_json::json;

use crate::{
    Catalog, Error, PublishPolicy,
    store::{Attributes, Memory},
};

/// The KMS key that every archive in these tests is encrypted with.
pub(super) const KMS_KEY: &str =
    "arn:aws:kms:eu-central-1:111122223333:key/0b8f6c1e-7a55-4c3e-9d52-1f1f1f1f1f1f";

/// The beginning of all tests: backup `n` is started `n` minutes later.
pub(super) fn start() -> Timestamp {
    "2026-11-23T05:00:00Z".parse().unwrap()
}

pub(super) fn minute(n: i64) -> Timestamp {
    start() + SignedDuration::from_mins(n)
}

/// An empty bucket whose clock is two hours after the beginning.
pub(super) fn catalog() -> Catalog<Memory> {
    let layout = Layout::new(key::DEFAULT_PREFIX.parse().unwrap());
    Catalog::new(Memory::new(minute(120)), "memory", layout)
}

pub(super) fn id(n: i64) -> BackupId {
    BackupId::from_time(minute(n)).unwrap()
}

/// Backup `n`, with collections `docs` of 1000 points and `notes` of 10.
pub(super) fn manifest(n: i64) -> Manifest {
    with_counts(n, &[("docs", 1000), ("notes", 10)])
}

pub(super) fn with_counts(n: i64, counts: &[(&str, u64)]) -> Manifest {
    let backup_id = id(n);
    let sha256 = "ab".repeat(32);
    let layout = Layout::new(key::DEFAULT_PREFIX.parse().unwrap());
    let key = layout.archive(backup_id, AttemptId::from_bits(u32::try_from(n).unwrap()));
    let entry = |name: &str| format!("snapshots/{name}/{name}-1.snapshot");
    Manifest {
        backup_and_restore_path: "/workspace/qdrant/data/".to_owned(),
        latest_snapshot: key.file_name(),
        latest_snapshot_from_path: "/workspace/qdrant/snapshots".to_owned(),
        latest_snapshot_to_path: format!("s3://memory/{key}"),
        latest_snapshot_size_in_mb: 20.5,
        multipart_upload_concurrency: 8,
        latest_snapshot_upload_duration_in_seconds: 1.25,
        format_version: FORMAT_VERSION,
        backup_id,
        created_at: minute(n),
        key,
        size_bytes: 20_500_000,
        sha256: sha256.clone(),
        crc64nvme: "rosUhgp5mIg=".to_owned(),
        version_id: None,
        archive: Archive {
            raw_bytes: 30_000_000,
            frame_count: 7,
            frames_root: sha256.clone(),
            golden_sha256: sha256.clone(),
            entries: counts
                .iter()
                .map(|(name, _)| ArchiveEntry {
                    name: entry(name),
                    size: 29,
                    sha256: sha256.clone(),
                    first_frame: 1,
                    raw_offset: 512,
                })
                .collect(),
        },
        qdrant: QdrantServer { version: "1.18.3".to_owned(), image: None },
        collections: counts
            .iter()
            .map(|(name, points)| CollectionRecord {
                name: name.parse().unwrap(),
                snapshot: format!("{name}-1.snapshot"),
                entry: entry(name),
                size_bytes: 29,
                sha256: sha256.clone(),
                points_before: *points,
                points_after: *points,
                written_during_backup: false,
                config: json!({}),
                payload_schema: BTreeMap::new(),
                golden: GoldenSummary { points: 1, changed: 0, searches: 1, recall: Some(1.0) },
            })
            .collect(),
        aliases: BTreeMap::new(),
        quiesced: true,
        indexing: None,
        origin: None,
        partial: false,
        timings: Vec::new(),
        tool: Tool { name: "host-worker".to_owned(), version: "0.1.0".to_owned() },
        previous: None,
    }
}

/// The same backup from a degraded host.
pub(super) fn degraded(mut manifest: Manifest) -> Manifest {
    manifest.origin = Some(Origin { backup_id: Some(id(0)), degraded: true });
    manifest
}

/// What the store says of the archive of `manifest`.
pub(super) fn attributes(manifest: &Manifest) -> Attributes {
    Attributes {
        size: manifest.size_bytes,
        crc64nvme: Some(manifest.crc64nvme.clone()),
        sse_kms_key_id: Some(KMS_KEY.to_owned()),
    }
}

/// Stores the archive and what belongs to it, and pins its version in the manifest, as an upload does.
pub(super) fn upload(store: &Memory, manifest: Manifest) -> Manifest {
    let attributes = attributes(&manifest);
    upload_with(store, manifest, attributes)
}

/// The same with other words of the store about the archive.
pub(super) fn upload_with(store: &Memory, mut manifest: Manifest, attributes: Attributes) -> Manifest {
    manifest.version_id = Some(store.insert_with(&manifest.key.to_string(), attributes));
    for key in [manifest.key.frames(), manifest.key.golden()] {
        store.insert(&key, "not looked into");
    }
    manifest
}

/// Stores and publishes backup `n`.
pub(super) async fn published(catalog: &Catalog<Memory>, n: i64) -> Manifest {
    published_as(catalog, manifest(n)).await
}

/// Stores and publishes this backup.
pub(super) async fn published_as(catalog: &Catalog<Memory>, manifest: Manifest) -> Manifest {
    let manifest = upload(catalog.store(), manifest);
    let published = catalog.publish(&manifest, &PublishPolicy::default()).await.unwrap();
    assert!(published.pointer_moved);
    manifest
}

/// The backup that the pointer names.
pub(super) fn named(store: &Memory) -> Option<BackupId> {
    let bytes = store.bytes(key::POINTER)?;
    Some(Manifest::from_json(&bytes).unwrap().backup_id)
}

/// Invariant 1 on the store as it is, and the chain over everything that the pointer ever was.
pub(super) fn check_pointer(store: &Memory) {
    let mut before: Option<Previous> = None;
    for bytes in store.history(key::POINTER) {
        let pointer = Manifest::from_json(&bytes).unwrap();
        assert_eq!(pointer.previous, before, "the chain is broken at {}", pointer.backup_id);
        let backup_id = pointer.backup_id;
        before = Some(Previous { backup_id, sha256: Manifest::digest(&bytes) });

        assert!(!pointer.partial);
        for key in [pointer.key.to_string(), pointer.key.frames(), pointer.key.golden()] {
            assert!(store.keys().contains(&key), "{backup_id} is published without `{key}`");
        }
        let immutable = store.history(&key::manifest(backup_id));
        assert_eq!(immutable.len(), 1, "the manifest of {backup_id} was written {} times", immutable.len());
        let immutable = Manifest::from_json(&immutable[0]).unwrap();
        assert_eq!(immutable, Manifest { previous: None, ..pointer });
    }
}

/// Invariant 1 and that the pointer only ever went forward.
pub(super) fn check_forward(store: &Memory) {
    check_pointer(store);
    let named: Vec<BackupId> = store
        .history(key::POINTER)
        .iter()
        .map(|bytes| Manifest::from_json(bytes).unwrap().backup_id)
        .collect();
    assert!(named.is_sorted_by(|a, b| a < b), "the pointer went {named:?}");
}

/// An error as a person reads it, with its sources.
pub(super) fn text(error: &Error) -> String {
    crate::error::chain(error)
}
