//! From frames to parts: the object's bytes in order, its hashes, and the seek table at its end.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::Digest;

use crate::{
    index::{Frame, FrameIndex, seek_table},
    memory::Buffer,
    store::Crc64,
    upload::checkpoint::{Boundary, Checkpoint, Resume},
};

/// How many bytes are hashed, summed and copied before the next ones are touched: few enough to stay in a core's own cache.
const STRIDE: usize = 128 << 10;

/// A part that is ready to be sent. Its buffer goes back to its pool when the last clone of `body` is dropped.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) body: Bytes,
    pub(super) crc64nvme: Crc64,
    /// What is known at its end.
    pub(super) boundary: Boundary,
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
    /// All that was taken so far; `frame` and `skip` are those of the last part's end.
    at: Checkpoint,
    index: FrameIndex,
    /// Frames that the ends of parts have named.
    named: usize,
    filling: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    buffer: Buffer,
    crc: Crc,
}

impl Assembler {
    /// An assembler that goes on at `resume`: the frame that it takes first is the one that the checkpoint names.
    /// It takes the frames before.
    pub(super) fn new(part_size: u64, resume: &mut Resume) -> Self {
        let frames = std::mem::take(&mut resume.frames);
        Self {
            part_size,
            at: resume.checkpoint.clone(),
            named: frames.len(),
            index: FrameIndex { frames },
            filling: None,
        }
    }

    /// Takes the next frame.
    pub(super) fn push(&mut self, frame: Frame, compressed: &[u8], sink: &mut impl PartSink) -> Option<()> {
        self.append(compressed, Some(frame), sink)
    }

    /// Ends the object, after the last frame.
    pub(super) fn finish(mut self, sink: &mut impl PartSink) -> Option<Assembled> {
        let table = seek_table::encode(&self.index);
        self.append(&table, None, sink)?;
        self.cut(sink)?;
        Some(Assembled {
            size: self.at.size,
            sha256: self.at.sha256.finalize().into(),
            crc64nvme: self.at.crc64nvme,
            index: self.index,
        })
    }

    /// Appends the bytes of `frame`, or of the seek table, but for those that were in parts before.
    fn append(&mut self, bytes: &[u8], frame: Option<Frame>, sink: &mut impl PartSink) -> Option<()> {
        // The packer has made sure that what is left out is what the parts before hold.
        let mut done = usize::try_from(self.at.skip).unwrap_or(usize::MAX);
        while done < bytes.len() {
            let filling = match &mut self.filling {
                Some(filling) => filling,
                None => {
                    let mut buffer = sink.buffer()?;
                    buffer.vec().clear();
                    self.filling.insert(Filling { buffer, crc: Crc::new(CrcAlgorithm::Crc64Nvme) })
                }
            };
            let room = usize::try_from(self.part_size).unwrap_or(usize::MAX) - filling.buffer.as_ref().len();
            let stride = &bytes[done..bytes.len().min(done + STRIDE.min(room))];
            done += stride.len();
            self.at.sha256.update(stride);
            filling.crc.update(stride);
            filling.buffer.vec().extend_from_slice(stride);
            self.at.size += stride.len() as u64;
            self.at.skip = done as u64;
            if done == bytes.len()
                && let Some(frame) = frame
            {
                self.index.frames.push(frame);
                self.at.frame += 1;
                self.at.skip = 0;
            }
            if stride.len() == room {
                self.at.head = Crc64::of(&bytes[..usize::try_from(self.at.skip).unwrap_or(usize::MAX)]);
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
        self.at.crc64nvme = self.at.crc64nvme.followed_by(crc64nvme, len);
        self.at.parts += 1;
        let frames = self.index.frames[self.named..].to_vec();
        self.named = self.index.frames.len();
        let boundary = Boundary { checkpoint: self.at.clone(), frames };
        sink.part(Part { number: self.at.parts, body: Bytes::from_owner(buffer), crc64nvme, boundary })
    }
}
