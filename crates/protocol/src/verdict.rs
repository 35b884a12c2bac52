//! The verdict on a restore: a pure function of what was recorded and what is observed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    golden::{CollectionGolden, GoldenSearch, GoldenSet, Hit, PointDigest, mean},
    id::{CollectionName, PointId},
};

/// How far scores may be apart and still count as equal: the larger of an absolute and a relative distance.
///
/// Exact scores are sums of `f32` products whose order of addition depends on the CPU and on how points are spread over segments; over 4096
/// components the error of such a sum stays below 4096 × 2⁻²⁴ ≈ 2.4e-4 relative in the worst case and near 1e-6 in practice.
pub const SCORE_TOLERANCE: f64 = 1e-4;
/// How far the mean recall of normal searches may always fall below the recorded one: HNSW graphs are rebuilt by optimizers.
/// A small sample may fall further, see [`recall_tolerance`].
pub const RECALL_TOLERANCE: f64 = 0.05;

/// How far a recall of which `results` results were found or not may fall below `recorded` before it means anything.
///
/// Each result is found or not, so the recall of `results` of them scatters with a standard deviation of √(p(1−p)/n) even when nothing is
/// wrong. Three of them are allowed, with p estimated as (hits + 1)/(n + 2), since a recorded 1.0 over eight searches does not mean that a miss is impossible.
pub fn recall_tolerance(recorded: f64, results: usize) -> f64 {
    let n = results as f64;
    let p = (recorded * n + 1.0) / (n + 2.0);
    (3.0 * (p * (1.0 - p) / n.max(1.0)).sqrt()).max(RECALL_TOLERANCE)
}

/// What a Qdrant shows of the data that a golden set describes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// Alias to collection; `None` when aliases are not to be compared (a restore beside live data).
    pub aliases: Option<BTreeMap<String, CollectionName>>,
    /// By the name in the golden set. A collection that is not there has no entry.
    pub collections: BTreeMap<CollectionName, CollectionObservation>,
}

/// What a Qdrant shows of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionObservation {
    /// The exact number of points.
    pub points: u64,
    /// The configuration.
    pub config: Value,
    /// The payload indexes.
    pub payload_schema: BTreeMap<String, Value>,
    /// The sampled points that are there.
    pub sampled: Vec<PointDigest>,
    /// The outcome of each recorded search, in the golden set's order.
    pub searches: Vec<SearchObservation>,
}

/// The outcome of one recorded search, made again.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchObservation {
    /// It was answered.
    Answered {
        /// The exact search's result, best first.
        hits: Vec<Hit>,
        /// As [`GoldenSearch::recall`].
        recall: Option<f64>,
    },
    /// It was refused (strict mode), and says nothing about the data.
    NotSearched {
        /// Why.
        reason: String,
    },
}

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The collection; absent for aliases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<CollectionName>,
    /// What was compared.
    pub aspect: Aspect,
    /// How it came out.
    pub outcome: Outcome,
    /// One line for a person.
    pub detail: String,
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// The collection is there.
    Presence,
    /// Exact number of points.
    Count,
    /// Vectors, distance, HNSW and the like.
    Config,
    /// Payload indexes.
    PayloadSchema,
    /// Payloads and vectors of the sampled points.
    Points,
    /// Exact searches.
    ExactSearch,
    /// Normal (HNSW) searches.
    Recall,
    /// Aliases.
    Aliases,
}

impl Aspect {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Count => "count",
            Self::Config => "config",
            Self::PayloadSchema => "payload-schema",
            Self::Points => "points",
            Self::ExactSearch => "exact-search",
            Self::Recall => "recall",
            Self::Aliases => "aliases",
        }
    }
}

/// How a comparison came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Equal, within the stated tolerance.
    Passed,
    /// Different.
    Failed,
    /// Nothing could be compared; says nothing about the data.
    Skipped,
}

/// The verdict: every comparison made, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether nothing failed and something was compared.
    pub passed: bool,
    /// What was compared.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// The comparisons that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.outcome == Outcome::Failed)
    }
}

/// Compares what a Qdrant shows with what was recorded. Only `wanted` collections are looked at; aliases only when observed.
pub fn judge(golden: &GoldenSet, observed: &Observation, wanted: &BTreeSet<CollectionName>) -> Verdict {
    let mut checks = Vec::new();
    let mut found = BTreeSet::new();
    for recorded in golden.collections.iter().filter(|recorded| wanted.contains(&recorded.name)) {
        found.insert(&recorded.name);
        judge_collection(recorded, observed.collections.get(&recorded.name), &mut checks);
    }
    for missing in wanted.iter().filter(|name| !found.contains(name)) {
        let detail = "was asked for and is not in the golden set".to_owned();
        checks.push(Check {
            collection: Some(missing.clone()),
            aspect: Aspect::Presence,
            outcome: Outcome::Failed,
            detail,
        });
    }
    if let Some(aliases) = &observed.aliases {
        let expected: BTreeMap<_, _> =
            golden.aliases.iter().filter(|(_, target)| wanted.contains(target)).collect();
        let actual: BTreeMap<_, _> = aliases.iter().filter(|(_, target)| wanted.contains(target)).collect();
        let differences = map_differences(&expected, &actual, |a, b| a == b);
        checks.push(Check {
            collection: None,
            aspect: Aspect::Aliases,
            outcome: outcome(differences.is_empty()),
            detail: described(&differences, &format!("{} equal", expected.len())),
        });
    }
    // No check at all is no proof: a verdict over nothing never passes by silence.
    let compared = checks.iter().any(|check| check.outcome == Outcome::Passed);
    let failed = checks.iter().any(|check| check.outcome == Outcome::Failed);
    Verdict { passed: !failed && (compared || (wanted.is_empty() && golden.collections.is_empty())), checks }
}

