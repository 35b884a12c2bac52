//! How much a transfer should do at once, from what the network moves: rules as pure functions.
//!
//! The caller says what the network moves and how much memory there is; the plans of [`crate::upload()`] and of reading take what
//! the budget holds of it.

use crate::{
    memory::fit,
    upload::{DEFAULT_CONCURRENCY, archive_costs},
};

/// What one request to S3 moves, in bytes per second: one request per 85 to 90 MB/s of wanted throughput is what S3's own guide says, and what
/// AWS's transfer manager for Rust plans with.
pub const REQUEST_RATE: u64 = 90_000_000;
/// Requests in flight at least: below this, waiting for answers is most of the time.
const LEAST: usize = 8;
/// Requests in flight at most: more have been seen to lose throughput.
const MOST: usize = 72;
/// What one thread packs at least, in raw bytes per second: between level 3 on payload (150 MB/s) and level 1 on vectors (650 MB/s).
const PACK_RATE: u64 = 200_000_000;

/// Requests in flight that a network of `bandwidth` bytes per second needs: one per 90 MB/s, from 8 to 72; 16 where it is not known.
pub fn in_flight(bandwidth: Option<u64>) -> usize {
    let needed = |bandwidth: u64| usize::try_from(bandwidth.div_ceil(REQUEST_RATE)).unwrap_or(MOST);
    bandwidth.map_or(DEFAULT_CONCURRENCY, |bandwidth| needed(bandwidth).clamp(LEAST, MOST))
}

/// Threads that pack as fast as a network of `bandwidth` bytes per second takes it, and one more; at most one per core, and as many where it
/// is not known. Cores beyond that serve their owner better.
pub fn packers(bandwidth: Option<u64>, cores: usize) -> usize {
    let needed = |bandwidth: u64| {
        usize::try_from(bandwidth.div_ceil(PACK_RATE)).unwrap_or(usize::MAX).saturating_add(1)
    };
    bandwidth.map_or(cores, needed).min(cores).max(1)
}

/// The memory budget with which an upload of an archive of about `raw_bytes` has `in_flight` parts on their way, fed by `packers` threads.
/// Reading the archive with as many requests takes less.
pub fn budget(raw_bytes: u64, in_flight: usize, packers: usize) -> u64 {
    let (frame, part) = archive_costs(raw_bytes);
    let frames = frame.saturating_mul(packers as u64 + 2);
    frames.saturating_add(part.saturating_mul(in_flight as u64 + 1))
}

/// How many of `in_flight` parts are on their way at most if the upload of an archive of about `raw_bytes` gets `budget`; 0 if it
/// cannot run with that.
pub fn held(budget: u64, raw_bytes: u64, in_flight: usize, packers: usize) -> usize {
    let (frame, part) = archive_costs(raw_bytes);
    fit(budget, frame, packers + 2, part, in_flight + 1).map_or(0, |(_, parts)| parts.min(in_flight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_says_how_many_requests() {
        for (megabits, expected) in [
            (520, 8),
            (937, 8),
            (5_760, 8),
            (5_770, 9),
            (7_500, 11),
            (15_000, 21),
            (22_500, 32),
            (40_000, 56),
            (50_000, 70),
            (100_000, 72),
        ] {
            assert_eq!(in_flight(Some(megabits * 125_000)), expected, "{megabits} Mbit/s");
        }
        assert_eq!((in_flight(Some(0)), in_flight(Some(u64::MAX)), in_flight(None)), (8, 72, 16));
    }

    #[test]
    fn no_more_threads_pack_than_the_network_needs() {
        for (bandwidth, cores, expected) in [
            (Some(117_125_000), 2, 2),
            (Some(937_500_000), 16, 6),
            (Some(6_250_000_000), 192, 33),
            (Some(1), 1, 1),
            (Some(u64::MAX), 4, 4),
            (None, 16, 16),
        ] {
            assert_eq!(packers(bandwidth, cores), expected, "{bandwidth:?}");
        }
    }

    #[test]
    fn a_budget_that_is_needed_is_enough_and_half_of_it_is_not() {
        const TIB: u64 = 1 << 40;
        for (raw_bytes, wanted, threads) in [(0, 8, 2), (1 << 30, 11, 6), (2 * TIB, 21, 7), (TIB, 70, 33)] {
            let needed = budget(raw_bytes, wanted, threads);
            assert_eq!(held(needed, raw_bytes, wanted, threads), wanted);
            assert!(held(needed / 2, raw_bytes, wanted, threads) < wanted);
        }
        // 15 Gbit/s, as the larger half of the c8gd family has: 22 parts of 16 MiB, and the frames of eleven threads.
        assert_eq!(budget(0, in_flight(Some(1_875_000_000)), packers(Some(1_875_000_000), 32)) >> 20, 586);
        assert_eq!(held(1000, 0, 8, 1), 0);
    }
}
