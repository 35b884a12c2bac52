//! Reading manifests: good ones, newer ones, and ones that contradict themselves.

use serde_json::json;

use super::*;

pub(crate) fn example() -> Manifest {
    let sha256 = "ab".repeat(32);
    let entry = "snapshots/docs/docs-7-2026-11-23-05-14-00.snapshot".to_owned();
    Manifest {
        backup_and_restore_path: "/workspace/qdrant/data/".to_owned(),
        latest_snapshot: "qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst".to_owned(),
        latest_snapshot_from_path: "/workspace/qdrant/snapshots".to_owned(),
        latest_snapshot_to_path:
            "s3://bucket/qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst".to_owned(),
        latest_snapshot_size_in_mb: 20.5,
        multipart_upload_concurrency: 8,
        latest_snapshot_upload_duration_in_seconds: 1.25,
        format_version: FORMAT_VERSION,
        backup_id: "20261123T051400Z".parse().unwrap(),
        created_at: "2026-11-23T05:14:00Z".parse().unwrap(),
        key: "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst".parse().unwrap(),
        size_bytes: 20_500_000,
        sha256: sha256.clone(),
        crc64nvme: "AAAAAAAAAAA=".to_owned(),
        version_id: Some("v1".to_owned()),
        archive: Archive {
            raw_bytes: 30_000_000,
            frame_count: 7,
            frames_root: sha256.clone(),
            golden_sha256: sha256.clone(),
            entries: vec![ArchiveEntry {
                name: entry.clone(),
                size: 29_000_000,
                sha256: sha256.clone(),
                first_frame: 1,
                raw_offset: 512,
            }],
        },
        qdrant: QdrantServer { version: "1.18.3".to_owned(), image: None },
        collections: vec![CollectionRecord {
            name: "docs".parse().unwrap(),
            snapshot: "docs-7-2026-11-23-05-14-00.snapshot".to_owned(),
            entry,
            size_bytes: 29_000_000,
            sha256,
            points_before: 10,
            points_after: 10,
            written_during_backup: false,
            config: json!({"params": {}}),
            payload_schema: BTreeMap::new(),
            golden: GoldenSummary { points: 10, changed: 0, searches: 8, recall: Some(1.0) },
        }],
        aliases: BTreeMap::new(),
        quiesced: true,
        indexing: None,
        origin: None,
        partial: false,
        timings: vec![PhaseTiming { phase: "upload".to_owned(), seconds: 1.25 }],
        tool: Tool { name: "host-worker".to_owned(), version: "0.1.0".to_owned() },
        previous: None,
    }
}

#[test]
fn a_manifest_reads_back_and_is_written_the_same_way_each_time() {
    let bytes = example().to_json();
    assert_eq!(Manifest::from_json(&bytes).unwrap(), example());
    assert_eq!(Manifest::from_json(&bytes).unwrap().to_json(), bytes);
    assert!(bytes.ends_with(b"}\n"));
}

#[test]
fn unknown_fields_are_ignored_and_newer_formats_refused() {
    let mut document = serde_json::to_value(example()).unwrap();
    document["invented_later"] = json!({"a": 1});
    assert_eq!(Manifest::from_json(document.to_string().as_bytes()).unwrap(), example());
    document["format_version"] = json!(2);
    document["key"] = json!("a shape that this version does not know");
    let error = Manifest::from_json(document.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, InvalidManifest::NewerFormat { found: 2 }), "{error}");
}

#[test]
fn contradictions_are_found() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 6] = [
        ("another backup's archive", |m| m.backup_id = "20260101T000000Z".parse().unwrap()),
        ("a short digest", |m| m.sha256 = "ab".to_owned()),
        ("an upper-case digest", |m| m.archive.frames_root = "AB".repeat(32)),
        ("an entry that is not there", |m| m.archive.entries.clear()),
        ("an entry of another collection", |m| m.collections[0].name = "other".parse().unwrap()),
        ("another size", |m| m.collections[0].size_bytes += 1),
    ];
    for (what, change) in changes {
        let mut manifest = example();
        change(&mut manifest);
        let error = Manifest::from_json(&manifest.to_json()).unwrap_err();
        assert!(matches!(error, InvalidManifest::Contradiction { .. }), "{what}: {error}");
    }
}

#[test]
fn damaged_json_is_an_error_wherever_it_is_cut() {
    let bytes = example().to_json();
    for length in 0..bytes.len() - 2 {
        assert!(Manifest::from_json(&bytes[..length]).is_err(), "cut at {length}");
    }
}
