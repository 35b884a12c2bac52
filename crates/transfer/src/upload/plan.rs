//! What an upload will look like: part size, parallelism and buffers, decided before anything is read or sent.

use crate::{
    error::Error,
    frame::{Encoder, FIXED_LEVELS, Level},
    index::{RECORD_BYTES, seek_table},
    layout::{FRAME_RAW_MAX, Layout},
    memory::fit,
    upload::{DEFAULT_CONCURRENCY, Threads, UploadOptions},
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The size of a part while that suffices. Requests of this size cost as little CPU per byte as larger ones.
const PART_SIZE: u64 = 16 * MIB;
/// How many parts are planned with at most. S3 allows 10,000; the difference is for the sizes that are bounds only.
const PLANNED_PARTS: u64 = 9_000;
/// The most parts of one object.
const MAX_PARTS: u64 = 10_000;
/// The largest part that S3 takes.
const MAX_PART_SIZE: u64 = 5 * GIB;
/// What the index may take beside the budget; 4 TB of raw data have one of this size.
const INDEX_ALLOWANCE: u64 = 20 * MIB;

/// The decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) part_size: u64,
    /// Threads that compress.
    pub(super) threads: usize,
    /// Frames that are in memory at most.
    pub(super) frames: usize,
    /// The largest frame's raw bytes.
    pub(super) raw_size: usize,
    /// The largest frame's compressed bytes at worst.
    pub(super) compressed_size: usize,
    /// Part buffers.
    pub(super) parts: usize,
    /// The size of a part buffer.
    pub(super) part_buffer: usize,
    /// Parts that are on their way at most.
    pub(super) concurrency: usize,
    /// Bytes that are held beside the buffers all the time.
    pub(super) fixed: u64,
}

impl Plan {
    pub(super) fn new(layout: &Layout, options: &UploadOptions) -> Result<Self, Error> {
        if let Level::Fixed(level) = options.level
            && !FIXED_LEVELS.contains(&level)
        {
            return Err(Error::Level { level });
        }
        let bound = object_bound(layout);
        let part_size = match options.geometry.part_size {
            Some(size) => size.max(1),
            None => part_size(bound).ok_or(Error::TooLarge { bound, limit: MAX_PARTS * MAX_PART_SIZE })?,
        };
        let raw_size = layout.largest_frame();
        let compressed_size = zstd_safe::compress_bound(raw_size);
        let part_buffer = part_size.min(bound);
        let threads_wanted = thread_count(options.threads);
        let rule = options.concurrency.unwrap_or(DEFAULT_CONCURRENCY).max(1);
        let index = layout.frame_count() * RECORD_BYTES as u64;
        let context = Encoder::memory(options.level, raw_size);
        let fixed = index.saturating_sub(INDEX_ALLOWANCE);
        let frame = raw_size as u64 + compressed_size as u64 + context;
        let budget = options.memory_budget_bytes;
        // Two frames more than threads, so that a thread has something to do while the frame before is still hashed;
        // one part more than requests, which is being filled.
        let shares =
            fit(budget.saturating_sub(fixed), frame, threads_wanted + 2, part_buffer, rule.saturating_add(1));
        let Some((frames, parts)) = shares else {
            return Err(Error::BudgetTooSmall {
                budget,
                needed: fixed + frame + part_buffer,
                part: part_buffer,
                frame,
            });
        };
        let threads = threads_wanted.min(frames);
        Ok(Self {
            part_size,
            threads,
            frames,
            raw_size,
            compressed_size,
            parts,
            part_buffer: usize::try_from(part_buffer).unwrap_or(usize::MAX),
            concurrency: parts.min(rule),
            fixed: fixed + threads as u64 * context,
        })
    }
}

pub(crate) fn thread_count(threads: Threads) -> usize {
    match threads {
        Threads::PerCore => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        Threads::Count(count) => count.max(1),
        Threads::Inline => 1,
    }
}

/// What a frame in memory costs (raw, compressed, and the encoder's context), and what a part buffer does, for a production archive of about
/// `raw_bytes`: the units in which [`Plan::new`] spends a budget.
pub(crate) fn archive_costs(raw_bytes: u64) -> (u64, u64) {
    let raw_size = FRAME_RAW_MAX as usize;
    let frame =
        raw_size as u64 + zstd_safe::compress_bound(raw_size) as u64 + Encoder::memory(Level::Auto, raw_size);
    // Framing adds less than a thousandth, which only matters where a size is near a bound.
    let part = part_size(raw_bytes.saturating_add(raw_bytes / 1000)).unwrap_or(MAX_PART_SIZE);
    (frame, part)
}

