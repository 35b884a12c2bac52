//! How many requests may be on their way while the store asks to slow down: half as many each time, and back one by one.
//!
//! A request that waits to be tried again is not on its way: it holds its buffer and no place in the window.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::store::{StoreError, StoreErrorKind};

/// The window of one transfer. Clones are the same window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes whoever waits for a place.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    rule: Rule,
    underway: usize,
}

impl Window {
    /// A window in which at most `limit` requests are on their way.
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { rule: Rule::new(limit), underway: 0 };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Waits for a place, makes the request, and learns from its answer.
    pub(crate) async fn run<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let place = self.enter().await;
        let answer = request.await;
        match &answer {
            Ok(_) => place.learn(Rule::succeeded),
            Err(error) if error.kind == StoreErrorKind::Throttled => {
                if place.learn(Rule::throttled) {
                    tracing::warn!(
                        requests = self.lock().rule.size,
                        "the store asks to slow down: fewer requests at once"
                    );
                }
            }
            // Other failures say nothing about how many requests the store takes.
            Err(_) => {}
        }
        answer
    }

    async fn enter(&self) -> Place<'_> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, also not one between looking and waiting.
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                if state.underway < state.rule.size {
                    state.underway += 1;
                    return Place { window: self, round: state.rule.round };
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place, free again when it is dropped.
#[derive(Debug)]
struct Place<'a> {
    window: &'a Window,
    round: u64,
}

impl Place<'_> {
    fn learn<T>(&self, from: impl FnOnce(&mut Rule, u64) -> T) -> T {
        from(&mut self.window.lock().rule, self.round)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.window.lock().underway -= 1;
        self.window.shared.changed.notify_waiters();
    }
}

/// Additive increase, multiplicative decrease: the rule without its clock and its waiting.
///
/// Time is counted in *rounds*: one ends with each decrease. Requests of an earlier round were sent when the window was wider, so that their
/// answers say nothing about the present one: a storm that refuses all that is on its way halves the window once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    limit: usize,
    size: usize,
    round: u64,
    /// Successes of this round since the window last changed.
    credit: usize,
}

impl Rule {
    fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { limit, size: limit, round: 0, credit: 0 }
    }

    /// A request of `round` was refused by a store that asks to slow down. Answers whether the window is smaller now.
    fn throttled(&mut self, round: u64) -> bool {
        if round != self.round {
            return false;
        }
        let before = self.size;
        self.size = (self.size / 2).max(1);
        self.round += 1;
        self.credit = 0;
        self.size < before
    }

    /// A request of `round` succeeded. As many successes as the window is wide make it wider by one.
    fn succeeded(&mut self, round: u64) {
        if round != self.round || self.size == self.limit {
            return;
        }
        self.credit += 1;
        if self.credit >= self.size {
            self.size += 1;
            self.credit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a window, and how wide it is afterwards.
    enum Event {
        /// So many refusals of requests that were sent so many decreases ago.
        Throttled(usize, u64),
        /// So many successes of requests that were sent so many decreases ago.
        Succeeded(usize, u64),
    }
    use Event::{Succeeded, Throttled};

    #[test]
    fn the_window_halves_once_a_round_and_grows_by_one_a_windowful() {
        let mut rule = Rule::new(16);
        for (number, (event, size)) in [
            (Succeeded(100, 0), 16),
            (Throttled(1, 0), 8),
            (Throttled(15, 1), 8),
            (Succeeded(15, 1), 8),
            (Succeeded(7, 0), 8),
            (Succeeded(1, 0), 9),
            (Succeeded(9, 0), 10),
            (Succeeded(9, 0), 10),
            (Throttled(1, 0), 5),
            (Succeeded(4, 0), 5),
            (Throttled(1, 0), 2),
            (Throttled(1, 0), 1),
            (Throttled(1, 0), 1),
            (Succeeded(1, 0), 2),
            (Succeeded(2, 0), 3),
            (Succeeded(3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14 + 15, 0), 16),
            (Succeeded(1000, 0), 16),
        ]
        .into_iter()
        .enumerate()
        {
            match event {
                Throttled(times, ago) => {
                    let round = rule.round - ago;
                    (0..times).for_each(|_| _ = rule.throttled(round));
                }
                Succeeded(times, ago) => {
                    let round = rule.round - ago;
                    (0..times).for_each(|_| rule.succeeded(round));
                }
            }
            assert_eq!(rule.size, size, "event {number}");
        }
        assert_eq!(Rule::new(0).size, 1);
    }

    #[tokio::test]
    async fn a_place_comes_free_when_its_request_ends_or_is_dropped() {
        let window = Window::new(1);
        let hangs = window.run(std::future::pending::<Result<(), StoreError>>());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), hangs).await.is_err());
        let (first, second) = tokio::join!(window.run(async { Ok(1) }), window.run(async { Ok(2) }));
        assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
        assert_eq!(window.lock().underway, 0);
    }
}
