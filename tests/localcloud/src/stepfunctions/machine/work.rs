//! What each type of state does. A Task goes on in `task`, a Parallel or Map in `fork`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::failure::{Failure, Trouble};
use super::flow::{Activity, ThreadId};
use super::{HISTORY_LIMIT, Turn};
use crate::stepfunctions::asl::{
    Branching, Judgement, Kind, Path, Seconds, State, Text, Transition, Wait, parse_timestamp,
};

/// So many events before its limit an execution ends: what one state adds at once must still fit.
const HISTORY_RESERVE: u64 = 64;

impl Turn<'_> {
    /// Does the state's work, for the first time or again.
    pub(super) fn work(&mut self, thread: ThreadId) {
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

    pub(super) fn waited(&mut self, thread: ThreadId, output: Value) {
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
                Some(Text::At(at)) => at.find(&mut desk.scope(&raw))?.map(Some).map_err(|other| {
                    Trouble::Unusable(format!("The value {other} of a Fail state's path is not a string"))
                }),
            };
            Ok(Failure { error: text(error)?, cause: text(cause)? })
        })?;
        self.thread_failed(thread, failure);
        Ok(())
    }
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
    found.as_str().and_then(parse_timestamp).ok_or_else(|| {
        let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        Trouble::Unusable(format!(
            "The TimestampPath parameter does not reference a valid ISO-8601 extended offset date-time format string: {path} == {shown}"
        ))
    })
}
