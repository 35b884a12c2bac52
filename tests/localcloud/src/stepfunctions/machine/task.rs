//! The life of one attempt of a task: scheduled, called, answered; and the two clocks that can end it.
//!
//! Without a token the call's answer is the task's. With a token the call is only the beginning: the task is then *submitted*, the
//! heartbeat's clock starts, and whoever has the token answers.

use std::time::Duration;

use serde_json::Value;

use super::data::within_limit;
use super::event::{AttemptId, Effect, Invocation, TimerId};
use super::failure::{Failure, Trouble};
use super::flow::{Activity, ThreadId};
use super::history::{Happening, Scheduled};
use super::token::TaskToken;
use super::work::number_of_seconds;
use super::{HeartbeatError, Turn};
use crate::stepfunctions::asl::{Resource, State, Task};

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Attempt {
    id: AttemptId,
    resource: Resource,
    token: Option<TaskToken>,
    /// The call has returned; from then on only the token counts.
    submitted: bool,
    /// What came by token while the call was still under way.
    early: Option<Answer>,
    timeout: Option<TimerId>,
    heartbeat: Option<Duration>,
    heartbeat_timer: Option<TimerId>,
}

type Answer = Result<Value, Failure>;

/// Which of an attempt's clocks has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Timeout,
    Heartbeat,
}

impl Attempt {
    pub(super) fn awaits(&self, token: &TaskToken) -> bool {
        self.token.as_ref() == Some(token) && self.early.is_none()
    }

    pub(super) fn due(&self, timer: TimerId) -> Option<Expiry> {
        if self.timeout == Some(timer) {
            Some(Expiry::Timeout)
        } else if self.heartbeat_timer == Some(timer) {
            Some(Expiry::Heartbeat)
        } else {
            None
        }
    }

    pub(super) fn timers(&self) -> [Option<TimerId>; 2] {
        [self.timeout, self.heartbeat_timer]
    }
}

