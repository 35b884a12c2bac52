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
    store::Crc64,
    upload::{checkpoint::Checkpoint, source::Sources},
};

/// What everybody who packs or hashes shares.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) key: Arc<str>,
    pub(super) layout: Arc<Layout>,
    pub(super) sources: Arc<Sources>,
    pub(super) progress: Arc<Progress>,
}

/// Makes frames, one after the other.
#[derive(Debug)]
pub(super) struct Packer {
    work: Work,
    encoder: Encoder,
    /// Where an earlier run left off, in the middle of a frame.
    left_off: Option<LeftOff>,
}

#[derive(Clone, Copy, Debug)]
struct LeftOff {
    frame: u64,
    skip: u64,
    head: Crc64,
}

impl Packer {
    pub(super) fn new(work: &Work, level: Level, from: &Checkpoint) -> Self {
        let Checkpoint { frame, skip, head, .. } = *from;
        let left_off = (skip > 0).then_some(LeftOff { frame, skip, head });
        Self { work: work.clone(), encoder: Encoder::new(level), left_off }
    }

    /// Reads frame `number` into `raw` and compresses it into `compressed`.
    pub(super) fn pack(
        &mut self,
        number: u64,
        raw: &mut Buffer,
        compressed: &mut Buffer,
    ) -> Result<Frame, Error> {
        let span = self.work.layout.frame(number);
        let bytes = raw.first(span.raw_len as usize);
        match span.content {
            FrameContent::Data { entry, offset } => self.work.sources.read(entry, offset, bytes)?,
            FrameContent::Glue => {
                bytes.copy_from_slice(&self.work.layout.glue(number));
                // Data counts as done when it is hashed.
                self.work.progress.add_raw(u64::from(span.raw_len));
            }
        }
        let encoded = self.encoder.encode(bytes, compressed.vec());
        let frame = encoded.map_err(|reason| Error::Compress { frame: number, reason })?;
        match self.left_off {
            Some(left_off) if left_off.frame == number => self.compare(left_off, compressed.as_ref())?,
            Some(_) | None => {}
        }
        Ok(frame)
    }

    /// A frame whose beginning is in a part already must begin like that again, or the object would be none.
    fn compare(&self, left_off: LeftOff, compressed: &[u8]) -> Result<(), Error> {
        let head = usize::try_from(left_off.skip).ok().and_then(|skip| compressed.get(..skip));
        if head.map(Crc64::of) == Some(left_off.head) {
            return Ok(());
        }
        let what = format!("frame {} does not compress to what was sent of it", left_off.frame);
        Err(Error::NotResumable { key: self.work.key.to_string(), what })
    }
}

/// Keeps the SHA-256 of one entry, from the raw bytes of its frames in order.
#[derive(Debug)]
pub(super) struct EntryHasher {
    work: Work,
    entry: usize,
    size: u64,
    sha256: Sha256,
}

impl EntryHasher {
    /// A hasher of entry number `entry`, of which `so_far` knows the bytes before the next frame.
    pub(super) fn new(work: &Work, entry: usize, so_far: Option<Sha256>) -> Self {
        let size = work.layout.entry_location(entry).size;
        Self { work: work.clone(), entry, size, sha256: so_far.unwrap_or_default() }
    }

    pub(super) fn entry(&self) -> usize {
        self.entry
    }

    /// What is known so far, for whoever has to go on from here.
    pub(super) fn state(&self) -> Sha256 {
        self.sha256.clone()
    }

    /// Takes the raw bytes of the frame whose data starts at `offset`, which follows the one before. The entry's digest, if that was all of
    /// it.
    pub(super) fn push(&mut self, offset: u64, raw: &[u8]) -> Result<Option<[u8; 32]>, Error> {
        self.work.progress.add_raw(raw.len() as u64);
        self.sha256.update(raw);
        if self.size > offset + raw.len() as u64 {
            return Ok(None);
        }
        let digest = self.sha256.finalize_reset().into();
        settle(&self.work, self.entry, &digest)?;
        Ok(Some(digest))
    }
}

/// Ends an entry that was read wholly: its source must be what it was, and the digest the one that was announced.
fn settle(work: &Work, entry: usize, digest: &[u8; 32]) -> Result<(), Error> {
    work.sources.finish(entry)?;
    match work.sources.get(entry).expected_sha256 {
        Some(expected) if expected != *digest => Err(Error::SourceChecksum {
            entry: work.layout.name(entry).to_owned(),
            expected: hex::encode(expected),
            found: hex::encode(digest),
        }),
        Some(_) | None => Ok(()),
    }
}

/// The digests of the entries that have no data, and so no frame in which their turn would come.
pub(super) fn settle_empty(work: &Work, digests: &mut [Option<[u8; 32]>]) -> Result<(), Error> {
    let nothing = Sha256::digest([]).into();
    for (entry, digest) in digests.iter_mut().enumerate() {
        if work.layout.entry_location(entry).size == 0 {
            settle(work, entry, &nothing)?;
            *digest = Some(nothing);
        }
    }
    Ok(())
}

/// Puts numbered things that arrive in any order into their order.
#[derive(Debug)]
pub(super) struct InOrder<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    /// The first one in order has this number.
    pub(super) fn starting_at(next: u64) -> Self {
        Self { next, waiting: BTreeMap::new() }
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
