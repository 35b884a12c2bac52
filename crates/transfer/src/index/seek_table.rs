//! The last part of an archive: the seek table of the zstd seekable format, in a skippable frame, without checksums.
//!
//! Ordinary decoders skip it. Readers of this crate do not need it (they have the frame index) but check it.

use crate::index::{Frame, FrameIndex};

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const ENTRY_BYTES: u64 = 8;
const FOOTER_BYTES: u64 = 9;

/// The size of the whole skippable frame for `frames` frames, in bytes.
pub fn encoded_len(frames: u64) -> u64 {
    8 + frames * ENTRY_BYTES + FOOTER_BYTES
}

/// The skippable frame for `index`.
pub fn encode(index: &FrameIndex) -> Vec<u8> {
    let count = u32::try_from(index.frames.len()).unwrap_or(u32::MAX);
    let content = index.frames.len() as u64 * ENTRY_BYTES + FOOTER_BYTES;
    let mut bytes = Vec::with_capacity(index.frames.len() * 8 + 17);
    bytes.extend(SKIPPABLE_MAGIC.to_le_bytes());
    bytes.extend(u32::try_from(content).unwrap_or(u32::MAX).to_le_bytes());
    for Frame { raw_len, compressed_len, .. } in &index.frames {
        bytes.extend(compressed_len.to_le_bytes());
        bytes.extend(raw_len.to_le_bytes());
    }
    bytes.extend(count.to_le_bytes());
    bytes.push(0);
    bytes.extend(SEEKABLE_MAGIC.to_le_bytes());
    bytes
}
