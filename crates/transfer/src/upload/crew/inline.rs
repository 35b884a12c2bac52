//! The work of an upload, a frame at a time on the calling task.

use std::{collections::VecDeque, sync::Arc};

use super::{Event, Pools};
use crate::{
    error::Error,
    layout::FrameContent,
    memory::{Buffer, Pool},
    upload::{
        assemble::{Assembler, Part, PartSink},
        checkpoint::Resume,
        pack::{EntryHasher, Packer, Work},
    },
};

const NO_BUFFER: Error = Error::Internal { what: "a frame fills more buffers than there are" };
const ENDED: Error = Error::Internal { what: "the work goes on after its last frame" };

#[derive(Debug)]
pub(super) struct Inline {
    work: Work,
    next: u64,
    packer: Packer,
    hasher: Option<EntryHasher>,
    /// Taken when the last frame is done.
    assembler: Option<Assembler>,
    pools: Pools,
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
    pub(super) fn new(
        work: &Work,
        resume: &Resume,
        packer: Packer,
        assembler: Assembler,
        pools: &Pools,
    ) -> Self {
        let next = resume.checkpoint.frame;
        let hasher = resume.entry_sha256.clone().and_then(|so_far| match work.layout.frame(next).content {
            FrameContent::Data { entry, .. } => Some(EntryHasher::new(work, entry, Some(so_far))),
            FrameContent::Glue => None,
        });
        Self {
            work: work.clone(),
            next,
            packer,
            hasher,
            assembler: Some(assembler),
            pools: pools.clone(),
            sink: QueueSink { parts: Arc::clone(&pools.parts), queue: VecDeque::new() },
        }
    }

    pub(super) fn next(&mut self) -> Event {
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
        if self.next == self.work.layout.frame_count() {
            let assembler = self.assembler.take().ok_or(ENDED)?;
            let object = assembler.finish(&mut self.sink).ok_or(NO_BUFFER)?;
            self.sink.queue.push_back(Event::Object(object));
            return Ok(());
        }
        let (mut raw, mut compressed) =
            self.pools.raw.try_take().zip(self.pools.compressed.try_take()).ok_or(NO_BUFFER)?;
        let frame = self.packer.pack(self.next, &mut raw, &mut compressed)?;
        self.hash(raw.as_ref())?;
        let assembler = self.assembler.as_mut().ok_or(ENDED)?;
        assembler.push(frame, compressed.as_ref(), &mut self.sink).ok_or(NO_BUFFER)?;
        self.next += 1;
        Ok(())
    }

    fn hash(&mut self, raw: &[u8]) -> Result<(), Error> {
        let FrameContent::Data { entry, offset } = self.work.layout.frame(self.next).content else {
            return Ok(());
        };
        let hasher = self.hasher.get_or_insert_with(|| EntryHasher::new(&self.work, entry, None));
        if offset > 0 {
            self.sink.queue.push_back(Event::Hashing(self.next, hasher.state()));
        }
        if let Some(digest) = hasher.push(offset, raw)? {
            self.hasher = None;
            self.sink.queue.push_back(Event::Entry(entry, digest));
        }
        Ok(())
    }
}
