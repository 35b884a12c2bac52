//! How faithful a restored collection is, in numbers that can be drawn. The verdict is [`crate::verdict::judge`]'s; this says by how much.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    CollectionName, GoldenSet, PointId,
    golden::{CollectionGolden, PointDigest, mean},
    verdict::{
        CollectionObservation, Observation, SearchObservation, hits_differ, is_same_point, recall_tolerance,
    },
};

/// What was recorded of a collection, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// The collection.
    pub name: CollectionName,
    /// The least number of points that is right, and the greatest.
    pub points_expected: (u64, u64),
    /// The exact number of points found; absent where the collection is not there.
    pub points: Option<u64>,
    /// Sampled points, and those of them that are equal.
    pub sampled: Tally,
    /// Recorded exact searches, and those of them with the same ids and scores.
    pub searches: Tally,
    /// Those of them that could not be made (strict mode, or the collection is not there).
    pub not_searched: u64,
    /// The largest difference between a recorded score and the one found at the same rank.
    pub score_difference: Option<f64>,
    /// The recall of normal searches.
    pub recall: Option<Recall>,
}

/// How many were compared, and how many of them were equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Compared.
    pub of: u64,
    /// Equal.
    pub equal: u64,
}

/// The mean recall of normal (HNSW) searches, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// As recorded with the backup.
    pub recorded: f64,
    /// As found.
    pub found: f64,
    /// How far it may fall.
    pub tolerance: f64,
}

/// Compares collection by collection, in the golden set's order.
pub fn compare(
    golden: &GoldenSet,
    observed: &Observation,
    wanted: &BTreeSet<CollectionName>,
) -> Vec<Fidelity> {
    let recorded = golden.collections.iter().filter(|recorded| wanted.contains(&recorded.name));
    recorded.map(|recorded| of(recorded, observed.collections.get(&recorded.name))).collect()
}

fn of(recorded: &CollectionGolden, observed: Option<&CollectionObservation>) -> Fidelity {
    let mut fidelity = Fidelity {
        name: recorded.name.clone(),
        points_expected: (recorded.points_min, recorded.points_max),
        points: observed.map(|observed| observed.points),
        sampled: Tally { of: recorded.points.len() as u64, equal: 0 },
        searches: Tally { of: recorded.searches.len() as u64, equal: 0 },
        not_searched: recorded.searches.len() as u64,
        score_difference: None,
        recall: None,
    };
    let Some(observed) = observed else { return fidelity };
    let by_id: BTreeMap<PointId, &PointDigest> =
        observed.sampled.iter().map(|point| (point.id, point)).collect();
    let equal = recorded.points.iter().filter(|expected| {
        by_id.get(&expected.id).is_some_and(|actual| is_same_point(&recorded.config, expected, actual))
    });
    fidelity.sampled.equal = equal.count() as u64;

    let (mut before, mut now, mut results) = (Vec::new(), Vec::new(), 0);
    for (search, observed) in recorded.searches.iter().zip(&observed.searches) {
        let SearchObservation::Answered { hits, recall } = observed else { continue };
        fidelity.not_searched -= 1;
        fidelity.searches.equal += u64::from(hits_differ(search, hits).is_none());
        for (a, b) in search.hits.iter().zip(hits) {
            let largest = fidelity.score_difference.unwrap_or(0.0);
            fidelity.score_difference = Some(largest.max((a.score - b.score).abs()));
        }
        if let (Some(recorded), Some(found)) = (search.recall, *recall) {
            before.push(recorded);
            now.push(found);
            results += if search.confined { 1 } else { search.hits.len() };
        }
    }
    if let (Some(recorded), Some(found)) = (mean(before.into_iter()), mean(now.into_iter())) {
        fidelity.recall = Some(Recall { recorded, found, tolerance: recall_tolerance(recorded, results) });
    }
    fidelity
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::golden::{GoldenSearch, Hit};

    fn point(id: u64, payload: &str) -> PointDigest {
        PointDigest {
            id: PointId::Number(id),
            payload: payload.to_owned(),
            vectors: BTreeMap::new(),
            sketches: BTreeMap::new(),
        }
    }

    fn golden() -> GoldenSet {
        let hits =
            vec![Hit { id: PointId::Number(1), score: 0.9 }, Hit { id: PointId::Number(2), score: 0.5 }];
        let search = GoldenSearch {
            using: String::new(),
            point: PointId::Number(1),
            query: json!([1.0]),
            limit: 2,
            confined: false,
            hits,
            recall: Some(1.0),
        };
        let docs = CollectionGolden {
            name: "docs".parse().unwrap(),
            points_min: 2,
            points_max: 3,
            config: json!({}),
            payload_schema: BTreeMap::new(),
            points: vec![point(1, "a"), point(2, "b")],
            changed: Vec::new(),
            searches: vec![search],
            not_searched: None,
            indexed_vectors: None,
        };
        GoldenSet {
            format_version: 1,
            backup_id: "20261123T051400Z".parse().unwrap(),
            aliases: BTreeMap::new(),
            collections: vec![docs],
        }
    }

    #[test]
    fn what_is_equal_is_counted_and_what_differs_is_measured() {
        let golden = golden();
        let wanted = ["docs".parse().unwrap()].into();
        let hits =
            vec![Hit { id: PointId::Number(1), score: 0.9 }, Hit { id: PointId::Number(2), score: 0.4 }];
        let sketches = BTreeMap::from([(String::new(), vec![1, 2, 3, 4])]);
        let observed = CollectionObservation {
            points: 2,
            config: json!({}),
            payload_schema: BTreeMap::new(),
            // An earlier release recorded no sketches.
            sampled: vec![PointDigest { sketches, ..point(2, "b") }, point(1, "changed")],
            searches: vec![SearchObservation::Answered { hits, recall: Some(0.5) }],
            indexed_vectors: None,
            optimizing: false,
        };
        let collections = [("docs".parse().unwrap(), observed)].into();
        let observation = Observation { collections, ..Observation::default() };
        let [fidelity] = compare(&golden, &observation, &wanted).try_into().unwrap();
        assert_eq!((fidelity.points_expected, fidelity.points), ((2, 3), Some(2)));
        assert_eq!(fidelity.sampled, Tally { of: 2, equal: 1 });
        assert_eq!((fidelity.searches, fidelity.not_searched), (Tally { of: 1, equal: 0 }, 0));
        assert!((fidelity.score_difference.unwrap() - 0.1).abs() < 1e-9);
        let recall = fidelity.recall.unwrap();
        assert_eq!((recall.recorded, recall.found, recall.tolerance), (1.0, 0.5, recall_tolerance(1.0, 2)));

        let [missing] = compare(&golden, &Observation::default(), &wanted).try_into().unwrap();
        assert_eq!((missing.points, missing.sampled), (None, Tally { of: 2, equal: 0 }));
        assert_eq!((missing.searches, missing.not_searched), (Tally { of: 1, equal: 0 }, 1));
        assert_eq!(compare(&golden, &observation, &BTreeSet::new()), []);
    }
}