impl Turn<'_> {
    /// Begins an attempt. The token is new each time.
    pub(super) fn schedule(&mut self, thread: ThreadId, state: &State, task: &Task) -> Result<(), Trouble> {
        let resource = task.resource.clone();
        let token = resource.waits_for_token().then(|| self.supply.token());
        let context = self.context(thread, token.as_ref());
        let (input, parameters) =
            self.with_desk(thread, token.as_ref(), |desk, raw| desk.effective(state, &raw))?;
        let seconds = |seconds: &Option<_>, field| {
            seconds.as_ref().map(|seconds| number_of_seconds(seconds, field, &input, &context, 1)).transpose()
        };
        let timeout_seconds = seconds(&task.timeout, "TimeoutSecondsPath")?;
        let heartbeat_seconds = seconds(&task.heartbeat, "HeartbeatSecondsPath")?;
        if let (Some(heartbeat), Some(timeout)) = (heartbeat_seconds, timeout_seconds)
            && heartbeat >= timeout
        {
            return Err(Trouble::Unusable(format!(
                "HeartbeatSeconds ({heartbeat}) must be smaller than TimeoutSeconds ({timeout})"
            )));
        }

        self.record(
            thread,
            Happening::TaskScheduled(Scheduled {
                resource: resource.clone(),
                region: self.execution.about.region.clone(),
                parameters: parameters.clone(),
                timeout_seconds,
                heartbeat_seconds,
            }),
        );
        self.record(thread, Happening::TaskStarted { resource: resource.clone() });
        let timeout = timeout_seconds.map(|seconds| self.start_timer(Duration::from_secs(seconds)));
        self.execution.attempts += 1;
        let id = AttemptId(self.execution.attempts);
        self.effects.push(Effect::Invoke(Invocation {
            attempt: id,
            state: state.name.clone(),
            resource: resource.clone(),
            parameters,
            token: token.clone(),
        }));
        let attempt = Attempt {
            id,
            resource,
            token,
            submitted: false,
            early: None,
            timeout,
            heartbeat: heartbeat_seconds.map(Duration::from_secs),
            heartbeat_timer: None,
        };
        self.set_activity(thread, Activity::Attempting(attempt));
        Ok(())
    }

    /// The call has returned: the end of a task without a token, the beginning of the wait for one with.
    pub(super) fn call_returned(&mut self, id: AttemptId, result: Value) {
        let Some(thread) = self.find_attempt(|attempt| attempt.id == id && !attempt.submitted) else {
            return;
        };
        let Some(attempt) = self.attempt_mut(thread) else { return };
        let resource = attempt.resource.clone();
        let (early, heartbeat) = (attempt.early.take(), attempt.heartbeat);
        if within_limit(&result).is_err() {
            let failure = Failure::too_large(resource.service());
            return self.close(thread, early.unwrap_or(Err(failure)));
        }
        if attempt.token.is_none() {
            return self.close(thread, Ok(result));
        }
        attempt.submitted = true;
        self.record(thread, Happening::TaskSubmitted { resource, output: result });
        match (early, heartbeat) {
            (Some(answer), _) => self.close(thread, answer),
            (None, Some(heartbeat)) => self.start_heartbeat(thread, heartbeat),
            (None, None) => {}
        }
    }

    /// The call has failed, and with it the attempt, token or not; but an answer that was taken before stands.
    pub(super) fn call_failed(&mut self, id: AttemptId, failure: Failure) {
        let Some(thread) = self.find_attempt(|attempt| attempt.id == id && !attempt.submitted) else {
            return;
        };
        let early = self.attempt_mut(thread).and_then(|attempt| attempt.early.take());
        self.close(thread, early.unwrap_or(Err(failure)));
    }

    /// An answer by token.
    pub(super) fn answered(&mut self, token: &TaskToken, answer: Answer) {
        let Some(thread) = self.find_attempt(|attempt| attempt.awaits(token)) else { return };
        let Some(attempt) = self.attempt_mut(thread) else { return };
        if attempt.submitted {
            self.close(thread, answer);
        } else {
            attempt.early = Some(answer);
        }
    }

    /// A heartbeat winds the clock up again, if it runs.
    pub(super) fn heartbeat(&mut self, token: &TaskToken) {
        let Some(thread) = self.find_attempt(|attempt| attempt.awaits(token)) else { return };
        let Some(attempt) = self.attempt_mut(thread) else { return };
        if let (Some(timer), Some(heartbeat)) = (attempt.heartbeat_timer.take(), attempt.heartbeat) {
            self.cancel_timer(Some(timer));
            self.start_heartbeat(thread, heartbeat);
        }
    }

    /// One of the two clocks has run out.
    pub(super) fn expired(&mut self, thread: ThreadId, expiry: Expiry) {
        let heartbeat_error = self.execution.heartbeat_error;
        let Some(attempt) = self.attempt_mut(thread) else { return };
        match expiry {
            Expiry::Timeout => attempt.timeout = None,
            Expiry::Heartbeat => attempt.heartbeat_timer = None,
        }
        if let Some(answer) = attempt.early.take() {
            return self.close(thread, answer);
        }
        let resource = attempt.resource.clone();
        let error = match (expiry, heartbeat_error) {
            (Expiry::Heartbeat, HeartbeatError::HeartbeatTimeout) => "States.HeartbeatTimeout",
            (Expiry::Timeout | Expiry::Heartbeat, _) => "States.Timeout",
        };
        let failure = Failure::new(error, "");
        self.release(thread);
        self.record(thread, Happening::TaskTimedOut { resource, failure: failure.clone() });
        self.state_failed(thread, failure);
    }

    /// Ends the attempt: its token is dead from here on.
    fn close(&mut self, thread: ThreadId, answer: Answer) {
        let Some(resource) = self.attempt_mut(thread).map(|attempt| attempt.resource.clone()) else { return };
        self.release(thread);
        match answer {
            Ok(output) => {
                self.record(thread, Happening::TaskSucceeded { resource, output: output.clone() });
                self.complete(thread, output);
            }
            Err(failure) => {
                self.record(thread, Happening::TaskFailed { resource, failure: failure.clone() });
                self.state_failed(thread, failure);
            }
        }
    }

    fn release(&mut self, thread: ThreadId) {
        self.cancel_timers_of(thread);
        self.set_activity(thread, Activity::Working);
    }

    fn start_heartbeat(&mut self, thread: ThreadId, after: Duration) {
        let timer = self.start_timer(after);
        if let Some(attempt) = self.attempt_mut(thread) {
            attempt.heartbeat_timer = Some(timer);
        }
    }

    fn find_attempt(&self, is_it: impl Fn(&Attempt) -> bool) -> Option<ThreadId> {
        let mut threads = self.execution.threads.iter();
        threads.find(|(_, thread)| thread.attempt().is_some_and(&is_it)).map(|(id, _)| *id)
    }

    fn attempt_mut(&mut self, thread: ThreadId) -> Option<&mut Attempt> {
        match &mut self.visit_mut(thread)?.activity {
            Activity::Attempting(attempt) => Some(attempt),
            Activity::Working | Activity::Waiting { .. } | Activity::BackingOff(_) | Activity::Forked(_) => {
                None
            }
        }
    }
}
