//! What was asked of SSM: the name of each call, and the log of calls that tests make assertions about.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

macro_rules! operations {
    ($($name:ident),+ $(,)?) => {
        /// An operation of the API, by AWS's own name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are AWS's and documented there")]
        pub enum Operation {
            $($name,)+
        }

        impl Operation {
            /// AWS's name of the operation.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$name => stringify!($name),)+
                }
            }

            /// The operation of that name, if it is served here.
            pub(super) fn parse(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Operation::$name),)+
                    _ => None,
                }
            }
        }
    };
}

operations! {
    SendCommand, GetCommandInvocation, ListCommandInvocations, ListCommands, CancelCommand, DescribeInstanceInformation,
    CreateDocument, DescribeDocument, GetDocument,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One call, in the order in which they ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What was asked for.
    pub operation: Operation,
    /// The request.
    pub body: Value,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered,
    /// With this error.
    Refused(String),
    /// It was carried out, and the answer was lost.
    ReplyLost,
}

/// All calls so far.
#[derive(Debug, Default)]
pub(super) struct CallLog(Mutex<Vec<Call>>);

impl CallLog {
    pub(super) fn add(&self, call: Call) {
        self.calls().push(call);
    }

    pub(super) fn snapshot(&self) -> Vec<Call> {
        self.calls().clone()
    }

    pub(super) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls())
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