fn outcome(passed: bool) -> Outcome {
    if passed { Outcome::Passed } else { Outcome::Failed }
}

fn judge_collection(
    recorded: &CollectionGolden,
    observed: Option<&CollectionObservation>,
    checks: &mut Vec<Check>,
) {
    let mut check = |aspect, outcome, detail: String| {
        checks.push(Check { collection: Some(recorded.name.clone()), aspect, outcome, detail });
    };
    let Some(observed) = observed else {
        check(Aspect::Presence, Outcome::Failed, "the collection is not there".to_owned());
        return;
    };
    check(Aspect::Presence, Outcome::Passed, "there".to_owned());

    let (min, max) = (recorded.points_min, recorded.points_max);
    let expected =
        if min == max { format!("{min}") } else { format!("{min} to {max} (written to during the backup)") };
    check(
        Aspect::Count,
        outcome((min..=max).contains(&observed.points)),
        format!("{} points, expected {expected}", observed.points),
    );

    let mut differences = Vec::new();
    config_differences("", &recorded.config, &observed.config, &mut differences);
    check(Aspect::Config, outcome(differences.is_empty()), described(&differences, "equal"));

    let schema = map_differences(
        &recorded.payload_schema.iter().collect(),
        &observed.payload_schema.iter().collect(),
        |recorded, observed| {
            let mut differences = Vec::new();
            config_differences("", recorded, observed, &mut differences);
            differences.is_empty()
        },
    );
    let equal = format!("{} indexes equal", recorded.payload_schema.len());
    check(Aspect::PayloadSchema, outcome(schema.is_empty()), described(&schema, &equal));

    let (points_outcome, detail) = judge_points(recorded, observed);
    check(Aspect::Points, points_outcome, detail);
    for (aspect, outcome, detail) in judge_searches(recorded, observed) {
        check(aspect, outcome, detail);
    }
}

fn judge_points(recorded: &CollectionGolden, observed: &CollectionObservation) -> (Outcome, String) {
    if recorded.points.is_empty() {
        return (Outcome::Skipped, "no point was sampled".to_owned());
    }
    let by_id: BTreeMap<PointId, &PointDigest> =
        observed.sampled.iter().map(|point| (point.id, point)).collect();
    let mut differences = Vec::new();
    for expected in &recorded.points {
        match by_id.get(&expected.id) {
            None => differences.push(format!("point {} is missing", expected.id)),
            Some(actual) => {
                if actual.payload != expected.payload {
                    differences.push(format!("point {} has another payload", expected.id));
                }
                let vectors = map_differences(
                    &expected.vectors.iter().collect(),
                    &actual.vectors.iter().collect(),
                    |a, b| a == b,
                );
                differences.extend(vectors.into_iter().map(|d| format!("point {}: vector {d}", expected.id)));
            }
        }
    }
    (
        outcome(differences.is_empty()),
        described(&differences, &format!("{} sampled points equal", recorded.points.len())),
    )
}

fn judge_searches(
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
    for (rank, (a, b)) in recorded.iter().zip(observed).enumerate() {
        if !scores_equal(a.score, b.score) {
            return Some(format!("score {} at rank {}, expected {}", b.score, rank + 1, a.score));
        }
    }
    // A result that was not cut off by the limit has no tie at its end: every id counts.
    let cut_off = recorded.len() == search.limit;
    let last = recorded.last()?.score;
    let firm = |hits: &[Hit]| -> BTreeSet<PointId> {
        hits.iter().filter(|hit| !cut_off || !scores_equal(hit.score, last)).map(|hit| hit.id).collect()
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

fn scores_equal(a: f64, b: f64) -> bool {
    (a - b).abs() <= SCORE_TOLERANCE * a.abs().max(b.abs()).max(1.0)
}

/// Where `actual` lacks or changes something that `expected` states. What only `actual` has is no difference: a later version of
/// the server may show more fields. A recorded null equals an absent field.
fn config_differences(path: &str, expected: &Value, actual: &Value, differences: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                config_differences(&path, value, actual.get(key).unwrap_or(&Value::Null), differences);
            }
        }
        _ if expected == actual || numbers_equal(expected, actual) => {}
        _ => {
            let path = if path.is_empty() { "value" } else { path };
            differences.push(format!("`{path}` is {actual}, expected {expected}"));
        }
    }
}

fn numbers_equal(a: &Value, b: &Value) -> bool {
    matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn map_differences<K: Ord + std::fmt::Display, V: std::fmt::Display>(
    expected: &BTreeMap<K, V>,
    actual: &BTreeMap<K, V>,
    equal: impl Fn(&V, &V) -> bool,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (key, value) in expected {
        match actual.get(key) {
            None => differences.push(format!("`{key}` is missing")),
            Some(other) if !equal(value, other) => {
                differences.push(format!("`{key}` is {other}, expected {value}"))
            }
            Some(_) => {}
        }
    }
    differences
        .extend(actual.keys().filter(|key| !expected.contains_key(key)).map(|key| format!("`{key}` is new")));
    differences
}

/// At most five differences on one line, or the words for "none".
fn described(differences: &[String], none: &str) -> String {
    const SHOWN: usize = 5;
    if differences.is_empty() {
        return none.to_owned();
    }
    let mut line = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if differences.len() > SHOWN {
        line.push_str(&format!("; and {} more", differences.len() - SHOWN));
    }
    line
}

#[cfg(test)]
mod tests;
