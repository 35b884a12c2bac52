//! What a worker's answer to a drill is worth.

use std::time::Duration;

use protocol::{BackupId, task::Drilled, verdict::Check};
use serde::Serialize;

use crate::{Reply, error::Error};

/// How many failed comparisons are named in an error.
const NAMED: usize = 5;

/// Answer to `verdict`, where nothing is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Passed {
    /// The backup that was restored.
    pub backup_id: BackupId,
    /// Always true: the other case is an error.
    pub passed: bool,
    /// Comparisons made.
    pub checks: u64,
    /// How long the restore and the comparison took, in seconds.
    pub seconds: f64,
}

pub(super) fn judge(drilled: &Drilled) -> Result<Reply, Error> {
    let Drilled { backup_id, passed, checks, failed, report, timings } = drilled;
    let backup_id = *backup_id;
    if !passed || !failed.is_empty() {
        return Err(Error::NotProved {
            backup: backup_id,
            failed: with_report(named(failed), report.as_deref()),
        });
    }
    if *checks == 0 {
        let failed = vec!["no comparison was made, which proves nothing".to_owned()];
        return Err(Error::NotProved { backup: backup_id, failed });
    }
    let seconds: f64 = timings.iter().map(|timing| timing.seconds).sum();
    tracing::info!(backup = %backup_id, checks, seconds, "the restore is what was recorded");
    let reply = Reply::to(&Passed { backup_id, passed: true, checks: *checks, seconds })?;
    let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(reply.number("DrillChecks", *checks).seconds("RestoreSeconds", took))
}

/// What a person reads next, after the first few comparisons.
fn with_report(mut named: Vec<String>, report: Option<&str>) -> Vec<String> {
    named.extend(report.map(|key| format!("all of it is in `{key}`")));
    named
}

fn named(failed: &[Check]) -> Vec<String> {
    if failed.is_empty() {
        return vec!["the host does not say which comparisons failed".to_owned()];
    }
    let mut named: Vec<String> = failed.iter().take(NAMED).map(line).collect();
    if failed.len() > NAMED {
        named.push(format!("and {} more", failed.len() - NAMED));
    }
    named
}

fn line(check: &Check) -> String {
    let aspect = check.aspect.name();
    match &check.collection {
        Some(collection) => format!("{aspect} of collection `{collection}`: {}", check.detail),
        None => format!("{aspect}: {}", check.detail),
    }
}
