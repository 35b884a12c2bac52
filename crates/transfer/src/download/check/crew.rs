//! Who checks and hashes the pieces of an object that is read whole.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Piece;
use crate::{
    download::{Finding, NO_BUFFER, NOBODY_LEFT, fetch::Shares},
    error::Error,
    frame::Decoder,
    index::Frame,
    layout::{FrameContent, Layout},
    memory::Buffer,
    progress::Progress,
    store::Crc64,
    upload::Threads,
};

/// Compares pieces with the index.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    pub(super) layout: Arc<Layout>,
    pub(super) frames: Arc<[Frame]>,
    pub(super) offsets: Arc<[u64]>,
    /// The seek table as it should be.
    pub(super) table: Arc<[u8]>,
    pub(super) progress: Arc<Progress>,
    /// Nobody wants the rest any more.
    pub(super) stop: CancellationToken,
}

impl Checker {
    fn check(&self, decoder: &mut Decoder, raw: &mut Buffer, piece: Piece, bytes: &[u8]) -> Report {
        let frames = match piece {
            Piece::Frames(frames) => frames,
            Piece::Table(range) => return Ok(self.check_table(&range, bytes).into_iter().collect()),
        };
        let start = self.offsets[frames.start];
        let mut findings = Vec::new();
        for number in frames {
            if self.stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let within = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            let bytes = &bytes[within(self.offsets[number])..within(self.offsets[number + 1])];
            match decoder.decode(bytes, &self.frames[number], raw.vec()) {
                Ok(()) => self.progress.add_raw(u64::from(self.frames[number].raw_len)),
                Err(what) => findings.push((self.offsets[number], self.bad_frame(number, what))),
            }
        }
        Ok(findings)
    }

    fn check_table(&self, range: &Range<u64>, bytes: &[u8]) -> Option<(u64, Finding)> {
        let base = self.offsets[self.frames.len()];
        let start = usize::try_from(range.start - base).unwrap_or(usize::MAX);
        let first = bytes.iter().zip(&self.table[start..]).position(|(found, expected)| found != expected)?;
        let place = range.start + first as u64;
        Some((place, Finding::SeekTable { what: format!("byte {place} of the object is another one") }))
    }

    pub(super) fn bad_frame(&self, number: usize, what: String) -> Finding {
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
pub(super) struct Whole {
    pub(super) sha256: String,
    pub(super) crc64nvme: String,
}

/// Takes the pieces in their order, however they arrive.
pub(super) struct WholeHasher {
    next: usize,
    waiting: BTreeMap<usize, Arc<Buffer>>,
    sha256: Sha256,
    crc: Crc,
    /// Makes hashing slower than everything else.
    #[cfg(test)]
    pub(super) pause: std::time::Duration,
}

impl WholeHasher {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            sha256: Sha256::new(),
            crc: Crc::new(CrcAlgorithm::Crc64Nvme),
            #[cfg(test)]
            pause: std::time::Duration::ZERO,
        }
    }

    /// Hashes what has its turn now, and calls `hashed` for each piece that it has let go of.
    fn push(&mut self, place: usize, bytes: Arc<Buffer>, mut hashed: impl FnMut()) {
        self.waiting.insert(place, bytes);
        while let Some(bytes) = self.waiting.remove(&self.next) {
            #[cfg(test)]
            thread::sleep(self.pause);
            self.sha256.update((*bytes).as_ref());
            self.crc.update((*bytes).as_ref());
            self.next += 1;
            drop(bytes);
            hashed();
        }
    }

    fn finish(self) -> Whole {
        let crc64nvme = Crc64(self.crc.finalize()).to_string();
        Whole { sha256: hex::encode(self.sha256.finalize()), crc64nvme }
    }
}

/// What checking a piece brings to light: each finding with its place in the object. Nothing, from hashing it.
type Report = Result<Vec<(u64, Finding)>, Error>;

/// Who decodes and hashes: threads, or the calling task.
pub(super) enum Crew {
    Threads {
        work: std_mpsc::Sender<(Piece, Arc<Buffer>)>,
        hash: std_mpsc::Sender<(usize, Arc<Buffer>)>,
        reports: mpsc::UnboundedReceiver<Report>,
        whole: mpsc::UnboundedReceiver<Whole>,
        /// What is queued is not done any more when this is dropped.
        stop: DropGuard,
    },
    Inline {
        checker: Checker,
        decoder: Decoder,
        raw: Buffer,
        hasher: Box<WholeHasher>,
        reports: Vec<Report>,
    },
}

