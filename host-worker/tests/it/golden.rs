//! Recording a golden set and judging servers by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use host_worker::{
    golden::{Reference, Sample, finish},
    observe::observe,
    qdrant::{Client, Error},
    state::{State, compare},
};
use protocol::{
    CollectionName, FailureKind, GoldenSet, PointId,
    golden::{CollectionGolden, FORMAT_VERSION, SAMPLE_POINTS, SEARCH_LIMIT, SEARCHES_PER_VECTOR},
    verdict::{Aspect, Outcome, SearchObservation, Verdict, judge},
};
use serde_json::json;

use crate::{
    model::{Collection, Model, Qdrant, Refusal},
    server::Request,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

/// The whole record of `docs`, with `meanwhile` happening between the sample and the state after.
async fn record(qdrant: &Qdrant, meanwhile: impl FnOnce(&mut Model)) -> CollectionGolden {
    let (client, docs) = (qdrant.client(), name("docs"));
    let before = State::read(&client).await.unwrap();
    let sample = Sample::take(&client, &docs).await.unwrap();
    meanwhile(&mut qdrant.model());
    let after = State::read(&client).await.unwrap();
    let change = compare(&before, &after);
    let reference = Reference::of(&docs, &before, &after, &change).unwrap();
    finish(&client, sample, reference).await.unwrap()
}

fn set(golden: CollectionGolden) -> GoldenSet {
    GoldenSet {
        format_version: FORMAT_VERSION,
        backup_id: "20261123T051400Z".parse().unwrap(),
        aliases: BTreeMap::from([("now".to_owned(), name("docs"))]),
        collections: vec![golden],
    }
}

async fn verdict(client: &Client, golden: &GoldenSet, actual: &str, aliases: bool) -> Result<Verdict, Error> {
    let names = BTreeMap::from([(name("docs"), name(actual))]);
    let seen = observe(client, golden, &names, aliases, PATIENCE).await?;
    Ok(judge(golden, &seen, &BTreeSet::from([name("docs")])))
}

fn failed(verdict: &Verdict) -> Vec<Aspect> {
    verdict.failures().map(|check| check.aspect).collect()
}

#[tokio::test]
async fn what_is_recorded_is_found_again_also_under_another_name() {
    let qdrant = Qdrant::start([("docs", Collection::dense(40))]).await;
    qdrant.model().aliases.insert("now".to_owned(), "docs".to_owned());
    let golden = record(&qdrant, |_| {}).await;
    assert_eq!((golden.points_min, golden.points_max, golden.points.len()), (40, 40, 40));
    assert!(golden.changed.is_empty() && golden.not_searched.is_none());
    assert_eq!(golden.searches.len(), SEARCHES_PER_VECTOR);
    assert!(golden.points.is_sorted_by_key(|point| point.id));
    assert_eq!(golden.payload_schema, BTreeMap::from([("n".to_owned(), json!({"data_type": "integer"}))]));
    for search in &golden.searches {
        assert!(!search.confined && search.hits.len() == SEARCH_LIMIT && search.recall == Some(1.0));
        assert_eq!(search.hits[0].id, search.point, "the nearest to itself on a circle");
    }

    let golden = set(golden);
    let same = verdict(&qdrant.client(), &golden, "docs", true).await.unwrap();
    assert!(same.passed, "{same:?}");
    let restored = Qdrant::start([("docs-restored", Collection::dense(40))]).await;
    let beside = verdict(&restored.client(), &golden, "docs-restored", false).await.unwrap();
    assert!(beside.passed, "{beside:?}");
    let aliases = verdict(&restored.client(), &golden, "docs-restored", true).await.unwrap();
    assert_eq!(failed(&aliases), [Aspect::Aliases]);
    restored.model().aliases.insert("now".to_owned(), "docs-restored".to_owned());
    assert!(verdict(&restored.client(), &golden, "docs-restored", true).await.unwrap().passed);
}

#[tokio::test]
async fn every_damage_is_seen() {
    let qdrant = Qdrant::start([("docs", Collection::dense(40))]).await;
    let golden = set(record(&qdrant, |_| {}).await);
    type Damage = fn(&mut Collection);
    let damages: [(Damage, &[Aspect]); 6] = [
        (|c| drop(c.points.remove(&7)), &[Aspect::Count, Aspect::Points, Aspect::ExactSearch]),
        (|c| c.points.get_mut(&7).unwrap().0 = json!({"n": 8}), &[Aspect::Points]),
        (|c| c.points.get_mut(&7).unwrap().1 = json!([0.5, 0.5]), &[Aspect::Points, Aspect::ExactSearch]),
        (|c| c.config["params"]["vectors"]["distance"] = json!("Cosine"), &[Aspect::Config]),
        (|c| c.payload_schema = json!({}), &[Aspect::PayloadSchema]),
        (|c| c.hidden = (0..30).collect(), &[Aspect::Recall]),
    ];
    for (number, (damage, aspects)) in damages.into_iter().enumerate() {
        let mut collection = Collection::dense(40);
        damage(&mut collection);
        let damaged = Qdrant::start([("docs", collection)]).await;
        let verdict = verdict(&damaged.client(), &golden, "docs", false).await.unwrap();
        assert_eq!(failed(&verdict), aspects, "damage {number}: {verdict:?}");
    }
    let empty = Qdrant::start([]).await;
    let verdict = verdict(&empty.client(), &golden, "docs", false).await.unwrap();
    assert_eq!(failed(&verdict), [Aspect::Presence]);
}

#[tokio::test]
async fn points_that_change_during_the_backup_are_left_out_and_the_rest_still_proves() {
    let qdrant = Qdrant::start([("docs", Collection::dense(40))]).await;
    let golden = record(&qdrant, |model| {
        let docs = model.collection("docs");
        docs.write(3, json!({"n": "other"}));
        docs.write(100, json!({"n": "new"}));
        docs.points.remove(&4);
        docs.points.remove(&5);
    })
    .await;
    assert_eq!(golden.changed, [3, 4, 5].map(PointId::Number));
    assert_eq!((golden.points_min, golden.points_max, golden.points.len()), (39, 40, 37));
    assert!(golden.searches.iter().all(|search| search.confined && search.recall == Some(1.0)));
    assert!(
        golden.searches.iter().flat_map(|search| &search.hits).all(|hit| !golden.changed.contains(&hit.id))
    );

    // The snapshot may hold either state; both pass.
    let golden = set(golden);
    let early = Qdrant::start([("docs", Collection::dense(40))]).await;
    for server in [&early, &qdrant] {
        let verdict = verdict(&server.client(), &golden, "docs", false).await.unwrap();
        assert!(verdict.passed, "{verdict:?}");
    }
}

/// Writes to `docs` before every answered search, to the points that `ids` gives, until `times` are reached.
fn writer(ids: fn(u64) -> u64, times: u64) -> impl Fn(&Request, &mut Model) + Send + Sync {
    let writes = AtomicU64::new(0);
    move |request, model| {
        let searched =
            request.line().ends_with("/points/query") && request.body["query"].get("sample").is_none();
        if searched && writes.load(Ordering::SeqCst) < times {
            let write = writes.fetch_add(1, Ordering::SeqCst);
            model.collection("docs").write(ids(write), json!({"write": write}));
        }
    }
}

#[tokio::test]
async fn a_write_while_searching_confines_the_searches_to_what_stood_still() {
    // 300 points: the sample does not hold the first ones, which are those written to.
    let hook = Box::new(writer(|write| write % 10, u64::MAX));
    let qdrant = Qdrant::with_hook([("docs", Collection::dense(300))], hook).await;
    let golden = record(&qdrant, |_| {}).await;
    assert_eq!(golden.points.len(), SAMPLE_POINTS);
    assert_eq!(golden.searches.len(), SEARCHES_PER_VECTOR);
    assert!(golden.searches.iter().all(|search| search.confined));
    assert!(golden.changed.is_empty());
}

#[tokio::test]
async fn sampled_points_that_are_written_to_while_searching_are_dropped() {
    let hook = Box::new(writer(|write| write, 5));
    let qdrant = Qdrant::with_hook([("docs", Collection::dense(40))], hook).await;
    let golden = record(&qdrant, |_| {}).await;
    assert_eq!(golden.changed, [0, 1, 2, 3, 4].map(PointId::Number));
    assert!(golden.searches.iter().all(|search| search.confined));
    assert_eq!((golden.points.len(), golden.searches.len()), (35, SEARCHES_PER_VECTOR));
}

#[tokio::test]
async fn when_points_never_stand_still_nothing_is_searched_and_no_more_than_three_times() {
    let hook = Box::new(writer(|write| write, u64::MAX));
    let qdrant = Qdrant::with_hook([("docs", Collection::dense(200))], hook).await;
    let golden = record(&qdrant, |_| {}).await;
    assert!(golden.searches.is_empty());
    assert!(golden.not_searched.unwrap().contains("kept changing"));
    assert_eq!(qdrant.server.count("POST /collections/docs/points/query"), 1 + 3 * 2 * SEARCHES_PER_VECTOR);
    assert_eq!(golden.points.len() + golden.changed.len(), 200);
}

#[tokio::test]
async fn without_operation_numbers_the_write_counters_decide() {
    let qdrant = Qdrant::start([("docs", Collection::dense(40))]).await;
    qdrant.model().without_telemetry = true;
    assert!(record(&qdrant, |_| {}).await.searches.iter().all(|search| !search.confined));
    let golden = record(&qdrant, |model| {
        model.metrics =
            "grpc_responses_total{endpoint=\"/qdrant.Points/Upsert\",status=\"0\"} 4\n".to_owned();
    })
    .await;
    assert!(golden.searches.iter().all(|search| search.confined));
}

#[tokio::test]
async fn a_large_collection_is_searched_in_the_sample_only() {
    let mut large = Collection::dense(40);
    large.claimed = Some(50_000_000);
    large.hidden = (0..20).collect();
    let qdrant = Qdrant::start([("docs", large)]).await;
    let golden = record(&qdrant, |_| {}).await;
    assert!(golden.searches.iter().all(|search| search.confined));
    let recalls: Vec<f64> = golden.searches.iter().map(|search| search.recall.unwrap()).collect();
    assert_eq!(recalls, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], "whether the index finds the point itself");
    assert!(verdict(&qdrant.client(), &set(golden), "docs", false).await.unwrap().passed);
}

