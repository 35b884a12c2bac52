//! Who does the work of an upload: threads, or the calling task itself. Either way the parts come out as events, in order.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use tokio::sync::mpsc;

use crate::{
    error::Error,
    index::Frame,
    layout::Layout,
    memory::{Buffer, Gauge, Pool},
    upload::{
        Threads, UploadOptions,
        assemble::{Assembled, Assembler, Part, PartSink},
        pack::{EntryHasher, InOrder, Packer},
        plan::Plan,
        source::Sources,
    },
};

const NO_BUFFER: Error = Error::Internal { what: "a frame fills more buffers than there are" };
const ENDED: Error = Error::Internal { what: "the work goes on after its last frame" };

/// What comes out of the work.
#[derive(Debug)]
pub(super) enum Event {
    /// A part is ready.
    Part(Part),
    /// Every entry was read and has its digest.
    Entries(Vec<[u8; 32]>),
    /// The object is complete; all its parts came before.
    Object(Assembled),
    /// Something failed; nothing useful comes any more.
    Failed(Error),
}

/// The workers of one upload. Dropping it makes threads stop at their next step.
#[derive(Debug)]
pub(super) struct Crew {
    pools: [Arc<Pool>; 3],
    events: Events,
}

#[derive(Debug)]
enum Events {
    Threads(mpsc::UnboundedReceiver<Event>),
    Inline(Box<Inline>),
}

