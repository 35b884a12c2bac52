//! A backup that is under way, whoever asked for it: from pre-flight to an archive that is stored and a manifest that waits.

use std::collections::BTreeSet;

use catalog::{PublishPolicy, Published};
use jiff::Timestamp;
use protocol::{BackupId, CollectionName, Manifest, SuccessMarker};
use tracing::{info, warn};

use super::{
    capture,
    order::Order,
    pack::{self, Packed},
    preflight::preflight,
    source::Source,
    unfinished::{Prepared, Today, Unfinished},
    waiting::{self, Waiting},
};
use crate::{error::Error, progress::Phases, pulse::Phase, session::Session};

/// A backup that is under way.
pub(super) struct Run<'a> {
    session: &'a Session,
    order: &'a Order,
    source: Source<'a>,
    version: String,
    today: Today,
    pub(super) unfinished: Unfinished,
    pub(super) phases: Phases,
    /// Whether an earlier run has captured what is stored.
    pub(super) resumed: bool,
}

impl<'a> Run<'a> {
    /// Looks at what can be known to fail before anything is written. Whoever calls holds the host's lock.
    pub(super) async fn begin(
        session: &'a Session,
        order: &'a Order,
        mut phases: Phases,
        now: Timestamp,
    ) -> Result<Self, Error> {
        phases.enter(Phase::PreFlight);
        let work_dir = session.config.work_dir();
        let source = Source::open(session, &phases)?;
        let version = preflight(session, &source).await?.to_string();
        let marker = success_marker(session).await?;
        let today = Today::new(session, order, marker, now)?;
        let unfinished = Unfinished::of(&work_dir);
        let needed: Vec<BackupId> = order.id.into_iter().chain(unfinished.id()).collect();
        waiting::sweep(session, &needed).await?;
        Ok(Self { session, order, source, version, today, unfinished, phases, resumed: false })
    }

    /// Stores an archive: the one that an earlier run has left unfinished, or one of today's data.
    pub(super) async fn stored(&mut self) -> Result<Packed, Error> {
        let left = self.unfinished.take_up(self.session, self.order.fresh, &self.today).await;
        let prepared = match left {
            Some(left) => {
                let Prepared { description, .. } = &left;
                self.phases.tell(&format!(
                    "going on with backup {} of {}, which was interrupted; --fresh begins anew",
                    description.backup_id, description.created_at
                ));
                self.resumed = true;
                left
            }
            None => Box::pin(self.prepared()).await?,
        };
        // Boxed: the future of a whole upload is too large for the stack of a runtime's thread when it is nested as deep as here.
        match Box::pin(self.store(&prepared)).await {
            Err(Error::Transfer(error)) if prepared.resumed && is_lost(&error) => {
                warn!(
                    error = &*error as &dyn std::error::Error,
                    "an interrupted backup is given up: beginning anew"
                );
                self.resumed = false;
                let prepared = Box::pin(self.prepared()).await?;
                Box::pin(self.store(&prepared)).await
            }
            result => result,
        }
    }

    /// Captures today's data and keeps on this host what is needed to store it.
    async fn prepared(&mut self) -> Result<Prepared, Error> {
        self.source.tidy(self.order.keep_local).await;
        if let Some(timeout) = self.order.quiesce {
            self.source.at_rest(timeout, &mut self.phases).await?;
        }
        let prepared = self.captured().await;
        if prepared.is_err() {
            // Nothing is stored, so the snapshots serve nobody.
            self.source.discard().await;
        }
        prepared
    }

    async fn captured(&mut self) -> Result<Prepared, Error> {
        let Self { session, order, source, today, phases, .. } = self;
        let started = Started::of(order, today)?;
        let wanted: Option<BTreeSet<CollectionName>> =
            order.is_partial().then(|| order.collections.iter().cloned().collect());
        let captured = source.capture(wanted.as_ref(), phases).await?;
        warn_of_marker(today.marker.as_ref(), &captured);
        let (request, marker) = (today.request.clone(), today.marker.clone());
        let prepared = pack::prepare(session, request, &started, self.version.clone(), &captured, marker)?;
        self.unfinished.keep(&prepared)?;
        Ok(prepared)
    }

