//! How many bytes a second may move: one handle for all requests that share a limit, changeable while they run.
//!
//! Bytes are paced in small chunks as the connection takes them, not in parts, so that whoever shares the network sees an even stream. Chunks
//! are let through one after the other in the order in which they came: every request moves on, however many there are.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// What may move at once after a pause, in time at the limit's rate. Timers are a millisecond or two late, which must not cost throughput; more
/// than this would be a burst.
pub const BUCKET: Duration = Duration::from_millis(50);
/// The lowest rate: below it a request whose turn comes round too seldom would be closed by S3, which does that after 20 s.
pub const LEAST_RATE: u64 = 1_000_000;
/// What one request is given at least, in bytes per second, before another one runs beside it. Far below the 90 MB/s that one can move, and far
/// above what keeps a connection from being idle.
const REQUEST_SHARE: u64 = 10_000_000;
/// Requests that run at once at any rate: while one waits for its answer, the other moves.
const LEAST_REQUESTS: u64 = 2;
/// How many chunks the limit is cut into per second, so that turns come round quickly at low rates.
const CHUNKS_PER_SECOND: u64 = 64;
/// No chunk is smaller than this, in bytes: at the lowest rate even 72 requests have a turn every 1.2 s.
const LEAST_CHUNK: usize = 16 << 10;
/// No chunk is larger than this, in bytes.
const LARGEST_CHUNK: usize = 256 << 10;
/// Stands for no limit.
const UNLIMITED: u64 = u64::MAX;

/// A limit on bytes per second. Clones are the same limit. Without a limit it costs next to nothing, and counts.
#[derive(Clone, Debug)]
pub struct Rate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The limit, for whoever only looks.
    limit: AtomicU64,
    /// Bytes that were let through.
    moved: AtomicU64,
    bucket: Mutex<Bucket>,
    /// Held by the one chunk that waits for the bucket; the others wait for it, in order.
    line: tokio::sync::Mutex<()>,
    /// The limit changed, or a request ended.
    changed: Notify,
    /// Requests that run.
    requests: AtomicU64,
}

impl Default for Rate {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Rate {
    /// A limit of so many bytes per second, at least [`LEAST_RATE`]; no limit for `None`.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let limit = limit(bytes_per_second);
        Self {
            shared: Arc::new(Shared {
                limit: AtomicU64::new(limit),
                moved: AtomicU64::new(0),
                bucket: Mutex::new(Bucket { limit, level: 0.0, at: Instant::now() }),
                line: tokio::sync::Mutex::new(()),
                changed: Notify::new(),
                requests: AtomicU64::new(0),
            }),
        }
    }

    /// Changes the limit; bytes that are waiting follow the new one at once. A limit below [`LEAST_RATE`] is that.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let limit = limit(bytes_per_second);
        {
            // Both under one lock, so that of two who set it at once one wins altogether.
            let mut bucket = self.bucket();
            if self.shared.limit.swap(limit, Relaxed) == limit {
                return;
            }
            bucket.change(limit, Instant::now());
        }
        self.shared.changed.notify_waiters();
    }

    /// The limit in bytes per second, if there is one.
    pub fn bytes_per_second(&self) -> Option<u64> {
        Some(self.shared.limit.load(Relaxed)).filter(|limit| *limit != UNLIMITED)
    }

    /// Bytes that were let through so far, limit or not.
    pub fn moved(&self) -> u64 {
        self.shared.moved.load(Relaxed)
    }

    /// How many bytes should be asked for at once.
    pub(crate) fn chunk(&self) -> usize {
        let share = self.shared.limit.load(Relaxed) / CHUNKS_PER_SECOND;
        usize::try_from(share).unwrap_or(LARGEST_CHUNK).clamp(LEAST_CHUNK, LARGEST_CHUNK)
    }

    /// Waits until `bytes` more may move. Dropping it takes back the wish.
    pub(crate) async fn take(&self, bytes: usize) {
        if !self.try_take(bytes) {
            let _turn = self.shared.line.lock().await;
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let wait = self.bucket().take(bytes, Instant::now());
                let Some(wait) = wait else { break };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = changed => {}
                }
            }
            self.shared.moved.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Lets `bytes` through if there is no limit.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let free = self.shared.limit.load(Relaxed) == UNLIMITED;
        if free {
            self.shared.moved.fetch_add(bytes as u64, Relaxed);
        }
        free
    }

    /// Waits until one more request may run: at a low rate few do, so that none is idle for long. The request ends when the answer is dropped.
    pub(crate) async fn enter(&self) -> Running {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let most = requests(self.shared.limit.load(Relaxed));
            let entered = self
                .shared
                .requests
                .fetch_update(Relaxed, Relaxed, |running| (running < most).then_some(running + 1));
            if entered.is_ok() {
                return Running { rate: self.clone() };
            }
            changed.await;
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that runs under a limit.
#[derive(Debug)]
pub(crate) struct Running {
    rate: Rate,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.rate.shared.requests.fetch_sub(1, Relaxed);
        self.rate.shared.changed.notify_waiters();
    }
}

fn limit(bytes_per_second: Option<u64>) -> u64 {
    bytes_per_second.map_or(UNLIMITED, |limit| limit.max(LEAST_RATE))
}

/// How many requests run at once under a limit.
fn requests(limit: u64) -> u64 {
    if limit == UNLIMITED { u64::MAX } else { limit.div_ceil(REQUEST_SHARE).max(LEAST_REQUESTS) }
}

/// The arithmetic: what may move is paid for by time. Whoever comes while nothing is owed goes at once and may leave a debt, which the next one
/// waits for.
#[derive(Debug)]
struct Bucket {
    limit: u64,
    /// Bytes that may move now; negative for a debt.
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Takes `bytes`; or says how long to wait before asking again.
    fn take(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        if self.limit == UNLIMITED {
            return None;
        }
        self.fill(now);
        if self.level < 0.0 {
            return Some(Duration::from_secs_f64(-self.level / self.limit as f64));
        }
        self.level -= bytes as f64;
        None
    }

    fn change(&mut self, limit: u64, now: Instant) {
        self.fill(now);
        self.limit = limit;
        self.level = if limit == UNLIMITED { 0.0 } else { self.level.min(self.full()) };
    }

    fn fill(&mut self, now: Instant) {
        if self.limit != UNLIMITED {
            let paid = self.limit as f64 * now.saturating_duration_since(self.at).as_secs_f64();
            self.level = (self.level + paid).min(self.full());
        }
        self.at = now;
    }

    fn full(&self) -> f64 {
        self.limit as f64 * BUCKET.as_secs_f64()
    }
}

#[cfg(test)]
mod tests;