impl Crew {
    pub(super) fn start(
        layout: &Arc<Layout>,
        sources: &Arc<Sources>,
        plan: &Plan,
        options: &UploadOptions,
    ) -> Result<Self, Error> {
        let gauge = Gauge::new(plan.fixed, Arc::clone(&options.progress));
        let inline = options.threads == Threads::Inline;
        // Inline, one frame may fill several parts before anybody can send them.
        let parts =
            if inline { plan.parts + plan.compressed_size / plan.part_buffer + 2 } else { plan.parts };
        let raw = Pool::new(plan.frames, plan.raw_size, &gauge);
        let compressed = Pool::new(plan.frames, plan.compressed_size, &gauge);
        let parts = Pool::new(parts, plan.part_buffer, &gauge);
        let pools = [Arc::clone(&raw), Arc::clone(&compressed), Arc::clone(&parts)];
        let packer = || Packer::new(Arc::clone(layout), Arc::clone(sources), options.level);
        let hasher = EntryHasher::new(Arc::clone(layout), Arc::clone(sources), Arc::clone(&options.progress));
        let assembler = Assembler::new(plan.part_size);
        if inline {
            let inline = Inline {
                next: 0,
                frames: layout.frame_count(),
                packer: packer(),
                work: Some((hasher, assembler)),
                raw,
                compressed,
                sink: QueueSink { parts, queue: VecDeque::new() },
            };
            return Ok(Self { pools, events: Events::Inline(Box::new(inline)) });
        }
        let (events, receiver) = mpsc::unbounded_channel();
        let crew = Self { pools, events: Events::Threads(receiver) };
        let turn = Arc::new(Turn { next: Mutex::new(0), frames: layout.frame_count(), raw, compressed });
        let (raw_out, raw_in) = std_mpsc::channel();
        let (frame_out, frame_in) = std_mpsc::channel();
        for number in 0..plan.threads {
            let (mut packer, turn) = (packer(), Arc::clone(&turn));
            let (raw_out, frame_out) = (raw_out.clone(), frame_out.clone());
            spawn(format!("pack-{number}"), &events, move |_| {
                while let Some((number, mut raw, mut compressed)) = turn.take() {
                    let frame = packer.pack(number, &mut raw, &mut compressed)?;
                    if raw_out.send((number, raw)).is_err()
                        || frame_out.send((number, (frame, compressed))).is_err()
                    {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        drop((raw_out, frame_out));
        spawn("hash-entries".to_owned(), &events, move |events| {
            hash_entries(hasher, &raw_in, turn.frames, events)
        })?;
        let frames = layout.frame_count();
        spawn("assemble".to_owned(), &events, move |events| {
            let mut sink = ChannelSink { parts, events: events.clone() };
            // `None` is for an upload that has failed elsewhere.
            let _unwanted = assemble(assembler, &frame_in, frames, &mut sink);
            Ok(())
        })?;
        Ok(crew)
    }

    /// The next event. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.events {
            // All senders gone without a last word: nobody is left to finish.
            Events::Threads(receiver) => receiver
                .recv()
                .await
                .unwrap_or(Event::Failed(Error::Internal { what: "every thread ended before its work did" })),
            Events::Inline(inline) => {
                tokio::task::yield_now().await;
                inline.next()
            }
        }
    }

    /// Whether events come by themselves, so that waiting for one costs nothing.
    pub(super) fn runs_ahead(&self) -> bool {
        matches!(self.events, Events::Threads(_))
    }

    /// Waits until every thread has let go of what it holds.
    pub(super) async fn stop(mut self) {
        for pool in &self.pools {
            pool.close();
        }
        if let Events::Threads(receiver) = &mut self.events {
            while receiver.recv().await.is_some() {}
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for pool in &self.pools {
            pool.close();
        }
    }
}

/// Starts a thread whose failure, or panic, becomes an event.
fn spawn(
    name: String,
    events: &mpsc::UnboundedSender<Event>,
    body: impl FnOnce(&mpsc::UnboundedSender<Event>) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let (events, thread) = (events.clone(), name.clone());
    let run = move || {
        let ended = catch_unwind(AssertUnwindSafe(|| body(&events)))
            .unwrap_or_else(|panic| Err(Error::panicked(thread, panic)));
        if let Err(error) = ended {
            // Nobody listens any more when the upload has ended for another reason.
            let _unheard = events.send(Event::Failed(error));
        }
    };
    // Detached: the channel's end tells when all of them are gone.
    thread::Builder::new().name(name).spawn(run).map(drop).map_err(|source| Error::Thread { source })
}

/// Whose turn it is: buffers are given out in the order of the frames, so that the lowest frame always has its own and
/// the ones behind it never wait for each other.
struct Turn {
    next: Mutex<u64>,
    frames: u64,
    raw: Arc<Pool>,
    compressed: Arc<Pool>,
}

impl Turn {
    fn take(&self) -> Option<(u64, Buffer, Buffer)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next == self.frames {
            return None;
        }
        let buffers = (self.raw.take()?, self.compressed.take()?);
        *next += 1;
        Some((*next - 1, buffers.0, buffers.1))
    }
}

fn hash_entries(
    mut hasher: EntryHasher,
    frames: &std_mpsc::Receiver<(u64, Buffer)>,
    count: u64,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<(), Error> {
    let mut in_order = InOrder::new();
    let mut done = 0;
    while done < count {
        // The senders are gone before the last frame only if the upload has failed.
        let Ok((number, raw)) = frames.recv() else { return Ok(()) };
        in_order.push(number, raw);
        while let Some((number, raw)) = in_order.pop() {
            hasher.push(number, raw.as_ref())?;
            done += 1;
        }
    }
    let _unheard = events.send(Event::Entries(hasher.finish()?));
    Ok(())
}

/// `None` if the upload has failed and nobody wants the parts.
fn assemble(
    mut assembler: Assembler,
    frames: &std_mpsc::Receiver<(u64, (Frame, Buffer))>,
    count: u64,
    sink: &mut ChannelSink,
) -> Option<()> {
    let mut in_order = InOrder::new();
    let mut done = 0;
    while done < count {
        let (number, packed) = frames.recv().ok()?;
        in_order.push(number, packed);
        while let Some((_, (frame, compressed))) = in_order.pop() {
            assembler.push(frame, compressed.as_ref(), sink)?;
            done += 1;
        }
    }
    let object = assembler.finish(sink)?;
    sink.events.send(Event::Object(object)).ok()
}

struct ChannelSink {
    parts: Arc<Pool>,
    events: mpsc::UnboundedSender<Event>,
}

impl PartSink for ChannelSink {
    fn buffer(&mut self) -> Option<Buffer> {
        self.parts.take()
    }

    fn part(&mut self, part: Part) -> Option<()> {
        self.events.send(Event::Part(part)).ok()
    }
}

/// The same work, a frame at a time on the calling task.
#[derive(Debug)]
struct Inline {
    next: u64,
    frames: u64,
    packer: Packer,
    /// Taken when the last frame is done.
    work: Option<(EntryHasher, Assembler)>,
    raw: Arc<Pool>,
    compressed: Arc<Pool>,
    sink: QueueSink,
}

#[derive(Debug)]
struct QueueSink {
    parts: Arc<Pool>,
    queue: VecDeque<Event>,
}

impl PartSink for QueueSink {
    fn buffer(&mut self) -> Option<Buffer> {
        self.parts.try_take()
    }

    fn part(&mut self, part: Part) -> Option<()> {
        self.queue.push_back(Event::Part(part));
        Some(())
    }
}

impl Inline {
    fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.sink.queue.pop_front() {
                return event;
            }
            if let Err(error) = self.step() {
                return Event::Failed(error);
            }
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        if self.next == self.frames {
            let (hasher, assembler) = self.work.take().ok_or(ENDED)?;
            let digests = hasher.finish()?;
            let object = assembler.finish(&mut self.sink).ok_or(NO_BUFFER)?;
            self.sink.queue.extend([Event::Entries(digests), Event::Object(object)]);
            return Ok(());
        }
        let (mut raw, mut compressed) =
            self.raw.try_take().zip(self.compressed.try_take()).ok_or(NO_BUFFER)?;
        let frame = self.packer.pack(self.next, &mut raw, &mut compressed)?;
        let (hasher, assembler) = self.work.as_mut().ok_or(ENDED)?;
        hasher.push(self.next, raw.as_ref())?;
        assembler.push(frame, compressed.as_ref(), &mut self.sink).ok_or(NO_BUFFER)?;
        self.next += 1;
        Ok(())
    }
}
