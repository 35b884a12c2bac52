//! Warming up: whoever asks first should not pay for a cold disk.
//!
//! The recorded searches are made round after round, and between two rounds the files are read that searches read most, until 95 of 100 searches are as
//! fast as they have to be, or time is up. Qdrant tells the kernel not to read ahead, so that a search of cold files takes a disk access per vector; reading them
//! from end to end is a hundred times faster, and puts them into the page cache, which Qdrant shares.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{
    GoldenSet,
    golden::{CollectionGolden, GoldenSearch},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    backup::local,
    config::{ByteSize, Config, Targets},
    error::Error,
    limits,
    output::on_one_line,
    qdrant::{self, Search},
};

/// Read between two rounds: some tenths of a second on the disks that this is about.
const BATCH: u64 = 1 << 30;
/// Between two rounds when there is nothing left to read.
const PAUSE: Duration = Duration::from_millis(200);
/// Of the memory that is available, the share that may be filled: what is read beyond that drives out what was read before.
const SHARE: (u64, u64) = (3, 4);

/// When Qdrant is warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// What 95 of 100 searches may take.
    pub p95: Duration,
    /// When to serve all the same.
    pub deadline: Duration,
}

impl Goal {
    /// As the settings say.
    pub(crate) fn of(config: &Config) -> Self {
        let Targets { search_milliseconds, warm_up_seconds, .. } = config.targets();
        Self {
            p95: Duration::from_millis(search_milliseconds),
            deadline: Duration::from_secs(warm_up_seconds) / config.time_divisor(),
        }
    }
}

/// What warming up came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    /// How it ended.
    pub outcome: Warmth,
    /// How often all searches were made.
    pub rounds: u32,
    /// How many searches one round has.
    pub searches: u64,
    /// What 95 of 100 searches took in the first round; absent when nothing could be searched.
    pub p95_before_milliseconds: Option<f64>,
    /// The same in the last round.
    pub p95_after_milliseconds: Option<f64>,
    /// What they may take.
    pub target_milliseconds: f64,
    /// Bytes of files that were read.
    pub bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
}

/// How a warm-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warmth {
    /// Searches are as fast as they have to be.
    Warm,
    /// Time was up before.
    Deadline,
    /// There was nothing to search: the files were read, and nobody knows what that did.
    Unmeasured,
}

