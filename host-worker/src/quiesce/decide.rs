//! The decision: a pure function of what was seen.

use std::collections::BTreeMap;

use protocol::CollectionName;

use crate::qdrant::{CollectionStatus, Metrics, OptimizerStatus};

/// What was seen in one poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The server's metrics.
    pub metrics: Metrics,
    /// Every collection.
    pub collections: BTreeMap<CollectionName, CollectionObservation>,
}

/// What was seen of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionObservation {
    /// Updates waiting.
    pub queue_length: u64,
    /// Its status.
    pub status: CollectionStatus,
    /// What its optimizers say.
    pub optimizer_status: OptimizerStatus,
    /// The last operation number applied, where the server says.
    pub op_num: Option<u64>,
    /// The exact number of points. Counting is not free: it is left out while something cheaper to see still moves.
    pub count: Option<u64>,
}

/// How sure one has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// In how many polls in a row nothing may move. At least 2.
    pub polls: usize,
}

impl Requirements {
    /// Three polls.
    pub const STANDARD: Self = Self { polls: 3 };
}

/// Whether a backup may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing moves.
    Quiesced,
    /// Something moves, or it is too early to say.
    Waiting {
        /// What; empty when it is only too early.
        reasons: Vec<String>,
    },
    /// Waiting does not help.
    Unfit {
        /// Why.
        reasons: Vec<String>,
    },
}

/// Decides by the last observations; `history` has the latest last.
pub fn decide(history: &[Observation], requirements: Requirements) -> Decision {
    let Some(latest) = history.last() else { return Decision::Waiting { reasons: Vec::new() } };
    let reasons = unfit(latest);
    if !reasons.is_empty() {
        return Decision::Unfit { reasons };
    }
    let needed = requirements.polls.max(2);
    let window = &history[history.len().saturating_sub(needed)..];
    let mut reasons = busy(latest);
    for pair in window.windows(2) {
        for reason in moved(&pair[0], &pair[1]) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    let counted = window.iter().all(|seen| seen.collections.values().all(|c| c.count.is_some()));
    let was_busy = window.iter().any(|seen| !busy(seen).is_empty());
    if reasons.is_empty() && window.len() == needed && counted && !was_busy {
        Decision::Quiesced
    } else {
        Decision::Waiting { reasons }
    }
}

/// Whether something that is cheap to see moved between two observations or is still to do.
pub(super) fn is_restless(previous: Option<&Observation>, latest: &Observation) -> bool {
    !busy(latest).is_empty()
        || previous.is_none_or(|previous| moved(previous, latest).iter().any(|reason| !reason.is_empty()))
}

/// What makes a backup pointless until a person looks at it.
fn unfit(seen: &Observation) -> Vec<String> {
    let mut reasons = Vec::new();
    if seen.metrics.recovery_mode {
        reasons.push("Qdrant runs in recovery mode, without its data".to_owned());
    }
    for (name, collection) in &seen.collections {
        if let OptimizerStatus::Error(error) = &collection.optimizer_status {
            let error: String = error.chars().take(200).collect();
            reasons.push(format!("the optimizer of collection `{name}` failed: {error}"));
        } else if collection.status == CollectionStatus::Red {
            reasons.push(format!("collection `{name}` is red: an operation failed and was not made good"));
        }
    }
    reasons
}

/// What has to end first. Yellow and grey are fine: optimizing changes no data.
fn busy(seen: &Observation) -> Vec<String> {
    let mut reasons = Vec::new();
    for (name, running) in &seen.metrics.snapshots_running {
        reasons.push(format!("{running} snapshot(s) of collection `{name}` being taken"));
    }
    for (name, running) in &seen.metrics.recoveries_running {
        reasons.push(format!("{running} recovery(ies) of collection `{name}` running"));
    }
    for (name, collection) in seen.collections.iter().filter(|(_, c)| c.queue_length > 0) {
        reasons.push(format!("{} updates queued in collection `{name}`", collection.queue_length));
    }
    reasons
}

/// What is not the same in two observations.
fn moved(earlier: &Observation, later: &Observation) -> Vec<String> {
    let mut reasons = Vec::new();
    for (endpoint, _, _) in earlier.metrics.writes.differences(&later.metrics.writes) {
        reasons.push(format!("write requests are being answered ({endpoint})"));
    }
    for (name, now) in &later.collections {
        let Some(then) = earlier.collections.get(name) else {
            reasons.push(format!("collection `{name}` was created"));
            continue;
        };
        if then.op_num != now.op_num {
            reasons.push(format!("operations are being applied to collection `{name}`"));
        }
        if let (Some(then), Some(now)) = (then.count, now.count)
            && then != now
        {
            reasons.push(format!("the number of points of collection `{name}` changes"));
        }
    }
    for name in earlier.collections.keys().filter(|name| !later.collections.contains_key(*name)) {
        reasons.push(format!("collection `{name}` was deleted"));
    }
    reasons
}
