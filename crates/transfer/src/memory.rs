//! Buffers that are counted: how many there may be follows from the budget, and they are used again.

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::progress::Progress;

/// What one transfer holds in buffers, in bytes.
#[derive(Debug)]
pub(crate) struct Gauge {
    held: AtomicU64,
    progress: Arc<Progress>,
}

impl Gauge {
    /// A gauge that starts with `fixed` bytes which are held all the time.
    pub(crate) fn new(fixed: u64, progress: Arc<Progress>) -> Arc<Self> {
        progress.saw_memory(fixed);
        Arc::new(Self { held: AtomicU64::new(fixed), progress })
    }

    fn add(&self, bytes: u64) {
        let held = self.held.fetch_add(bytes, Relaxed) + bytes;
        self.progress.saw_memory(held);
    }

    fn sub(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Relaxed);
    }
}

/// A fixed number of buffers of one size.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    state: Mutex<State>,
    returned: Condvar,
    gauge: Arc<Gauge>,
}

#[derive(Debug)]
struct State {
    idle: Vec<Vec<u8>>,
    unmade: usize,
    closed: bool,
}

impl Pool {
    /// A pool of `count` buffers of `size` bytes, made when they are first taken.
    pub(crate) fn new(count: usize, size: usize, gauge: &Arc<Gauge>) -> Arc<Self> {
        let state = State { idle: Vec::with_capacity(count), unmade: count, closed: false };
        Arc::new(Self { size, state: Mutex::new(state), returned: Condvar::new(), gauge: Arc::clone(gauge) })
    }

    /// Waits for a buffer; `None` once the pool is closed.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Buffer> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(bytes) = self.get(&mut state) {
                return Some(self.lend(bytes));
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A buffer, if one is there now.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Buffer> {
        let bytes = self.get(&mut self.lock())?;
        Some(self.lend(bytes))
    }

    /// Makes everybody who waits for a buffer, or will, go away without one.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.returned.notify_all();
    }

    fn get(&self, state: &mut State) -> Option<Vec<u8>> {
        if let Some(bytes) = state.idle.pop() {
            return Some(bytes);
        }
        state.unmade = state.unmade.checked_sub(1)?;
        Some(Vec::with_capacity(self.size))
    }

    fn lend(self: &Arc<Self>, bytes: Vec<u8>) -> Buffer {
        self.gauge.add(self.size as u64);
        Buffer { bytes, pool: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer on loan: it goes back when it is dropped.
///
/// What it holds from its last use is still there: taking a length does not cost clearing it.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Buffer {
    /// The buffer as a vector, which should not be made to grow beyond the pool's size.
    pub(crate) fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The first `len` bytes, whatever they are.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.bytes.truncate(len);
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.gauge.sub(self.pool.size as u64);
        self.pool.lock().idle.push(std::mem::take(&mut self.bytes));
        self.pool.returned.notify_one();
    }
}

/// How many units of work and how many units of movement a budget holds, as near to what is wanted of both as it goes.
///
/// `None` if it does not hold one of each.
pub(crate) fn fit(
    budget: u64,
    work_cost: u64,
    work_wanted: usize,
    move_cost: u64,
    move_wanted: usize,
) -> Option<(usize, usize)> {
    let mut left = budget.checked_sub(work_cost)?.checked_sub(move_cost)?;
    let (mut work, mut moves) = (1, 1);
    loop {
        let (can_work, can_move) =
            (work < work_wanted && left >= work_cost, moves < move_wanted && left >= move_cost);
        // What has the smaller share of its wish goes first, if it fits.
        let work_first = work * move_wanted <= moves * work_wanted;
        if can_work && (work_first || !can_move) {
            work += 1;
            left -= work_cost;
        } else if can_move {
            moves += 1;
            left -= move_cost;
        } else {
            return Some((work, moves));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_never_exceeded() {
        assert_eq!(fit(9, 5, 4, 5, 4), None);
        assert_eq!(fit(10, 5, 4, 5, 4), Some((1, 1)));
        assert_eq!(fit(u64::MAX, 5, 4, 5, 17), Some((4, 17)));
        assert_eq!(fit(100, 16, 4, 16, 17), Some((1, 5)));
        assert_eq!(fit(200, 16, 4, 16, 17), Some((3, 9)));
        for budget in 0..200 {
            for (work_cost, move_cost) in [(3, 7), (7, 3), (1, 50)] {
                let Some((work, moves)) = fit(budget, work_cost, 5, move_cost, 9) else {
                    assert!(budget < work_cost + move_cost);
                    continue;
                };
                assert!(work as u64 * work_cost + moves as u64 * move_cost <= budget);
                assert!(work <= 5 && moves <= 9);
            }
        }
    }

    #[test]
    fn buffers_are_counted_and_used_again() {
        let progress = Arc::new(Progress::default());
        let pool = Pool::new(2, 100, &Gauge::new(7, Arc::clone(&progress)));
        let first = pool.try_take().unwrap();
        let second = pool.try_take().unwrap();
        assert!(pool.try_take().is_none());
        drop(first);
        let third = pool.take().unwrap();
        assert_eq!(progress.memory_peak(), 207);
        pool.close();
        drop((second, third));
        assert!(pool.take().is_none());
    }
}