#[tokio::test]
async fn every_kind_of_vector_is_searched_except_those_that_cannot_be() {
    let mut collection = Collection::new((1..=20_u32).map(|id| {
        let n = f64::from(id);
        let mut vectors = json!({
            "dense": [n, 1.0],
            "multi": [[n, 0.5], [0.25, n]],
            "sparse": {"indices": [1, 7], "values": [n, 0.5]},
            "idf": {"indices": [1], "values": [n]},
        });
        if n > 5.0 {
            vectors["zero"] = json!([0.0, 0.0]);
        }
        (u64::from(id), json!(null), vectors)
    }));
    collection.config = json!({"params": {"sparse_vectors": {"sparse": {}, "idf": {"modifier": "idf"}}}});
    let qdrant = Qdrant::start([("docs", collection)]).await;
    let golden = record(&qdrant, |_| {}).await;
    let searched: BTreeSet<&str> = golden.searches.iter().map(|search| search.using.as_str()).collect();
    assert_eq!(searched, BTreeSet::from(["dense", "multi", "sparse"]));
    assert_eq!(golden.points[0].vectors.len(), 4);
    assert_eq!(golden.points[10].vectors.len(), 5);
    assert!(verdict(&qdrant.client(), &set(golden), "docs", false).await.unwrap().passed);
}

