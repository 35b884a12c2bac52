//! Bringing collections back one by one, and undoing it when one fails.

use protocol::{CollectionName, Manifest};
use tracing::{info, warn};
use transfer::{ArchiveRef, FrameIndex};

use super::{
    options,
    plan::{Plan, Target},
    stage::Stage,
};
use crate::{
    cli::RestoreArgs,
    config::SnapshotsDir,
    error::Error,
    progress::Phases,
    qdrant::{self, Checksum},
    session::Session,
};

/// A restore that is under way, and what it has done so far.
pub(super) struct BringBack<'a> {
    session: &'a Session,
    args: &'a RestoreArgs,
    manifest: &'a Manifest,
    index: &'a FrameIndex,
    qdrant: &'a qdrant::Client,
    /// Collections that were not there before.
    made: Vec<CollectionName>,
    /// Collections that took the place of others, whole.
    replaced: Vec<CollectionName>,
    /// Collections that were deleted, and whose successor did not come up.
    lost: Vec<CollectionName>,
}

impl<'a> BringBack<'a> {
    pub(super) fn new(
        session: &'a Session,
        args: &'a RestoreArgs,
        manifest: &'a Manifest,
        index: &'a FrameIndex,
        qdrant: &'a qdrant::Client,
    ) -> Self {
        Self {
            session,
            args,
            manifest,
            index,
            qdrant,
            made: Vec::new(),
            replaced: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Downloads, proves and recovers one collection after the other.
    pub(super) async fn run(
        &mut self,
        plan: &Plan,
        dir: &SnapshotsDir,
        phases: &mut Phases,
    ) -> Result<(), Error> {
        let stage = Stage::create(dir)?;
        let mut result = Ok(());
        for target in &plan.targets {
            result = if self.session.cancel.is_cancelled() {
                Err(Error::Cancelled)
            } else {
                self.one(target, &stage, phases).await
            };
            if result.is_err() {
                break;
            }
        }
        if let Err(error) = stage.release() {
            warn!(error = &error as &dyn std::error::Error, "the restore's staging directory stays");
        }
        result
    }

    async fn one(&mut self, target: &Target, stage: &Stage, phases: &mut Phases) -> Result<(), Error> {
        let record = &self.manifest.collections[target.record];
        let checksum: Checksum = record
            .sha256
            .parse()
            .map_err(|source| Error::Setting { name: "the snapshot's checksum", source: Box::new(source) })?;

        phases.enter("download");
        phases.detail(target.name.as_str());
        let staged = stage.file(target.record)?;
        let options = options(self.session, self.args)?;
        let progress = options.progress.clone();
        let key = self.manifest.key.to_string();
        let wanted = [(target.entry, staged.host.clone())];
        let archive = ArchiveRef::of(self.manifest, &key);
        let (objects, _rate) = self.session.limited(self.args.bandwidth_limit);
        let download = transfer::restore_entries(&objects, archive, self.index, &wanted, options);
        phases.follow(&progress, download).await?;
        stage.hand_over(&staged)?;

        phases.enter("recover");
        phases.detail(target.name.as_str());
        self.make_way(target).await?;
        let recovered = self.qdrant.recover(&target.name, &staged.location, &checksum).await;
        match (&recovered, target.replaces) {
            // Refused before anything was touched.
            (Err(qdrant::Error::TargetIsAlias { .. } | qdrant::Error::RecoveryRunning { .. }), false) => {}
            (_, false) => self.made.push(target.name.clone()),
            (Ok(_), true) => {
                self.lost.pop();
                self.replaced.push(target.name.clone());
            }
            (Err(_), true) => self.made.push(target.name.clone()),
        }
        recovered?;
        if let Err(error) = stage.discard(&staged) {
            warn!(error = &error as &dyn std::error::Error, "a staged snapshot stays until the restore ends");
        }
        Ok(())
    }

    /// Deletes what a person said may be replaced, and not before the proved snapshot is on the disk. What came up under the name since the
    /// plan was made is somebody's data.
    async fn make_way(&mut self, target: &Target) -> Result<(), Error> {
        if target.replaces {
            self.lost.push(target.name.clone());
            self.qdrant.delete_collection(&target.name).await?;
        } else if self.qdrant.collections().await?.contains(&target.name) {
            let what = format!("collection `{}` was created while its backup was downloaded", target.name);
            return Err(Error::InTheWay { what });
        }
        Ok(())
    }

    /// Removes what was made, and says what cannot be undone; answers with the failure to tell.
    pub(super) async fn undo(self, failure: Error) -> Error {
        let mut remains = Vec::new();
        for name in &self.made {
            let deleted = self.qdrant.delete_collection(name).await;
            // A recovery that failed early has made nothing.
            let absent = async || self.qdrant.collections().await.is_ok_and(|there| !there.contains(name));
            match deleted {
                Err(error) if !absent().await => {
                    warn!(collection = %name, error = &error as &dyn std::error::Error, "a half-restored collection stays");
                    remains.push(format!("collection `{name}` is half restored and could not be removed"));
                }
                Ok(()) | Err(_) => info!(collection = %name, "half-restored collection removed"),
            }
        }
        remains.extend(
            self.replaced.iter().map(|name| format!("collection `{name}` was replaced by the backup's")),
        );
        remains
            .extend(self.lost.iter().map(|name| format!("collection `{name}` was deleted and is not back")));
        if remains.is_empty() { failure } else { Error::NotUndone { remains, source: Box::new(failure) } }
    }
}
