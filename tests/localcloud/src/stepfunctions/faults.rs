//! Faults of the HTTP side as a script: which call, which time, what happens to it. Nothing here is left to chance.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::script::{FaultBuilder, Script};

/// The calls of the API that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are AWS's own")]
pub enum Operation {
    CreateStateMachine,
    DescribeExecution,
    DescribeStateMachine,
    GetExecutionHistory,
    ListExecutions,
    ListStateMachines,
    SendTaskFailure,
    SendTaskHeartbeat,
    SendTaskSuccess,
    StartExecution,
    StopExecution,
    UpdateStateMachine,
}

impl Operation {
    const ALL: [Self; 12] = [
        Self::CreateStateMachine,
        Self::DescribeExecution,
        Self::DescribeStateMachine,
        Self::GetExecutionHistory,
        Self::ListExecutions,
        Self::ListStateMachines,
        Self::SendTaskFailure,
        Self::SendTaskHeartbeat,
        Self::SendTaskSuccess,
        Self::StartExecution,
        Self::StopExecution,
        Self::UpdateStateMachine,
    ];

    /// Whether it is one of the three by which a worker answers for its task.
    #[must_use]
    pub fn is_callback(self) -> bool {
        matches!(self, Self::SendTaskFailure | Self::SendTaskHeartbeat | Self::SendTaskSuccess)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Operation {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|operation| operation.to_string() == name).ok_or(())
    }
}

/// What happens to a call that a fault was scripted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// 503 `ServiceUnavailable`; nothing is done.
    Unavailable,
    /// 400 `ThrottlingException`; nothing is done.
    Throttled,
    /// 400 `AccessDeniedException`: a permission is missing. Nothing is done.
    AccessDenied,
    /// The connection is dropped; nothing is done.
    HangUp,
    /// The call waits this long, then goes on as if nothing had been.
    Stall(Duration),
    /// The call is carried out, but the connection is dropped instead of an answer.
    LoseReply,
}

/// The script of faults. Everything takes effect at once; a client's retries are counted as calls.
#[derive(Debug, Default)]
pub struct Faults(Script<Operation, Effect>);

impl Faults {
    /// Begins a fault for one kind of call: by default the first such call from now on, once.
    pub fn on(&self, operation: Operation) -> FaultBuilder<'_, Operation, Effect> {
        self.0.on(operation)
    }

    /// Begins a fault for `SendTaskSuccess`, `SendTaskFailure` and `SendTaskHeartbeat`, counted together.
    pub fn on_callbacks(&self) -> FaultBuilder<'_, Operation, Effect> {
        self.0.on_each(|operation| operation.is_callback())
    }

    /// Forgets every fault.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// The faults which have not (or not often enough) struck, in words: a test asserts that there are none.
    #[must_use]
    pub fn unfired(&self) -> Vec<String> {
        self.0.unfired()
    }

    /// Counts the call against every fault, and answers what is to happen to it.
    pub(super) fn strike(&self, operation: Operation) -> Option<Effect> {
        self.0.strike(&operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_where_it_was_told() {
        let faults = Faults::default();
        faults.on_callbacks().nth(2).times(2).inject(Effect::HangUp);
        assert_eq!(faults.strike(Operation::SendTaskHeartbeat), None);
        assert_eq!(faults.strike(Operation::StartExecution), None);
        assert_eq!(faults.strike(Operation::SendTaskSuccess), Some(Effect::HangUp));
        assert_eq!(faults.unfired().len(), 1);
        assert_eq!(faults.strike(Operation::SendTaskFailure), Some(Effect::HangUp));
        assert_eq!(faults.strike(Operation::SendTaskFailure), None);
        assert!(faults.unfired().is_empty());
    }

    #[test]
    fn operations_are_known_by_name() {
        assert_eq!("SendTaskHeartbeat".parse(), Ok(Operation::SendTaskHeartbeat));
        assert_eq!("sendTaskHeartbeat".parse::<Operation>(), Err(()));
        for operation in Operation::ALL {
            assert_eq!(operation.to_string().parse(), Ok(operation));
        }
    }
}
