//! From frames to parts: the object's bytes in order, its hashes, and the seek table at its end.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::{Digest, Sha256};

use crate::{
    index::{Frame, FrameIndex, seek_table},
    memory::Buffer,
    store::Crc64,
};

/// A part that is ready to be sent. Its buffer goes back to its pool when the last clone of `body` is dropped.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) body: Bytes,
    pub(super) crc64nvme: Crc64,
}

/// Where parts go, and where their buffers come from. `None` means that nobody wants them any more.
pub(super) trait PartSink {
    fn buffer(&mut self) -> Option<Buffer>;
    fn part(&mut self, part: Part) -> Option<()>;
}

/// The object as it was assembled.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    pub(super) crc64nvme: Crc64,
    pub(super) index: FrameIndex,
}

/// Assembles the object out of its frames.
#[derive(Debug)]
pub(super) struct Assembler {
    part_size: u64,
    sha256: Sha256,
    size: u64,
    index: FrameIndex,
    whole: Option<Crc64>,
    parts: u32,
    filling: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    buffer: Buffer,
    crc: Crc,
}

impl Assembler {
    pub(super) fn new(part_size: u64) -> Self {
        Self {
            part_size,
            sha256: Sha256::new(),
            size: 0,
            index: FrameIndex::default(),
            whole: None,
            parts: 0,
            filling: None,
        }
    }

    /// Takes the next frame.
    pub(super) fn push(&mut self, frame: Frame, compressed: &[u8], sink: &mut impl PartSink) -> Option<()> {
        self.index.frames.push(frame);
        self.append(compressed, sink)
    }

    /// Ends the object, after the last frame.
    pub(super) fn finish(mut self, sink: &mut impl PartSink) -> Option<Assembled> {
        let table = seek_table::encode(&self.index);
        self.append(&table, sink)?;
        self.cut(sink)?;
        Some(Assembled {
            size: self.size,
            sha256: self.sha256.finalize().into(),
            crc64nvme: self.whole.unwrap_or(Crc64::of(&[])),
            index: self.index,
        })
    }

    fn append(&mut self, mut bytes: &[u8], sink: &mut impl PartSink) -> Option<()> {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let filling = match &mut self.filling {
                Some(filling) => filling,
                None => {
                    let mut buffer = sink.buffer()?;
                    buffer.vec().clear();
                    self.filling.insert(Filling { buffer, crc: Crc::new(CrcAlgorithm::Crc64Nvme) })
                }
            };
            let room = self.part_size - filling.buffer.as_ref().len() as u64;
            let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            filling.crc.update(&bytes[..taken]);
            filling.buffer.vec().extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if filling.buffer.as_ref().len() as u64 == self.part_size {
                self.cut(sink)?;
            }
        }
        Some(())
    }

    /// Sends off what is in the part that is being filled.
    fn cut(&mut self, sink: &mut impl PartSink) -> Option<()> {
        let Some(Filling { buffer, crc }) = self.filling.take() else { return Some(()) };
        let crc64nvme = Crc64(crc.finalize());
        let len = buffer.as_ref().len() as u64;
        // One combination a part, since it costs as much as summing 4 MB.
        self.whole = Some(self.whole.map_or(crc64nvme, |whole| whole.followed_by(crc64nvme, len)));
        self.parts += 1;
        sink.part(Part { number: self.parts, body: Bytes::from_owner(buffer), crc64nvme })
    }
}
