//! The product as a whole: its backup, its restore, and the fetching that a restore does.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, ensure};
use protocol::manifest::Archive;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use transfer::{
    ArchiveRef, Content, Durability, EntrySpec, FrameIndex, Geometry, Leftovers, Level, MultipartStore as _,
    ReadOptions, Source, UploadOptions, Uploaded, restore_entries, store::S3, upload,
};

use crate::{
    client::bucket,
    measure::{Sample, Scope, Stopwatch, own_cpu, peak_rss},
    rows::{Frames, Kept, runtime},
    sink::{DISCARD, KEEP, SLOW},
    snapshots::Snapshots,
};

/// What buffers may take, in bytes: so little that it binds, so that what a row takes in memory tells something.
pub(crate) const BUDGET: u64 = 256 << 20;
/// How many bytes of the object one request reads, as the product does it.
const RANGE: u64 = 16 << 20;
/// Bytes of raw data in a tiny frame.
const TINY: u32 = 1 << 10;

impl Frames {
    fn geometry(self) -> Geometry {
        match self {
            Self::Format => Geometry::default(),
            Self::Tiny => Geometry { frame_raw_max: TINY, ..Geometry::default() },
        }
    }
}

/// An archive that the store keeps, and what its manifest would say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
    crc64nvme: String,
    archive: Archive,
}

impl Stored {
    /// Looks up the archive of `input`.
    pub(crate) fn load(work: &Path, input: &str) -> anyhow::Result<Self> {
        let text = fs_err::read(work.join(format!("{input}.stored.json")))?;
        serde_json::from_slice(&text).context("read what is said of the stored archive")
    }

    pub(crate) fn index(&self, work: &Path, input: &str) -> anyhow::Result<FrameIndex> {
        let bytes = fs_err::read(work.join(format!("{input}.frames.json.zst")))?;
        Ok(FrameIndex::from_json_zst(&bytes, self.archive.frame_count)?)
    }

    fn save(work: &Path, input: &str, key: &str, uploaded: Uploaded) -> anyhow::Result<()> {
        let Uploaded { size_bytes, sha256, crc64nvme, index, entries, raw_bytes, .. } = uploaded;
        let archive = Archive {
            raw_bytes,
            frame_count: index.frames.len() as u64,
            frames_root: index.root_hex(),
            golden_sha256: String::new(),
            entries,
        };
        fs_err::write(work.join(format!("{input}.frames.json.zst")), index.to_json_zst())?;
        let stored = Self { key: key.to_owned(), size_bytes, sha256, crc64nvme, archive };
        fs_err::write(work.join(format!("{input}.stored.json")), serde_json::to_vec(&stored)?)?;
        Ok(())
    }

    /// The whole object.
    pub(crate) async fn read(&self, store: &S3) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.size_bytes)?);
        store.get_range(&self.key, None, None, 0..self.size_bytes, &mut bytes).await?;
        Ok(bytes)
    }
}

/// The sources of a backup of `snapshots`, with the checksums that Qdrant gave.
pub(crate) fn sources(snapshots: &Snapshots) -> anyhow::Result<Vec<Source>> {
    let source = |file: &crate::snapshots::Snapshot| {
        let mut expected = [0; 32];
        hex::decode_to_slice(&file.sha256, &mut expected)?;
        Ok(Source {
            entry: EntrySpec { name: format!("snapshots/{}", file.name), size: file.size },
            content: Content::File(snapshots.folder.join(&file.name)),
            expected_sha256: Some(expected),
        })
    };
    snapshots.files.iter().map(source).collect()
}

