//! The work itself: what each kind of task does on a real host.

use jiff::Timestamp;
use protocol::{Envelope, TaskKind};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::work::{Failure, Work};
use crate::{
    backup::workflow,
    config::Config,
    drill,
    error::Error,
    lock::HostLock,
    progress::{Display, Phases},
    pulse::Pulse,
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
            TaskKind::Drill => {
                let now = Timestamp::now();
                output(&drill::drill(lock, &session, envelope, phases, now).await?)
            }
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
