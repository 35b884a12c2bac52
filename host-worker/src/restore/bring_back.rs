//! Bringing collections back one by one, and undoing it when one fails.

use std::collections::BTreeMap;

use protocol::{CollectionName, FailureKind, Manifest};
use tracing::{info, warn};
use transfer::{ArchiveRef, FrameIndex};

use super::{
    JournalAfterwards,
    journal::{Asked, Journal, Step},
    options,
    plan::{Place, Plan, Target},
    stage::{Stage, Staged},
};
use crate::{
    cli::RestoreArgs,
    config::SnapshotsDir,
    error::Error,
    progress::Phases,
    pulse::Phase,
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
    journal: Journal,
    /// What this restore, in this run or an earlier one, has done under each name.
    done: BTreeMap<CollectionName, Done>,
    /// Collections whose recovery Qdrant was asked for and did not answer, as when it dies of it.
    pub(super) unconfirmed: Vec<CollectionName>,
    /// Bytes of snapshots that did not have to be fetched, because an earlier run had them.
    pub(super) kept_bytes: u64,
}

/// What has become of a name in Qdrant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// An earlier run made a collection where none was, and it is as recorded. Somebody may use it by now.
    Kept,
    /// A collection was made where none was, whole or half.
    Made,
    /// A collection took the place of another one, whole.
    Replaced,
    /// A collection was deleted, and there is no successor.
    Lost,
    /// A collection was deleted, and its successor is half there.
    HalfReplaced,
}

impl<'a> BringBack<'a> {
    pub(super) fn new(
        session: &'a Session,
        args: &'a RestoreArgs,
        manifest: &'a Manifest,
        index: &'a FrameIndex,
        qdrant: &'a qdrant::Client,
        journal: Journal,
    ) -> Self {
        Self {
            session,
            args,
            manifest,
            index,
            qdrant,
            journal,
            done: BTreeMap::new(),
            unconfirmed: Vec::new(),
            kept_bytes: 0,
        }
    }

    /// Downloads, proves and recovers one collection after the other, but for those that an earlier run has brought back.
    pub(super) async fn run(
        &mut self,
        plan: &Plan,
        dir: &SnapshotsDir,
        phases: &mut Phases,
    ) -> Result<(), Error> {
        self.take_over(plan);
        self.journal.begin()?;
        let stage = Stage::open(dir, self.manifest.backup_id, &self.manifest.archive.frames_root)?;
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
        match &result {
            // Bytes that are proved, or will be: the next run need not fetch them again.
            Err(error) if error.kind().is_transient() || error.kind() == FailureKind::Cancelled => {
                stage.keep()
            }
            Ok(()) | Err(_) => {
                if let Err(error) = stage.release() {
                    warn!(error = &error as &dyn std::error::Error, "the restore's staging directory stays");
                }
            }
        }
        result
    }

    /// Counts what an earlier run has done as done by this one.
    fn take_over(&mut self, plan: &Plan) {
        for target in &plan.targets {
            let replaces = self.journal.asked(&target.name).is_some_and(|asked| asked.replaces);
            let done = match (target.place, replaces) {
                (Place::Done, false) => Done::Kept,
                (Place::Done, true) => Done::Replaced,
                (Place::Free, true) => Done::Lost,
                (Place::Taken, _) | (Place::Free, false) => continue,
            };
            self.done.insert(target.name.clone(), done);
        }
    }

    async fn one(&mut self, target: &Target, stage: &Stage, phases: &mut Phases) -> Result<(), Error> {
        let record = &self.manifest.collections[target.record];
        let checksum: Checksum = record
            .sha256
            .parse()
            .map_err(|source| Error::Setting { name: "the snapshot's checksum", source: Box::new(source) })?;

        let staged = stage.file(target.record)?;
        if target.place == Place::Done {
            self.kept_bytes += record.size_bytes;
            discard(stage, &staged);
            return Ok(());
        }
        phases.enter(Phase::Download);
        phases.detail(target.name.as_str());
        let options = options(self.session, self.args)?;
        let progress = options.progress.clone();
        let key = self.manifest.key.to_string();
        let wanted = [(target.entry, staged.host.clone())];
        let archive = ArchiveRef::of(self.manifest, &key);
        let (objects, _rate) = self.session.limited(self.args.bandwidth_limit);
        let download = transfer::restore_entries(&objects, archive, self.index, &wanted, options);
        let restored = phases.follow(&progress, download).await?;
        if restored.kept_bytes > 0 {
            info!(collection = %target.name, kept_bytes = restored.kept_bytes, fetched_bytes = restored.object_bytes, "went on from an earlier download");
        }
        self.kept_bytes += restored.kept_bytes;
        stage.hand_over(&staged)?;

        phases.enter(Phase::Recover);
        phases.detail(target.name.as_str());
        self.make_way(target).await?;
        let replaces = self.done.contains_key(&target.name);
        self.journal.note(&target.name, Asked { step: Step::Recover, replaces })?;
        let recovery = self.qdrant.recover(&target.name, &staged.location, &checksum);
        // Qdrant goes on without us; the next run waits for it.
        let recovered = self.session.unless_cancelled(recovery).await?;
        let done = match (&recovered, replaces) {
            // Refused before anything was touched.
            (Err(qdrant::Error::TargetIsAlias { .. } | qdrant::Error::RecoveryRunning { .. }), false) => None,
            (_, false) => Some(Done::Made),
            (Ok(_), true) => Some(Done::Replaced),
            (Err(_), true) => Some(Done::HalfReplaced),
        };
        if let Some(done) = done {
            self.done.insert(target.name.clone(), done);
        }
        if recovered? == qdrant::Recovery::Unconfirmed {
            self.unconfirmed.push(target.name.clone());
        }
        self.journal.note(&target.name, Asked { step: Step::Recovered, replaces })?;
        discard(stage, &staged);
        Ok(())
    }

