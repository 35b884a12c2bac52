//! What is counted of a drill that has ended, well or not.
//!
//! `DrillPassed` and `DrillFailed` are told every time, the one as 1 and the other as 0: an alarm on failures then has data as long as there are drills, and one on
//! drills that stay away has only to look for none.

use std::time::Duration;

use jiff::Timestamp;
use protocol::BackupId;
use serde::Serialize;

use crate::{Reply, error::Error, event::Outcome};

/// What a failure is called that came without a name.
const NAMELESS: &str = "(no name)";

/// Answer to `outcome`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recorded {
    /// Whether the drill passed.
    pub passed: bool,
    /// The backup, where one was chosen.
    pub backup_id: Option<BackupId>,
    /// What it failed with.
    pub failure: Option<String>,
    /// How long the execution has taken so far, in seconds.
    pub seconds: f64,
}

pub(super) fn record(event: Outcome, now: Timestamp) -> Result<Reply, Error> {
    let Outcome { drill, judged, failure, execution, started_at } = event;
    let took = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
    let judged = judged.verdict.is_some_and(|verdict| verdict.passed);
    // Without a failure and without a verdict nobody has proved anything.
    let passed = judged && failure.is_none();
    let failure = match failure {
        Some(failure) => Some(failure.error.unwrap_or_else(|| NAMELESS.to_owned())),
        None if passed => None,
        None => return Err(Error::NoOutcome { execution }),
    };
    let backup_id = drill.backup_id;
    tracing::info!(%execution, passed, failure, seconds = took.as_secs_f64(), "the drill has ended");
    let recorded = Recorded { passed, backup_id, failure, seconds: took.as_secs_f64() };
    let mut reply = Reply::to(&recorded)?
        .number("DrillPassed", u64::from(passed))
        .number("DrillFailed", u64::from(!passed))
        .seconds("DrillSeconds", took);
    if let Some(backup) = backup_id {
        reply = reply.property("BackupId", backup.to_string());
    }
    if let Some(failure) = recorded.failure {
        reply = reply.property("FailureKind", failure);
    }
    Ok(reply.property("Execution", execution.to_string()))
}
