//! One frame: an independent zstd frame with its content size and an XXH64 checksum in it, and BLAKE3 of its raw bytes.

use std::ops::Range;

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::index::Frame;

/// How hard to compress. Not part of the format: every reader reads every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Level 1, or 3 for a frame where samples show that it saves at least one more point of the raw size.
    Auto,
    /// The same level, 1 to 19, for every frame.
    Fixed(i32),
}

/// The levels that [`Level::Fixed`] takes.
pub const FIXED_LEVELS: Range<i32> = 1..20;

/// A frame is cut into so many pieces to choose its level. One sample is not enough where vectors, links and payloads meet
/// in a frame, as in every file of a segment that is no multiple of it.
const PIECES: usize = 4;
/// How many bytes out of the middle of each piece are compressed.
const SAMPLE_BYTES: usize = 32 << 10;
/// One in how many sampled bytes level 3 has to save over level 1. Samples show less than there is, since matches may lie
/// further apart than they are long; on vectors level 3 saves nothing at all.
const SAMPLE_GAIN: usize = 100;

/// Compresses frames, one after the other, with contexts that are used again.
///
/// What comes out is a function of the level policy and the frame's bytes (and of the version of zstd).
pub struct Encoder {
    level: Level,
    fast: CCtx<'static>,
    better: CCtx<'static>,
    sample: Vec<u8>,
    zeros: Option<ZeroFrame>,
}

/// A whole frame of zeros as it was encoded last.
struct ZeroFrame {
    raw_len: usize,
    hash: [u8; 32],
    compressed: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for frames of at most 2^32 - 1 bytes.
    pub fn new(level: Level) -> Self {
        let (fast, better) = match level {
            Level::Auto => (1, 3),
            Level::Fixed(level) => (level, level),
        };
        Self { level, fast: context(fast), better: context(better), sample: Vec::new(), zeros: None }
    }

    /// About how much memory an encoder takes, in bytes, for frames of at most `raw_len` bytes.
    pub(crate) fn memory(level: Level, raw_len: usize) -> u64 {
        const MIB: u64 = 1 << 20;
        // Measured with frames of 8 MiB; the tables of smaller ones are smaller.
        let tables = match level {
            Level::Auto => 2 * MIB,
            Level::Fixed(..=8) => 6 * MIB,
            Level::Fixed(9..=11) => 22 * MIB,
            Level::Fixed(12..=15) => 56 * MIB,
            Level::Fixed(16..) => 88 * MIB,
        };
        tables.min(MIB / 2 + 24 * raw_len as u64)
    }

    /// Compresses `raw` into `out`, which is cleared first. The error is what zstd says.
    pub fn encode(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<Frame, String> {
        out.clear();
        let all_zero = is_zero(raw);
        if all_zero && let Some(zeros) = self.zeros.as_ref().filter(|zeros| zeros.raw_len == raw.len()) {
            out.extend_from_slice(&zeros.compressed);
            return frame(raw.len(), out.len(), zeros.hash);
        }
        out.reserve(zstd_safe::compress_bound(raw.len()));
        let hash = *blake3::hash(raw).as_bytes();
        let better = !all_zero && self.level == Level::Auto && self.level_three_pays(raw)?;
        let context = if better { &mut self.better } else { &mut self.fast };
        context.compress2(out, raw).map_err(zstd_error)?;
        if all_zero {
            self.zeros = Some(ZeroFrame { raw_len: raw.len(), hash, compressed: out.clone() });
        }
        frame(raw.len(), out.len(), hash)
    }

    fn level_three_pays(&mut self, raw: &[u8]) -> Result<bool, String> {
        self.sample.reserve(zstd_safe::compress_bound(SAMPLE_BYTES));
        let (mut sampled, mut fast, mut better) = (0, 0, 0);
        for piece in raw.chunks(raw.len().div_ceil(PIECES).max(1)) {
            let len = piece.len().min(SAMPLE_BYTES);
            let start = (piece.len() - len) / 2;
            let sample = &piece[start..start + len];
            sampled += len;
            for (context, total) in [(&mut self.fast, &mut fast), (&mut self.better, &mut better)] {
                self.sample.clear();
                *total += context.compress2(&mut self.sample, sample).map_err(zstd_error)?;
            }
        }
        Ok(better < fast && (fast - better) * SAMPLE_GAIN >= sampled)
    }
}

fn frame(raw_len: usize, compressed_len: usize, hash: [u8; 32]) -> Result<Frame, String> {
    match (u32::try_from(raw_len), u32::try_from(compressed_len)) {
        (Ok(raw_len), Ok(compressed_len)) => Ok(Frame { raw_len, compressed_len, hash }),
        (Err(_), _) | (_, Err(_)) => Err("a frame of 4 GiB or more".to_owned()),
    }
}

fn context(level: i32) -> CCtx<'static> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(true),
        CParameter::DictIdFlag(false),
    ] {
        // Setting known parameters of a fresh context to valid values cannot fail.
        let _known = context.set_parameter(parameter);
    }
    context
}

/// Decodes frames, one after the other, with a context that is used again.
pub struct Decoder {
    context: DCtx<'static>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { context: DCtx::create() }
    }
}

impl Decoder {
    /// Decodes `compressed` into `out`, which then holds exactly the bytes that `expected` was made of.
    ///
    /// Otherwise `out` is empty and the error says what is wrong. Never more than the indexed raw length is written.
    pub fn decode(&mut self, compressed: &[u8], expected: &Frame, out: &mut Vec<u8>) -> Result<(), String> {
        let result = self.decode_checked(compressed, expected, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn decode_checked(
        &mut self,
        compressed: &[u8],
        expected: &Frame,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let raw_len = expected.raw_len as usize;
        if compressed.len() != expected.compressed_len as usize {
            return Err(format!("{} compressed bytes, not {}", compressed.len(), expected.compressed_len));
        }
        match zstd_safe::find_frame_compressed_size(compressed) {
            Ok(size) if size == compressed.len() => {}
            Ok(size) => {
                return Err(format!("its zstd frame ends after {size} of {} bytes", compressed.len()));
            }
            Err(code) => return Err(zstd_error(code)),
        }
        // `None` stands for a frame without content size, an error for a skippable or foreign one.
        match zstd_safe::get_frame_content_size(compressed) {
            Ok(Some(size)) if size == u64::from(expected.raw_len) => {}
            Ok(Some(size)) => return Err(format!("it says that it holds {size} bytes, not {raw_len}")),
            Ok(None) => return Err("it does not say how many bytes it holds".to_owned()),
            Err(_) => return Err("not a zstd frame".to_owned()),
        }
        // A slice of the exact length, since a vector may have more capacity. What it holds from before is overwritten.
        out.reserve_exact(raw_len.saturating_sub(out.len()));
        out.resize(raw_len, 0);
        let decoded = self.context.decompress(out.as_mut_slice(), compressed).map_err(zstd_error)?;
        if decoded != raw_len {
            return Err(format!("it decodes to {decoded} bytes, not {raw_len}"));
        }
        if *blake3::hash(out).as_bytes() != expected.hash {
            return Err("its bytes do not have the indexed hash".to_owned());
        }
        Ok(())
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Whole chunks without an early exit inside, so that the compiler can use wide registers.
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// What zstd calls an error.
pub(crate) fn zstd_error(code: usize) -> String {
    zstd_safe::get_error_name(code).to_owned()
}

#[cfg(test)]
mod tests;
