//! The work itself: what each kind of task does on a real host.

use jiff::Timestamp;
use protocol::{Envelope, TaskKind, task::Drilled};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::work::{Failure, Work};
use crate::{
    backup::workflow,
    cli::{RestoreArgs, Selection},
    config::{Config, HostRole},
    error::Error,
    lock::HostLock,
    progress::{Display, Phases},
    pulse::Pulse,
    restore::{self, RestoreResult},
    session::Session,
};

/// A real host's work, by its settings.
#[derive(Clone, Debug)]
pub struct Job {
    config: Config,
}

impl Job {
    /// The work of the host with these settings.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    async fn done(
        &self,
        envelope: &Envelope,
        lock: &HostLock,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> Result<Value, Error> {
        let session = Session::open(self.config.clone(), cancel.clone()).await?;
        let phases = Phases::watched(Display::Log, pulse.clone());
        let mut args = self.config.task_backup_args().clone();
        args.collections.clone_from(&envelope.collections);
        match envelope.task.kind {
            TaskKind::Quiesce => {
                output(&workflow::quiesced(&session, lock, envelope.task.backup, &args, phases).await?)
            }
            TaskKind::Backup => {
                let now = Timestamp::now();
                output(&workflow::stored(&session, lock, envelope.task.backup, &args, phases, now).await?)
            }
            TaskKind::Drill => output(&drilled(lock, &session, envelope, phases).await?),
        }
    }
}

impl Work for Job {
    async fn run(
        &self,
        envelope: &Envelope,
        lock: &HostLock,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> Result<Value, Failure> {
        self.done(envelope, lock, pulse, cancel).await.map_err(|error| Failure::from(&error))
    }
}

fn output<T: Serialize>(output: &T) -> Result<Value, Error> {
    serde_json::to_value(output)
        .map_err(|source| Error::Local { what: "write the task's output".to_owned(), source: source.into() })
}

/// Restores a backup into the empty Qdrant of a staging host and compares it. That it is not what was recorded is a result, not a failure of the drill.
async fn drilled(
    lock: &HostLock,
    session: &Session,
    envelope: &Envelope,
    phases: Phases,
) -> Result<Drilled, Error> {
    if session.config.host_role() != HostRole::Staging {
        return Err(Error::NotForDrills);
    }
    let args = RestoreArgs {
        selection: Selection { backup: Some(envelope.task.backup), before: None },
        collections: envelope.collections.clone(),
        suffix: None,
        switch_alias: false,
        replace: false,
        fallback: false,
        unproved: false,
        concurrency: None,
        bandwidth_limit: None,
        nice: 0,
    };
    let (verdict, timings) = match restore::restore_under(lock, session, &args, phases).await {
        Ok(RestoreResult { verdict, timings, .. }) => (verdict, timings),
        Err(Error::NotAsRecorded { verdict, .. }) => (*verdict, Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(Drilled {
        backup_id: envelope.task.backup,
        passed: verdict.passed,
        checks: verdict.checks.len() as u64,
        failed: verdict.failures().take(Drilled::MAX_FAILED).cloned().collect(),
        timings,
    })
}
