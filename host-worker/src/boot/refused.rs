//! What boot does not do by itself, and what keeps it from going on.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use protocol::FailureKind;

use crate::qdrant::{Version, version::MINIMUM};

/// Why a boot does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is data that no boot knows of.
    #[error("`{}` holds collections, and no boot record says where they come from: they are neither served nor overwritten", path.display())]
    OldData {
        /// Qdrant's data directory.
        path: PathBuf,
    },
    /// Somebody has started Qdrant where everybody can write to it, before it was ready.
    #[error(
        "Qdrant runs at {address} already although this host's boot is not complete: what it holds may have been written by somebody"
    )]
    Served {
        /// The address.
        address: IpAddr,
    },
    /// The configured version of Qdrant cannot take over the data.
    #[error("data of Qdrant {from} cannot be served by the configured {to}")]
    TooFar {
        /// The version that last ran with the data.
        from: Version,
        /// The configured version.
        to: Version,
    },
    /// The configured image does not say its version.
    #[error("the image `{image}` has no version as its tag")]
    ImageWithoutVersion {
        /// The image.
        image: String,
    },
    /// The configured image is pinned, and the data needs another version.
    #[error("the image `{image}` is pinned by a digest, and the data is of Qdrant {version}")]
    ImagePinned {
        /// The image.
        image: String,
        /// The version that is needed.
        version: Version,
    },
    /// Qdrant ended before it answered.
    #[error("Qdrant (`{image}`) was started {times} times, and ended each time before it answered")]
    Ends {
        /// The image.
        image: String,
        /// How often it was started.
        times: u32,
    },
    /// Qdrant runs and does not answer.
    #[error("Qdrant (`{image}`) runs and has not answered at {address} for {} s: {last}", waited.as_secs())]
    Silent {
        /// The image.
        image: String,
        /// Where it should answer.
        address: IpAddr,
        /// How long was waited.
        waited: Duration,
        /// What became of the last look.
        last: String,
    },
    /// The machine does not have its address.
    #[error("none of this machine's interfaces has the address {address} after {} s", waited.as_secs())]
    NoAddress {
        /// The address.
        address: IpAddr,
        /// How long was waited.
        waited: Duration,
    },
    /// The record cannot be read.
    #[error("the boot record `{}` cannot be read, so that nobody knows whether the data was served", path.display())]
    RecordUnreadable {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A later version of this program wrote the record.
    #[error("the boot record `{}` has format version {found}, this program reads up to {}", path.display(), super::record::FORMAT_VERSION)]
    RecordNewer {
        /// The record.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// There is nothing to adopt.
    #[error("there is no data in `{}` that could be adopted", path.display())]
    NothingToAdopt {
        /// Qdrant's data directory.
        path: PathBuf,
    },
    /// There is nothing to put in the place of the data.
    #[error("there is no backup in the bucket that the data could be replaced with")]
    NothingToReplaceWith,
    /// Everything that could be restored was tried.
    #[error("nothing is left to restore: {}", rejected.join("; "))]
    NothingLeft {
        /// What was tried, and what was wrong with it.
        rejected: Vec<String>,
        /// What kind of failure the last one was.
        kind: FailureKind,
    },
    /// Local snapshots were recovered, and a collection is not there.
    #[error(
        "collection `{collection}` was recovered from the local snapshot `{file}`, and is not as it should be: {found}"
    )]
    LocalSnapshotBroken {
        /// The collection.
        collection: String,
        /// The snapshot's file.
        file: String,
        /// What is wrong.
        found: String,
    },
    /// A collection has appeared or gone on a host that starts empty.
    #[error("a host that starts empty has collections: {}", found.join(", "))]
    NotEmpty {
        /// What is there.
        found: Vec<String>,
    },
}

impl Refused {
    /// What kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::OldData { .. } | Self::Served { .. } => FailureKind::Suspicious,
            Self::TooFar { .. } => FailureKind::QdrantUnsupported,
            Self::ImageWithoutVersion { .. } | Self::ImagePinned { .. } | Self::NothingToAdopt { .. } => {
                FailureKind::ConfigInvalid
            }
            Self::Ends { .. } | Self::Silent { .. } => FailureKind::QdrantUnavailable,
            Self::NoAddress { .. } => FailureKind::HostUnreachable,
            Self::RecordUnreadable { .. } | Self::RecordNewer { .. } => FailureKind::Internal,
            Self::NothingToReplaceWith => FailureKind::ManifestMissing,
            Self::NothingLeft { kind, .. } => *kind,
            Self::LocalSnapshotBroken { .. } | Self::NotEmpty { .. } => FailureKind::VerificationFailed,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        const CHOICE: &str = "if the data is right, `host-worker boot --adopt` serves it; `host-worker boot --replace` deletes it and restores a backup";
        match self {
            Self::OldData { .. } => Some(CHOICE.to_owned()),
            Self::Served { .. } => Some(format!("stop that Qdrant, and say what becomes of its data: {CHOICE}")),
            Self::TooFar { from, to } if to < from => Some(format!(
                "set `[boot].image` to {}.{} or {}.{}: a server never reads what a newer one has written",
                from.major, from.minor, from.major, from.minor + 1
            )),
            Self::TooFar { from, .. } => Some(format!(
                "set `[boot].image` to {}.{} first, and boot again: Qdrant moves one minor version at a time",
                from.major, from.minor + 1
            )),
            Self::ImageWithoutVersion { .. } => {
                Some(format!("write it as `qdrant/qdrant:v{MINIMUM}-unprivileged`, with a version at the beginning of the tag"))
            }
            Self::ImagePinned { version, .. } => Some(format!(
                "name the image by tag alone, or pin the one of {version} until the host serves, and move on afterwards"
            )),
            Self::Ends { .. } => Some(
                "the container's log says why (`journalctl -u qdrant`, or `docker logs qdrant`); memory limit and ownership of the data (1000:1000) are the usual reasons".to_owned(),
            ),
            Self::Silent { .. } => Some(
                "it opens its port when every collection is loaded: its log counts shards (`Recovering shard`). It is waited for, and not restarted".to_owned(),
            ),
            Self::NoAddress { .. } => Some(
                "is the network interface attached, and is `qdrant-url` its address? It is looked for again".to_owned(),
            ),
            Self::RecordUnreadable { .. } => Some(format!(
                "an earlier copy may be whole (`boot.tmp` beside it); without it a person has to decide. {CHOICE}, after the record was moved away"
            )),
            Self::RecordNewer { .. } => Some("install the release that wrote it, or a later one".to_owned()),
            Self::NothingToAdopt { .. } => Some("boot without --adopt to restore a backup".to_owned()),
            Self::NothingToReplaceWith => Some("`host-worker list` shows what is there; nothing was touched".to_owned()),
            Self::NothingLeft { .. } => Some(
                "what was restored last is on the disk and serves nobody: `host-worker boot --adopt` serves it as it is; started again, this boot tries everything once more"
                    .to_owned(),
            ),
            Self::LocalSnapshotBroken { .. } => {
                Some("move the file away to let the one before it be used".to_owned())
            }
            Self::NotEmpty { .. } => Some(CHOICE.to_owned()),
        }
    }
}
