//! What can go wrong with calls and with instances, as a script.

use std::fmt;
use std::str::FromStr;

use crate::script::{FaultBuilder, Script};

/// The calls that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are AWS's own")]
pub enum Operation {
    RunInstances,
    DescribeInstances,
    TerminateInstances,
}

impl FromStr for Operation {
    type Err = ();

    /// As a state machine names it: `runInstances`.
    fn from_str(action: &str) -> Result<Self, ()> {
        Ok(match action {
            "runInstances" => Self::RunInstances,
            "describeInstances" => Self::DescribeInstances,
            "terminateInstances" => Self::TerminateInstances,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `InsufficientInstanceCapacity`; nothing is done.
    NoCapacity,
    /// `RequestLimitExceeded`; nothing is done.
    Throttled,
    /// `UnauthorizedOperation`: a permission is missing. Nothing is done.
    Denied,
    /// `OperationNotPermitted`, as for an instance with termination protection; nothing is done.
    Protected,
    /// The call is carried out, and its answer is lost: the caller hears that the connection broke.
    LoseReply,
    /// The call is carried out, and its answer never comes.
    Hang,
}

/// What becomes of an instance that is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays `pending`.
    StaysPending,
    /// It is `terminated` out of `pending`, as when a volume cannot be made.
    DiesPending,
    /// It runs, and its agent is never online.
    NeverOnline,
}

/// The script of a stand-in's faults.
#[derive(Debug, Default)]
pub struct Faults {
    pub(super) calls: Script<Operation, Effect>,
    pub(super) fates: Script<String, Fate>,
}

impl Faults {
    /// Begins a fault for calls of one operation.
    pub fn on(&self, operation: Operation) -> FaultBuilder<'_, Operation, Effect> {
        self.calls.on(operation)
    }

    /// Begins a fate of instances, whatever they are launched from.
    pub fn on_launch(&self) -> FaultBuilder<'_, String, Fate> {
        self.fates.on_any()
    }

    /// Forgets every fault.
    pub fn clear(&self) {
        self.calls.clear();
        self.fates.clear();
    }

    /// The faults which have not (or not often enough) struck, in words.
    #[must_use]
    pub fn unfired(&self) -> Vec<String> {
        [self.calls.unfired(), self.fates.unfired()].concat()
    }
}
