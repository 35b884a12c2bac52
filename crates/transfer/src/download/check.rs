//! Reading a whole object and comparing everything that is known of it.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    download::{
        ArchiveRef, Check, Finding, MAX_FINDINGS, ReadOptions,
        consistency::{check_index, layout_of},
        fetch::{Fetcher, Object, Shares, runs},
    },
    error::Error,
    frame::Decoder,
    index::{Frame, FrameIndex, seek_table},
    layout::{FrameContent, Layout},
    memory::Buffer,
    progress::{Phase, Progress},
    store::{Crc64, MultipartStore},
    upload::Threads,
};

/// Reads a whole object and compares everything that is known of it: every frame, the seek table, SHA-256, CRC-64/NVME.
///
/// Damage to the object is not an error but a list of findings. An error is what keeps from looking: a manifest that
/// contradicts itself or its index, a store that does not answer.
pub async fn check_object<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    options: ReadOptions,
) -> Result<Check, Error> {
    let started = Instant::now();
    let layout = layout_of(archive, options.geometry.frame_raw_max)?;
    check_index(archive, &layout, index)?;
    let shares = Shares::new(index, &options)?;
    options.progress.begin(layout.raw_len());
    let found =
        options.cancel.run_until_cancelled(Object::find(store, archive.key, archive.version_id, &options));
    let object = found.await.ok_or(Error::Cancelled)??;

    let mut findings = Findings::default();
    let readable = object.size.min(archive.size_bytes);
    if object.size != archive.size_bytes {
        findings.add(0, Finding::Size { expected: archive.size_bytes, found: object.size });
    }
    let offsets: Arc<[u64]> = index.offsets().into();
    let checker = Checker {
        layout: Arc::new(layout),
        frames: index.frames.clone().into(),
        offsets: Arc::clone(&offsets),
        table: seek_table::encode(index).into(),
        progress: Arc::clone(&options.progress),
    };
    // What lies behind the end of a truncated object cannot be read; everything before is still looked at.
    let present = offsets.partition_point(|offset| *offset <= readable) - 1;
    for frame in present..index.frames.len() {
        findings.add(offsets[frame], checker.bad_frame(frame, "the object ends before it does".to_owned()));
    }
    let table_start = offsets[index.frames.len()];
    if readable < archive.size_bytes {
        findings.add(table_start, Finding::SeekTable { what: "the object ends before it does".to_owned() });
    }
    let frames =
        runs(&offsets, 0..present, shares.range_size).map(|(range, frames)| (range, Piece::Frames(frames)));
    let table = readable == archive.size_bytes;
    let table = chunks(table_start..if table { readable } else { table_start }, shares.range_size)
        .map(|range| (range.clone(), Piece::Table(range)));
    let jobs = frames.chain(table).enumerate().map(|(place, (range, piece))| (range, (place, piece)));

    let mut fetcher = Fetcher::new(object, &shares);
    let mut crew = Crew::start(&checker, &shares, options.threads)?;
    let read = drive(store, jobs, &mut fetcher, &mut crew, &mut findings, &options).await;
    fetcher.stop().await;
    let whole = crew.stop().await;
    let object_bytes = read?;
    let whole = whole.ok_or(Error::Panicked)?;
    if readable == archive.size_bytes {
        if whole.sha256 != archive.sha256 {
            findings.add(u64::MAX, Finding::Sha256 { found: whole.sha256 });
        }
        if whole.crc64nvme != archive.crc64nvme {
            findings.add(u64::MAX, Finding::Crc64Nvme { found: whole.crc64nvme });
        }
    }
    options.progress.enter(Phase::Done);
    let frames_total = index.frames.len() as u64;
    let frames_good = frames_total - findings.bad_frames;
    let (findings, more) = findings.into_list();
    Ok(Check { frames_good, frames_total, object_bytes, findings, more, duration: started.elapsed() })
}

/// A part of the object that is read by one request.
#[derive(Clone, Debug)]
enum Piece {
    Frames(Range<usize>),
    Table(Range<u64>),
}

/// Findings by where they are in the object. Only the first so many are kept.
#[derive(Debug, Default)]
struct Findings {
    kept: BTreeMap<(u64, u64), Finding>,
    added: u64,
    bad_frames: u64,
}

impl Findings {
    fn add(&mut self, place: u64, finding: Finding) {
        self.bad_frames += u64::from(matches!(finding, Finding::Frame { .. }));
        self.kept.insert((place, self.added), finding);
        self.added += 1;
        if self.kept.len() > MAX_FINDINGS {
            self.kept.pop_last();
        }
    }

