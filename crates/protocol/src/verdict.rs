//! The verdict on a restore: a pure function of what was recorded and what is observed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    golden::{CollectionGolden, GoldenSet, Hit, PointDigest},
    id::CollectionName,
};

mod points;
mod searches;

pub(crate) use points::is_same_point;
pub use points::{NORMALISED_HALF_TOLERANCE, NORMALISED_TOLERANCE};
pub(crate) use searches::hits_differ;
pub use searches::{RECALL_TOLERANCE, RECALL_TOLERANCE_MAX, SCORE_TOLERANCE, recall_tolerance};

/// The share of the recorded indexed vectors that may be without an index: a small segment that writes leave behind has none, and optimizers
/// merge segments.
pub const INDEX_TOLERANCE: f64 = 0.1;

/// Members of a collection's `params` that a recovery does not bring back, and that mean nothing on one node.
const NOT_RESTORED: [&str; 2] = ["params.read_fan_out_factor", "params.read_fan_out_delay_ms"];

/// What a Qdrant shows of the data that a golden set describes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// Alias to collection; `None` when aliases are not to be compared (a restore beside live data).
    pub aliases: Option<BTreeMap<String, CollectionName>>,
    /// By the name in the golden set. A collection that is not there has no entry.
    pub collections: BTreeMap<CollectionName, CollectionObservation>,
    /// Collections of which the golden set says nothing, where everything in this Qdrant was looked at. They are named and not judged.
    pub others: BTreeSet<CollectionName>,
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
    /// How many vectors are in an index, where Qdrant says so.
    pub indexed_vectors: Option<u64>,
    /// Whether optimizers are at work, which may be building an index.
    pub optimizing: bool,
}

/// The outcome of one recorded search, made again.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchObservation {
    /// It was answered.
    Answered {
        /// The exact search's result, best first.
        hits: Vec<Hit>,
        /// As [`crate::golden::GoldenSearch::recall`].
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
    /// How many vectors are in an index.
    VectorIndex,
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
            Self::VectorIndex => "vector-index",
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
    if !observed.others.is_empty() {
        let others: Vec<String> = observed.others.iter().map(|name| format!("`{name}`")).collect();
        checks.push(Check {
            collection: None,
            aspect: Aspect::Presence,
            outcome: Outcome::Skipped,
            detail: format!("not in the backup, not compared: {}", described(&others, "")),
        });
    }
    if let Some(aliases) = &observed.aliases {
        let expected: BTreeMap<_, _> =
            golden.aliases.iter().filter(|(_, target)| wanted.contains(target)).collect();
        // An alias that readers were to find here counts wherever it points now.
        let actual: BTreeMap<_, _> = aliases
            .iter()
            .filter(|(alias, target)| wanted.contains(target) || expected.contains_key(alias))
            .collect();
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

    if let Some((index_outcome, detail)) = judge_index(recorded, observed) {
        check(Aspect::VectorIndex, index_outcome, detail);
    }
    let (points_outcome, detail) = points::judge_points(recorded, observed);
    check(Aspect::Points, points_outcome, detail);
    for (aspect, outcome, detail) in searches::judge_searches(recorded, observed) {
        check(aspect, outcome, detail);
    }
}

/// Whether the vectors that were indexed still are; `None` where that was not recorded. Searches alone do not tell: without an index every vector
/// is compared, which finds everything and takes for ever. An index that Qdrant is building is none that is lost.
fn judge_index(recorded: &CollectionGolden, observed: &CollectionObservation) -> Option<(Outcome, String)> {
    let expected = recorded.indexed_vectors?;
    let Some(indexed) = observed.indexed_vectors else {
        return Some((Outcome::Skipped, "Qdrant does not say how many vectors are indexed".to_owned()));
    };
    if indexed as f64 >= expected as f64 * (1.0 - INDEX_TOLERANCE) {
        return Some((Outcome::Passed, format!("{indexed} vectors indexed, recorded {expected}")));
    }
    let missing = format!("{indexed} vectors indexed, expected {expected}");
    Some(if observed.optimizing {
        (Outcome::Skipped, format!("{missing}; Qdrant is optimizing, and searches are slow until it is done"))
    } else {
        (Outcome::Failed, format!("{missing}; nothing is building the index, so searches read every vector"))
    })
}

/// Where `actual` lacks or changes something that `expected` states. What only `actual` has is no difference: a later version of
/// the server may show more fields. A recorded null equals an absent field, and what no recovery brings back is passed over.
fn config_differences(path: &str, expected: &Value, actual: &Value, differences: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if NOT_RESTORED.contains(&path.as_str()) {
                    continue;
                }
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
