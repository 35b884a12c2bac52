//! What a task does: the port, and what it comes to when it fails.

use std::any::Any;

use protocol::{Envelope, FailureKind, failure::panic_text};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::watch::Stop;
use crate::{error::Error, lock::HostLock, output::on_one_line, pulse::Pulse};

/// Does the work of a task.
pub trait Work {
    /// Does it while the caller holds the host's lock, marking progress, until it is done or `cancel` asks to put away what is in hand.
    fn run(
        &self,
        envelope: &Envelope,
        lock: &HostLock,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Value, Failure>>;
}

/// Why a task failed, as Step Functions is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What programs branch on.
    pub kind: FailureKind,
    /// One line for a person: what failed, on what, why, and what to do.
    pub cause: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut cause = on_one_line(error);
        if let Some(hint) = error.hint() {
            cause += "; hint: ";
            cause += &hint;
        }
        Self { kind: error.kind(), cause }
    }
}

impl Failure {
    /// The work panicked.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic_text(panic);
        let cause = format!("a fault of this program: {text}; hint: report it with the host's log");
        Self { kind: FailureKind::Internal, cause }
    }

    /// The work was stopped because nothing moved.
    pub(super) fn stalled(stop: &Stop) -> Self {
        let hint = "look at what this phase waits for on the host: Qdrant, the bucket, the disk";
        Self { kind: FailureKind::Stalled, cause: format!("{stop}; hint: {hint}") }
    }
}
