//! What a backup is asked for, whoever asks: a person, or a workflow.

use std::time::Duration;

use protocol::{BackupId, CollectionName};

use crate::{bandwidth::BandwidthLimit, cli::BackupArgs};

/// What is to be backed up, and how.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The id, where it was given; otherwise it follows from the time of the begin.
    pub(super) id: Option<BackupId>,
    /// Only these collections, in the order of their names; all of them when it is empty.
    pub(super) collections: Vec<CollectionName>,
    /// How long to wait until nothing is being written; not at all when it is absent.
    pub(super) quiesce: Option<Duration>,
    /// A fixed zstd level.
    pub(super) level: Option<i32>,
    /// Parts in flight.
    pub(super) concurrency: Option<u32>,
    /// The most bytes per second.
    pub(super) bandwidth_limit: Option<BandwidthLimit>,
    /// The latency of searches that is to be kept.
    pub(super) protect_latency: Option<Duration>,
    /// How many of Qdrant's own snapshots stay afterwards, per collection.
    pub(super) keep_local: usize,
    /// Whether an interrupted backup is given up.
    pub(super) fresh: bool,
}

impl Order {
    /// What a workflow asks for: a backup with this id.
    pub(super) fn of_workflow(id: BackupId, args: &BackupArgs) -> Self {
        Self { id: Some(id), ..Self::from(args) }
    }

    /// Whether only some collections are wanted.
    pub(super) fn is_partial(&self) -> bool {
        !self.collections.is_empty()
    }
}

impl From<&BackupArgs> for Order {
    fn from(args: &BackupArgs) -> Self {
        Self {
            id: None,
            collections: sorted(args.collections.clone()),
            quiesce: (!args.no_quiesce).then(|| Duration::from_secs(args.quiesce_timeout)),
            level: args.level,
            concurrency: args.concurrency,
            bandwidth_limit: args.bandwidth_limit,
            protect_latency: args.protect_latency,
            keep_local: args.keep_local,
            fresh: args.fresh,
        }
    }
}

/// As a set that is written down: the same wish is the same text.
fn sorted(mut collections: Vec<CollectionName>) -> Vec<CollectionName> {
    collections.sort();
    collections.dedup();
    collections
}
