//! Scripted faults: deterministic, one at a time or for as long as they are set. Nothing here is random.

use super::lock;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which snapshot or recovery a fault is for, counted from the moment it is injected.
#[derive(Clone, Debug)]
pub struct When {
    collection: Option<String>,
    nth: u32,
}

impl When {
    /// The next one, of whatever collection.
    pub fn next() -> Self {
        Self::nth(1)
    }

    /// The n-th one (1 is the next), of whatever collection.
    pub fn nth(nth: u32) -> Self {
        Self { collection: None, nth }
    }

    /// The next one of this collection (its own name, not an alias).
    pub fn next_of(collection: &str) -> Self {
        Self::nth_of(collection, 1)
    }

    /// The n-th one of this collection.
    pub fn nth_of(collection: &str, nth: u32) -> Self {
        Self { collection: Some(collection.to_owned()), nth }
    }
}

/// A fault that happens once.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The snapshot ends in a 500 after so many bytes of its archive.
    SnapshotFails {
        /// Bytes of the archive that are written first.
        after_bytes: u64,
    },
    /// The disk is full after so many bytes of the archive: a 500 that says so.
    SnapshotFillsDisk {
        /// Bytes of the archive that are written first.
        after_bytes: u64,
    },
    /// The server dies after so many bytes of the archive, as by SIGKILL: the temporary file stays.
    DieInSnapshot {
        /// Bytes of the archive that are written first.
        after_bytes: u64,
    },
    /// The snapshot is finished, its reply comes later.
    SnapshotReplyDelayed(Duration),
    /// The connection is dropped after this time; the job goes on.
    SnapshotReplyLost(Duration),
    /// The finished file is damaged, so long after it was finished.
    SnapshotFile {
        /// What happens to the file.
        damage: Damage,
        /// How long after the snapshot is complete.
        after: Duration,
    },
    /// The reply names a checksum that is not the file's.
    WrongChecksum,
    /// Something else happens in the middle of the snapshot.
    Change(Change),
    /// The data that a recovery brought cannot be loaded: the old data is gone, a dummy shard is left.
    RecoverFailsAtLoad,
    /// The recovery rests between clearing the old shard and loading the new one.
    RecoverPauses(Duration),
    /// The server dies between clearing the old shard and loading the new one.
    DieInRecover,
}

/// What can happen to a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// It is removed.
    Vanishes,
    /// It is cut to this many bytes.
    ShrinksTo(u64),
    /// One bit of the byte in its middle is flipped.
    BitFlip,
    /// This many bytes are appended.
    Grows(u64),
}

/// What can happen to the collections.
#[derive(Clone, Debug)]
pub enum Change {
    /// A collection appears; the body is that of the create call.
    Create(String, Value),
    /// A collection disappears.
    Drop(String),
    /// Aliases change; the body is that of `POST /collections/aliases`.
    Aliases(Value),
    /// Points are upserted into a collection; the body is that of `PUT /collections/{c}/points`.
    Upsert(String, Value),
}

/// A fault that lasts until it is cleared.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The optimizer of a collection reports an error.
    OptimizerError {
        /// The collection.
        collection: String,
        /// What it reports.
        message: String,
    },
    /// A collection is red.
    Red(String),
    /// The update queue of a collection shows this length and never drains. Writes still land.
    QueueStuck {
        /// The collection.
        collection: String,
        /// The length that is shown.
        length: u64,
    },
    /// Writes with `wait=false` into a collection are applied one after the other, each after this time.
    QueueSlow {
        /// The collection.
        collection: String,
        /// The time that one operation takes.
        each: Duration,
    },
    /// The disk is full: updates, snapshots and recoveries end in a 500.
    DiskFull,
    /// Searches by a vector or a point take this long more, as on a host that is busy with something else.
    SearchSlow(Duration),
    /// Strict mode refuses every search by a vector or a point.
    SearchForbidden,
    /// No vector of a collection is in an index, and nothing is building one.
    NotIndexed(String),
    /// From its next start on, the server is in recovery mode: every collection is a dummy, only deletes work.
    RecoveryMode(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Snapshot,
    Recover,
}

impl Fault {
    fn stage(&self) -> Stage {
        match self {
            Self::SnapshotFails { .. }
            | Self::SnapshotFillsDisk { .. }
            | Self::DieInSnapshot { .. }
            | Self::SnapshotReplyDelayed(_)
            | Self::SnapshotReplyLost(_)
            | Self::SnapshotFile { .. }
            | Self::WrongChecksum
            | Self::Change(_) => Stage::Snapshot,
            Self::RecoverFailsAtLoad | Self::RecoverPauses(_) | Self::DieInRecover => Stage::Recover,
        }
    }
}

#[derive(Debug, Default)]
struct Scripts {
    once: Vec<(When, Fault)>,
    lasting: Vec<Condition>,
}

/// The faults of one stand-in. They outlive a kill and a restart.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    scripts: Arc<Mutex<Scripts>>,
}

