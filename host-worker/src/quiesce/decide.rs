//! The decision: a pure function of what was seen.

use std::collections::BTreeMap;

use protocol::CollectionName;

use crate::qdrant::{CollectionStatus, Metrics, OptimizerStatus};

/// What was seen in one poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The server's metrics.
    pub metrics: Metrics,
    /// When the server started, as it says.
    pub started: Option<String>,
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
    !busy(latest).is_empty() || previous.is_none_or(|previous| !moved(previous, latest).is_empty())
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
    if earlier.started != later.started {
        reasons.push("Qdrant was restarted".to_owned());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qdrant::WriteCounters;

    fn at_rest() -> Observation {
        let docs = CollectionObservation {
            queue_length: 0,
            status: CollectionStatus::Green,
            optimizer_status: OptimizerStatus::Ok,
            op_num: Some(5),
            count: Some(7),
        };
        Observation {
            metrics: Metrics::default(),
            started: None,
            collections: BTreeMap::from([("docs".parse().unwrap(), docs)]),
        }
    }

    fn with(change: impl FnOnce(&mut CollectionObservation)) -> Observation {
        let mut seen = at_rest();
        change(seen.collections.values_mut().next().unwrap());
        seen
    }

    fn with_metrics(change: impl FnOnce(&mut Metrics)) -> Observation {
        let mut seen = at_rest();
        change(&mut seen.metrics);
        seen
    }

    #[test]
    fn rest_is_three_equal_observations_with_counts() {
        let (rest, uncounted) = (at_rest(), with(|c| c.count = None));
        let (grey, yellow) =
            (with(|c| c.status = CollectionStatus::Grey), with(|c| c.status = CollectionStatus::Yellow));
        let unknown_number = with(|c| c.op_num = None);
        for (history, quiesced) in [
            (vec![], false),
            (vec![&rest], false),
            (vec![&rest, &rest], false),
            (vec![&rest, &rest, &rest], true),
            (vec![&uncounted, &rest, &rest], false),
            (vec![&uncounted, &rest, &rest, &rest], true),
            (vec![&rest, &grey, &yellow], true),
            (vec![&unknown_number, &unknown_number, &unknown_number], true),
        ] {
            let history: Vec<Observation> = history.into_iter().cloned().collect();
            let decision = decide(&history, Requirements::STANDARD);
            let expected =
                if quiesced { Decision::Quiesced } else { Decision::Waiting { reasons: Vec::new() } };
            assert_eq!(decision, expected, "{} observations", history.len());
        }
    }

    #[test]
    fn whatever_moves_is_named() {
        let running = |key: &str| BTreeMap::from([(key.to_owned(), 1)]);
        let mut restarted = at_rest();
        restarted.started = Some("2026-01-01T00:00:00Z".to_owned());
        let mut fewer = at_rest();
        fewer.collections.clear();
        for (odd, reason) in [
            (with(|c| c.queue_length = 4), "4 updates queued in collection `docs`"),
            (with(|c| c.op_num = Some(6)), "operations are being applied to collection `docs`"),
            (with(|c| c.op_num = None), "operations are being applied to collection `docs`"),
            (with(|c| c.count = Some(8)), "the number of points of collection `docs` changes"),
            (
                with_metrics(|m| m.writes = WriteCounters::with("PUT /points", 1)),
                "write requests are being answered (PUT /points)",
            ),
            (
                with_metrics(|m| m.snapshots_running = running("docs")),
                "1 snapshot(s) of collection `docs` being taken",
            ),
            (
                with_metrics(|m| m.recoveries_running = running("new")),
                "1 recovery(ies) of collection `new` running",
            ),
            (restarted, "Qdrant was restarted"),
            (fewer, "collection `docs` was deleted"),
        ] {
            let decision = decide(&[at_rest(), at_rest(), odd.clone()], Requirements::STANDARD);
            assert_eq!(decision, Decision::Waiting { reasons: vec![reason.to_owned()] });
            // One restless observation anywhere in the window is enough.
            for place in 0..3 {
                let mut history = vec![at_rest(); 3];
                history[place] = odd.clone();
                assert_ne!(
                    decide(&history, Requirements::STANDARD),
                    Decision::Quiesced,
                    "{reason} at {place}"
                );
            }
            // And before the window it is forgotten.
            let history = [odd, at_rest(), at_rest(), at_rest()];
            assert_eq!(decide(&history, Requirements::STANDARD), Decision::Quiesced);
        }
    }

    #[test]
    fn damage_ends_the_wait() {
        for (seen, text) in [
            (with(|c| c.status = CollectionStatus::Red), "is red"),
            (with(|c| c.optimizer_status = OptimizerStatus::Error("no space".to_owned())), "no space"),
            (with_metrics(|m| m.recovery_mode = true), "recovery mode"),
        ] {
            match decide(&[at_rest(), at_rest(), seen], Requirements::STANDARD) {
                Decision::Unfit { reasons } => assert!(reasons[0].contains(text), "{reasons:?}"),
                other @ (Decision::Quiesced | Decision::Waiting { .. }) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn one_poll_is_never_enough() {
        let requirements = Requirements { polls: 0 };
        assert_eq!(decide(&[at_rest()], requirements), Decision::Waiting { reasons: Vec::new() });
        assert_eq!(decide(&[at_rest(), at_rest()], requirements), Decision::Quiesced);
    }

    #[test]
    fn counting_starts_when_the_cheap_signs_are_quiet() {
        let uncounted = with(|c| c.count = None);
        assert!(is_restless(None, &uncounted));
        assert!(!is_restless(Some(&at_rest()), &uncounted));
        assert!(is_restless(Some(&at_rest()), &with(|c| c.queue_length = 1)));
        assert!(is_restless(Some(&at_rest()), &with(|c| c.op_num = Some(6))));
    }
}
