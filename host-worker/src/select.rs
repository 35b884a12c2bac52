//! Which backup a command is about.

use catalog::{How, Resolved, Selector};
use protocol::{BackupId, Manifest};

use crate::{cli::Selection, error::Error, qdrant::Version, session::Session};

/// A backup, and why it is this one.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) manifest: Manifest,
    /// For a person.
    pub(crate) why: String,
    /// Whether it is another than the published one: a host with its data is degraded until a person acknowledges that.
    pub(crate) degraded: bool,
}

/// The backup that `selection` means: the published one where it says nothing; with `fallback`, another where that cannot be used.
pub(crate) async fn select(
    session: &Session,
    selection: &Selection,
    fallback: bool,
) -> Result<Chosen, Error> {
    let selector = match (selection.backup, selection.before) {
        (Some(id), _) => Selector::Id(id),
        (None, Some(time)) => Selector::Before { time, partial: false },
        (None, None) => return resolve(session, fallback).await,
    };
    let why = match selector {
        Selector::Before { time, .. } => format!("the newest before {time}"),
        Selector::Id(_) | Selector::Newest => "it was asked for".to_owned(),
    };
    let manifest = session.catalog.find(selector).await?;
    let published = session.catalog.pointer().await.ok().flatten().map(|pointer| pointer.manifest.backup_id);
    let degraded = published != Some(manifest.backup_id);
    Ok(Chosen { manifest, why, degraded })
}

/// The version of the Qdrant that a backup was taken from.
pub(crate) fn qdrant_version(manifest: &Manifest) -> Result<Version, Error> {
    let version = manifest.qdrant.version.parse();
    version.map_err(|source| Error::Setting { name: "the backup's Qdrant version", source: Box::new(source) })
}

/// The backup with this id: as the pointer says where it names that one, so that it is not degraded; else by its immutable manifest.
pub(crate) async fn by_id(session: &Session, backup: BackupId, why: String) -> Result<Chosen, Error> {
    let pointer = match session.catalog.pointer().await {
        Ok(pointer) => pointer.filter(|pointer| pointer.manifest.backup_id == backup),
        // Not known is not another: the host would be degraded for no reason.
        Err(error) if error.kind().is_transient() => return Err(error.into()),
        // A damaged one may be what made this backup the choice.
        Err(_) => None,
    };
    if let Some(pointer) = pointer {
        session.catalog.check_object(&pointer.manifest, None).await?;
        return Ok(Chosen { manifest: pointer.manifest, why, degraded: false });
    }
    let manifest = session.catalog.find(Selector::Id(backup)).await?;
    Ok(Chosen { manifest, why, degraded: true })
}

/// The manifest of the backup that `selection` means, without a look at its archive.
pub(crate) async fn manifest_alone(session: &Session, selection: &Selection) -> Result<Manifest, Error> {
    match (selection.backup, selection.before) {
        (Some(id), _) => Ok(session.catalog.manifest(id).await?),
        (None, Some(_)) => Ok(select(session, selection, false).await?.manifest),
        (None, None) => match session.catalog.pointer().await? {
            Some(pointer) => Ok(pointer.manifest),
            // Why there is none takes a second look.
            None => Ok(resolve(session, false).await?.manifest),
        },
    }
}

/// As [`select`] for a person who will do without the golden set, whose absence makes a backup no choice otherwise. What comes of it is never more than
/// degraded.
pub(crate) async fn select_unproved(session: &Session, selection: &Selection) -> Result<Chosen, Error> {
    let manifest = manifest_alone(session, selection).await?;
    Ok(Chosen { manifest, why: "without its proof, as asked for".to_owned(), degraded: true })
}

async fn resolve(session: &Session, fallback: bool) -> Result<Chosen, Error> {
    match session.catalog.resolve(fallback).await? {
        Resolved::Empty => Err(Error::NoBackup),
        Resolved::Found { manifest, how, .. } => {
            Ok(Chosen { manifest: *manifest, why: how.to_string(), degraded: how != How::Pointer })
        }
    }
}
