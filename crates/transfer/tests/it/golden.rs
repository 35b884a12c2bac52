//! Archives written by earlier versions of this code are read for ever. Each has a folder under `tests/fixtures/archives`
//! with what `cargo run -p transfer --example pack` made of it.

use std::path::{Path, PathBuf};

use protocol::manifest::Archive;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use transfer::{
    ArchiveRef, Content, EntrySpec, ReadOptions, Source, UploadOptions, check_object, fetch_index,
    restore_entries, store::Memory, upload,
};

use crate::support::KEY;

/// The golden archives, by folder.
const TESTED: [&str; 1] = ["v1/small"];

/// What `pack` writes about an archive.
#[derive(Deserialize)]
struct Description {
    size_bytes: u64,
    sha256: String,
    crc64nvme: String,
    archive: Archive,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archives")
}

#[test]
fn every_golden_archive_is_tested() {
    let folders = |path: PathBuf| -> Vec<String> {
        let entries =
            fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect()
    };
    let mut found: Vec<String> = folders(fixtures())
        .into_iter()
        .flat_map(|version| {
            folders(fixtures().join(&version)).into_iter().map(move |name| format!("{version}/{name}"))
        })
        .collect();
    found.sort();
    assert_eq!(found, TESTED);
}

#[tokio::test]
async fn golden_archives_are_read_and_would_be_cut_the_same_today() {
    for name in TESTED {
        let folder = fixtures().join(name);
        let read = |file: &str| fs_err::read(folder.join(file)).unwrap();
        let description: Description = serde_json::from_slice(&read("archive.json")).unwrap();
        let store = Memory::default();
        store.put(KEY, read("archive.tar.zst"));
        store.put("index", read("archive.frames.json.zst"));
        let reference = ArchiveRef {
            key: KEY,
            version_id: None,
            size_bytes: description.size_bytes,
            sha256: &description.sha256,
            crc64nvme: &description.crc64nvme,
            archive: &description.archive,
        };
        let options = ReadOptions::new(64 << 20);
        let index = fetch_index(&store, "index", reference, &options).await.unwrap();
        let check = check_object(&store, reference, &index, options.clone()).await.unwrap();
        assert!(check.is_whole(), "{name}: {:?}", check.findings);

        let target = tempfile::tempdir().unwrap();
        let entries = &description.archive.entries;
        let wanted: Vec<_> = (0..entries.len()).map(|n| (n, target.path().join(n.to_string()))).collect();
        restore_entries(&store, reference, &index, &wanted, options).await.unwrap();
        let mut sources = Vec::new();
        for (entry, (_, path)) in entries.iter().zip(&wanted) {
            let sha256: [u8; 32] = Sha256::digest(fs_err::read(path).unwrap()).into();
            assert_eq!(hex::encode(sha256), entry.sha256, "{name}: {}", entry.name);
            sources.push(Source {
                entry: EntrySpec { name: entry.name.clone(), size: entry.size },
                content: Content::File(path.clone()),
                expected_sha256: Some(sha256),
            });
        }
        // Compressed lengths may differ with another version of zstd; everything else is the format.
        let again = upload(&Memory::default(), KEY, sources, UploadOptions::new(64 << 20)).await.unwrap();
        assert_eq!(&again.entries, entries);
        let cuts = |index: &transfer::FrameIndex| -> Vec<_> {
            index.frames.iter().map(|frame| (frame.raw_len, frame.hash)).collect()
        };
        assert_eq!(cuts(&again.index), cuts(&index), "{name}");
    }
}