impl Faults {
    /// Scripts a fault. Several may hit the same snapshot.
    pub fn inject(&self, when: When, fault: Fault) {
        lock(&self.scripts).once.push((when, fault));
    }

    /// Sets a lasting condition.
    pub fn set(&self, condition: Condition) {
        lock(&self.scripts).lasting.push(condition);
    }

    /// Ends a lasting condition.
    pub fn end(&self, condition: &Condition) {
        lock(&self.scripts).lasting.retain(|set| set != condition);
    }

    /// Forgets everything that is scripted or set.
    pub fn clear(&self) {
        *lock(&self.scripts) = Scripts::default();
    }

    /// Counts one snapshot or recovery of `collection` and hands out the faults that are for it.
    pub(super) fn take(&self, stage: Stage, collection: &str) -> Vec<Fault> {
        let mut scripts = lock(&self.scripts);
        let mut due = Vec::new();
        scripts.once.retain_mut(|(when, fault)| {
            let ours =
                fault.stage() == stage && when.collection.as_deref().is_none_or(|name| name == collection);
            if !ours {
                return true;
            }
            when.nth = when.nth.saturating_sub(1);
            if when.nth == 0 {
                due.push(fault.clone());
            }
            when.nth > 0
        });
        due
    }

    fn find<T>(&self, pick: impl Fn(&Condition) -> Option<T>) -> Option<T> {
        lock(&self.scripts).lasting.iter().find_map(pick)
    }

    pub(super) fn disk_full(&self) -> bool {
        self.find(|condition| (*condition == Condition::DiskFull).then_some(())).is_some()
    }

    pub(super) fn recovery_mode(&self) -> Option<String> {
        self.find(
            |condition| if let Condition::RecoveryMode(text) = condition { Some(text.clone()) } else { None },
        )
    }

    pub(super) fn search_slow(&self) -> Option<Duration> {
        self.find(|condition| if let Condition::SearchSlow(takes) = condition { Some(*takes) } else { None })
    }

    pub(super) fn search_forbidden(&self) -> bool {
        self.find(|condition| (*condition == Condition::SearchForbidden).then_some(())).is_some()
    }

    pub(super) fn red(&self, name: &str) -> bool {
        self.find(|condition| matches!(condition, Condition::Red(red) if red == name).then_some(())).is_some()
    }

    pub(super) fn not_indexed(&self, name: &str) -> bool {
        let hit = |condition: &Condition| {
            matches!(condition, Condition::NotIndexed(collection) if collection == name).then_some(())
        };
        self.find(hit).is_some()
    }

    pub(super) fn optimizer_error(&self, name: &str) -> Option<String> {
        self.find(|condition| match condition {
            Condition::OptimizerError { collection, message } if collection == name => Some(message.clone()),
            Condition::OptimizerError { .. }
            | Condition::Red(_)
            | Condition::QueueStuck { .. }
            | Condition::QueueSlow { .. }
            | Condition::DiskFull
            | Condition::SearchSlow(_)
            | Condition::SearchForbidden
            | Condition::NotIndexed(_)
            | Condition::RecoveryMode(_) => None,
        })
    }

    pub(super) fn queue_stuck(&self, name: &str) -> Option<u64> {
        self.find(|condition| match condition {
            Condition::QueueStuck { collection, length } if collection == name => Some(*length),
            Condition::OptimizerError { .. }
            | Condition::Red(_)
            | Condition::QueueStuck { .. }
            | Condition::QueueSlow { .. }
            | Condition::DiskFull
            | Condition::SearchSlow(_)
            | Condition::SearchForbidden
            | Condition::NotIndexed(_)
            | Condition::RecoveryMode(_) => None,
        })
    }

    pub(super) fn queue_slow(&self, name: &str) -> Option<Duration> {
        self.find(|condition| match condition {
            Condition::QueueSlow { collection, each } if collection == name => Some(*each),
            Condition::OptimizerError { .. }
            | Condition::Red(_)
            | Condition::QueueStuck { .. }
            | Condition::QueueSlow { .. }
            | Condition::DiskFull
            | Condition::SearchSlow(_)
            | Condition::SearchForbidden
            | Condition::NotIndexed(_)
            | Condition::RecoveryMode(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_hit_the_operation_they_were_scripted_for() {
        let faults = Faults::default();
        faults.inject(When::nth_of("b", 2), Fault::WrongChecksum);
        faults.inject(When::nth(3), Fault::SnapshotReplyDelayed(Duration::ZERO));
        faults.inject(When::next(), Fault::RecoverFailsAtLoad);
        assert_eq!(faults.take(Stage::Snapshot, "a").len(), 0);
        assert_eq!(faults.take(Stage::Snapshot, "b").len(), 0);
        assert_eq!(faults.take(Stage::Snapshot, "b").len(), 2);
        assert_eq!(faults.take(Stage::Snapshot, "b").len(), 0);
        assert_eq!(faults.take(Stage::Recover, "b").len(), 1);
    }
}
