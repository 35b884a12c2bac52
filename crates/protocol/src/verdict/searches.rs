//! The recorded searches against the same ones made again.

use std::collections::BTreeSet;

use super::{Aspect, CollectionObservation, Outcome, SearchObservation, described, outcome};
use crate::{
    golden::{CollectionGolden, GoldenSearch, Hit, mean},
    id::PointId,
};

/// How far scores may be apart and still count as equal, as a share of the largest score of the search, or of 1 where all are smaller.
///
/// Exact scores are sums of `f32` products whose order of addition depends on the CPU and on how points are spread over segments; over 4096
/// components the error of such a sum stays below 4096 × 2⁻²⁴ ≈ 2.4e-4 of the sum of the products' sizes in the worst case and near 1e-6 in
/// practice. That sum, unlike the score, does not shrink where products cancel: a dot product near zero is as noisy as a large one.
pub const SCORE_TOLERANCE: f64 = 1e-4;
/// How far the mean recall of normal searches may always fall below the recorded one: HNSW graphs are rebuilt by optimizers.
/// A small sample may fall further, see [`recall_tolerance`].
pub const RECALL_TOLERANCE: f64 = 0.05;
/// A recall that falls further than this is none of the same graph, however small the sample: where one result in fifty is missed, five of eight
/// are once in a million times.
pub const RECALL_TOLERANCE_MAX: f64 = 0.5;

/// How far a recall of which `results` results were found or not may fall below `recorded` before it means anything.
///
/// Each result is found or not, so a recall of `results` of them scatters with a standard deviation of √(p(1−p)/n) even when nothing is
/// wrong, and the difference between two of them, which is what is judged, with √2 of that. Four of the latter are allowed: 1 in 30,000
/// honest restores whose graphs were rebuilt would exceed it. p is estimated as (hits + 1)/(n + 2), since a recorded 1.0 over eight searches
/// does not mean that a miss is impossible. Never more than [`RECALL_TOLERANCE_MAX`]: of a handful of results nothing else would be left.
pub fn recall_tolerance(recorded: f64, results: usize) -> f64 {
    let n = results as f64;
    let p = (recorded * n + 1.0) / (n + 2.0);
    (4.0 * (2.0 * p * (1.0 - p) / n.max(1.0)).sqrt()).clamp(RECALL_TOLERANCE, RECALL_TOLERANCE_MAX)
}

pub(super) fn judge_searches(
    recorded: &CollectionGolden,
    observed: &CollectionObservation,
) -> Vec<(Aspect, Outcome, String)> {
    if recorded.searches.is_empty() {
        let reason = recorded.not_searched.as_deref().unwrap_or("nothing was recorded");
        return vec![(Aspect::ExactSearch, Outcome::Skipped, format!("not searched: {reason}"))];
    }
    let (mut compared, mut differences, mut refusals) = (0_usize, Vec::new(), BTreeSet::new());
    let (mut recorded_recall, mut observed_recall, mut results_judged) = (Vec::new(), Vec::new(), 0);
    for (number, search) in recorded.searches.iter().enumerate() {
        match observed.searches.get(number) {
            None => differences.push(format!("search {number} was not made")),
            Some(SearchObservation::NotSearched { reason }) => {
                refusals.insert(reason.as_str());
            }
            Some(SearchObservation::Answered { hits, recall }) => {
                compared += 1;
                if let Some(difference) = hits_differ(search, hits) {
                    differences.push(format!("search {number} by point {}: {difference}", search.point));
                }
                if let (Some(before), Some(now)) = (search.recall, *recall) {
                    // A confined search says only whether it found its own point.
                    results_judged += if search.confined { 1 } else { search.hits.len() };
                    recorded_recall.push(before);
                    observed_recall.push(now);
                }
            }
        }
    }
    let mut results = Vec::new();
    let exact = match (compared, differences.is_empty()) {
        (0, true) => (
            Outcome::Skipped,
            format!("not searched: {}", refusals.into_iter().collect::<Vec<_>>().join("; ")),
        ),
        (_, passed) => (
            outcome(passed),
            described(&differences, &format!("{compared} searches with the same ids and scores")),
        ),
    };
    results.push((Aspect::ExactSearch, exact.0, exact.1));
    if let (Some(before), Some(now)) = (mean(recorded_recall.into_iter()), mean(observed_recall.into_iter()))
    {
        let passed = now >= before - recall_tolerance(before, results_judged);
        results.push((Aspect::Recall, outcome(passed), format!("{now:.3}, recorded {before:.3}")));
    }
    results
}

/// Why two results of an exact search are not the same; `None` when they are.
///
/// Positions must agree in score. Ids must agree above the k-th score: at it, equal scores have no order and any of the tied points may be shown.
pub(crate) fn hits_differ(search: &GoldenSearch, observed: &[Hit]) -> Option<String> {
    let recorded = &search.hits;
    if recorded.len() != observed.len() {
        return Some(format!("{} results, expected {}", observed.len(), recorded.len()));
    }
    let noise = noise(recorded);
    let equal = |a: f64, b: f64| (a - b).abs() <= noise;
    for (rank, (a, b)) in recorded.iter().zip(observed).enumerate() {
        if !equal(a.score, b.score) {
            return Some(format!("score {} at rank {}, expected {}", b.score, rank + 1, a.score));
        }
    }
    // A result that was not cut off by the limit has no tie at its end: every id counts.
    let cut_off = recorded.len() == search.limit;
    let last = recorded.last()?.score;
    let firm = |hits: &[Hit]| -> BTreeSet<PointId> {
        hits.iter().filter(|hit| !cut_off || !equal(hit.score, last)).map(|hit| hit.id).collect()
    };
    let ids = |hits: &[Hit]| -> BTreeSet<PointId> { hits.iter().map(|hit| hit.id).collect() };
    let missing: Vec<PointId> = firm(recorded).difference(&ids(observed)).copied().collect();
    let strange: Vec<PointId> = firm(observed).difference(&ids(recorded)).copied().collect();
    match (missing.first(), strange.first()) {
        (Some(id), _) => Some(format!("point {id} is missing from the results")),
        (None, Some(id)) => Some(format!("point {id} is new in the results")),
        (None, None) => None,
    }
}

/// How far two scores of this search may be apart and still count as equal.
fn noise(hits: &[Hit]) -> f64 {
    SCORE_TOLERANCE * hits.iter().map(|hit| hit.score.abs()).fold(1.0, f64::max)
}
