//! The frame index: for each frame its lengths and the hash of its raw bytes, and what the whole list hashes to.

mod json;
pub mod seek_table;

use crate::layout::{Layout, MAX_FRAMES};

/// What a canonical frame index starts with: its name and the version of its encoding.
pub const MAGIC: [u8; 8] = *b"QBFRAME\x01";
/// The size of one frame's record in the canonical encoding, in bytes.
pub const RECORD_BYTES: usize = 40;

/// One frame of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the tar stream in it.
    pub raw_len: u32,
    /// Its size in the object, in bytes.
    pub compressed_len: u32,
    /// BLAKE3 of its bytes of the tar stream.
    pub hash: [u8; 32],
}

/// The frames of an archive, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameIndex {
    /// The frames.
    pub frames: Vec<Frame>,
}

/// A stored frame index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not one zstd frame of sane size.
    #[error("not one zstd frame: {reason}")]
    Zstd {
        /// What zstd says.
        reason: String,
    },
    /// It is not the JSON document that it should be.
    #[error("not a frame index")]
    Json {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a format version that this program does not know.
    #[error("format version {found}, but this program reads version 1")]
    Version {
        /// The version.
        found: u64,
    },
    /// It does not have as many frames as the archive.
    #[error("{found} frames, not {expected}")]
    Count {
        /// How many the archive has.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// It is not the index that the manifest names.
    #[error("its root is {found}, not {expected}")]
    Root {
        /// What the manifest says, in hexadecimal.
        expected: String,
        /// What the list hashes to, in hexadecimal.
        found: String,
    },
    /// It is larger than the index of such an archive can be.
    #[error("{size} bytes, but the index of {frames} frames has at most {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// How many frames the archive has.
        frames: u64,
    },
}

impl FrameIndex {
    /// The canonical encoding: [`MAGIC`], the number of frames (u64), then per frame raw length (u32), compressed length
    /// (u32) and hash (32 bytes); integers little-endian.
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.frames.len() * RECORD_BYTES);
        self.encode(|chunk| bytes.extend_from_slice(chunk));
        bytes
    }

    /// BLAKE3 of the canonical encoding: what a manifest names the index by.
    pub fn root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.encode(|chunk| {
            hasher.update(chunk);
        });
        *hasher.finalize().as_bytes()
    }

    /// The root as 64 lower-case hexadecimal digits.
    pub fn root_hex(&self) -> String {
        hex::encode(self.root())
    }

    /// The stored form: a JSON document in one zstd frame.
    pub fn to_json_zst(&self) -> Vec<u8> {
        json::encode(self)
    }

    /// Reads the stored form of an index that must have `frames` frames. Memory is bounded by that number.
    pub fn from_json_zst(bytes: &[u8], frames: u64) -> Result<Self, IndexError> {
        json::decode(bytes, frames)
    }

    /// The most bytes that the stored form of an index of `frames` frames has.
    pub fn json_zst_limit(frames: u64) -> u64 {
        json::stored_limit(frames)
    }

    /// Bytes of the tar stream in all frames.
    pub fn raw_len(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.raw_len)).sum()
    }

    /// Bytes of all frames in the object; the seek table follows them.
    pub fn compressed_len(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.compressed_len)).sum()
    }

    /// Where each frame starts in the object, and where the seek table does.
    pub fn offsets(&self) -> Vec<u64> {
        let mut offset = 0;
        let mut offsets = Vec::with_capacity(self.frames.len() + 1);
        offsets.push(0);
        for frame in &self.frames {
            offset += u64::from(frame.compressed_len);
            offsets.push(offset);
        }
        offsets
    }

    /// Compares with what the names and sizes of the entries demand: the number of frames, each raw length, and the hash of
    /// each frame that holds glue. Says what differs first.
    pub fn check_layout(&self, layout: &Layout) -> Result<(), String> {
        let count = self.frames.len() as u64;
        if count > MAX_FRAMES || count != layout.frame_count() {
            return Err(format!(
                "{count} frames in the index, but the entries take {}",
                layout.frame_count()
            ));
        }
        for (number, frame) in (0..).zip(&self.frames) {
            let span = layout.frame(number);
            if frame.raw_len != span.raw_len {
                return Err(format!(
                    "frame {number} has {} bytes by the index, but {} by the entries",
                    frame.raw_len, span.raw_len
                ));
            }
            let bound = zstd_safe::compress_bound(frame.raw_len as usize) as u64;
            if frame.compressed_len == 0 || u64::from(frame.compressed_len) > bound {
                return Err(format!(
                    "frame {number} of {} bytes takes {} bytes in the object",
                    frame.raw_len, frame.compressed_len
                ));
            }
        }
        for number in layout.glue_frames() {
            let expected = blake3::hash(&layout.glue(number));
            let found = usize::try_from(number).ok().and_then(|number| self.frames.get(number));
            if found.is_none_or(|frame| frame.hash != *expected.as_bytes()) {
                return Err(format!("frame {number} does not hold the tar headers of the entries"));
            }
        }
        Ok(())
    }

    fn encode(&self, mut out: impl FnMut(&[u8])) {
        out(&MAGIC);
        out(&(self.frames.len() as u64).to_le_bytes());
        let mut record = [0; RECORD_BYTES];
        for frame in &self.frames {
            record[..4].copy_from_slice(&frame.raw_len.to_le_bytes());
            record[4..8].copy_from_slice(&frame.compressed_len.to_le_bytes());
            record[8..].copy_from_slice(&frame.hash);
            out(&record);
        }
    }
}

#[cfg(test)]
mod tests;
