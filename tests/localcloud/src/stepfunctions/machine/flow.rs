//! How an execution moves from state to state.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::context;
use super::data::{Desk, within_limit};
use super::event::{Outcome, TimerId};
use super::failure::Trouble;
use super::fork::{Fork, Parent};
use super::history::Happening;
use super::task::{Attempt, Expiry};
use super::token::TaskToken;
use super::{Life, Turn};
use crate::stepfunctions::asl::{Sequence, State, Transition};

/// One sequence of states under way: the machine's own (the root), a branch of a Parallel, or an item of a Map.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) sequence: Arc<Sequence>,
    /// Whose branch it is; the root has nobody.
    pub(super) parent: Option<Parent>,
    /// The Map's item, for the context object.
    pub(super) item: Option<Value>,
    /// What the next event follows.
    pub(super) last_event: u64,
    /// The state that it is in.
    pub(super) visit: Option<Visit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ThreadId(pub(super) u64);

impl ThreadId {
    pub(super) const ROOT: Self = Self(0);
}

/// The stay in one state, from its entry to its exit, over all its attempts.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) state: Arc<State>,
    pub(super) entered_at: Timestamp,
    pub(super) entered_event: u64,
    /// The input as it came.
    pub(super) raw: Value,
    pub(super) retry_count: u64,
    /// How often each retrier has been used.
    pub(super) used: Vec<u64>,
    pub(super) activity: Activity,
}

/// What a state waits for.
#[derive(Debug)]
pub(super) enum Activity {
    /// Nothing yet.
    Working,
    /// A Wait state, for its time.
    Waiting { timer: TimerId, output: Value },
    /// The delay before another attempt.
    BackingOff(TimerId),
    /// A task.
    Attempting(Attempt),
    /// The branches of a Parallel, or the items of a Map.
    Forked(Fork),
}

/// A state to be entered.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) thread: ThreadId,
    pub(super) state: String,
    pub(super) input: Value,
}

impl Thread {
    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match &self.visit.as_ref()?.activity {
            Activity::Attempting(attempt) => Some(attempt),
            Activity::Working | Activity::Waiting { .. } | Activity::BackingOff(_) | Activity::Forked(_) => {
                None
            }
        }
    }
}