    fn into_list(self) -> (Vec<Finding>, u64) {
        let more = self.added - self.kept.len() as u64;
        (self.kept.into_values().collect(), more)
    }
}

fn chunks(range: Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let chunk = start..range.end.min(start.saturating_add(size));
        start = chunk.end;
        (!chunk.is_empty()).then_some(chunk)
    })
}

async fn drive<S: MultipartStore>(
    store: &S,
    jobs: impl Iterator<Item = (Range<u64>, (usize, Piece))>,
    fetcher: &mut Fetcher<(usize, Piece)>,
    crew: &mut Crew,
    findings: &mut Findings,
    options: &ReadOptions,
) -> Result<u64, Error> {
    let mut jobs = jobs;
    let mut object_bytes = 0;
    let mut checking: usize = 0;
    loop {
        fetcher.start(store, &mut jobs);
        if fetcher.len() == 0 && checking == 0 {
            return Ok(object_bytes);
        }
        tokio::select! {
            biased;
            () = options.cancel.cancelled() => return Err(Error::Cancelled),
            checked = crew.checked(), if checking > 0 => {
                checking -= 1;
                for (place, finding) in checked? {
                    findings.add(place, finding);
                }
            }
            Some(fetched) = fetcher.next() => {
                let ((place, piece), bytes) = fetched?;
                object_bytes += bytes.as_ref().len() as u64;
                checking += 1;
                crew.check(place, piece, bytes).await;
            }
        }
    }
}

/// Compares pieces with the index.
#[derive(Clone, Debug)]
struct Checker {
    layout: Arc<Layout>,
    frames: Arc<[Frame]>,
    offsets: Arc<[u64]>,
    table: Arc<[u8]>,
    progress: Arc<Progress>,
}

impl Checker {
    fn check(
        &self,
        decoder: &mut Decoder,
        raw: &mut Buffer,
        piece: Piece,
        bytes: &[u8],
    ) -> Vec<(u64, Finding)> {
        let frames = match piece {
            Piece::Frames(frames) => frames,
            Piece::Table(range) => return self.check_table(&range, bytes).into_iter().collect(),
        };
        let start = self.offsets[frames.start];
        let mut findings = Vec::new();
        for number in frames {
            let within = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            let bytes = &bytes[within(self.offsets[number])..within(self.offsets[number + 1])];
            match decoder.decode(bytes, &self.frames[number], raw.vec()) {
                Ok(()) => self.progress.add_raw(u64::from(self.frames[number].raw_len)),
                Err(what) => findings.push((self.offsets[number], self.bad_frame(number, what))),
            }
        }
        findings
    }

    fn check_table(&self, range: &Range<u64>, bytes: &[u8]) -> Option<(u64, Finding)> {
        let base = self.offsets[self.frames.len()];
        let start = usize::try_from(range.start - base).unwrap_or(usize::MAX);
        let first = bytes.iter().zip(&self.table[start..]).position(|(found, expected)| found != expected)?;
        let place = range.start + first as u64;
        Some((place, Finding::SeekTable { what: format!("byte {place} of the object is another one") }))
    }

    fn bad_frame(&self, number: usize, what: String) -> Finding {
        let frame = number as u64;
        let (entry, offset) = match self.layout.frame(frame).content {
            FrameContent::Data { entry, offset } => (Some(self.layout.name(entry).to_owned()), offset),
            FrameContent::Glue => (None, self.layout.frame(frame).raw_offset),
        };
        Finding::Frame { frame, object_offset: self.offsets[number], entry, offset, what }
    }
}

/// The hashes of everything that was read, in order.
#[derive(Debug)]
struct Whole {
    sha256: String,
    crc64nvme: String,
}

/// Takes the pieces in their order, however they arrive.
struct WholeHasher {
    next: usize,
    waiting: BTreeMap<usize, Arc<Buffer>>,
    sha256: Sha256,
    crc: Crc,
}

impl WholeHasher {
    fn new() -> Self {
        let crc = Crc::new(CrcAlgorithm::Crc64Nvme);
        Self { next: 0, waiting: BTreeMap::new(), sha256: Sha256::new(), crc }
    }

