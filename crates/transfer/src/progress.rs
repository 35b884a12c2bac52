//! Counters that a transfer keeps and anybody may read at any time, cheaply enough for a progress bar.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a transfer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// It has not begun.
    Waiting = 0,
    /// Sources or frames are moving.
    Moving = 1,
    /// The store's list of parts is compared and the object is made out of them.
    Completing = 2,
    /// The object is read back, because the store has no checksum of it.
    ReadingBack = 3,
    /// It has ended.
    Done = 4,
}

/// What a transfer has done so far. All counters only grow.
#[derive(Debug, Default)]
pub struct Progress {
    raw_total: AtomicU64,
    raw_done: AtomicU64,
    object_bytes: AtomicU64,
    retries: AtomicU64,
    memory_peak: AtomicU64,
    phase: AtomicU8,
}

impl Progress {
    /// Bytes of the tar stream that are to be moved; 0 until that is known.
    pub fn raw_total(&self) -> u64 {
        self.raw_total.load(Relaxed)
    }

    /// Bytes of the tar stream that are packed and hashed, or verified and written.
    pub fn raw_done(&self) -> u64 {
        self.raw_done.load(Relaxed)
    }

    /// Bytes of the object that the store has confirmed, or that have arrived from it.
    pub fn object_bytes(&self) -> u64 {
        self.object_bytes.load(Relaxed)
    }

    /// Calls to the store that were made again after a failure.
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// The most bytes that were held in buffers at once. Never more than the budget.
    pub fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Relaxed)
    }

    /// What is being done.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            1 => Phase::Moving,
            2 => Phase::Completing,
            3 => Phase::ReadingBack,
            4 => Phase::Done,
            _ => Phase::Waiting,
        }
    }

    pub(crate) fn begin(&self, raw_total: u64) {
        self.raw_total.store(raw_total, Relaxed);
        self.enter(Phase::Moving);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(crate) fn add_raw(&self, bytes: u64) {
        self.raw_done.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn add_object(&self, bytes: u64) {
        self.object_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn add_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn saw_memory(&self, bytes: u64) {
        self.memory_peak.fetch_max(bytes, Relaxed);
    }
}
