//! The verdict as a table: an honest restore passes, and every planted change is found and named.

use serde_json::json;

use super::*;
use crate::golden::FORMAT_VERSION;

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

fn digest(id: u64) -> PointDigest {
    let vectors = BTreeMap::from([(String::new(), format!("v{id}")), ("title".to_owned(), format!("t{id}"))]);
    PointDigest { id: PointId::Number(id), payload: format!("p{id}"), vectors }
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
    };
    Observation { aliases: Some(golden().aliases), collections: BTreeMap::from([(name("docs"), docs)]) }
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

#[test]
fn an_honest_restore_passes() {
    let verdict = judged(|_, _| {});
    assert!(verdict.passed, "{verdict:#?}");
    assert_eq!(verdict.checks.len(), 8);
}

#[test]
fn harmless_differences_pass() {
    type Change = fn(&mut GoldenSet, &mut Observation);
    let harmless: [(&str, Change); 8] = [
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
    ];
    for (what, change) in harmless {
        let verdict = judged(change);
        assert!(verdict.passed, "{what}: {verdict:#?}");
    }
}

#[test]
fn every_planted_change_is_found_and_named() {
    type Change = fn(&mut GoldenSet, &mut Observation);
    let planted: [(&str, Aspect, &str, Change); 17] = [
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
fn recall_scatters_with_the_size_of_the_sample() {
    let close = |a: f64, b: f64| (a - b).abs() < 0.005;
    // Eighty results of a good graph, eighty of a quantised one, eight confined searches.
    assert!(close(recall_tolerance(1.0, 80), 0.05), "{}", recall_tolerance(1.0, 80));
    assert!(close(recall_tolerance(0.85, 80), 0.121), "{}", recall_tolerance(0.85, 80));
    assert!(close(recall_tolerance(1.0, 8), 0.32), "{}", recall_tolerance(1.0, 8));
    assert!(recall_tolerance(1.0, 10_000) <= RECALL_TOLERANCE);
}
