//! The calls by name, for messages.

use std::fmt;

use protocol::CollectionName;

/// What was asked of Qdrant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /`
    Version,
    /// `GET /collections`, to see whether the key is needed and works.
    CheckAuth,
    /// `POST /collections/aliases` with nothing to change, to see whether the key may write.
    CheckWrite,
    /// `GET /collections`
    Collections,
    /// `GET /collections/{name}`
    Collection(CollectionName),
    /// `POST /collections/{name}/points/count`
    Count(CollectionName),
    /// `GET /aliases`
    Aliases,
    /// `POST /collections/aliases`
    ChangeAliases,
    /// `POST /collections/{name}/points`
    Retrieve(CollectionName),
    /// `POST /collections/{name}/points/query` for random points
    Sample(CollectionName),
    /// `POST /collections/{name}/points/scroll`
    Scroll(CollectionName),
    /// `POST /collections/{name}/points/query`
    Search(CollectionName),
    /// `GET /collections/{name}/snapshots`
    Snapshots(CollectionName),
    /// `POST /collections/{name}/snapshots`
    CreateSnapshot(CollectionName),
    /// `DELETE /collections/{name}/snapshots/{snapshot}`
    DeleteSnapshot(CollectionName, String),
    /// `PUT /collections/{name}/snapshots/recover`
    Recover(CollectionName),
    /// `DELETE /collections/{name}`
    DeleteCollection(CollectionName),
    /// `GET /telemetry`
    Telemetry,
    /// `GET /metrics`
    Metrics,
}

impl Operation {
    /// Whether it is what is asked again and again while something runs in Qdrant: its answer is no progress.
    pub(super) fn is_a_look(&self) -> bool {
        matches!(self, Self::Metrics | Self::Snapshots(_))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("ask Qdrant for its version"),
            Self::CheckAuth => f.write_str("check the API key of Qdrant"),
            Self::CheckWrite => f.write_str("check that the API key may write"),
            Self::Collections => f.write_str("list the collections"),
            Self::Collection(name) => write!(f, "look at collection `{name}`"),
            Self::Count(name) => write!(f, "count the points of collection `{name}`"),
            Self::Aliases => f.write_str("list the aliases"),
            Self::ChangeAliases => f.write_str("change aliases"),
            Self::Retrieve(name) => write!(f, "read points of collection `{name}`"),
            Self::Sample(name) => write!(f, "sample points of collection `{name}`"),
            Self::Scroll(name) => write!(f, "list points of collection `{name}`"),
            Self::Search(name) => write!(f, "search collection `{name}`"),
            Self::Snapshots(name) => write!(f, "list the snapshots of collection `{name}`"),
            Self::CreateSnapshot(name) => write!(f, "take a snapshot of collection `{name}`"),
            Self::DeleteSnapshot(name, snapshot) => {
                write!(f, "delete the snapshot `{snapshot}` of collection `{name}`")
            }
            Self::Recover(name) => write!(f, "recover collection `{name}`"),
            Self::DeleteCollection(name) => write!(f, "delete collection `{name}`"),
            Self::Telemetry => f.write_str("read Qdrant's telemetry"),
            Self::Metrics => f.write_str("read Qdrant's metrics"),
        }
    }
}
