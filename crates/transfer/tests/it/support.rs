//! What the tests have in common: sources with known bytes, small sizes, and an archive with its manifest's words.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::manifest::Archive;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use transfer::{
    ArchiveRef, Content, EntrySpec, Error, FrameIndex, Geometry, ReadOptions, Restored, RetryPolicy, Source,
    UploadOptions, Uploaded, store::Memory, upload,
};

/// The size of frames and parts in tests.
pub(crate) const SMALL: u32 = 64 << 10;
pub(crate) const KEY: &str = "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst";

pub(crate) fn geometry() -> Geometry {
    Geometry { frame_raw_max: SMALL, part_size: Some(SMALL.into()), range_size: SMALL.into() }
}

/// Quick retries, so that a test of exhausted ones does not wait.
pub(crate) fn retry() -> RetryPolicy {
    RetryPolicy { attempts: 5, base: Duration::from_millis(1), cap: Duration::from_millis(4) }
}

pub(crate) fn upload_options() -> UploadOptions {
    UploadOptions {
        geometry: geometry(),
        retry: retry(),
        metadata: vec![("backup-id".into(), "20261123T051400Z".into())],
        ..UploadOptions::new(16 << 20)
    }
}

pub(crate) fn read_options() -> ReadOptions {
    ReadOptions { geometry: geometry(), retry: retry(), ..ReadOptions::new(16 << 20) }
}

/// Bytes that do not compress, a function of `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that compress like text, a function of `seed`.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = ["vector", "payload", "segment", "{\"id\":", "0.125", "\n", "collection", "},"];
    let picks = noise(seed, len / 4 + 1);
    let mut bytes: Vec<u8> =
        picks.iter().flat_map(|pick| words[usize::from(*pick) % words.len()].bytes()).take(len).collect();
    bytes.resize(len, b'.');
    bytes
}

/// Entries on disk.
pub(crate) struct Tree {
    pub(crate) folder: TempDir,
    pub(crate) entries: Vec<(String, Vec<u8>)>,
}

impl Tree {
    pub(crate) fn new(entries: impl IntoIterator<Item = (impl Into<String>, Vec<u8>)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entries: Vec<(String, Vec<u8>)> =
            entries.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect();
        for (number, (_, bytes)) in entries.iter().enumerate() {
            fs_err::write(folder.path().join(number.to_string()), bytes).unwrap();
        }
        Self { folder, entries }
    }

    /// A typical archive: a compressible snapshot of several frames, an incompressible one, zeros, an empty one, the description.
    pub(crate) fn typical() -> Self {
        let mut sparse = vec![0; 300_000];
        sparse[150_000] = 1;
        Self::new([
            ("snapshots/docs/docs-1.snapshot", text(1, 500_000)),
            ("snapshots/images/images-1.snapshot", noise(2, 400_001)),
            ("snapshots/sparse/sparse-1.snapshot", sparse),
            ("snapshots/empty/empty-1.snapshot", Vec::new()),
            ("backup.json", b"{\"format_version\":1}".to_vec()),
        ])
    }

    pub(crate) fn file(&self, entry: usize) -> PathBuf {
        self.folder.path().join(entry.to_string())
    }

    pub(crate) fn specs(&self) -> Vec<EntrySpec> {
        self.entries
            .iter()
            .map(|(name, bytes)| EntrySpec { name: name.clone(), size: bytes.len() as u64 })
            .collect()
    }

    /// The sources: files, but the last one in memory, as `backup.json` is.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let last = self.entries.len() - 1;
        let source = |(number, (_, bytes)): (usize, &(String, Vec<u8>))| Source {
            entry: self.specs().swap_remove(number),
            content: if number == last {
                Content::Bytes(bytes.clone().into())
            } else {
                Content::File(self.file(number))
            },
            expected_sha256: Some(Sha256::digest(bytes).into()),
        };
        self.entries.iter().enumerate().map(source).collect()
    }

    pub(crate) async fn upload(&self, store: &Memory) -> Uploaded {
        upload(store, KEY, self.sources(), upload_options()).await.unwrap()
    }
}

/// A stored archive with what its manifest says.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) store: Memory,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
    pub(crate) crc64nvme: String,
    pub(crate) archive: Archive,
    pub(crate) index: FrameIndex,
}

impl Stored {
    pub(crate) fn new(store: Memory, uploaded: Uploaded) -> Self {
        Self {
            store,
            size_bytes: uploaded.size_bytes,
            sha256: uploaded.sha256.clone(),
            crc64nvme: uploaded.crc64nvme.clone(),
            archive: archive_of(&uploaded),
            index: uploaded.index,
        }
    }

    pub(crate) async fn typical() -> (Tree, Self) {
        let (tree, store) = (Tree::typical(), Memory::default());
        let uploaded = tree.upload(&store).await;
        (tree, Self::new(store, uploaded))
    }

    pub(crate) fn reference(&self) -> ArchiveRef<'_> {
        ArchiveRef {
            key: KEY,
            version_id: None,
            size_bytes: self.size_bytes,
            sha256: &self.sha256,
            crc64nvme: &self.crc64nvme,
            archive: &self.archive,
        }
    }

    /// Restores every entry as `folder/<number>`.
    pub(crate) async fn restore_all(&self, folder: &Path) -> Result<Restored, Error> {
        self.restore_all_with(folder, read_options()).await
    }

    pub(crate) async fn restore_all_with(
        &self,
        folder: &Path,
        options: ReadOptions,
    ) -> Result<Restored, Error> {
        let entries = 0..self.archive.entries.len();
        let wanted: Vec<_> = entries.map(|entry| (entry, folder.join(entry.to_string()))).collect();
        transfer::restore_entries(&self.store, self.reference(), &self.index, &wanted, options).await
    }

    /// Replaces the stored bytes.
    pub(crate) fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.store.object(KEY).unwrap();
        change(&mut bytes);
        self.store.put(KEY, bytes);
    }
}

pub(crate) fn archive_of(uploaded: &Uploaded) -> Archive {
    Archive {
        raw_bytes: uploaded.raw_bytes,
        frame_count: uploaded.index.frames.len() as u64,
        frames_root: uploaded.index.root_hex(),
        golden_sha256: "0".repeat(64),
        entries: uploaded.entries.clone(),
    }
}

/// What is in `folder`, by name.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
