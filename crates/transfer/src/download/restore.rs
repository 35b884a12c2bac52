//! Writing entries of an archive to files.

use std::{
    collections::HashSet,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    download::{
        ArchiveRef, NO_BUFFER, NOBODY_LEFT, ReadOptions, Restored,
        consistency::{check_index, layout_of},
        fetch::{Fetcher, Object, Shares, runs},
        target::Targets,
    },
    error::Error,
    frame::Decoder,
    index::FrameIndex,
    layout::{FrameContent, Layout},
    memory::Buffer,
    progress::{Phase, Progress},
    store::MultipartStore,
    upload::Threads,
};

/// Writes entries of an archive to files that are not there yet.
///
/// `wanted` gives the place of an entry in `archive.archive.entries` and the file for it; paths never come from the archive.
/// Each file appears under its name when it is whole and synced; until then it is `<file>.partial`, and on any error
/// neither is left.
pub async fn restore_entries<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    wanted: &[(usize, PathBuf)],
    options: ReadOptions,
) -> Result<Restored, Error> {
    let started = Instant::now();
    let layout = layout_of(archive, options.geometry.frame_raw_max)?;
    check_index(archive, &layout, index)?;
    check_wanted(archive.key, &layout, wanted)?;
    let shares = Shares::new(index, &options)?;
    let raw_bytes = wanted.iter().map(|(entry, _)| layout.entry_location(*entry).size).sum();
    options.progress.begin(raw_bytes);

    let found =
        options.cancel.run_until_cancelled(Object::find(store, archive.key, archive.version_id, &options));
    let object = found.await.ok_or(Error::Cancelled)??;
    if object.size != archive.size_bytes {
        let (key, expected, found) = (archive.key.to_owned(), archive.size_bytes, object.size);
        return Err(Error::ObjectSize { key, expected, found });
    }
    let sizes = wanted.iter().map(|(entry, path)| (path.clone(), layout.entry_location(*entry).size));
    let targets = Arc::new(Targets::create(sizes)?);
    let mut target_of = vec![None; layout.entry_count()];
    for (target, (entry, _)) in wanted.iter().enumerate() {
        target_of[*entry] = Some(target);
    }
    let writer = Writer {
        key: archive.key.to_owned(),
        layout: Arc::new(layout),
        index: index.frames.clone().into(),
        targets: Arc::clone(&targets),
        target_of: target_of.into(),
        progress: Arc::clone(&options.progress),
        stop: CancellationToken::new(),
    };
    let offsets = index.offsets();
    let jobs = jobs(&writer, &offsets, wanted, &shares);
    let mut fetcher = Fetcher::new(object, &shares);
    let object_bytes = {
        let mut crew = Crew::start(&writer, &shares, options.threads)?;
        let moved = drive(store, jobs, &mut fetcher, &mut crew, &options).await;
        fetcher.stop().await;
        // The targets are dropped, or committed, after nobody writes to them any more.
        crew.stop().await;
        moved?
    };
    drop(writer);
    let targets =
        Arc::into_inner(targets).ok_or(Error::Internal { what: "files are still being written" })?;
    match options.threads {
        Threads::Inline => targets.commit()?,
        Threads::PerCore | Threads::Count(_) => {
            let commit = tokio::task::spawn_blocking(|| targets.commit());
            commit.await.map_err(|error| Error::joined("commit", error))??;
        }
    }
    options.progress.enter(Phase::Done);
    Ok(Restored { raw_bytes, object_bytes, duration: started.elapsed() })
}

fn check_wanted(key: &str, layout: &Layout, wanted: &[(usize, PathBuf)]) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Wanted { key: key.to_owned(), what });
    let (mut entries, mut paths) = (HashSet::new(), HashSet::new());
    for (entry, path) in wanted {
        if *entry >= layout.entry_count() {
            return refuse(format!("entry number {entry} of {}", layout.entry_count()));
        }
        if !entries.insert(entry) || !paths.insert(path) {
            return refuse(format!("`{}` to `{}` twice", layout.name(*entry), path.display()));
        }
    }
    Ok(())
}

/// The ranges to read, in the order of the object.
fn jobs<'a>(
    writer: &'a Writer,
    offsets: &'a [u64],
    wanted: &[(usize, PathBuf)],
    shares: &Shares,
) -> impl Iterator<Item = (Range<u64>, Range<usize>)> + 'a {
    let (size, raw) = (shares.range_size, shares.range_raw);
    let mut entries: Vec<usize> = wanted.iter().map(|(entry, _)| *entry).collect();
    entries.sort_unstable();
    entries.into_iter().flat_map(move |entry| {
        let location = writer.layout.entry_location(entry);
        // The index has as many frames as the layout, so these are places in it.
        let first = usize::try_from(location.first_frame).unwrap_or(usize::MAX);
        let count = usize::try_from(location.frame_count).unwrap_or(usize::MAX);
        runs(&writer.index, offsets, first..first + count, size, raw)
    })
}