/// The most bytes that the object can have, whatever the data.
fn object_bound(layout: &Layout) -> u64 {
    // zstd adds at most three bytes to a block of 128 KiB that does not compress, and 22 around the frame.
    let frames = layout.frame_count();
    layout.raw_len() + layout.raw_len() / (128 << 10) * 3 + frames * 32 + seek_table::encoded_len(frames)
}

/// The part size for an object of at most `bound` bytes; `None` if it is too large for any.
fn part_size(bound: u64) -> Option<u64> {
    if bound > MAX_PARTS * MAX_PART_SIZE {
        return None;
    }
    let needed = bound.div_ceil(PLANNED_PARTS).next_multiple_of(MIB);
    Some(needed.clamp(PART_SIZE, MAX_PART_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::EntrySpec;

    fn layout(size: u64) -> Layout {
        Layout::new(&[EntrySpec { name: "a".into(), size }]).unwrap()
    }

    #[test]
    fn parts_fit_the_limits_of_s3_up_to_the_largest_object() {
        const TIB: u64 = 1 << 40;
        for (bound, expected) in [
            (1, 16 * MIB),
            (9_000 * 16 * MIB, 16 * MIB),
            (9_000 * 16 * MIB + 1, 17 * MIB),
            (TIB, 117 * MIB),
            (10 * TIB, 1166 * MIB),
            (MAX_PARTS * MAX_PART_SIZE, 5 * GIB),
        ] {
            let size = part_size(bound).unwrap();
            assert_eq!(size, expected, "{bound}");
            assert!(bound.div_ceil(size) <= MAX_PARTS && size <= MAX_PART_SIZE);
        }
        assert_eq!(part_size(MAX_PARTS * MAX_PART_SIZE + 1), None);
        // 48.8 TiB is what ten thousand parts of 5 GiB come to.
        assert_eq!(MAX_PARTS * MAX_PART_SIZE, 50_000 * GIB);
    }

    #[test]
    fn a_bound_is_kept_by_data_that_does_not_compress() {
        for size in [1, 511, 131_072, 131_073, 8 << 20, (8 << 20) + 1] {
            let mut noise = Vec::with_capacity(size);
            blake3::Hasher::new().finalize_xof().fill({
                noise.resize(size, 0);
                &mut noise
            });
            let mut out = Vec::new();
            let mut object = seek_table::encoded_len(layout(size as u64).frame_count());
            for chunk in noise.chunks(8 << 20) {
                Encoder::new(Level::Auto).encode(chunk, &mut out).unwrap();
                object += out.len() as u64;
            }
            assert!(object <= object_bound(&layout(size as u64)) - 1024, "{size}");
        }
    }

    #[test]
    fn the_budget_wins_and_a_small_one_is_named() {
        let large = layout(10 * GIB);
        let mut options = UploadOptions::new(512 * MIB);
        options.threads = Threads::Count(2);
        let plan = Plan::new(&large, &options).unwrap();
        assert_eq!((plan.threads, plan.concurrency, plan.parts), (2, 16, 17));
        options.memory_budget_bytes = 128 * MIB;
        let plan = Plan::new(&large, &options).unwrap();
        assert!(plan.concurrency < 16 && plan.concurrency >= 2, "{plan:?}");
        options.memory_budget_bytes = 32 * MIB;
        let error = Plan::new(&large, &options).unwrap_err();
        let Error::BudgetTooSmall { needed, part, frame, .. } = error else { panic!("{error}") };
        assert_eq!(part, 16 * MIB);
        assert_eq!(needed, part + frame);
        options.memory_budget_bytes = needed;
        let plan = Plan::new(&large, &options).unwrap();
        assert_eq!((plan.threads, plan.frames, plan.parts, plan.concurrency), (1, 1, 1, 1));
        // A small archive needs little, whatever the sizes of frames and parts may be.
        options.memory_budget_bytes = 8 * MIB;
        assert!(Plan::new(&layout(1000), &options).is_ok());
    }

    #[test]
    fn levels_are_checked() {
        for (level, good) in [(0, false), (1, true), (19, true), (20, false), (-5, false)] {
            let mut options = UploadOptions::new(4 * GIB);
            options.level = Level::Fixed(level);
            assert_eq!(Plan::new(&layout(1), &options).is_ok(), good, "{level}");
        }
    }
}
