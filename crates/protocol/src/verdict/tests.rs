//! The verdict as a table: an honest restore passes, and every planted change is found and named.

use serde_json::json;

use super::*;
use crate::{
    golden::{FORMAT_VERSION, GoldenSearch},
    id::PointId,
};

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

fn digest(id: u64) -> PointDigest {
    let vectors = BTreeMap::from([(String::new(), format!("v{id}")), ("title".to_owned(), format!("t{id}"))]);
    let sketches = BTreeMap::from([(String::new(), vec![5_000_000; 4])]);
    PointDigest { id: PointId::Number(id), payload: format!("p{id}"), vectors, sketches }
}

fn hits(of: &[(u64, f64)]) -> Vec<Hit> {
    of.iter().map(|&(id, score)| Hit { id: PointId::Number(id), score }).collect()
}

fn golden() -> GoldenSet {
    let search = GoldenSearch {
        using: String::new(),
        point: PointId::Number(1),
        query: json!([0.5, 0.25]),
        limit: 4,
        confined: false,
        hits: hits(&[(1, 1.0), (2, 0.9), (3, 0.5), (4, 0.5)]),
        recall: Some(1.0),
    };
    let docs = CollectionGolden {
        name: name("docs"),
        points_min: 100,
        points_max: 100,
        config: json!({"params": {"vectors": {"size": 2, "distance": "Cosine"}}, "hnsw_config": {"m": 16, "on_disk": null}}),
        payload_schema: BTreeMap::from([("lang".to_owned(), json!({"data_type": "keyword"}))]),
        points: vec![digest(1), digest(2)],
        changed: vec![],
        searches: vec![search],
        not_searched: None,
        indexed_vectors: Some(200),
    };
    GoldenSet {
        format_version: FORMAT_VERSION,
        backup_id: "20261123T051400Z".parse().unwrap(),
        aliases: BTreeMap::from([("live".to_owned(), name("docs"))]),
        collections: vec![docs],
    }
}

fn honest() -> Observation {
    let recorded = &golden().collections[0];
    let docs = CollectionObservation {
        points: 100,
        config: recorded.config.clone(),
        payload_schema: recorded.payload_schema.clone(),
        sampled: recorded.points.clone(),
        searches: vec![SearchObservation::Answered {
            hits: recorded.searches[0].hits.clone(),
            recall: Some(1.0),
        }],
        indexed_vectors: Some(200),
        optimizing: false,
    };
    Observation {
        aliases: Some(golden().aliases),
        collections: BTreeMap::from([(name("docs"), docs)]),
        others: BTreeSet::new(),
    }
}

fn judged(change: impl FnOnce(&mut GoldenSet, &mut Observation)) -> Verdict {
    let (mut golden, mut observed) = (golden(), honest());
    change(&mut golden, &mut observed);
    judge(&golden, &observed, &BTreeSet::from([name("docs")]))
}

fn docs(observed: &mut Observation) -> &mut CollectionObservation {
    observed.collections.get_mut("docs".parse::<CollectionName>().as_ref().unwrap()).unwrap()
}

fn answered(list: &[(u64, f64)]) -> Vec<SearchObservation> {
    vec![SearchObservation::Answered { hits: hits(list), recall: Some(1.0) }]
}

/// Point 1 has another default vector with this sketch.
fn normalised(observed: &mut Observation, sketch: i64) {
    let point = &mut docs(observed).sampled[0];
    point.vectors.insert(String::new(), "x".to_owned());
    point.sketches.insert(String::new(), vec![sketch; 4]);
}

#[test]
fn an_honest_restore_passes() {
    let verdict = judged(|_, _| {});
    assert!(verdict.passed, "{verdict:#?}");
    assert_eq!(verdict.checks.len(), 9);
}

