//! How an execution moves from state to state.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::context;
use super::data::{Desk, put, within_limit};
use super::event::{Effect, Outcome, TimerId};
use super::failure::{Failure, Trouble};
use super::fork::{Fork, Parent};
use super::history::Happening;
use super::task::Attempt;
use super::token::TaskToken;
use super::{HISTORY_LIMIT, Life, Turn};
use crate::stepfunctions::asl::{
    Branching, Jitter, Judgement, Kind, Path, Scope, Seconds, Sequence, State, Text, Transition, Wait,
};

/// So many events before its limit an execution ends: what one state adds at once must still fit.
const HISTORY_RESERVE: u64 = 64;

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
    used: Vec<u64>,
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

    /// Does the state's work, for the first time or again.
    fn work(&mut self, thread: ThreadId) {
        let Some(state) = self.state(thread) else { return };
        if self.execution.events > HISTORY_LIMIT - HISTORY_RESERVE {
            let cause =
                format!("The execution reached the maximum number of history events ({HISTORY_LIMIT}).");
            return self.fail(self.last_event(thread), Failure::new("States.Runtime", cause));
        }
        let done = match &state.kind {
            Kind::Task(task) => self.schedule(thread, &state, task),
            Kind::Choice(branching) => self.choose(thread, &state, branching),
            Kind::Pass { result, then } => self.pass(thread, &state, result.as_ref(), then),
            Kind::Wait { wait, .. } => self.wait(thread, &state, wait),
            Kind::Parallel(parallel) => self.fork_branches(thread, &state, parallel),
            Kind::Map(map) => self.fork_items(thread, &state, map),
            Kind::Fail { error, cause } => self.give_up(thread, error.as_ref(), cause.as_ref()),
            Kind::Succeed => self.pass_through(thread, &state, &Transition::End),
        };
        if let Err(trouble) = done {
            self.troubled(thread, trouble);
        }
    }

    fn pass(
        &mut self,
        thread: ThreadId,
        state: &State,
        result: Option<&Value>,
        then: &Transition,
    ) -> Result<(), Trouble> {
        let output = self.with_desk(thread, None, |desk, raw| {
            let (_, parameters) = desk.effective(state, &raw)?;
            let result = result.cloned().unwrap_or(parameters);
            desk.output(state, raw, result)
        })?;
        self.exit(thread, output, then)
    }

    /// For states that only filter: Choice, Wait, Succeed.
    fn filtered(&mut self, thread: ThreadId, state: &State) -> Result<(Value, Value), Trouble> {
        self.with_desk(thread, None, |desk, raw| {
            let input = desk.filter(&state.input_path, &raw)?;
            let output = desk.filter(&state.output_path, &input)?;
            Ok((input, output))
        })
    }

    fn pass_through(&mut self, thread: ThreadId, state: &State, then: &Transition) -> Result<(), Trouble> {
        let (_, output) = self.filtered(thread, state)?;
        self.exit(thread, output, then)
    }

    fn choose(&mut self, thread: ThreadId, state: &State, branching: &Branching) -> Result<(), Trouble> {
        let (input, output) = self.filtered(thread, state)?;
        let context = self.context(thread, None);
        match branching.decide(&input, &context) {
            Judgement::Next(next) => self.exit(thread, output, &Transition::Next(next.to_owned())),
            Judgement::NoneHolds => Err(Trouble::NoChoice),
            Judgement::NotFound(path) => Err(Trouble::Unusable(format!(
                "Invalid path '{path}': The choice state's condition path references an invalid value."
            ))),
        }
    }

    fn wait(&mut self, thread: ThreadId, state: &State, wait: &Wait) -> Result<(), Trouble> {
        let (input, output) = self.filtered(thread, state)?;
        let context = self.context(thread, None);
        let until = |time: Timestamp| Duration::try_from(time.duration_since(self.now)).unwrap_or_default();
        let after = match wait {
            Wait::Seconds(seconds) => {
                Duration::from_secs(number_of_seconds(seconds, "SecondsPath", &input, &context, 0)?)
            }
            Wait::Until(time) => until(*time),
            Wait::UntilPath(path) => until(time_at(path, &input, &context)?),
        };
        let timer = self.start_timer(after);
        self.set_activity(thread, Activity::Waiting { timer, output });
        Ok(())
    }

    fn waited(&mut self, thread: ThreadId, output: Value) {
        let Some(state) = self.state(thread) else { return };
        if let Some(then) = state.then()
            && let Err(trouble) = self.exit(thread, output, then)
        {
            self.troubled(thread, trouble);
        }
    }

    fn give_up(
        &mut self,
        thread: ThreadId,
        error: Option<&Text>,
        cause: Option<&Text>,
    ) -> Result<(), Trouble> {
        let failure = self.with_desk(thread, None, |desk, raw| {
            let mut text = |text: Option<&Text>| match text {
                None => Ok(None),
                Some(Text::Given(text)) => Ok(Some(text.clone())),
                Some(Text::At(at)) => {
                    let mut scope: Scope<'_> = desk.scope(&raw);
                    at.find(&mut scope)?.map(Some).map_err(|other| {
                        Trouble::Unusable(format!("The value {other} of a Fail state's path is not a string"))
                    })
                }
            };
            Ok(Failure { error: text(error)?, cause: text(cause)? })
        })?;
        self.thread_failed(thread, failure);
        Ok(())
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
            Some((thread, Due::Wait(output))) => self.waited(thread, output),
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

    fn exit(&mut self, thread: ThreadId, output: Value, then: &Transition) -> Result<(), Trouble> {
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

    fn troubled(&mut self, thread: ThreadId, trouble: Trouble) {
        let Some(visit) = self.visit(thread) else { return };
        let failure = trouble.failure(&visit.state.name, visit.entered_event);
        self.state_failed(thread, failure);
    }

    /// A state has failed: the first retrier for the error that is not used up tries again, else the first catcher goes on,
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

    fn time_out(&mut self) {
        self.execution.deadline = None;
        let failure = Failure { error: Some("States.Timeout".to_owned()), cause: None };
        self.finish(0, Happening::ExecutionTimedOut(failure.clone()), Outcome::TimedOut(failure));
    }

    fn finish(&mut self, previous: u64, happening: Happening, outcome: Outcome) {
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
    Task(super::task::Expiry),
}

/// A number of seconds that a field gives or finds.
pub(super) fn number_of_seconds(
    seconds: &Seconds,
    field: &str,
    input: &Value,
    context: &Value,
    least: u64,
) -> Result<u64, Trouble> {
    match seconds {
        Seconds::Given(seconds) => Ok(*seconds),
        Seconds::At(path) => {
            let found = path.find(input, context).ok_or_else(|| Trouble::NoSuchPath(path.to_string()))?;
            found.as_u64().filter(|seconds| (least..=99_999_999).contains(seconds)).ok_or_else(|| {
                Trouble::Unusable(format!(
                    "The {field} parameter does not reference a number of seconds: {path} == {found}"
                ))
            })
        }
    }
}

fn time_at(path: &Path, input: &Value, context: &Value) -> Result<Timestamp, Trouble> {
    let found = path.find(input, context).ok_or_else(|| Trouble::NoSuchPath(path.to_string()))?;
    found.as_str().and_then(crate::stepfunctions::asl::parse_timestamp).ok_or_else(|| {
        let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        Trouble::Unusable(format!(
            "The TimestampPath parameter does not reference a valid ISO-8601 extended offset date-time format string: {path} == {shown}"
        ))
    })
}
