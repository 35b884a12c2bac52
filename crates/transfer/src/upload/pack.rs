//! From sources to frames: reading, compressing and hashing, frame by frame. No I/O but the reading of sources.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    frame::{Encoder, Level},
    index::Frame,
    layout::{FrameContent, Layout},
    memory::Buffer,
    progress::Progress,
    upload::source::Sources,
};

/// Makes frames, one after the other.
#[derive(Debug)]
pub(super) struct Packer {
    layout: Arc<Layout>,
    sources: Arc<Sources>,
    encoder: Encoder,
}

impl Packer {
    pub(super) fn new(layout: Arc<Layout>, sources: Arc<Sources>, level: Level) -> Self {
        Self { layout, sources, encoder: Encoder::new(level) }
    }

    /// Reads frame `number` into `raw` and compresses it into `compressed`.
    pub(super) fn pack(
        &mut self,
        number: u64,
        raw: &mut Buffer,
        compressed: &mut Buffer,
    ) -> Result<Frame, Error> {
        let span = self.layout.frame(number);
        let bytes = raw.first(span.raw_len as usize);
        match span.content {
            FrameContent::Data { entry, offset } => self.sources.read(entry, offset, bytes)?,
            FrameContent::Glue => bytes.copy_from_slice(&self.layout.glue(number)),
        }
        let encoded = self.encoder.encode(bytes, compressed.vec());
        encoded.map_err(|reason| Error::Compress { frame: number, reason })
    }
}

/// Keeps the SHA-256 of each entry, from the raw bytes of the frames in order.
#[derive(Debug)]
pub(super) struct EntryHasher {
    layout: Arc<Layout>,
    sources: Arc<Sources>,
    progress: Arc<Progress>,
    current: Sha256,
    digests: Vec<[u8; 32]>,
}

impl EntryHasher {
    pub(super) fn new(layout: Arc<Layout>, sources: Arc<Sources>, progress: Arc<Progress>) -> Self {
        // The digest of nothing is right for empty entries, whose turn never comes.
        let digests = vec![Sha256::digest([]).into(); layout.entry_count()];
        Self { layout, sources, progress, current: Sha256::new(), digests }
    }

    /// Takes the raw bytes of frame `number`, which follows the one before.
    pub(super) fn push(&mut self, number: u64, raw: &[u8]) -> Result<(), Error> {
        self.progress.add_raw(raw.len() as u64);
        let FrameContent::Data { entry, offset } = self.layout.frame(number).content else { return Ok(()) };
        self.current.update(raw);
        if offset + raw.len() as u64 == self.layout.entry_location(entry).size {
            self.digests[entry] = self.current.finalize_reset().into();
            self.sources.finish(entry)?;
            self.compare(entry)?;
        }
        Ok(())
    }

    /// The digests of all entries, once every frame was taken.
    pub(super) fn finish(self) -> Result<Vec<[u8; 32]>, Error> {
        for entry in
            (0..self.layout.entry_count()).filter(|entry| self.layout.entry_location(*entry).size == 0)
        {
            self.sources.finish(entry)?;
            self.compare(entry)?;
        }
        Ok(self.digests)
    }

    fn compare(&self, entry: usize) -> Result<(), Error> {
        match self.sources.get(entry).expected_sha256 {
            Some(expected) if expected != self.digests[entry] => Err(Error::SourceChecksum {
                entry: self.layout.name(entry).to_owned(),
                expected: hex::encode(expected),
                found: hex::encode(self.digests[entry]),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Puts numbered things that arrive in any order into their order.
#[derive(Debug)]
pub(super) struct InOrder<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    pub(super) fn new() -> Self {
        Self { next: 0, waiting: BTreeMap::new() }
    }

    pub(super) fn push(&mut self, number: u64, thing: T) {
        self.waiting.insert(number, thing);
    }

    /// The next one in order, if it is there.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let thing = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some((self.next - 1, thing))
    }
}