#[test]
fn harmless_differences_pass() {
    type Change = fn(&mut GoldenSet, &mut Observation);
    let harmless: [(&str, Change); 14] = [
        ("float noise", |_, o| {
            docs(o).searches = answered(&[(1, 0.999_99), (2, 0.900_01), (3, 0.5), (4, 0.5)])
        }),
        ("tied ids at the end", |_, o| {
            docs(o).searches = answered(&[(1, 1.0), (2, 0.9), (8, 0.5), (9, 0.5)])
        }),
        ("a field that a later version added", |_, o| docs(o).config["params"]["new"] = json!(1)),
        ("a null that is no longer shown", |_, o| {
            docs(o).config["hnsw_config"].as_object_mut().unwrap().remove("on_disk");
        }),
        ("a little less recall", |_, o| {
            let recorded = golden().collections[0].searches[0].hits.clone();
            docs(o).searches = vec![SearchObservation::Answered { hits: recorded, recall: Some(0.96) }];
        }),
        ("strict mode forbids exact search", |_, o| {
            docs(o).searches = vec![SearchObservation::NotSearched { reason: "strict mode".to_owned() }];
        }),
        ("a count within the range", |g, o| {
            g.collections[0].points_max = 110;
            docs(o).points = 105;
        }),
        ("another collection's alias", |_, o| {
            o.aliases.as_mut().unwrap().insert("other".to_owned(), name("others"));
        }),
        ("a vector that was normalised again", |_, o| normalised(o, 5_000_090)),
        ("a dot product near zero, as noisy as a large one", |g, o| {
            g.collections[0].searches[0].hits = hits(&[(1, 50_000.0), (2, 3.0), (3, -0.001), (4, -70_000.0)]);
            docs(o).searches = answered(&[(1, 50_000.02), (2, 3.02), (3, 0.011), (4, -70_000.02)]);
        }),
        ("what a recovery never brings back", |g, _| {
            g.collections[0].config["params"]["read_fan_out_factor"] = json!(2);
        }),
        ("a few vectors that are not indexed", |_, o| docs(o).indexed_vectors = Some(185)),
        ("an index that is being built", |_, o| {
            docs(o).indexed_vectors = Some(0);
            docs(o).optimizing = true;
        }),
        ("a server that does not tell what is indexed", |_, o| docs(o).indexed_vectors = None),
    ];
    for (what, change) in harmless {
        let verdict = judged(change);
        assert!(verdict.passed, "{what}: {verdict:#?}");
    }
}

#[test]
fn every_planted_change_is_found_and_named() {
    type Change = fn(&mut GoldenSet, &mut Observation);
    let planted: [(&str, Aspect, &str, Change); 20] = [
        ("missing point", Aspect::Count, "99 points, expected 100", |_, o| docs(o).points = 99),
        ("extra point", Aspect::Count, "101 points", |_, o| docs(o).points = 101),
        ("count below the range", Aspect::Count, "expected 100 to 110", |g, o| {
            g.collections[0].points_max = 110;
            docs(o).points = 99;
        }),
        ("sampled point gone", Aspect::Points, "point 2 is missing", |_, o| drop(docs(o).sampled.pop())),
        ("payload value", Aspect::Points, "point 1 has another payload", |_, o| {
            docs(o).sampled[0].payload = "x".to_owned()
        }),
        ("vector component", Aspect::Points, "point 1: vector `title`", |_, o| {
            docs(o).sampled[0].vectors.insert("title".to_owned(), "x".to_owned());
        }),
        ("vector gone", Aspect::Points, "point 2: vector `title` is missing", |_, o| {
            docs(o).sampled[1].vectors.remove("title");
        }),
        ("alias lost", Aspect::Aliases, "`live` is missing", |_, o| o.aliases.as_mut().unwrap().clear()),
        ("alias too many", Aspect::Aliases, "`more` is new", |_, o| {
            o.aliases.as_mut().unwrap().insert("more".to_owned(), name("docs"));
        }),
        ("alias to what is not in the backup", Aspect::Aliases, "`live` is others, expected docs", |_, o| {
            o.aliases.as_mut().unwrap().insert("live".to_owned(), name("others"));
        }),
        ("HNSW index lost", Aspect::VectorIndex, "0 vectors indexed, expected 200", |_, o| {
            docs(o).indexed_vectors = Some(0)
        }),
        ("a component of a normalised vector", Aspect::Points, "point 1: vector ``", |_, o| {
            normalised(o, 5_000_110)
        }),
        ("payload index lost", Aspect::PayloadSchema, "`lang` is missing", |_, o| {
            docs(o).payload_schema.clear()
        }),
        ("distance", Aspect::Config, "`params.vectors.distance` is \"Dot\"", |_, o| {
            docs(o).config["params"]["vectors"]["distance"] = json!("Dot");
        }),
        ("HNSW parameters", Aspect::Config, "`hnsw_config.m` is 0, expected 16", |_, o| {
            docs(o).config["hnsw_config"]["m"] = json!(0)
        }),
        ("collection missing", Aspect::Presence, "not there", |_, o| o.collections.clear()),
        ("a score", Aspect::ExactSearch, "score 0.8 at rank 2", |_, o| {
            docs(o).searches = answered(&[(1, 1.0), (2, 0.8), (3, 0.5), (4, 0.5)]);
        }),
        ("an id", Aspect::ExactSearch, "point 2 is missing from the results", |_, o| {
            docs(o).searches = answered(&[(1, 1.0), (7, 0.9), (3, 0.5), (4, 0.5)]);
        }),
        ("fewer results", Aspect::ExactSearch, "1 results, expected 4", |_, o| {
            docs(o).searches = answered(&[(1, 1.0)])
        }),
        ("recall", Aspect::Recall, "0.100, recorded 1.000", |_, o| {
            let recorded = golden().collections[0].searches[0].hits.clone();
            docs(o).searches = vec![SearchObservation::Answered { hits: recorded, recall: Some(0.1) }];
        }),
    ];
    for (what, aspect, detail, change) in planted {
        let verdict = judged(change);
        assert!(!verdict.passed, "{what}");
        let named = verdict.failures().any(|check| check.aspect == aspect && check.detail.contains(detail));
        assert!(named, "{what}: {:#?}", verdict.failures().collect::<Vec<_>>());
    }
}

