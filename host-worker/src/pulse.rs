//! Whether work moves: which phase it is in, and marks of progress that somebody else may watch.
//!
//! A heartbeat must follow progress, not the mere life of the process. Whoever sends heartbeats reads the [`Pulse`] now and then, and stops
//! when no mark came for as long as the phase allows ([`Phase::deadline`]). What marks: entering a phase or a collection, bytes that moved,
//! answers of Qdrant that are part of the work. Looking whether something still runs is no mark.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The phases of all commands, by the names that manifests and logs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// What can be known to fail is looked at.
    PreFlight,
    /// Writes are waited for to end.
    Quiesce,
    /// State, samples and searches are recorded.
    Record,
    /// Qdrant takes snapshots.
    Snapshot,
    /// The archive is packed and uploaded.
    Upload,
    /// What goes beside the archive is stored.
    SideFiles,
    /// The manifest is given to whoever may publish it.
    HandOver,
    /// Local snapshots are removed.
    CleanUp,
    /// The catalogue gets the manifest.
    Publish,
    /// A snapshot is fetched and unpacked.
    Download,
    /// Qdrant recovers a collection.
    Recover,
    /// Restored data is compared with what was recorded.
    Verify,
    /// Aliases are set.
    Aliases,
    /// A stored archive is read again.
    ReRead,
}

impl Phase {
    /// The name, as `side files`.
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
        }
    }

    /// How long the phase may go on without a mark before it is taken for dead.
    pub fn deadline(self) -> Duration {
        const fn minutes(minutes: u64) -> Duration {
            Duration::from_secs(minutes * 60)
        }
        match self {
            // Polls come every two seconds, and counting the points of a large collection takes no minutes.
            Self::Quiesce => minutes(5),
            // Between two marks of a transfer are its retries of one request, or the store's making one object of the parts: minutes.
            Self::Upload | Self::Download | Self::ReRead => minutes(10),
            // A handful of short calls, each with its own time-out and retries.
            Self::PreFlight
            | Self::SideFiles
            | Self::HandOver
            | Self::CleanUp
            | Self::Publish
            | Self::Aliases => minutes(15),
            // One exact count or search reads every vector of a collection, and is tried again after its time-out.
            Self::Record | Self::Verify => minutes(30),
            // One call for a whole collection: at 200 MB/s these are 1.4 TB, and nothing of it can be seen before the end.
            Self::Snapshot | Self::Recover => minutes(120),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is marked by the one who works and read by the one who watches. Cloning gives another handle of the same.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Beat>>);

/// A pulse at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The phase that runs; absent before the first.
    pub phase: Option<Phase>,
    /// How often something moved so far, in all phases.
    pub marks: u64,
}

impl Pulse {
    /// A phase begins, which is a mark.
    pub fn enter(&self, phase: Phase) {
        self.change(|beat| {
            beat.phase = Some(phase);
            beat.marks += 1;
        });
    }

    /// Something moved.
    pub fn mark(&self) {
        self.change(|beat| beat.marks += 1);
    }

    /// The phase and the marks so far.
    pub fn beat(&self) -> Beat {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Beat)) {
        // Nothing here can be left half done by a panic.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_sees_the_phase_and_that_something_moved() {
        let pulse = Pulse::default();
        let watcher = pulse.clone();
        assert_eq!(watcher.beat(), Beat { phase: None, marks: 0 });
        pulse.enter(Phase::Upload);
        assert_eq!(watcher.beat(), Beat { phase: Some(Phase::Upload), marks: 1 });
        pulse.mark();
        assert_eq!(watcher.beat(), Beat { phase: Some(Phase::Upload), marks: 2 });
        // Entering the same phase again is progress too.
        pulse.enter(Phase::Upload);
        assert_eq!(watcher.beat().marks, 3);
    }

    #[test]
    fn what_cannot_be_seen_to_move_has_longer() {
        let seen = [Phase::Quiesce, Phase::Upload, Phase::Download, Phase::ReRead];
        for hidden in [Phase::Snapshot, Phase::Recover, Phase::Record, Phase::Verify] {
            assert!(seen.iter().all(|seen| seen.deadline() < hidden.deadline()), "{hidden}");
        }
    }
}
