//! Which frames of an unfinished file are there already. It is judged by content alone: the hash of a frame's bytes says whether they are
//! what they should be, whoever wrote them, and whatever a power cut has done to them since.

use crate::{download::target::Targets, error::Error, index::Frame, memory::Buffer};

/// Compares what is in files with frames, one after the other.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The last number of zeros that was hashed, and their hash: holes are frames of one length mostly.
    zeros: Option<(u32, [u8; 32])>,
}

impl Judge {
    /// Whether the bytes at `offset` of file number `target` are those of `frame`. They are read into `raw`, unless they are a hole.
    pub(super) fn holds(
        &mut self,
        targets: &Targets,
        (target, offset): (usize, u64),
        frame: &Frame,
        raw: &mut Buffer,
    ) -> Result<bool, Error> {
        let len = frame.raw_len as usize;
        if targets.is_hole(target, offset, len) {
            return Ok(self.hash_of_zeros(frame.raw_len) == frame.hash);
        }
        let bytes = raw.first(len);
        targets.read(target, offset, bytes)?;
        Ok(*blake3::hash(bytes).as_bytes() == frame.hash)
    }

    fn hash_of_zeros(&mut self, len: u32) -> [u8; 32] {
        match self.zeros {
            Some((known, hash)) if known == len => hash,
            Some(_) | None => {
                static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
                let mut hasher = blake3::Hasher::new();
                let mut left = len as usize;
                while left > 0 {
                    let step = left.min(ZEROS.len());
                    hasher.update(&ZEROS[..step]);
                    left -= step;
                }
                let hash = *hasher.finalize().as_bytes();
                self.zeros = Some((len, hash));
                hash
            }
        }
    }
}
