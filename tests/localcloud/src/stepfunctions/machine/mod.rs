//! One execution of a state machine, as a pure machine: `step(now, event) → effects`.
//!
//! Read this to learn how Step Functions behaves. There is no clock, no chance, no thread and no I/O in it: time comes with
//! each event, randomness from a [`Supply`], and whatever has to happen outside (a call, a timer, an entry in the history) goes
//! out as an [`Effect`]. The same code therefore runs on wall time, on time divided by a factor, and in a test that fires a timer
//! of a day between two lines.
//!
//! * `flow` enters and leaves states; `work` is what each of them does; `task` has the life of one attempt, where tokens, heartbeats
//!   and time-outs are; `fork` runs the branches of a Parallel and the items of a Map; `ending` has Retry, Catch and the ways out;
//!   `data` is what happens to the input on its way to the output.
//! * The history is AWS's, event for event: ids from 1, `previousEventId` as recorded on AWS (0 for the first state and for the end by
//!   force), a `TaskStateAborted` for what a failing sibling cut short.
//!
//! What AWS does and others get wrong:
//!
//! * a task with `.waitForTaskToken` makes its call *and waits for its answer*; if the call fails, the attempt fails at once, with
//!   the error of the call;
//! * the heartbeat's clock starts when the call has returned, the time-out's when the task starts, and no heartbeat moves the latter;
//! * each attempt has a token of its own: one of an earlier attempt is dead;
//! * a heartbeat that stays away is `States.Timeout` (as recorded on AWS; [`HeartbeatError`] has what the documents say instead);
//! * retries are counted per retrier and per visit of the state. `$$.State.EnteredTime` stays, `$$.State.RetryCount` counts;
//! * `States.Runtime` is neither retried nor caught, and `States.ALL` is not for `States.DataLimitExceeded`.
//!
//! An answer by token that comes while the call is still under way is taken, and counts when the call has ended, however it ends: its
//! sender was told that it was taken. Whether AWS lets a failing call win over it is not known.

mod context;
mod data;
mod ending;
mod event;
mod failure;
mod flow;
mod fork;
mod history;
mod task;
#[cfg(test)]
mod tests;
mod token;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub use self::event::{AttemptId, Effect, Event, Invocation, Outcome, TimerId};
pub use self::failure::Failure;
pub(in crate::stepfunctions) use self::history::epoch_seconds;
pub use self::history::{Happening, HistoryEvent};
pub use self::token::TaskToken;

use self::flow::{Entry, Thread, ThreadId};
use super::asl::Definition;

/// The largest input, output or result of a state, in bytes of UTF-8.
pub const DATA_LIMIT: usize = 262_144;

/// The most events that a history holds.
pub const HISTORY_LIMIT: u64 = 25_000;

/// What an execution is told about itself; the context object shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The execution's ARN.
    pub execution_arn: String,
    /// The execution's name.
    pub execution_name: String,
    /// The state machine's ARN.
    pub state_machine_arn: String,
    /// The state machine's name.
    pub state_machine_name: String,
    /// The role it runs under.
    pub role_arn: String,
    /// The region; the history names it.
    pub region: String,
}

/// The error of a heartbeat that stayed away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeartbeatError {
    /// `States.Timeout`, which is what recordings made on AWS show.
    #[default]
    Timeout,
    /// `States.HeartbeatTimeout`, which is what the documents and the language's specification say.
    HeartbeatTimeout,
}

/// What an execution cannot have of itself: chance. Who drives it decides what the chance is.
pub trait Supply {
    /// A token that no task has had yet.
    fn token(&mut self) -> TaskToken;
    /// A number of at least 0 and below 1, for `JitterStrategy`.
    fn fraction(&mut self) -> f64;
    /// A UUID, for `States.UUID()`.
    fn uuid(&mut self) -> String;
}

/// One execution.
#[derive(Debug)]
pub struct Execution {
    about: About,
    definition: Arc<Definition>,
    input: Value,
    heartbeat_error: HeartbeatError,
    started_at: Timestamp,
    /// The whole execution's time-out.
    deadline: Option<TimerId>,
    threads: BTreeMap<ThreadId, Thread>,
    events: u64,
    timers: u64,
    attempts: u64,
    forks: u64,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    New,
    Running,
    Over,
}

