//! How states, threads and executions end other than well: Retry, Catch, and the ways out.

use std::time::Duration;

use super::data::{put, within_limit};
use super::event::{Effect, Outcome};
use super::failure::{Failure, Trouble};
use super::flow::{Activity, ThreadId};
use super::history::Happening;
use super::{Life, Turn};
use crate::stepfunctions::asl::{Jitter, Kind, State, Transition};

impl Turn<'_> {
    pub(super) fn troubled(&mut self, thread: ThreadId, trouble: Trouble) {
        let Some(visit) = self.visit(thread) else { return };
        let failure = trouble.failure(&visit.state.name, visit.entered_event);
        self.state_failed(thread, failure);
    }

    /// A state has failed: the first retrier for the error tries again, unless it is used up; else the first catcher goes on,
    /// else the thread fails.
    pub(super) fn state_failed(&mut self, thread: ThreadId, failure: Failure) {
        let Some(state) = self.state(thread) else { return };
        if !failure.is_final() {
            if self.try_again(thread, &state, &failure) {
                return;
            }
            if self.caught(thread, &state, &failure) {
                return;
            }
        }
        self.record_fork_failure(thread, &state);
        self.thread_failed(thread, failure);
    }

    fn try_again(&mut self, thread: ThreadId, state: &State, failure: &Failure) -> bool {
        let error = failure.error.as_deref();
        let Some((index, retrier)) =
            state.retry.iter().enumerate().find(|(_, retrier)| retrier.matches(error))
        else {
            return false;
        };
        let Some(visit) = self.visit(thread) else { return false };
        let used = visit.used.get(index).copied().unwrap_or(u64::MAX);
        if used >= retrier.max_attempts {
            return false;
        }
        let delay = retrier.delay_seconds(used);
        let delay = match retrier.jitter {
            Jitter::None => delay,
            Jitter::Full => delay * self.supply.fraction(),
        };
        let timer = self.start_timer(Duration::from_secs_f64(delay));
        if let Some(visit) = self.visit_mut(thread) {
            visit.retry_count += 1;
            visit.used[index] += 1;
            visit.activity = Activity::BackingOff(timer);
        }
        true
    }

    /// `OutputPath` is not for what a Catch passes on. If that is too large, no second Catch can help.
    fn caught(&mut self, thread: ThreadId, state: &State, failure: &Failure) -> bool {
        let error = failure.error.as_deref();
        let Some(catcher) = state.catch.iter().find(|catcher| catcher.matches(error)) else { return false };
        let Some(visit) = self.visit(thread) else { return false };
        let raw = visit.raw.clone();
        let Ok(output) = put(catcher.result_path.as_ref(), raw, failure.output()) else { return false };
        if within_limit(&output).is_err() {
            return false;
        }
        self.record_fork_failure(thread, state);
        self.exit(thread, output, &Transition::Next(catcher.next.clone())).is_ok()
    }

    fn record_fork_failure(&mut self, thread: ThreadId, state: &State) {
        if matches!(state.kind, Kind::Parallel(_) | Kind::Map(_)) {
            self.record(thread, Happening::StateFailed { state_type: state.type_name() });
        }
    }

    pub(super) fn thread_failed(&mut self, thread: ThreadId, failure: Failure) {
        let parent = self.execution.threads.get(&thread).and_then(|thread| thread.parent);
        match parent {
            Some(parent) => self.child_failed(thread, parent, failure),
            None => self.fail(self.last_event(thread), failure),
        }
    }

    pub(super) fn fail(&mut self, previous: u64, failure: Failure) {
        self.finish(previous, Happening::ExecutionFailed(failure.clone()), Outcome::Failed(failure));
    }

    pub(super) fn stop(&mut self, failure: Failure) {
        self.finish(0, Happening::ExecutionAborted(failure.clone()), Outcome::Aborted(failure));
    }

    pub(super) fn time_out(&mut self) {
        self.execution.deadline = None;
        let failure = Failure { error: Some("States.Timeout".to_owned()), cause: None };
        self.finish(0, Happening::ExecutionTimedOut(failure.clone()), Outcome::TimedOut(failure));
    }

    pub(super) fn finish(&mut self, previous: u64, happening: Happening, outcome: Outcome) {
        let deadline = self.execution.deadline.take();
        self.cancel_timer(deadline);
        let threads: Vec<ThreadId> = self.execution.threads.keys().copied().collect();
        for thread in threads {
            self.cancel_timers_of(thread);
        }
        self.record_after(previous, happening);
        self.execution.threads.clear();
        self.execution.life = Life::Over;
        self.ready.clear();
        self.effects.push(Effect::Finish(outcome));
    }
}