impl Crew {
    /// How often each piece is reported: by who has checked it, and by who has hashed it. Both have let go of its buffer then.
    pub(super) const REPORTS: usize = 2;

    pub(super) fn start(
        checker: &Checker,
        hasher: WholeHasher,
        shares: &Shares,
        threads: Threads,
    ) -> Result<Self, Error> {
        if threads == Threads::Inline {
            let raw = shares.raw.try_take().ok_or(NO_BUFFER)?;
            let (checker, decoder, hasher) = (checker.clone(), Decoder::default(), Box::new(hasher));
            return Ok(Self::Inline { checker, decoder, raw, hasher, reports: Vec::new() });
        }
        let stop = checker.stop.clone().drop_guard();
        let (work, queue) = std_mpsc::channel::<(Piece, Arc<Buffer>)>();
        let (report, reports) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..shares.threads {
            let (queue, report, checker) = (Arc::clone(&queue), report.clone(), checker.clone());
            let mut raw = shares.raw.try_take().ok_or(NO_BUFFER)?;
            spawn(format!("check-{number}"), move |name| {
                let mut decoder = Decoder::default();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((piece, bytes)) = next else { break };
                    let check = || checker.check(&mut decoder, &mut raw, piece, (*bytes).as_ref());
                    let checked = catch_unwind(AssertUnwindSafe(check))
                        .unwrap_or_else(|panic| Err(Error::panicked(name, panic)));
                    drop(bytes);
                    if report.send(checked).is_err() {
                        break;
                    }
                }
            })?;
        }
        let (hash, hash_queue) = std_mpsc::channel();
        let (whole_out, whole) = mpsc::unbounded_channel();
        let stopped = checker.stop.clone();
        spawn("hash-object".to_owned(), move |name| {
            let hash = || hash_all(hasher, &hash_queue, &report, &stopped);
            // Nobody listens any more when the check has failed.
            let _unheard = match catch_unwind(AssertUnwindSafe(hash)) {
                Ok(hashes) => whole_out.send(hashes).is_ok(),
                Err(panic) => report.send(Err(Error::panicked(name, panic))).is_ok(),
            };
        })?;
        Ok(Self::Threads { work, hash, reports, whole, stop })
    }

    /// Hands over a piece to be checked and hashed.
    pub(super) async fn check(&mut self, place: usize, piece: Piece, bytes: Buffer) {
        let bytes = Arc::new(bytes);
        match self {
            // If the threads are gone, waiting for the reports says so.
            Self::Threads { work, hash, .. } => {
                drop(hash.send((place, Arc::clone(&bytes))));
                drop(work.send((piece, bytes)));
            }
            Self::Inline { checker, decoder, raw, hasher, reports } => {
                tokio::task::yield_now().await;
                reports.push(checker.check(decoder, raw, piece, (*bytes).as_ref()));
                hasher.push(place, bytes, || reports.push(Ok(Vec::new())));
            }
        }
    }

    /// The next of the reports that follow each [`Crew::check`]. Nothing is lost when the future is dropped.
    pub(super) async fn report(&mut self) -> Report {
        match self {
            Self::Threads { reports, .. } => reports.recv().await.unwrap_or(Err(NOBODY_LEFT)),
            Self::Inline { reports, .. } => match reports.pop() {
                Some(report) => report,
                // A piece that cannot be hashed before another one has arrived.
                None => std::future::pending().await,
            },
        }
    }

    /// Makes everybody stop. The hashes of everything that was handed over, if all of it was reported before.
    pub(super) async fn stop(self) -> Option<Whole> {
        match self {
            Self::Threads { work, hash, mut reports, mut whole, stop } => {
                drop((work, hash, stop));
                while reports.recv().await.is_some() {}
                whole.recv().await
            }
            Self::Inline { hasher, .. } => Some(hasher.finish()),
        }
    }
}

fn hash_all(
    mut hasher: WholeHasher,
    queue: &std_mpsc::Receiver<(usize, Arc<Buffer>)>,
    report: &mpsc::UnboundedSender<Report>,
    stop: &CancellationToken,
) -> Whole {
    while let Ok((place, bytes)) = queue.recv() {
        if stop.is_cancelled() {
            break;
        }
        // Nobody listens any more when the check has failed.
        hasher.push(place, bytes, || drop(report.send(Ok(Vec::new()))));
    }
    hasher.finish()
}

fn spawn(name: String, run: impl FnOnce(&str) + Send + 'static) -> Result<(), Error> {
    let thread = name.clone();
    let spawned = thread::Builder::new().name(name).spawn(move || run(&thread));
    spawned.map(drop).map_err(|source| Error::Thread { source })
}