    /// Stores the archive. Unless another run can go on with it, nothing of it stays when that fails.
    async fn store(&mut self, prepared: &Prepared) -> Result<Packed, Error> {
        let journal = self.unfinished.journal();
        let stored = pack::store(self.session, self.order, prepared, journal, &mut self.phases).await;
        match &stored {
            Err(error) if can_go_on(error) => {
                info!(backup = %prepared.id(), "the next backup goes on with what is stored of this one");
            }
            Err(_) => {
                self.unfinished.put_away(self.session).await;
                self.source.discard().await;
            }
            Ok(_) => {}
        }
        stored
    }

    /// Removes local snapshots that nobody needs, now that the upload is verified and its manifest on the disk.
    pub(super) async fn cleaned_up(&mut self) {
        self.phases.enter(Phase::CleanUp);
        self.source.tidy(self.order.keep_local).await;
    }

    pub(super) async fn published(
        &mut self,
        manifest: &Manifest,
        policy: &PublishPolicy,
    ) -> Result<Published, Error> {
        self.phases.enter(Phase::Publish);
        let published = self.session.catalog.publish(manifest, policy).await.map_err(Error::from);
        self.given_up_if_final(&published);
        published
    }

    /// Puts the manifest into the bucket, for whoever may publish it.
    pub(super) async fn handed_over(&mut self, waiting: &Waiting) -> Result<(), Error> {
        self.phases.enter(Phase::HandOver);
        let handed_over = hand_over(self.session, waiting).await;
        self.given_up_if_final(&handed_over);
        handed_over
    }

    /// The manifest waits on this host for a person's `publish`: where another run can do nothing either, nothing else is left for one.
    fn given_up_if_final<T>(&self, result: &Result<T, Error>) {
        if result.as_ref().is_err_and(|error| !can_go_on(error)) {
            self.unfinished.forget();
        }
    }
}

/// Puts a manifest beside its archive. The same bytes again are no error.
pub(super) async fn hand_over(session: &Session, waiting: &Waiting) -> Result<(), Error> {
    let key = waiting.manifest.key.manifest();
    Ok(session.catalog.put_side_file(&key, waiting.bytes.clone()).await?)
}

/// Whether an interrupted upload cannot be gone on with, though the snapshots may be as good as ever.
fn is_lost(error: &transfer::Error) -> bool {
    matches!(error, transfer::Error::NotResumable { .. })
}

/// Whether another run can go on where this one failed.
fn can_go_on(error: &Error) -> bool {
    if let Error::Transfer(error) = error {
        return error.is_resumable();
    }
    matches!(error, Error::Cancelled) || error.kind().is_transient()
}

/// Which backup this is.
pub(super) struct Started {
    pub(super) id: BackupId,
    pub(super) at: Timestamp,
}

impl Started {
    /// A given id may be of long before: of an execution that waited for the host, or for writes to end. What publication asks is when the
    /// data was looked at (a rollback since then supersedes it), and so a backup with a given id was created when its capture began.
    fn of(order: &Order, today: &Today) -> Result<Self, Error> {
        if let Some(id) = order.id {
            return Ok(Self { id, at: today.time() });
        }
        let id = BackupId::from_time(today.now)
            .map_err(|source| Error::Setting { name: "the clock", source: Box::new(source) })?;
        Ok(Self { id, at: today.now })
    }
}

async fn success_marker(session: &Session) -> Result<Option<SuccessMarker>, Error> {
    let Some(key) = session.config.success_marker() else { return Ok(None) };
    let marker = session.catalog.success_marker(key).await?;
    if marker.is_none() {
        warn!(key, "there is no success marker: the backup records no indexing batch");
    }
    Ok(marker)
}

/// A person may back up at any time; that the counts are not the batch's is worth a line in the log, not a refusal.
fn warn_of_marker(marker: Option<&SuccessMarker>, captured: &capture::Captured) {
    let Some(marker) = marker else { return };
    for (collection, expected) in &marker.expected_counts {
        let found = captured.after.collections.get(collection).map(|state| state.count);
        if found.is_some_and(|found| found != *expected) {
            warn!(batch = marker.batch_id, %collection, expected, found, "the success marker states another count");
        }
    }
}