    fn push(&mut self, place: usize, bytes: Arc<Buffer>) {
        self.waiting.insert(place, bytes);
        while let Some(bytes) = self.waiting.remove(&self.next) {
            let bytes: &[u8] = (*bytes).as_ref();
            self.sha256.update(bytes);
            self.crc.update(bytes);
            self.next += 1;
        }
    }

    fn finish(self) -> Whole {
        let crc64nvme = Crc64(self.crc.finalize()).to_string();
        Whole { sha256: hex::encode(self.sha256.finalize()), crc64nvme }
    }
}

/// What checking a piece brings to light: each finding with its place in the object.
type Checked = Result<Vec<(u64, Finding)>, Error>;

/// Who decodes and hashes: threads, or the calling task.
enum Crew {
    Threads {
        work: std_mpsc::Sender<(Piece, Arc<Buffer>)>,
        hash: std_mpsc::Sender<(usize, Arc<Buffer>)>,
        done: mpsc::UnboundedReceiver<Checked>,
        whole: mpsc::UnboundedReceiver<Option<Whole>>,
    },
    Inline {
        checker: Checker,
        decoder: Decoder,
        raw: Buffer,
        hasher: Box<WholeHasher>,
        done: Vec<Checked>,
    },
}

impl Crew {
    fn start(checker: &Checker, shares: &Shares, threads: Threads) -> Result<Self, Error> {
        let mut hasher = WholeHasher::new();
        if threads == Threads::Inline {
            let raw = shares.raw.try_take().ok_or(Error::Panicked)?;
            let (checker, decoder, hasher) = (checker.clone(), Decoder::default(), Box::new(hasher));
            return Ok(Self::Inline { checker, decoder, raw, hasher, done: Vec::new() });
        }
        let (work, queue) = std_mpsc::channel::<(Piece, Arc<Buffer>)>();
        let (report, done) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..shares.threads {
            let (queue, report, checker) = (Arc::clone(&queue), report.clone(), checker.clone());
            let mut raw = shares.raw.try_take().ok_or(Error::Panicked)?;
            let run = move || {
                let mut decoder = Decoder::default();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((piece, bytes)) = next else { break };
                    let check = || checker.check(&mut decoder, &mut raw, piece, (*bytes).as_ref());
                    let checked = catch_unwind(AssertUnwindSafe(check)).map_err(|_panic| Error::Panicked);
                    drop(bytes);
                    if report.send(checked).is_err() {
                        break;
                    }
                }
            };
            spawn(format!("check-{number}"), run)?;
        }
        let (hash, hash_queue) = std_mpsc::channel::<(usize, Arc<Buffer>)>();
        let (whole_out, whole) = mpsc::unbounded_channel();
        spawn("hash-object".to_owned(), move || {
            let hash = move || {
                while let Ok((place, bytes)) = hash_queue.recv() {
                    hasher.push(place, bytes);
                }
                hasher.finish()
            };
            // Nobody listens any more when the check has failed.
            let _unheard = whole_out.send(catch_unwind(AssertUnwindSafe(hash)).ok());
        })?;
        Ok(Self::Threads { work, hash, done, whole })
    }

    /// Hands over a piece to be checked.
    async fn check(&mut self, place: usize, piece: Piece, bytes: Buffer) {
        let bytes = Arc::new(bytes);
        match self {
            // If the threads are gone, waiting for the result says so.
            Self::Threads { work, hash, .. } => {
                drop(hash.send((place, Arc::clone(&bytes))));
                drop(work.send((piece, bytes)));
            }
            Self::Inline { checker, decoder, raw, hasher, done } => {
                tokio::task::yield_now().await;
                done.push(Ok(checker.check(decoder, raw, piece, (*bytes).as_ref())));
                hasher.push(place, bytes);
            }
        }
    }

    /// The result of one [`Crew::check`].
    async fn checked(&mut self) -> Checked {
        match self {
            Self::Threads { done, .. } => done.recv().await.unwrap_or(Err(Error::Panicked)),
            Self::Inline { done, .. } => done.pop().unwrap_or_else(|| Ok(Vec::new())),
        }
    }

    /// The hashes of everything that was handed over, once nobody works any more.
    async fn stop(self) -> Option<Whole> {
        match self {
            Self::Threads { work, hash, mut done, mut whole } => {
                drop((work, hash));
                while done.recv().await.is_some() {}
                whole.recv().await.flatten()
            }
            Self::Inline { hasher, .. } => Some(hasher.finish()),
        }
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new().name(name).spawn(run).map(drop).map_err(|source| Error::Thread { source })
}