#[tokio::test]
async fn what_strict_mode_forbids_is_not_searched_and_no_failure() {
    let strict = "Bad request: Exact search disabled!. Help: Set exact=false.";
    let qdrant = Qdrant::start([("docs", Collection::dense(40))]).await;
    qdrant.model().refuse = vec![(Refusal::ExactSearch, 400, strict)];
    let golden = record(&qdrant, |_| {}).await;
    assert!(golden.searches.is_empty());
    assert_eq!(golden.not_searched.as_deref(), Some(strict));
    assert_eq!(golden.points.len(), 40);

    // Recorded without the rule, observed with it.
    qdrant.model().refuse.clear();
    let golden = set(record(&qdrant, |_| {}).await);
    qdrant.model().refuse = vec![(Refusal::ExactSearch, 403, strict)];
    let names = BTreeMap::from([(name("docs"), name("docs"))]);
    let seen = observe(&qdrant.client(), &golden, &names, false, PATIENCE).await.unwrap();
    assert!(
        matches!(&seen.collections[&name("docs")].searches[0], SearchObservation::NotSearched { reason } if reason == strict)
    );
    let verdict = judge(&golden, &seen, &BTreeSet::from([name("docs")]));
    assert!(verdict.passed);
    let search = verdict.checks.iter().find(|check| check.aspect == Aspect::ExactSearch).unwrap();
    assert_eq!(search.outcome, Outcome::Skipped);

    // Only the normal search is forbidden.
    qdrant.model().refuse = vec![(Refusal::NormalSearch, 400, strict)];
    let golden = record(&qdrant, |_| {}).await;
    assert!(
        golden.searches.len() == SEARCHES_PER_VECTOR && golden.searches.iter().all(|s| s.recall.is_none())
    );
}