/// Backs up `input`. CPU time is that of the process from its start.
pub(crate) fn backup(
    work: &Path,
    input: &str,
    level: Level,
    frames: Frames,
    kept: Kept,
) -> anyhow::Result<Sample> {
    let snapshots = Snapshots::load(work, input)?;
    let store = bucket(
        work,
        match kept {
            Kept::Keep => KEEP,
            Kept::Drop => DISCARD,
            Kept::Slow => SLOW,
        },
    )?;
    let key = format!("{input}-{}.tar.zst", std::process::id());
    let journal = work.join("backup.journal");
    let options = UploadOptions {
        level,
        geometry: frames.geometry(),
        journal: Some(journal.clone()),
        ..UploadOptions::new(BUDGET)
    };
    let mut watch = Stopwatch::new(Scope::Process);
    let runtime = runtime()?;
    let uploaded = watch
        .time(|| anyhow::Ok(runtime.block_on(upload(&store, &key, sources(&snapshots)?, options))?))?;
    let sample = Sample {
        cpu_s: own_cpu(),
        object_bytes: Some(uploaded.size_bytes),
        peak_rss: Some(peak_rss()?),
        budget: Some(BUDGET),
        ..watch.sample(snapshots.bytes())
    };
    fs_err::remove_file(journal)?;
    if kept == Kept::Keep {
        Stored::save(work, input, &key, uploaded)?;
    }
    Ok(sample)
}

/// Where restores of the run put their files.
pub(crate) fn restored(work: &Path) -> PathBuf {
    work.join("restored")
}

/// Restores everything of the kept archive of `input`. CPU time is that of the process from its start.
pub(crate) fn restore(work: &Path, input: &str, frames: Frames) -> anyhow::Result<Sample> {
    let stored = Stored::load(work, input)?;
    let store = bucket(work, KEEP)?;
    let folder = restored(work);
    // As the worker restores what Qdrant reads at once.
    let options = ReadOptions {
        geometry: frames.geometry(),
        leftovers: Leftovers::Resume,
        durability: Durability::Cached,
        ..ReadOptions::new(BUDGET)
    };
    let mut watch = Stopwatch::new(Scope::Process);
    let runtime = runtime()?;
    let restored = watch.time(|| {
        let index = stored.index(work, input)?;
        let wanted: Vec<(usize, PathBuf)> =
            (0..stored.archive.entries.len()).map(|entry| (entry, folder.join(entry.to_string()))).collect();
        let archive = ArchiveRef {
            key: &stored.key,
            version_id: None,
            size_bytes: stored.size_bytes,
            sha256: &stored.sha256,
            crc64nvme: &stored.crc64nvme,
            archive: &stored.archive,
        };
        anyhow::Ok(runtime.block_on(restore_entries(&store, archive, &index, &wanted, options))?)
    })?;
    Ok(Sample {
        cpu_s: own_cpu(),
        object_bytes: Some(restored.object_bytes),
        peak_rss: Some(peak_rss()?),
        budget: Some(BUDGET),
        ..watch.sample(restored.raw_bytes)
    })
}

/// Fetches the kept archive of the data in ranges, into buffers that are used again, and does nothing with it.
pub(crate) fn fetch(work: &Path) -> anyhow::Result<Sample> {
    let stored = Arc::new(Stored::load(work, crate::suite::DATA)?);
    let store = bucket(work, KEEP)?;
    let runtime = runtime()?;
    let mut watch = Stopwatch::new(Scope::Process);
    let fetched: anyhow::Result<u64> = watch.time(|| {
        runtime.block_on(async {
            let next = Arc::new(AtomicU64::new(0));
            let mut fetchers = JoinSet::new();
            for _ in 0..transfer::upload::DEFAULT_CONCURRENCY {
                let (store, next, stored) = (store.clone(), Arc::clone(&next), Arc::clone(&stored));
                fetchers.spawn(async move {
                    let (mut buffer, mut bytes) = (Vec::new(), 0);
                    loop {
                        let start = next.fetch_add(RANGE, Relaxed);
                        if start >= stored.size_bytes {
                            return anyhow::Ok(bytes);
                        }
                        let range = start..stored.size_bytes.min(start + RANGE);
                        store.get_range(&stored.key, None, None, range, &mut buffer).await?;
                        bytes += buffer.len() as u64;
                    }
                });
            }
            let mut bytes = 0;
            while let Some(fetched) = fetchers.join_next().await {
                bytes += fetched??;
            }
            Ok(bytes)
        })
    });
    ensure!(fetched? == stored.size_bytes, "not all of the object was fetched");
    Ok(Sample { object_bytes: Some(stored.size_bytes), ..watch.sample(stored.archive.raw_bytes) })
}