/// Fetches and hands over until all is written. Returns how many bytes of the object were read.
async fn drive<S: MultipartStore>(
    store: &S,
    jobs: impl Iterator<Item = (Range<u64>, Range<usize>)>,
    fetcher: &mut Fetcher<Range<usize>>,
    crew: &mut Crew,
    options: &ReadOptions,
) -> Result<u64, Error> {
    let mut jobs = jobs;
    let mut object_bytes = 0;
    let mut writing: usize = 0;
    loop {
        fetcher.start(store, &mut jobs);
        if writing == 0 && fetcher.is_done()? {
            return Ok(object_bytes);
        }
        tokio::select! {
            biased;
            () = options.cancel.cancelled() => return Err(Error::Cancelled),
            written = crew.written(), if writing > 0 => {
                written?;
                writing -= 1;
            }
            Some(fetched) = fetcher.next() => {
                let (frames, bytes) = fetched?;
                object_bytes += bytes.as_ref().len() as u64;
                writing += 1;
                crew.write(frames, bytes).await;
            }
        }
    }
}

/// Decodes frames and writes them. A frame's bytes reach its file only after its hash was compared.
#[derive(Clone, Debug)]
struct Writer {
    key: String,
    layout: Arc<Layout>,
    index: Arc<[crate::index::Frame]>,
    targets: Arc<Targets>,
    target_of: Arc<[Option<usize>]>,
    progress: Arc<Progress>,
    /// Nobody wants the rest any more.
    stop: CancellationToken,
}

impl Writer {
    /// Writes the frames `frames`, whose compressed bytes follow one another in `compressed`.
    fn write(
        &self,
        decoder: &mut Decoder,
        raw: &mut Buffer,
        frames: Range<usize>,
        mut compressed: &[u8],
    ) -> Result<(), Error> {
        for (number, frame) in (frames.start as u64..).zip(&self.index[frames]) {
            if self.stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (bytes, rest) = compressed
                .split_at_checked(frame.compressed_len as usize)
                .ok_or(Error::Internal { what: "a range is shorter than its frames" })?;
            compressed = rest;
            decoder.decode(bytes, frame, raw.vec()).map_err(|what| Error::FrameDamaged {
                key: self.key.clone(),
                frame: number,
                place: self.layout.describe(number),
                what,
            })?;
            if let FrameContent::Data { entry, offset } = self.layout.frame(number).content
                && let Some(target) = self.target_of[entry]
            {
                self.targets.write(target, offset, raw.as_ref())?;
                self.progress.add_raw(raw.as_ref().len() as u64);
            }
        }
        Ok(())
    }
}

/// Who decodes and writes: threads, or the calling task.
#[derive(Debug)]
enum Crew {
    Threads {
        work: std_mpsc::Sender<(Range<usize>, Buffer)>,
        done: mpsc::UnboundedReceiver<Result<(), Error>>,
        /// What is queued is not done any more when this is dropped.
        stop: DropGuard,
    },
    Inline {
        writer: Writer,
        decoder: Decoder,
        raw: Buffer,
        done: Vec<Result<(), Error>>,
    },
}

impl Crew {
    fn start(writer: &Writer, shares: &Shares, threads: Threads) -> Result<Self, Error> {
        if threads == Threads::Inline {
            let raw = shares.raw.try_take().ok_or(NO_BUFFER)?;
            return Ok(Self::Inline {
                writer: writer.clone(),
                decoder: Decoder::default(),
                raw,
                done: Vec::new(),
            });
        }
        let (work, queue) = std_mpsc::channel::<(Range<usize>, Buffer)>();
        let (report, done) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..shares.threads {
            let (queue, report, writer) = (Arc::clone(&queue), report.clone(), writer.clone());
            let mut raw = shares.raw.try_take().ok_or(NO_BUFFER)?;
            let name = format!("unpack-{number}");
            let thread = name.clone();
            let run = move || {
                let mut decoder = Decoder::default();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((frames, compressed)) = next else { break };
                    let write = || writer.write(&mut decoder, &mut raw, frames, compressed.as_ref());
                    let written = catch_unwind(AssertUnwindSafe(write))
                        .unwrap_or_else(|panic| Err(Error::panicked(&thread, panic)));
                    drop(compressed);
                    if report.send(written).is_err() {
                        break;
                    }
                }
                // The end of the reports says that this thread holds no target any more.
                drop((writer, raw));
                drop(report);
            };
            let spawned = thread::Builder::new().name(name).spawn(run);
            spawned.map_err(|source| Error::Thread { source })?;
        }
        Ok(Self::Threads { work, done, stop: writer.stop.clone().drop_guard() })
    }

    /// Hands over frames to be written.
    async fn write(&mut self, frames: Range<usize>, compressed: Buffer) {
        match self {
            // If the threads are gone, waiting for the result says so.
            Self::Threads { work, .. } => drop(work.send((frames, compressed))),
            Self::Inline { writer, decoder, raw, done } => {
                tokio::task::yield_now().await;
                done.push(writer.write(decoder, raw, frames, compressed.as_ref()));
            }
        }
    }

    /// The result of one [`Crew::write`].
    async fn written(&mut self) -> Result<(), Error> {
        match self {
            Self::Threads { done, .. } => done.recv().await.unwrap_or(Err(NOBODY_LEFT)),
            Self::Inline { done, .. } => done.pop().unwrap_or(Ok(())),
        }
    }

    /// Waits until nobody writes any more.
    async fn stop(self) {
        if let Self::Threads { work, mut done, stop } = self {
            drop((work, stop));
            while done.recv().await.is_some() {}
        }
    }
}