#[test]
fn ids_below_the_limit_count_even_when_tied() {
    // Three results of a limit of four: nothing was cut off, so no id is excused.
    let verdict = judged(|g, o| {
        g.collections[0].searches[0].hits = hits(&[(1, 1.0), (2, 0.5), (3, 0.5)]);
        docs(o).searches = answered(&[(1, 1.0), (2, 0.5), (9, 0.5)]);
    });
    assert!(!verdict.passed);
}

#[test]
fn nothing_compared_is_no_proof() {
    let empty = GoldenSet { collections: vec![], ..golden() };
    let asked = judge(&empty, &honest(), &BTreeSet::from([name("docs")]));
    assert!(!asked.passed, "a collection that was asked for must be proved");
    let unasked = judge(&golden(), &Observation::default(), &BTreeSet::new());
    assert!(!unasked.passed, "a golden set with collections of which none is looked at proves nothing");
    assert!(
        judge(&empty, &Observation::default(), &BTreeSet::new()).passed,
        "an empty Qdrant restores to an empty one"
    );
}

#[test]
fn the_noise_of_normalising_is_borne_only_where_qdrant_normalises() {
    let judged_as = |params: Value, sketch: i64| {
        judged(|g, o| {
            for config in [&mut g.collections[0].config, &mut docs(o).config] {
                config["params"]["vectors"] = params.clone();
            }
            normalised(o, sketch);
        })
    };
    for (params, sketch, passes) in [
        (json!({"distance": "Cosine", "datatype": "float32"}), 5_000_090, true),
        (json!({"distance": "Cosine", "datatype": "float16"}), 5_009_000, true),
        (json!({"distance": "Cosine", "datatype": "float16"}), 5_011_000, false),
        (json!({"distance": "Cosine", "datatype": "uint8"}), 5_000_000, false),
        (json!({"distance": "Dot"}), 5_000_000, false),
        (json!({"title": {"distance": "Cosine"}}), 5_000_000, false),
    ] {
        let verdict = judged_as(params.clone(), sketch);
        assert_eq!(verdict.passed, passes, "{params}: {verdict:#?}");
    }
    let said = judged_as(json!({"distance": "Cosine"}), 5_000_000);
    let points = said.checks.iter().find(|check| check.aspect == Aspect::Points).unwrap();
    assert_eq!(points.detail, "2 sampled points equal, 1 vectors of them but for the noise of normalising");
    let lost = judged(|g, o| {
        g.collections[0].points[0].sketches.clear();
        normalised(o, 5_000_000);
    });
    assert!(!lost.passed, "an earlier release recorded no sketches: the digests decide");
}

#[test]
fn what_is_not_in_the_backup_is_named_and_not_judged() {
    let verdict = judged(|_, o| o.others = BTreeSet::from([name("tmp"), name("old")]));
    assert!(verdict.passed);
    let named = verdict.checks.iter().find(|check| check.detail.contains("`old`; `tmp`")).unwrap();
    assert_eq!((named.aspect, named.outcome), (Aspect::Presence, Outcome::Skipped));
    let silent = judged(|g, _| g.collections[0].indexed_vectors = None);
    assert!(silent.checks.iter().all(|check| check.aspect != Aspect::VectorIndex), "earlier releases");
}

#[test]
fn recall_scatters_with_the_size_of_the_sample() {
    let close = |a: f64, b: f64| (a - b).abs() < 0.005;
    // Eighty results of a good graph, eighty of a quantised one, eight confined searches.
    assert!(close(recall_tolerance(1.0, 80), 0.069), "{}", recall_tolerance(1.0, 80));
    assert!(close(recall_tolerance(0.85, 80), 0.228), "{}", recall_tolerance(0.85, 80));
    assert!(close(recall_tolerance(1.0, 8), 0.5), "{}", recall_tolerance(1.0, 8));
    assert!(recall_tolerance(1.0, 10_000) <= RECALL_TOLERANCE);
}
