//! The work of an upload on threads: some that pack, one per entry that hashes what they read, one that assembles the object.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
};

use sha2::Sha256;
use tokio::sync::mpsc;

use super::{Event, Pools};
use crate::{
    error::Error,
    index::Frame,
    layout::FrameContent,
    memory::{Buffer, Pool},
    upload::{
        assemble::{Assembler, Part, PartSink},
        checkpoint::Resume,
        pack::{EntryHasher, InOrder, Packer, Work},
    },
};

type Sender = mpsc::UnboundedSender<Event>;

/// Starts the threads. Their events end when all of them have.
pub(super) fn start(
    work: &Work,
    resume: &Resume,
    packers: impl Iterator<Item = Packer>,
    assembler: Assembler,
    pools: &Pools,
) -> Result<mpsc::UnboundedReceiver<Event>, Error> {
    let (events, receiver) = mpsc::unbounded_channel();
    let first = resume.checkpoint.frame;
    let turns = Arc::new(Turns {
        work: work.clone(),
        pools: pools.clone(),
        events: events.clone(),
        state: Mutex::new(TurnState { next: first, so_far: resume.entry_sha256.clone(), lane: None }),
    });
    let (frame_out, frame_in) = std_mpsc::channel();
    for (number, mut packer) in packers.enumerate() {
        let (turns, frame_out) = (Arc::clone(&turns), frame_out.clone());
        spawn(format!("pack-{number}"), &events, move |events| {
            while let Some(turn) = turns.take()? {
                let Turn { number, mut raw, mut compressed, hashed_by } = turn;
                let frame = packer.pack(number, &mut raw, &mut compressed)?;
                // Before the raw bytes are hashed, since others wait for this frame to be assembled.
                if frame_out.send((number, (frame, compressed))).is_err() {
                    break;
                }
                match hashed_by {
                    HashedBy::Nobody => {}
                    HashedBy::Packer(mut hasher) => hash_frame(&mut hasher, number, 0, raw.as_ref(), events)?,
                    HashedBy::Thread(lane) => drop(lane.send((number, raw))),
                }
            }
            Ok(())
        })?;
    }
    drop(frame_out);
    let (frames, parts) = (first..work.layout.frame_count(), Arc::clone(&pools.parts));
    spawn("assemble".to_owned(), &events, move |events| {
        let mut sink = ChannelSink { parts, events: events.clone() };
        // `None` is for an upload that has failed elsewhere.
        let _unwanted = assemble(assembler, &frame_in, frames, &mut sink);
        Ok(())
    })?;
    Ok(receiver)
}

/// Starts a thread whose failure, or panic, becomes an event.
fn spawn(
    name: String,
    events: &Sender,
    body: impl FnOnce(&Sender) -> Result<(), Error> + Send + 'static,
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
struct Turns {
    work: Work,
    pools: Pools,
    events: Sender,
    state: Mutex<TurnState>,
}

struct TurnState {
    next: u64,
    /// SHA-256 of the entry that the first frame goes on with.
    so_far: Option<Sha256>,
    /// Who hashes the entry whose frames are given out.
    lane: Option<(usize, Lane)>,
}

/// The way to the thread that hashes an entry.
type Lane = std_mpsc::Sender<(u64, Buffer)>;

/// A frame to be packed.
struct Turn {
    number: u64,
    raw: Buffer,
    compressed: Buffer,
    hashed_by: HashedBy,
}

/// Who takes the SHA-256 of a frame's raw bytes.
enum HashedBy {
    /// They are no entry's.
    Nobody,
    /// They are all that there is of their entry, so nobody need wait for them.
    Packer(EntryHasher),
    /// They have to be taken in order.
    Thread(Lane),
}

impl Turns {
    /// The next frame and its buffers; `None` when there are no more, or nobody wants them.
    fn take(&self) -> Result<Option<Turn>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next == self.work.layout.frame_count() {
            // The last thread to hash an entry ends when nobody can send to it.
            state.lane = None;
            return Ok(None);
        }
        let Some((raw, compressed)) = self.pools.raw.take().zip(self.pools.compressed.take()) else {
            return Ok(None);
        };
        let number = state.next;
        state.next += 1;
        let hashed_by = self.hashed_by(&mut state, number)?;
        Ok(Some(Turn { number, raw, compressed, hashed_by }))
    }

    fn hashed_by(&self, state: &mut TurnState, number: u64) -> Result<HashedBy, Error> {
        let FrameContent::Data { entry, .. } = self.work.layout.frame(number).content else {
            return Ok(HashedBy::Nobody);
        };
        let so_far = state.so_far.take();
        if self.work.layout.entry_location(entry).frame_count == 1 {
            return Ok(HashedBy::Packer(EntryHasher::new(&self.work, entry, None)));
        }
        if let Some((_, lane)) = state.lane.as_ref().filter(|(of, _)| *of == entry) {
            return Ok(HashedBy::Thread(lane.clone()));
        }
        let (lane, frames) = std_mpsc::channel();
        let hasher = EntryHasher::new(&self.work, entry, so_far);
        let layout = Arc::clone(&self.work.layout);
        spawn(format!("hash-{entry}"), &self.events, move |events| {
            let mut in_order = InOrder::starting_at(number);
            let mut hasher = hasher;
            while let Ok((number, raw)) = frames.recv() {
                in_order.push(number, raw);
                while let Some((number, raw)) = in_order.pop() {
                    if let FrameContent::Data { offset, .. } = layout.frame(number).content {
                        hash_frame(&mut hasher, number, offset, Buffer::as_ref(&raw), events)?;
                    }
                }
            }
            Ok(())
        })?;
        state.lane = Some((entry, lane.clone()));
        Ok(HashedBy::Thread(lane))
    }
}

fn hash_frame(
    hasher: &mut EntryHasher,
    number: u64,
    offset: u64,
    raw: &[u8],
    events: &Sender,
) -> Result<(), Error> {
    // Nobody listens any more when the upload has ended for another reason.
    if offset > 0 {
        let _unheard = events.send(Event::Hashing(number, hasher.state()));
    }
    if let Some(digest) = hasher.push(offset, raw)? {
        let _unheard = events.send(Event::Entry(hasher.entry(), digest));
    }
    Ok(())
}

/// `None` if the upload has failed and nobody wants the parts.
fn assemble(
    mut assembler: Assembler,
    frames: &std_mpsc::Receiver<(u64, (Frame, Buffer))>,
    expected: std::ops::Range<u64>,
    sink: &mut ChannelSink,
) -> Option<()> {
    let mut in_order = InOrder::starting_at(expected.start);
    let mut next = expected.start;
    while next < expected.end {
        let (number, packed) = frames.recv().ok()?;
        in_order.push(number, packed);
        while let Some((_, (frame, compressed))) = in_order.pop() {
            assembler.push(frame, compressed.as_ref(), sink)?;
            next += 1;
        }
    }
    let object = assembler.finish(sink)?;
    sink.events.send(Event::Object(object)).ok()
}

struct ChannelSink {
    parts: Arc<Pool>,
    events: Sender,
}

impl PartSink for ChannelSink {
    fn buffer(&mut self) -> Option<Buffer> {
        self.parts.take()
    }

    fn part(&mut self, part: Part) -> Option<()> {
        self.events.send(Event::Part(part)).ok()
    }
}