/// Warms `qdrant` up, whose data is in `data_dir`, by the searches of `golden`.
pub async fn warm_up(
    qdrant: &qdrant::Client,
    golden: Option<&GoldenSet>,
    data_dir: &Path,
    goal: Goal,
) -> Result<WarmUp, Error> {
    let started = Instant::now();
    let collections = golden.map_or(&[][..], |golden| &golden.collections);
    let mut reader = Reader::open(data_dir).await?;
    let mut warm_up = WarmUp {
        outcome: Warmth::Unmeasured,
        rounds: 0,
        searches: 0,
        p95_before_milliseconds: None,
        p95_after_milliseconds: None,
        target_milliseconds: milliseconds(goal.p95),
        bytes_read: 0,
        seconds: 0.0,
    };
    loop {
        let mut latencies = round(qdrant, collections).await?;
        warm_up.rounds += 1;
        warm_up.searches = latencies.len() as u64;
        let p95 = p95(&mut latencies);
        warm_up.p95_after_milliseconds = p95.map(milliseconds);
        warm_up.p95_before_milliseconds = warm_up.p95_before_milliseconds.or(warm_up.p95_after_milliseconds);
        let is_over = started.elapsed() >= goal.deadline;
        warm_up.outcome = match p95 {
            None => Warmth::Unmeasured,
            Some(p95) if p95 <= goal.p95 => Warmth::Warm,
            Some(_) => Warmth::Deadline,
        };
        let read_all = reader.is_at_end();
        if is_over || warm_up.outcome == Warmth::Warm || (warm_up.outcome == Warmth::Unmeasured && read_all) {
            break;
        }
        if read_all {
            tokio::time::sleep(PAUSE.min(goal.deadline.saturating_sub(started.elapsed()))).await;
        } else {
            reader = reader.batch().await?;
        }
    }
    warm_up.bytes_read = reader.read;
    warm_up.seconds = (started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    Ok(warm_up)
}

/// Makes every recorded search as an application makes it, and answers with how long each took.
async fn round(qdrant: &qdrant::Client, collections: &[CollectionGolden]) -> Result<Vec<Duration>, Error> {
    let mut latencies = Vec::new();
    for CollectionGolden { name, searches, .. } in collections {
        for GoldenSearch { using, query, limit, .. } in searches {
            let search = Search { using, query, limit: *limit, exact: false, among: None };
            let asked = Instant::now();
            match qdrant.search(name, &search).await {
                Ok(_) => latencies.push(asked.elapsed()),
                // What a collection does not let anybody search needs no warming.
                Err(error) if error.refusal().is_some() => {
                    debug!(collection = %name, error = on_one_line(&error), "not searched");
                }
                // Cold as can be.
                Err(error) if error.is_timeout() => latencies.push(asked.elapsed()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(latencies)
}

/// What 95 of 100 take at most; `None` of none.
fn p95(latencies: &mut [Duration]) -> Option<Duration> {
    latencies.sort_unstable();
    latencies.get((latencies.len() * 95).div_ceil(100).checked_sub(1)?).copied()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The files that are worth reading, and how far they are read.
#[derive(Debug)]
struct Reader {
    /// The next one last.
    files: Vec<PathBuf>,
    /// The one that is being read.
    current: Option<fs_err::File>,
    /// Bytes that were read.
    read: u64,
    /// Bytes that may be read.
    budget: u64,
}

impl Reader {
    async fn open(data_dir: &Path) -> Result<Self, Error> {
        let data_dir = data_dir.to_owned();
        blocking(data_dir.clone(), move || {
            let meminfo = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
            let available = limits::available(&meminfo).unwrap_or(u64::MAX);
            let mut files = hottest(&data_dir.join("collections"));
            files.reverse();
            Ok(Self { files, current: None, read: 0, budget: available / SHARE.1 * SHARE.0 })
        })
        .await
    }

    fn is_at_end(&self) -> bool {
        self.read >= self.budget || (self.current.is_none() && self.files.is_empty())
    }

    /// Reads on for a while.
    async fn batch(self) -> Result<Self, Error> {
        let mut reader = self;
        let file = reader.files.last().cloned().unwrap_or_default();
        blocking(file, move || {
            let mut buffer = vec![0; 1 << 20];
            let end = reader.read.saturating_add(BATCH).min(reader.budget);
            while reader.read < end && !reader.is_at_end() {
                reader.step(&mut buffer);
            }
            Ok(reader)
        })
        .await
    }

    /// Reads a piece. A file that cannot be read was merged into another meanwhile, or shows its trouble to Qdrant itself.
    fn step(&mut self, buffer: &mut [u8]) {
        use io::Read;
        let Some(file) = &mut self.current else {
            let Some(path) = self.files.pop() else { return };
            match fs_err::File::open(&path) {
                Ok(file) => {
                    // Only advice: the kernel reads further ahead.
                    let _ignored = rustix::fs::fadvise(file.file(), 0, None, rustix::fs::Advice::Sequential);
                    self.current = Some(file);
                }
                Err(error) => debug!(%error, "not read"),
            }
            return;
        };
        match file.read(buffer) {
            Ok(0) => self.current = None,
            Ok(bytes) => self.read += bytes as u64,
            Err(error) => {
                warn!(%error, "not read to its end");
                self.current = None;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    about: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done =
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    done.map_err(|source| local(&about, "read", source))
}

/// The files that a search reads, in the order in which it misses them most: graphs, quantized vectors, vectors, payload indexes; those of large collections
/// first. Payloads are read for the few results only, and the log never.
fn hottest(collections: &Path) -> Vec<PathBuf> {
    let mut sizes: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut files = Vec::new();
    for collection in below(collections) {
        let mut pending = vec![collection.clone()];
        while let Some(dir) = pending.pop() {
            for path in below(&dir) {
                let Ok(found) = fs_err::symlink_metadata(&path) else { continue };
                if found.is_dir() {
                    pending.push(path);
                } else if found.is_file()
                    && let Some(heat) = heat(path.strip_prefix(&collection).unwrap_or(&path))
                {
                    *sizes.entry(collection.clone()).or_default() += found.len();
                    files.push((heat, collection.clone(), path));
                }
            }
        }
    }
    files.sort_by_cached_key(|(heat, collection, path)| {
        (*heat, Reverse(sizes.get(collection).copied().unwrap_or(0)), path.clone())
    });
    files.into_iter().map(|(_, _, path)| path).collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// How soon a file is wanted; `None` if no search wants it. Segments keep their parts in directories of these names, with the vector's name behind a hyphen.
fn heat(in_collection: &Path) -> Option<u8> {
    let parts = || in_collection.components().filter_map(|part| part.as_os_str().to_str());
    let is =
        |part: &str, of: &str| part == of || part.strip_prefix(of).is_some_and(|rest| rest.starts_with('-'));
    if !parts().any(|part| part == "segments") {
        return None;
    }
    if parts().any(|part| is(part, "vector_index")) {
        return Some(0);
    }
    if parts().any(|part| is(part, "vector_storage")) {
        let quantized = parts().any(|part| part.starts_with("quantized"));
        return Some(if quantized { 1 } else { 2 });
    }
    parts().any(|part| part == "payload_index").then_some(3)
}

impl fmt::Display for WarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Warmth::Warm => "warm",
            Warmth::Deadline => "NOT warm when time was up",
            Warmth::Unmeasured => "not measured",
        };
        write!(f, "{outcome} after {:.1} s, {} read", self.seconds, ByteSize(self.bytes_read))?;
        if let (Some(before), Some(after)) = (self.p95_before_milliseconds, self.p95_after_milliseconds) {
            write!(
                f,
                ", p95 {before:.1} ms before and {after:.1} ms after {} rounds of {} searches",
                self.rounds, self.searches
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_of_100() {
        let of = |count: u64| p95(&mut (1..=count).rev().map(Duration::from_millis).collect::<Vec<_>>());
        assert_eq!(of(0), None);
        for (count, p95) in [(1, 1), (8, 8), (20, 19), (100, 95), (1000, 950)] {
            assert_eq!(of(count), Some(Duration::from_millis(p95)), "{count}");
        }
    }

    #[tokio::test]
    async fn graphs_come_first_and_payloads_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, bytes: usize| {
            let path = dir.path().join("collections").join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, vec![7; bytes]).unwrap();
        };
        write("small/0/segments/a/vector_index/links.bin", 1);
        write("large/0/segments/a/vector_index-title/links.bin", 1);
        write("large/0/segments/a/vector_storage-title/vectors/chunk_0.mmap", 100);
        write("large/0/segments/a/vector_storage-title/quantized.data", 10);
        write("large/0/segments/a/payload_index/city/map.bin", 5);
        write("large/0/segments/a/payload_storage/page_0.dat", 1000);
        write("large/0/wal/open-1", 1000);
        write("large/config.json", 1000);
        let hot: Vec<String> = hottest(&dir.path().join("collections"))
            .iter()
            .map(|path| path.strip_prefix(dir.path().join("collections")).unwrap().display().to_string())
            .collect();
        assert_eq!(
            hot,
            [
                "large/0/segments/a/vector_index-title/links.bin",
                "small/0/segments/a/vector_index/links.bin",
                "large/0/segments/a/vector_storage-title/quantized.data",
                "large/0/segments/a/vector_storage-title/vectors/chunk_0.mmap",
                "large/0/segments/a/payload_index/city/map.bin",
            ]
        );
        let reader = Reader::open(dir.path()).await.unwrap().batch().await.unwrap();
        assert!(reader.is_at_end());
        assert_eq!(reader.read, 117);
        let mut bounded = Reader::open(dir.path()).await.unwrap();
        bounded.budget = 50;
        let bounded = bounded.batch().await.unwrap();
        assert!(bounded.is_at_end() && (50..117).contains(&bounded.read), "{}", bounded.read);
    }
}