#[tokio::test]
async fn any_other_failure_of_a_search_is_a_failure() {
    let qdrant = Qdrant::start([("docs", Collection::dense(40))]).await;
    let golden = set(record(&qdrant, |_| {}).await);
    qdrant.model().refuse = vec![(Refusal::ExactSearch, 500, "Service internal error: corrupt")];
    let error = verdict(&qdrant.client(), &golden, "docs", false).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::QdrantUnavailable);
}

#[tokio::test]
async fn where_random_points_are_refused_the_first_ones_are_taken_in_allowed_pages() {
    let mut collection = Collection::dense(40);
    collection.config["strict_mode_config"] = json!({"enabled": true, "max_query_limit": 7});
    let qdrant = Qdrant::start([("docs", collection)]).await;
    qdrant.model().refuse = vec![(Refusal::Sample, 400, "Bad request: no. Help: ask for something else")];
    let sample = Sample::take(&qdrant.client(), &name("docs")).await.unwrap();
    assert_eq!(sample.ids(), (0..40).map(PointId::Number).collect::<Vec<_>>());
    assert!(
        qdrant
            .server
            .calls()
            .iter()
            .filter(|call| call.line().ends_with("/scroll"))
            .all(|call| call.body["limit"] == 7)
    );
    let golden = record(&qdrant, |_| {}).await;
    assert!(golden.searches.iter().all(|search| search.limit == 7));

    qdrant.model().refuse.push((Refusal::Scroll, 400, "Bad request: no. Help: none"));
    let golden = record(&qdrant, |_| {}).await;
    assert!(golden.points.is_empty() && golden.not_searched.is_some());
}

#[tokio::test]
async fn an_empty_collection_has_an_empty_record() {
    let qdrant = Qdrant::start([("docs", Collection::dense(0))]).await;
    let golden = record(&qdrant, |_| {}).await;
    assert!(golden.points.is_empty() && golden.searches.is_empty() && golden.changed.is_empty());
    assert_eq!(golden.not_searched.as_deref(), Some("there are no points"));
    assert!(verdict(&qdrant.client(), &set(golden), "docs", false).await.unwrap().passed);
}

#[tokio::test]
async fn queues_are_awaited_before_anything_is_counted() {
    let polls = AtomicU64::new(0);
    let qdrant = Qdrant::with_hook(
        [("docs", Collection::dense(40))],
        Box::new(move |request, model| {
            if request.line() == "GET /collections/docs" {
                let docs = model.collection("docs");
                docs.queue = 2_u64.saturating_sub(polls.fetch_add(1, Ordering::SeqCst));
            }
            assert!(!request.line().ends_with("/count") || model.collection("docs").queue == 0);
        }),
    )
    .await;
    let client = qdrant.client();
    host_worker::observe::wait_for_empty_queues(&client, [&name("docs"), &name("gone")], PATIENCE)
        .await
        .unwrap();
    assert_eq!(qdrant.server.count("GET /collections/docs"), 5);

    let stuck = Qdrant::start([("docs", Collection::dense(1))]).await;
    stuck.model().collection("docs").queue = 4;
    let error =
        host_worker::observe::wait_for_empty_queues(&stuck.client(), [&name("docs")], Duration::ZERO).await;
    assert!(matches!(error, Err(Error::QueueNotEmpty { length: 4, .. })));
}