impl Execution {
    /// An execution that has not begun: its first event is [`Event::Started`].
    #[must_use]
    pub fn new(
        about: About,
        definition: Arc<Definition>,
        input: Value,
        heartbeat_error: HeartbeatError,
    ) -> Self {
        Self {
            about,
            definition,
            input,
            heartbeat_error,
            started_at: Timestamp::UNIX_EPOCH,
            deadline: None,
            threads: BTreeMap::new(),
            events: 0,
            timers: 0,
            attempts: 0,
            forks: 0,
            life: Life::New,
        }
    }

    /// Tells the execution what has happened at `now`, and is told what is to be done. An event that nothing waits for any more
    /// (the return of a call that timed out) has no effect.
    pub fn step(&mut self, now: Timestamp, event: Event, supply: &mut dyn Supply) -> Vec<Effect> {
        let mut turn = Turn { execution: self, now, supply, effects: Vec::new(), ready: VecDeque::new() };
        turn.take(event);
        turn.effects
    }

    /// Whether a task waits for this token: it has been given out, and neither answered nor closed.
    #[must_use]
    pub fn awaits(&self, token: &TaskToken) -> bool {
        self.threads.values().filter_map(Thread::attempt).any(|attempt| attempt.awaits(token))
    }
}

/// One step: the execution, the event's time, and what has been gathered so far.
struct Turn<'a> {
    execution: &'a mut Execution,
    now: Timestamp,
    supply: &'a mut dyn Supply,
    effects: Vec<Effect>,
    /// States to be entered, in order: branches advance side by side.
    ready: VecDeque<Entry>,
}

impl Turn<'_> {
    fn take(&mut self, event: Event) {
        match (self.execution.life, event) {
            (Life::New, Event::Started) => self.start(),
            (Life::New | Life::Over, _) | (Life::Running, Event::Started) => {}
            (Life::Running, Event::TaskReturned { attempt, result }) => self.call_returned(attempt, result),
            (Life::Running, Event::TaskFailed { attempt, error, cause }) => {
                self.call_failed(attempt, Failure::new(error, cause));
            }
            (Life::Running, Event::TokenSucceeded { token, output }) => self.answered(&token, Ok(output)),
            (Life::Running, Event::TokenFailed { token, error, cause }) => {
                self.answered(&token, Err(Failure { error, cause }));
            }
            (Life::Running, Event::Heartbeat { token }) => self.heartbeat(&token),
            (Life::Running, Event::TimerFired { timer }) => self.timer_fired(timer),
            (Life::Running, Event::Stopped { error, cause }) => self.stop(Failure { error, cause }),
        }
        self.run();
    }

    /// Enters what is ready until everything waits or the execution is over.
    fn run(&mut self) {
        while let Some(entry) = self.ready.pop_front() {
            self.enter(entry);
        }
    }

    fn start_timer(&mut self, after: Duration) -> TimerId {
        self.execution.timers += 1;
        let timer = TimerId(self.execution.timers);
        self.effects.push(Effect::StartTimer { timer, after });
        timer
    }

    fn cancel_timer(&mut self, timer: Option<TimerId>) {
        self.effects.extend(timer.map(|timer| Effect::CancelTimer { timer }));
    }

    /// Appends to the history after the thread's last event, which this one becomes.
    fn record(&mut self, thread: ThreadId, happening: Happening) {
        let previous = self.last_event(thread);
        let id = self.record_after(previous, happening);
        self.set_last_event(thread, id);
    }

    /// Appends to the history after an event.
    fn record_after(&mut self, previous: u64, happening: Happening) -> u64 {
        self.execution.events += 1;
        let id = self.execution.events;
        let event = HistoryEvent { id, previous, timestamp: self.now, happening };
        self.effects.push(Effect::Record(event));
        id
    }

    fn last_event(&self, thread: ThreadId) -> u64 {
        self.execution.threads.get(&thread).map_or(0, |thread| thread.last_event)
    }

    fn set_last_event(&mut self, thread: ThreadId, id: u64) {
        if let Some(thread) = self.execution.threads.get_mut(&thread) {
            thread.last_event = id;
        }
    }
}