    /// Deletes what a person said may be replaced, and not before the proved snapshot is on the disk. What came up under the name since the
    /// plan was made is somebody's data.
    async fn make_way(&mut self, target: &Target) -> Result<(), Error> {
        if target.place == Place::Taken {
            self.journal.note(&target.name, Asked { step: Step::Delete, replaces: true })?;
            self.done.insert(target.name.clone(), Done::Lost);
            // Qdrant ends what it was asked for, whoever still waits for it.
            self.session.unless_cancelled(self.qdrant.delete_collection(&target.name)).await??;
        } else if self.qdrant.collections().await?.contains(&target.name) {
            let what = format!("collection `{}` was created while its backup was downloaded", target.name);
            return Err(Error::InTheWay { what });
        }
        Ok(())
    }

    /// Ends the restore before its end, and answers with the failure to tell. A failure is undone. A restore that was asked to stop has not
    /// failed: everything stays for the next run of it.
    pub(super) async fn give_up(self, failure: Error) -> Error {
        if failure.kind() != FailureKind::Cancelled {
            return self.undo(failure).await;
        }
        let done = self.done.iter().map(|(name, done)| match done {
            Done::Kept | Done::Made => format!("collection `{name}` is restored"),
            Done::Replaced => replaced(name),
            Done::Lost | Done::HalfReplaced => lost(name),
        });
        let recovering =
            self.journal.recovering().map(|name| format!("Qdrant may still be recovering `{name}`"));
        Error::Stopped { kept: done.chain(recovering).collect() }
    }

    /// Ends the restore after its end: nobody has to go on from it.
    pub(super) fn end(self, afterwards: JournalAfterwards) {
        match afterwards {
            JournalAfterwards::Goes => self.journal.end(),
            JournalAfterwards::Stays => {}
        }
    }

    /// Removes what was made, and says what cannot be undone.
    async fn undo(self, failure: Error) -> Error {
        let mut remains = Vec::new();
        let mut goes_on = false;
        // If nobody can say what readers use, nothing can be deleted either.
        let aliases = self.qdrant.aliases().await;
        for (name, done) in &self.done {
            match done {
                Done::Replaced => remains.push(replaced(name)),
                Done::Lost => remains.push(lost(name)),
                Done::Kept => {
                    remains.push(format!("collection `{name}`, which an earlier run restored, stays"));
                    goes_on = true;
                }
                Done::Made | Done::HalfReplaced => {
                    let Ok(aliases) = &aliases else {
                        remains.push(format!(
                            "collection `{name}` stays, for nobody could say whether an alias is on it"
                        ));
                        if *done == Done::HalfReplaced {
                            remains.push(lost(name));
                        }
                        goes_on = true;
                        continue;
                    };
                    if let Some((alias, _)) = aliases.iter().find(|(_, target)| *target == name) {
                        remains.push(format!(
                            "collection `{name}` stays, for somebody has put the alias `{alias}` on it"
                        ));
                    } else if !self.remove(name).await {
                        remains
                            .push(format!("collection `{name}` is half restored and could not be removed"));
                        goes_on = true;
                    }
                    if *done == Done::HalfReplaced {
                        remains.push(lost(name));
                    }
                }
            }
        }
        if !goes_on {
            self.journal.end();
        }
        if remains.is_empty() { failure } else { Error::NotUndone { remains, source: Box::new(failure) } }
    }

    /// Removes a collection that was made, and says whether it is gone.
    async fn remove(&self, name: &CollectionName) -> bool {
        if let Err(error) = self.qdrant.delete_collection(name).await {
            // A recovery that failed early has made nothing.
            let absent = self.qdrant.collections().await.is_ok_and(|there| !there.contains(name));
            if !absent {
                warn!(collection = %name, error = &error as &dyn std::error::Error, "a half-restored collection stays");
                return false;
            }
        }
        info!(collection = %name, "half-restored collection removed");
        true
    }
}

fn discard(stage: &Stage, staged: &Staged) {
    if let Err(error) = stage.discard(staged) {
        warn!(error = &error as &dyn std::error::Error, "a staged snapshot stays until the restore ends");
    }
}

fn replaced(name: &CollectionName) -> String {
    format!("collection `{name}` was replaced by the backup's")
}

fn lost(name: &CollectionName) -> String {
    format!("collection `{name}` was deleted and is not back")
}
