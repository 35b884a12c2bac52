//! All that a backup asks of Qdrant, in one place: whether it is fit, rest, snapshots, and that these go again.

use std::{collections::BTreeSet, time::Duration};

use protocol::CollectionName;
use tracing::warn;

use super::{
    capture::{self, Captured},
    local::LocalSnapshots,
};
use crate::{
    config::SnapshotsDir, error::Error, progress::Phases, pulse::Phase, qdrant, quiesce, session::Session,
};

/// The Qdrant of this host, with the snapshots in it that are this program's.
pub(super) struct Source<'a> {
    session: &'a Session,
    qdrant: qdrant::Client,
    local: LocalSnapshots,
}

impl<'a> Source<'a> {
    /// Qdrant by the settings; asks it nothing yet. Its answers are marked in the pulse of `phases`.
    pub(super) fn open(session: &'a Session, phases: &Phases) -> Result<Self, Error> {
        let qdrant = session.qdrant()?.watched(phases.pulse().clone());
        let local = LocalSnapshots::open(&session.config.work_dir())?;
        Ok(Self { session, qdrant, local })
    }

    /// Whether it can be backed up; answers with its version.
    pub(super) async fn preflight(&self) -> Result<qdrant::Version, Error> {
        let version = self.qdrant.version().await?;
        version.check_supported()?;
        if self.qdrant.check_auth().await? == qdrant::Auth::Open {
            warn!("Qdrant answers calls without a key: whoever reaches it may read and delete everything");
        }
        self.qdrant.check_write().await?;
        if self.qdrant.metrics().await?.recovery_mode {
            let reasons = vec!["Qdrant runs in recovery mode, without its data".to_owned()];
            return Err(quiesce::Error::Unfit { reasons }.into());
        }
        Ok(version)
    }

    /// Waits until nothing is being written, at most `timeout`.
    pub(super) async fn at_rest(&self, timeout: Duration, phases: &mut Phases) -> Result<(), Error> {
        phases.enter(Phase::Quiesce);
        let standard = quiesce::Requirements::STANDARD;
        let interval = quiesce::POLL_INTERVAL / self.session.config.time_divisor();
        let wait = quiesce::wait(&self.qdrant, standard, timeout, interval, phases.pulse());
        Ok(self.session.unless_cancelled(wait).await??)
    }

    /// Takes the snapshots of `wanted` collections, all by default, and records what is known of them.
    pub(super) async fn capture(
        &mut self,
        wanted: Option<&BTreeSet<CollectionName>>,
        phases: &mut Phases,
    ) -> Result<Captured, Error> {
        let dir: SnapshotsDir = self.session.config.snapshots_dir()?;
        let capture = capture::capture(&self.qdrant, wanted, &dir, &mut self.local, phases);
        self.session.unless_cancelled(capture).await?
    }

    /// Removes the snapshots of the backup that runs. What cannot be removed is not what the backup failed for.
    pub(super) async fn discard(&mut self) {
        if let Err(error) = self.local.discard_run(&self.qdrant).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "snapshots of the failed backup stay on the disk"
            );
        }
    }

    /// Removes all but the newest `keep` snapshots of each collection. What cannot be removed now is tried again by the next backup, and is no
    /// reason to go without this one.
    pub(super) async fn tidy(&mut self, keep: usize) {
        if let Err(error) = self.local.rotate(&self.qdrant, keep).await {
            warn!(error = &error as &dyn std::error::Error, "local snapshots stay on the disk");
        }
    }
}
