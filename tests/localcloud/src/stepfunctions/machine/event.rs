//! What goes into a machine and what comes out of it.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::failure::Failure;
use super::history::HistoryEvent;
use super::token::TaskToken;
use crate::stepfunctions::asl::Resource;

/// One attempt of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub(super) u64);

/// One timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub(super) u64);

/// What has happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The execution begins.
    Started,
    /// A call has returned.
    TaskReturned {
        /// Which.
        attempt: AttemptId,
        /// What it returned.
        result: Value,
    },
    /// A call has failed.
    TaskFailed {
        /// Which.
        attempt: AttemptId,
        /// The error's name.
        error: String,
        /// What a person should know.
        cause: String,
    },
    /// `SendTaskSuccess`.
    TokenSucceeded {
        /// Whose task it is.
        token: TaskToken,
        /// The task's result.
        output: Value,
    },
    /// `SendTaskFailure`, which may leave both out.
    TokenFailed {
        /// Whose task it is.
        token: TaskToken,
        /// The error's name.
        error: Option<String>,
        /// What a person should know.
        cause: Option<String>,
    },
    /// `SendTaskHeartbeat`.
    Heartbeat {
        /// Whose task it is.
        token: TaskToken,
    },
    /// A timer that was started has run out.
    TimerFired {
        /// Which.
        timer: TimerId,
    },
    /// `StopExecution`.
    Stopped {
        /// The error's name, if one was given.
        error: Option<String>,
        /// Why, if that was said.
        cause: Option<String>,
    },
}

/// What is to be done outside, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make this call, and tell how it ended.
    Invoke(Invocation),
    /// Tell when this time has gone by.
    StartTimer {
        /// Which timer it is.
        timer: TimerId,
        /// From now on, in AWS's time.
        after: Duration,
    },
    /// Nobody waits for this timer any more.
    CancelTimer {
        /// Which.
        timer: TimerId,
    },
    /// Append this to the history.
    Record(HistoryEvent),
    /// The execution is over. Nothing follows.
    Finish(Outcome),
}

/// A call to make.
#[derive(Clone, PartialEq)]
pub struct Invocation {
    /// Which attempt it is.
    pub attempt: AttemptId,
    /// The state's name.
    pub state: String,
    /// What is called.
    pub resource: Resource,
    /// With which parameters. They hold the token, if there is one.
    pub parameters: Value,
    /// The token that ends the task, if the task waits for one.
    pub token: Option<TaskToken>,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("attempt", &self.attempt)
            .field("state", &self.state)
            .field("resource", &self.resource.arn())
            .finish_non_exhaustive()
    }
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// `SUCCEEDED`.
    Succeeded {
        /// The last state's output.
        output: Value,
    },
    /// `FAILED`.
    Failed(Failure),
    /// `TIMED_OUT`: the machine's own `TimeoutSeconds`.
    TimedOut(Failure),
    /// `ABORTED`: it was stopped.
    Aborted(Failure),
}
