//! Who judges, decodes and writes the frames of a restore.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    download::{NO_BUFFER, NOBODY_LEFT, fetch::Shares, judge::Judge, target::Targets},
    error::Error,
    frame::Decoder,
    index::Frame,
    layout::{FrameContent, Layout},
    memory::Buffer,
    progress::Progress,
    upload::Threads,
};

/// What is handed over at once.
#[derive(Debug)]
pub(super) enum Work {
    /// To see which of these frames their file holds already.
    Judge(Range<usize>),
    /// To decode and write these frames, whose compressed bytes follow one another.
    Write(Range<usize>, Buffer),
}

/// What came of it: the frames that were found in place.
pub(super) type Report = Result<Vec<usize>, Error>;

/// What one thread works with.
#[derive(Debug)]
pub(super) struct Tools {
    decoder: Decoder,
    judge: Judge,
    raw: Buffer,
}

impl Tools {
    fn new(raw: Buffer) -> Self {
        Self { decoder: Decoder::default(), judge: Judge::default(), raw }
    }
}

/// Decodes frames and writes them. A frame's bytes reach its file only after its hash was compared.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) key: String,
    pub(super) layout: Arc<Layout>,
    pub(super) index: Arc<[Frame]>,
    pub(super) targets: Arc<Targets>,
    pub(super) target_of: Arc<[Option<usize>]>,
    pub(super) progress: Arc<Progress>,
    /// Nobody wants the rest any more.
    pub(super) stop: CancellationToken,
}

impl Writer {
    fn run(&self, tools: &mut Tools, work: Work) -> Report {
        match work {
            Work::Judge(frames) => self.judge(tools, frames),
            Work::Write(frames, compressed) => {
                self.write(tools, frames, compressed.as_ref()).map(|()| Vec::new())
            }
        }
    }

    /// Those of the frames `frames` that their file holds already.
    fn judge(&self, Tools { judge, raw, .. }: &mut Tools, frames: Range<usize>) -> Report {
        let mut kept = Vec::new();
        for frame in frames {
            if self.stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if let Some(place) = self.place(frame as u64)
                && judge.holds(&self.targets, place, &self.index[frame], raw)?
            {
                self.progress.add_raw(u64::from(self.index[frame].raw_len));
                kept.push(frame);
            }
        }
        Ok(kept)
    }

    /// The file that a frame's bytes belong in, and where.
    fn place(&self, frame: u64) -> Option<(usize, u64)> {
        match self.layout.frame(frame).content {
            FrameContent::Data { entry, offset } => Some((self.target_of[entry]?, offset)),
            FrameContent::Glue => None,
        }
    }

    /// Writes the frames `frames`, whose compressed bytes follow one another in `compressed`.
    fn write(
        &self,
        Tools { decoder, raw, .. }: &mut Tools,
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
            if let Some((target, offset)) = self.place(number) {
                self.targets.write(target, offset, raw.as_ref())?;
                self.progress.add_raw(raw.as_ref().len() as u64);
            }
        }
        Ok(())
    }
}

/// Who does the work: threads, or the calling task.
#[derive(Debug)]
pub(super) enum Crew {
    Threads {
        work: std_mpsc::Sender<Work>,
        done: mpsc::UnboundedReceiver<Report>,
        /// What is queued is not done any more when this is dropped.
        stop: DropGuard,
    },
    Inline {
        writer: Writer,
        tools: Tools,
        done: Vec<Report>,
    },
}

impl Crew {
    pub(super) fn start(writer: &Writer, shares: &Shares, threads: Threads) -> Result<Self, Error> {
        if threads == Threads::Inline {
            let raw = shares.raw.try_take().ok_or(NO_BUFFER)?;
            return Ok(Self::Inline { writer: writer.clone(), tools: Tools::new(raw), done: Vec::new() });
        }
        let (work, queue) = std_mpsc::channel::<Work>();
        let (report, done) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..shares.threads {
            let (queue, report, writer) = (Arc::clone(&queue), report.clone(), writer.clone());
            let raw = shares.raw.try_take().ok_or(NO_BUFFER)?;
            let name = format!("unpack-{number}");
            let thread = name.clone();
            let run = move || {
                let mut tools = Tools::new(raw);
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(work) = next else { break };
                    // Its buffer has gone back when it is reported.
                    let done = catch_unwind(AssertUnwindSafe(|| writer.run(&mut tools, work)))
                        .unwrap_or_else(|panic| Err(Error::panicked(&thread, panic)));
                    if report.send(done).is_err() {
                        break;
                    }
                }
                // The end of the reports says that this thread holds no target any more.
                drop((writer, tools));
                drop(report);
            };
            let spawned = thread::Builder::new().name(name).spawn(run);
            spawned.map_err(|source| Error::Thread { source })?;
        }
        Ok(Self::Threads { work, done, stop: writer.stop.clone().drop_guard() })
    }

    /// Hands over work.
    pub(super) async fn hand(&mut self, handed: Work) {
        match self {
            // If the threads are gone, waiting for the result says so.
            Self::Threads { work, .. } => drop(work.send(handed)),
            Self::Inline { writer, tools, done } => {
                tokio::task::yield_now().await;
                done.push(writer.run(tools, handed));
            }
        }
    }

    /// What came of one [`Crew::hand`].
    pub(super) async fn done(&mut self) -> Report {
        match self {
            Self::Threads { done, .. } => done.recv().await.unwrap_or(Err(NOBODY_LEFT)),
            Self::Inline { done, .. } => done.pop().unwrap_or(Ok(Vec::new())),
        }
    }

    /// Waits until nobody writes any more; with `finish`, until all that was handed over is done.
    pub(super) async fn stop(self, finish: bool) {
        if let Self::Threads { work, mut done, stop } = self {
            drop(work);
            // Where it is not to be finished, the guard goes at once, and with it what is queued.
            let waiting = finish.then_some(stop);
            while done.recv().await.is_some() {}
            drop(waiting);
        }
    }
}
