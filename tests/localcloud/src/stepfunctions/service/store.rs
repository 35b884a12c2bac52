//! What the service remembers: machines, executions, and which execution a token is of.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::stepfunctions::asl::Definition;
use crate::stepfunctions::machine::{self, Failure, HistoryEvent, Supply, TaskToken, TimerId};

pub(super) struct Store {
    /// By ARN.
    pub(super) machines: BTreeMap<String, StateMachine>,
    /// By ARN.
    pub(super) runs: BTreeMap<String, Run>,
    /// Every token that was ever given out: a dead one is told from one that never was.
    pub(super) tokens: HashMap<TaskToken, String>,
    /// In the order in which they were started.
    pub(super) started: Vec<String>,
    pub(super) supply: Box<dyn Supply + Send>,
}

/// A state machine.
#[derive(Debug, Clone, PartialEq)]
pub struct StateMachine {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// The role it runs under.
    pub role_arn: String,
    /// Its definition, as it was given.
    pub definition_text: String,
    /// Its definition, as it was read.
    pub definition: Arc<Definition>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Changes with each update.
    pub revision: u64,
}

/// An execution, as `DescribeExecution` and `GetExecutionHistory` show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// The machine's ARN.
    pub state_machine_arn: String,
    /// How it is with it.
    pub status: Status,
    /// Its input, as it was given.
    pub input: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Its output, if it succeeded.
    pub output: Option<Value>,
    /// Why it did not succeed; empty if it did, or has not ended.
    pub failure: Failure,
}

/// How it is with an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It runs.
    Running,
    /// It has an output.
    Succeeded,
    /// A state failed, and nothing caught it.
    Failed,
    /// The machine's own `TimeoutSeconds` ran out.
    TimedOut,
    /// It was stopped.
    Aborted,
}

impl Status {
    const ALL: [Self; 5] = [Self::Running, Self::Succeeded, Self::Failed, Self::TimedOut, Self::Aborted];
}

/// As the API writes it: `TIMED_OUT`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Aborted => "ABORTED",
        })
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.to_string() == text).ok_or(())
    }
}

/// An execution with all that keeps it going.
pub(super) struct Run {
    pub(super) shown: Execution,
    pub(super) history: Vec<HistoryEvent>,
    pub(super) machine: machine::Execution,
    pub(super) timers: HashMap<TimerId, AbortHandle>,
}

impl Store {
    pub(super) fn new(supply: Box<dyn Supply + Send>) -> Self {
        Self {
            machines: BTreeMap::new(),
            runs: BTreeMap::new(),
            tokens: HashMap::new(),
            started: Vec::new(),
            supply,
        }
    }
}