impl Turn<'_> {
    pub(super) fn start(&mut self) {
        self.execution.life = Life::Running;
        self.execution.started_at = self.now;
        let input = self.execution.input.clone();
        let role_arn = self.execution.about.role_arn.clone();
        self.record_after(0, Happening::ExecutionStarted { input: input.clone(), role_arn });
        if let Some(seconds) = self.execution.definition.timeout_seconds {
            self.execution.deadline = Some(self.start_timer(Duration::from_secs(seconds)));
        }
        let sequence = Arc::clone(&self.execution.definition.top);
        let state = sequence.start_at.clone();
        let root = Thread { sequence, parent: None, item: None, last_event: 0, visit: None };
        self.execution.threads.insert(ThreadId::ROOT, root);
        self.ready.push_back(Entry { thread: ThreadId::ROOT, state, input });
    }

    pub(super) fn enter(&mut self, entry: Entry) {
        let Entry { thread, state, input } = entry;
        let Some(state) =
            self.execution.threads.get(&thread).and_then(|thread| thread.sequence.states.get(&state))
        else {
            return;
        };
        let state = Arc::clone(state);
        let (state_type, name) = (state.type_name(), state.name.clone());
        self.record(thread, Happening::StateEntered { state_type, name, input: input.clone() });
        let visit = Visit {
            entered_at: self.now,
            entered_event: self.last_event(thread),
            raw: input,
            retry_count: 0,
            used: vec![0; state.retry.len()],
            activity: Activity::Working,
            state,
        };
        if let Some(thread) = self.execution.threads.get_mut(&thread) {
            thread.visit = Some(visit);
        }
        self.work(thread);
    }

    /// A timer has run out: finds whose it was. One that nobody waits for any more is nobody's.
    pub(super) fn timer_fired(&mut self, timer: TimerId) {
        if self.execution.deadline == Some(timer) {
            return self.time_out();
        }
        let owner = self.execution.threads.iter().find_map(|(id, thread)| {
            let due = match &thread.visit.as_ref()?.activity {
                Activity::Waiting { timer: own, output } => {
                    (*own == timer).then(|| Due::Wait(output.clone()))
                }
                Activity::BackingOff(own) => (*own == timer).then_some(Due::Retry),
                Activity::Attempting(attempt) => attempt.due(timer).map(Due::Task),
                Activity::Working | Activity::Forked(_) => None,
            };
            due.map(|due| (*id, due))
        });
        match owner {
            Some((thread, Due::Wait(output))) => {
                self.set_activity(thread, Activity::Working);
                self.waited(thread, output);
            }
            Some((thread, Due::Retry)) => {
                self.set_activity(thread, Activity::Working);
                self.work(thread);
            }
            Some((thread, Due::Task(expiry))) => self.expired(thread, expiry),
            None => {}
        }
    }

    /// The work of a Task, Parallel or Map has a result.
    pub(super) fn complete(&mut self, thread: ThreadId, result: Value) {
        let Some(state) = self.state(thread) else { return };
        let Some(then) = state.then() else { return };
        let done = self
            .with_desk(thread, None, |desk, raw| desk.output(&state, raw, result))
            .and_then(|output| self.exit(thread, output, then));
        if let Err(trouble) = done {
            self.troubled(thread, trouble);
        }
    }

    pub(super) fn exit(&mut self, thread: ThreadId, output: Value, then: &Transition) -> Result<(), Trouble> {
        within_limit(&output)?;
        let Some(state) = self.state(thread) else { return Ok(()) };
        let (state_type, name) = (state.type_name(), state.name.clone());
        self.record(thread, Happening::StateExited { state_type, name, output: output.clone() });
        match then {
            Transition::Next(next) => {
                if let Some(thread) = self.execution.threads.get_mut(&thread) {
                    thread.visit = None;
                }
                self.ready.push_back(Entry { thread, state: next.clone(), input: output });
            }
            Transition::End => self.thread_ended(thread, output),
        }
        Ok(())
    }

    fn thread_ended(&mut self, thread: ThreadId, output: Value) {
        let parent = self.execution.threads.get(&thread).and_then(|thread| thread.parent);
        match parent {
            Some(parent) => self.child_ended(thread, parent, output),
            None => {
                let previous = self.last_event(thread);
                self.finish(
                    previous,
                    Happening::ExecutionSucceeded { output: output.clone() },
                    Outcome::Succeeded { output },
                );
            }
        }
    }

    pub(super) fn cancel_timers_of(&mut self, thread: ThreadId) {
        let timers = match self.visit(thread).map(|visit| &visit.activity) {
            Some(Activity::Waiting { timer, .. } | Activity::BackingOff(timer)) => [Some(*timer), None],
            Some(Activity::Attempting(attempt)) => attempt.timers(),
            Some(Activity::Working | Activity::Forked(_)) | None => [None, None],
        };
        timers.into_iter().for_each(|timer| self.cancel_timer(timer));
    }

    pub(super) fn state(&self, thread: ThreadId) -> Option<Arc<State>> {
        self.visit(thread).map(|visit| Arc::clone(&visit.state))
    }

    pub(super) fn visit(&self, thread: ThreadId) -> Option<&Visit> {
        self.execution.threads.get(&thread)?.visit.as_ref()
    }

    pub(super) fn visit_mut(&mut self, thread: ThreadId) -> Option<&mut Visit> {
        self.execution.threads.get_mut(&thread)?.visit.as_mut()
    }

    pub(super) fn set_activity(&mut self, thread: ThreadId, activity: Activity) {
        if let Some(visit) = self.visit_mut(thread) {
            visit.activity = activity;
        }
    }

    pub(super) fn context(&self, thread: ThreadId, token: Option<&TaskToken>) -> Value {
        self.execution
            .threads
            .get(&thread)
            .and_then(|thread| Some(context(self.execution, thread, thread.visit.as_ref()?, token)))
            .unwrap_or_else(|| json!({}))
    }

    /// Works on the visit's raw input, with the context object at hand.
    pub(super) fn with_desk<T>(
        &mut self,
        thread: ThreadId,
        token: Option<&TaskToken>,
        work: impl FnOnce(&mut Desk<'_>, Value) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let context = self.context(thread, token);
        let raw = self.visit(thread).map_or(Value::Null, |visit| visit.raw.clone());
        let supply = &mut *self.supply;
        work(&mut Desk { context: &context, uuid: &mut || supply.uuid() }, raw)
    }
}

/// What a timer was for.
enum Due {
    Wait(Value),
    Retry,
    Task(Expiry),
}
