//! Commands and their invocations, and the states that AWS knows for them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::parameters::Values;

/// Where an invocation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet delivered to the agent.
    Pending,
    /// The script runs.
    InProgress,
    /// The script ended with 0.
    Success,
    /// The script ended with something else.
    Failed,
    /// It was cancelled before it had ended.
    Cancelled,
    /// It is to be cancelled.
    Cancelling,
    /// It was not delivered in time, or nothing was heard of it any more.
    DeliveryTimedOut,
    /// The script ran too long.
    ExecutionTimedOut,
    /// The agent could not be reached.
    Undeliverable,
}

impl State {
    /// AWS's `Status`.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Success => "Success",
            Self::Failed | Self::Undeliverable => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Cancelling => "Cancelling",
            Self::DeliveryTimedOut | Self::ExecutionTimedOut => "TimedOut",
        }
    }

    /// AWS's `StatusDetails`.
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            Self::DeliveryTimedOut => "DeliveryTimedOut",
            Self::ExecutionTimedOut => "ExecutionTimedOut",
            Self::Undeliverable => "Undeliverable",
            Self::Pending
            | Self::InProgress
            | Self::Success
            | Self::Failed
            | Self::Cancelled
            | Self::Cancelling => self.status(),
        }
    }

    /// Whether it can change no more.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::InProgress | Self::Cancelling)
    }
}

/// One command on one host, as the service knows it.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The host.
    pub instance_id: String,
    /// Where it stands.
    pub state: State,
    /// The exit code; -1 before there is one.
    pub response_code: i32,
    /// The first 24000 bytes of what the script said.
    pub stdout: String,
    /// The first 8000 bytes of what it said on the other channel, and what the agent added.
    pub stderr: String,
    /// When the script was started.
    pub started: Option<Timestamp>,
    /// When it had ended.
    pub ended: Option<Timestamp>,
    /// Every start of the script on the host: more than one after a reboot, or when it was delivered twice.
    pub runs: Vec<Run>,
    pub(super) cancel: CancellationToken,
    /// How many calls still do not see it.
    pub(super) unseen: u32,
}

/// One start of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// When.
    pub started: Timestamp,
    /// Its exit code; `None` while it runs and when a signal ended it.
    pub exit_code: Option<i32>,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its id, a UUID.
    pub id: String,
    /// The document's name.
    pub document: String,
    /// The document's version.
    pub version: u64,
    /// What the caller wrote beside it.
    pub comment: String,
    /// The parameters that were given, in plain text: every reader of the account's commands sees them.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// When it was sent.
    pub requested: Timestamp,
    /// In seconds: not started by then, it is not run at all.
    pub timeout_seconds: u64,
    /// Its invocations.
    pub invocations: Vec<Invocation>,
    pub(super) execution_timeout: u64,
    pub(super) instance_ids: Vec<String>,
    pub(super) targets: serde_json::Value,
    pub(super) step: String,
    pub(super) max_concurrency: String,
    pub(super) max_errors: String,
    pub(super) cancel_requested: bool,
}

/// Where a command stands as a whole: `Status` and `StatusDetails`.
pub(super) type Whole = (&'static str, &'static str);

impl Command {
    /// What the invocations come to.
    pub(super) fn state(&self) -> Whole {
        let states = || self.invocations.iter().map(|invocation| invocation.state);
        if self.invocations.is_empty() {
            return ("Success", "NoInstancesInTag");
        }
        if !states().all(State::is_final) {
            let state = if self.cancel_requested {
                State::Cancelling
            } else if states().all(|state| state == State::Pending) {
                State::Pending
            } else {
                State::InProgress
            };
            return (state.status(), state.details());
        }
        let worst = [
            State::Failed,
            State::Undeliverable,
            State::ExecutionTimedOut,
            State::DeliveryTimedOut,
            State::Cancelled,
        ];
        let state = worst.into_iter().find(|&bad| states().any(|state| state == bad));
        let state = state.unwrap_or(State::Success);
        (state.status(), state.details())
    }

    /// How many invocations are in one of these states.
    pub(super) fn count(&self, which: impl Fn(State) -> bool) -> usize {
        self.invocations.iter().filter(|invocation| which(invocation.state)).count()
    }

    /// When the service gives the command up.
    pub(super) fn expires(&self) -> Timestamp {
        let whole = Duration::from_secs(self.timeout_seconds.saturating_add(self.execution_timeout));
        self.requested.checked_add(whole).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn invocation(&self, instance_id: &str) -> Option<&Invocation> {
        self.invocations.iter().find(|invocation| invocation.instance_id == instance_id)
    }

    pub(super) fn invocation_mut(&mut self, instance_id: &str) -> Option<&mut Invocation> {
        self.invocations.iter_mut().find(|invocation| invocation.instance_id == instance_id)
    }
}

impl Invocation {
    pub(super) fn new(instance_id: String, unseen: u32) -> Self {
        Self {
            instance_id,
            state: State::Pending,
            response_code: -1,
            stdout: String::new(),
            stderr: String::new(),
            started: None,
            ended: None,
            runs: Vec::new(),
            cancel: CancellationToken::new(),
            unseen,
        }
    }
}

/// A command on its way to one host.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) command_id: String,
    pub(super) values: Values,
    pub(super) timeout_seconds: u64,
    pub(super) cancel: CancellationToken,
}
