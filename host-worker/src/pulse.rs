//! Whether long work still moves: what it is at, and how often something has happened. Whoever waits for it looks here instead of at the clock alone.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What a command can be at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Looking at what is needed.
    #[default]
    PreFlight,
    /// Waiting until nothing is written.
    Quiesce,
    /// Reading the state of Qdrant, and recording the golden set.
    Record,
    /// Qdrant makes snapshots.
    Snapshot,
    /// Packing and sending the archive.
    Upload,
    /// Storing what goes beside the archive.
    SideFiles,
    /// Putting the manifest beside the archive, for whoever may publish it.
    HandOver,
    /// Removing snapshots that nobody needs.
    CleanUp,
    /// Creating the manifest and moving the pointer.
    Publish,
    /// Fetching a snapshot.
    Download,
    /// Qdrant recovers a collection.
    Recover,
    /// Comparing what Qdrant shows with what was recorded.
    Verify,
    /// Setting aliases.
    Aliases,
    /// Reading a stored archive again.
    ReRead,
    /// Starting Qdrant, and waiting until it answers.
    Start,
    /// Searching and reading until searches are as fast as they have to be.
    WarmUp,
}

impl Phase {
    /// Its name, in logs, manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreFlight => "pre-flight",
            Self::Quiesce => "quiesce",
            Self::Record => "record",
            Self::Snapshot => "snapshot",
            Self::Upload => "upload",
            Self::SideFiles => "side files",
            Self::HandOver => "hand over",
            Self::CleanUp => "clean-up",
            Self::Publish => "publish",
            Self::Download => "download",
            Self::Recover => "recover",
            Self::Verify => "verify",
            Self::Aliases => "aliases",
            Self::ReRead => "re-read",
            Self::Start => "start",
            Self::WarmUp => "warm-up",
        }
    }

    /// How long it may take until something moves.
    pub fn deadline(self) -> Duration {
        const MINUTE: u64 = 60;
        Duration::from_secs(match self {
            // Calls that have limits of their own, of two minutes at most, tried again a few times.
            Self::PreFlight | Self::SideFiles | Self::HandOver | Self::Publish | Self::Aliases => 15 * MINUTE,
            // A poll every other second; counting all points of a large collection is the slowest part of one.
            Self::Quiesce => 15 * MINUTE,
            // Bytes move all the time, until S3 puts the parts together, which may take minutes.
            Self::Upload | Self::Download | Self::ReRead => 15 * MINUTE,
            // An empty Qdrant answers within seconds. Warming up has a deadline of its own, after which one goes on.
            Self::Start => 15 * MINUTE,
            Self::WarmUp => 120 * MINUTE,
            // One collection after the other: thousands of calls, or deleting a large one.
            Self::Record | Self::Verify | Self::CleanUp => 45 * MINUTE,
            // One call without a sign of life. Qdrant copies at some 200 MB/s at the least: 1.4 TB in two hours, or with the building of indexes in three.
            Self::Snapshot => 120 * MINUTE,
            Self::Recover => 180 * MINUTE,
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The pulse of one piece of work. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Seen>>);

/// What can be seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the work is at.
    pub phase: Phase,
    /// How often something has moved.
    pub marks: u64,
}

impl Pulse {
    /// Something moved.
    pub fn mark(&self) {
        self.change(|seen| seen.marks += 1);
    }

    /// The work enters a phase, which is a move, too.
    pub fn enter(&self, phase: Phase) {
        self.change(|seen| *seen = Seen { phase, marks: seen.marks + 1 });
    }

    /// What can be seen now.
    pub fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
