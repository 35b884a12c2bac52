//! No false verdict, either way: two hundred restores that are honest and look a little different, and two hundred with one thing wrong.
//!
//! What is different about an honest one: another CPU's sums, another order of equal scores, graphs that were built again, vectors that were normalised
//! again, optimizers at work, a log that is still replayed while it is looked at, strict mode. All of it is there in the dishonest ones, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use host_worker::{
    golden::{Reference, Sample, finish},
    observe::observe,
    state::{State, compare},
};
use protocol::{
    CollectionName, GoldenSet, PointId,
    golden::FORMAT_VERSION,
    verdict::{Aspect, Verdict, judge},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    model::{Collection, Noise, Qdrant, Refusal, mix, single},
    server::Request,
};

const RESTORES: u64 = 200;
/// Golden sets: each is recorded on a server with its own noise.
const RECORDS: u64 = 10;
const POINTS: u64 = 260;
const FEW_POINTS: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(20);
const STRICT: &str = "Bad request: Exact search disabled!. Help: Set exact=false.";

/// A generator of numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    /// -1 to 1.
    fn signed(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(2_000_001)).unwrap()) / 1e6 - 1.0
    }

    fn vector(&mut self, len: usize, size: f64) -> Value {
        let components: Vec<Value> = (0..len).map(|_| json!(self.signed() * size)).collect();
        scaled(&json!(components), 1.0)
    }

    /// Of unit length, as Qdrant keeps what is compared by its angle.
    fn unit(&mut self, len: usize) -> Value {
        normalised(&self.vector(len, 1.0), 1.0)
    }
}

/// The vector times a factor, each component an `f32`.
fn scaled(vector: &Value, factor: f64) -> Value {
    let components = vector.as_array().unwrap().iter();
    components.map(|component| f64::from(single(&json!(component.as_f64().unwrap() * factor)))).collect()
}

/// Of unit length, times a factor that a CPU's sums are off by.
fn normalised(vector: &Value, factor: f64) -> Value {
    let square: f64 =
        vector.as_array().unwrap().iter().map(|component| component.as_f64().unwrap().powi(2)).sum();
    scaled(vector, factor / square.sqrt())
}

/// The data of a generation: a large collection with every kind of vector, some of them equal, and a small one whose dot products cancel.
fn data(generation: u64) -> [(&'static str, Collection); 2] {
    let mut dice = Dice(generation << 32);
    let mut docs = Collection::new((0..POINTS).map(|id| {
        let vectors = json!({
            "title": dice.unit(8),
            "body": dice.vector(8, 100.0),
            "words": {"indices": [id % 7, 7 + id % 11], "values": [1.0 + dice.signed() / 2.0, 0.5]},
            "rows": [dice.unit(4), dice.unit(4)],
        });
        (id, json!({"n": id, "of": generation}), vectors)
    }));
    // Copies of a point's vectors tie wherever it is found.
    for id in (0..POINTS).step_by(9) {
        let vectors = docs.points[&(id / 2)].1.clone();
        docs.points.get_mut(&id).unwrap().1 = vectors;
    }
    docs.config = json!({
        "params": {
            "vectors": {
                "title": {"size": 8, "distance": "Cosine"},
                "body": {"size": 8, "distance": "Dot"},
                "rows": {"size": 4, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}},
            },
            "sparse_vectors": {"words": {}},
            "read_fan_out_factor": 2,
        },
        "hnsw_config": {"m": 16, "ef_construct": 100},
        "quantization_config": null,
    });
    docs.indexed = Some(4 * POINTS);
    let mut few = Collection::new((0..FEW_POINTS).map(|id| (id, json!({"n": id}), dice.vector(64, 1000.0))));
    few.config = json!({"params": {"vectors": {"size": 64, "distance": "Dot"}}});
    few.indexed = Some(0);
    [("docs", docs), ("few", few)]
}

fn noise(dice: &mut Dice) -> Noise {
    Noise { lanes: dice.of(&[1, 2, 4, 8, 16]), seed: dice.next(), missed_per_mille: 20 }
}

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

fn both() -> BTreeSet<CollectionName> {
    BTreeSet::from([name("docs"), name("few")])
}

/// What is recorded of the data with a backup.
async fn recorded(seed: u64) -> GoldenSet {
    let mut dice = Dice(seed);
    let qdrant = Qdrant::start(data(1).map(|(name, mut of)| {
        of.noise = noise(&mut dice);
        (name, of)
    }))
    .await;
    let client = qdrant.client();
    let mut samples = Vec::new();
    for name in both() {
        samples.push(Sample::take(&client, &name).await.unwrap());
    }
    let (before, after) = (State::read(&client).await.unwrap(), State::read(&client).await.unwrap());
    let change = compare(&before, &after);
    let mut collections = Vec::new();
    for sample in samples {
        let reference = Reference::of(&sample.collection().clone(), &before, &after, &change).unwrap();
        collections.push(finish(&client, sample, reference).await.unwrap());
    }
    assert_eq!(collections[0].indexed_vectors, Some(4 * POINTS));
    assert_eq!(collections.iter().map(|of| of.searches.len()).collect::<Vec<_>>(), [32, 8]);
    // Every other search proves as much in half the time.
    for of in &mut collections {
        of.searches = of.searches.iter().step_by(2).cloned().collect();
    }
    GoldenSet {
        format_version: FORMAT_VERSION,
        backup_id: "20261123T051400Z".parse().unwrap(),
        aliases: BTreeMap::from([("live".to_owned(), name("docs"))]),
        collections,
    }
}

/// The golden sets, recorded once.
async fn records() -> &'static [GoldenSet] {
    static RECORDED: OnceCell<Vec<GoldenSet>> = OnceCell::const_new();
    RECORDED.get_or_init(|| stream::iter(0..RECORDS).map(recorded).buffered(4).collect()).await
}

/// A server as a restore leaves it, before it is started.
struct Restored {
    collections: BTreeMap<&'static str, Collection>,
    aliases: BTreeMap<String, String>,
    /// Points of `docs` that the log still brings while somebody looks.
    replayed: BTreeMap<u64, (Value, Value)>,
    strict: bool,
}

/// An honest restore.
fn honest(dice: &mut Dice) -> Restored {
    let mut collections = BTreeMap::from(data(1));
    for of in collections.values_mut() {
        of.noise = noise(dice);
        of.op_num += dice.below(3);
    }
    let docs = collections.get_mut("docs").unwrap();
    docs.config["params"].as_object_mut().unwrap().remove("read_fan_out_factor");
    docs.config["params"]["shown since"] = json!("1.19");
    docs.config.as_object_mut().unwrap().remove("quantization_config");
    docs.payload_schema["n"]["points"] = json!(dice.below(POINTS));
    // The log brings some points once more, and what is compared by its angle is normalised once more.
    for (_, vectors) in docs.points.values_mut() {
        if dice.one_in(4) {
            let mut factor = || 1.0 + dice.signed() * 4e-7;
            vectors["title"] = normalised(&vectors["title"], factor());
            vectors["rows"] =
                vectors["rows"].as_array().unwrap().iter().map(|row| normalised(row, factor())).collect();
        }
    }
    let indexed = 4 * POINTS;
    (docs.status, docs.indexed) = match dice.below(4) {
        0 => ("yellow", Some(dice.below(indexed))),
        1 => ("grey", Some(indexed)),
        2 => ("green", Some(indexed - dice.below(indexed / 10))),
        _ => ("green", Some(indexed + dice.below(20))),
    };
    let ids: Vec<u64> = if dice.one_in(3) { (0..dice.below(40)).collect() } else { Vec::new() };
    let replayed = ids.iter().map(|id| (*id, docs.points.remove(id).unwrap())).collect();
    let aliases = BTreeMap::from([("live".to_owned(), "docs".to_owned())]);
    Restored { collections, aliases, replayed, strict: dice.one_in(6) }
}

impl Restored {
    fn docs(&mut self) -> &mut Collection {
        self.collections.get_mut("docs").unwrap()
    }

    /// What `host-worker verify --data` would say.
    async fn verdict(self, golden: &GoldenSet) -> Verdict {
        let replayed = self.replayed;
        let looks = AtomicU64::new(0);
        let replay = move |request: &Request, model: &mut crate::model::Model| {
            if replayed.is_empty() || request.line() != "GET /collections/docs" {
                return;
            }
            let Some(docs) = model.collections.get_mut("docs") else { return };
            // Half of it with the second look, the rest with the fourth.
            let look = looks.fetch_add(1, Ordering::SeqCst);
            docs.queue = if look < 3 { 1 } else { 0 };
            if look == 1 || look == 3 {
                let half = replayed.iter().filter(|(id, _)| look == 3 || *id % 2 == 0);
                docs.points.extend(half.map(|(id, point)| (*id, point.clone())));
                docs.op_num += 1;
            }
        };
        let qdrant = Qdrant::with_hook(self.collections, Box::new(replay)).await;
        qdrant.model().aliases = self.aliases;
        if self.strict {
            qdrant.model().refuse = vec![(Refusal::ExactSearch, 400, STRICT)];
        }
        let names = both().into_iter().map(|name| (name.clone(), name)).collect();
        let observed = observe(&qdrant.client(), golden, &names, true, PATIENCE).await.unwrap();
        judge(golden, &observed, &both())
    }
}

/// Judges one restore for each seed, some at once, and says which came out wrong.
async fn judged(
    records: &[GoldenSet],
    restore: impl Fn(u64) -> (Restored, Option<(Aspect, String)>),
) -> Vec<String> {
    let wrong = stream::iter(0..RESTORES).map(|seed| {
        let (restored, planted) = restore(seed);
        let golden = &records[usize::try_from(seed % RECORDS).unwrap()];
        async move {
            let verdict = restored.verdict(golden).await;
            let failures: Vec<String> = verdict
                .failures()
                .map(|check| format!("{}: {}", check.aspect.name(), check.detail))
                .collect();
            let right = match &planted {
                None => verdict.passed,
                Some((aspect, detail)) => {
                    !verdict.passed
                        && verdict
                            .failures()
                            .any(|check| check.aspect == *aspect && check.detail.contains(detail))
                }
            };
            (!right).then(|| format!("seed {seed}, planted {planted:?}, found {failures:#?}"))
        }
    });
    wrong.buffer_unordered(4).filter_map(std::future::ready).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_honest_restores_pass() {
    let records = records().await;
    let wrong = judged(records, |seed| (honest(&mut Dice(seed << 16)), None)).await;
    assert!(wrong.is_empty(), "{} of {RESTORES}: {wrong:#?}", wrong.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_dishonest_restores_fail_and_say_why() {
    let records = records().await;
    let wrong = judged(records, |seed| {
        let mut dice = Dice((seed << 16) ^ u64::MAX);
        let mut restored = honest(&mut dice);
        let golden = &records[usize::try_from(seed % RECORDS).unwrap()];
        let sampled: Vec<u64> = golden.collections[0].points.iter().map(|point| number(point.id)).collect();
        let plant = PLANTS[usize::try_from(seed).unwrap() % PLANTS.len()];
        let planted = plant(&mut restored, &sampled, &mut dice);
        (restored, Some(planted))
    })
    .await;
    assert!(wrong.is_empty(), "{} of {RESTORES}: {wrong:#?}", wrong.len());
}

fn number(id: PointId) -> u64 {
    match id {
        PointId::Number(number) => number,
        PointId::Uuid(uuid) => panic!("no point of these has the id {uuid}"),
    }
}

/// Plants one difference, given the sampled points; gives what must be said of it.
type Plant = fn(&mut Restored, &[u64], &mut Dice) -> (Aspect, String);

impl Restored {
    /// A point wherever it is, payload and vectors.
    fn point(&mut self, id: u64) -> &mut (Value, Value) {
        match self.replayed.get_mut(&id) {
            Some(point) => point,
            None => self.collections.get_mut("docs").unwrap().points.get_mut(&id).unwrap(),
        }
    }

    fn remove(&mut self, id: u64) -> (Value, Value) {
        self.replayed.remove(&id).or_else(|| self.docs().points.remove(&id)).unwrap()
    }
}

/// Moves one component of a vector by `by`.
fn shift(components: &mut Value, by: f64, dice: &mut Dice) {
    let components = components.as_array_mut().unwrap();
    let at = usize::try_from(dice.below(components.len() as u64)).unwrap();
    components[at] = json!(f64::from(single(&json!(components[at].as_f64().unwrap() + by))));
}

fn vector_changed(name: &str, id: u64) -> (Aspect, String) {
    (Aspect::Points, format!("point {id}: vector `{name}` is "))
}

const PLANTS: [Plant; 21] = [
    // A point too few, one too many, one under another id.
    |restored, _, dice| {
        restored.remove(dice.below(POINTS));
        (Aspect::Count, format!("{} points, expected {POINTS}", POINTS - 1))
    },
    |restored, _, dice| {
        let copy = restored.point(dice.below(POINTS)).clone();
        restored.docs().points.insert(POINTS + dice.below(1000), copy);
        (Aspect::Count, format!("{} points, expected {POINTS}", POINTS + 1))
    },
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        let point = restored.remove(id);
        restored.docs().points.insert(POINTS + id, point);
        (Aspect::Points, format!("point {id} is missing"))
    },
    // One component of each kind of vector, by little; one vector; two vectors.
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        shift(&mut restored.point(id).1["title"], 5e-5, dice);
        vector_changed("title", id)
    },
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        shift(&mut restored.point(id).1["body"], 1e-4, dice);
        vector_changed("body", id)
    },
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        let row = usize::try_from(dice.below(2)).unwrap();
        shift(&mut restored.point(id).1["rows"][row], -5e-5, dice);
        vector_changed("rows", id)
    },
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        shift(&mut restored.point(id).1["words"]["values"], 1e-6, dice);
        vector_changed("words", id)
    },
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        restored.point(id).1["words"]["indices"][0] = json!(20 + dice.below(9));
        vector_changed("words", id)
    },
    |restored, sampled, dice| {
        let (id, name) = (dice.of(sampled), dice.of(&["title", "body", "words", "rows"]));
        restored.point(id).1.as_object_mut().unwrap().remove(name);
        (Aspect::Points, format!("point {id}: vector `{name}` is missing"))
    },
    |restored, sampled, dice| {
        // None of these is a copy of another one.
        let (one, other) = (sampled[0], sampled[1 + usize::try_from(dice.below(4)).unwrap()]);
        let title = restored.point(one).1["title"].clone();
        restored.point(other).1["title"] = title;
        vector_changed("title", other)
    },
    // A payload; two that are swapped.
    |restored, sampled, dice| {
        let id = dice.of(sampled);
        restored.point(id).0["n"] = json!(id.to_string());
        (Aspect::Points, format!("point {id} has another payload"))
    },
    |restored, sampled, dice| {
        let (one, other) = (sampled[0], sampled[1 + usize::try_from(dice.below(100)).unwrap()]);
        let payload = restored.point(one).0.clone();
        let others = std::mem::replace(&mut restored.point(other).0, payload);
        restored.point(one).0 = others;
        (Aspect::Points, format!("point {other} has another payload"))
    },
    // Aliases.
    |restored, _, _| {
        restored.aliases.clear();
        (Aspect::Aliases, "`live` is missing".to_owned())
    },
    |restored, _, _| {
        restored.aliases.insert("live".to_owned(), "few".to_owned());
        (Aspect::Aliases, "`live` is few, expected docs".to_owned())
    },
    |restored, _, _| {
        restored.collections.insert("stranger", Collection::dense(3));
        restored.aliases.insert("live".to_owned(), "stranger".to_owned());
        (Aspect::Aliases, "`live` is stranger, expected docs".to_owned())
    },
    // Payload index, distance, collection.
    |restored, _, dice| {
        let other = dice.one_in(2);
        restored.docs().payload_schema =
            if other { json!({"n": {"data_type": "keyword"}}) } else { json!({}) };
        (Aspect::PayloadSchema, if other { "`n` is {" } else { "`n` is missing" }.to_owned())
    },
    |restored, _, dice| {
        let name = dice.of(&["title", "rows"]);
        restored.docs().config["params"]["vectors"][name]["distance"] = json!("Dot");
        (Aspect::Config, format!("`params.vectors.{name}.distance` is \"Dot\", expected \"Cosine\""))
    },
    |restored, _, dice| {
        restored.collections.remove(dice.of(&["docs", "few"]));
        (Aspect::Presence, "the collection is not there".to_owned())
    },
    // The HNSW index: gone, or one that leads astray.
    |restored, _, dice| {
        let indexed = dice.below(4 * POINTS * 8 / 10);
        let docs = restored.docs();
        (docs.status, docs.indexed) = ("green", Some(indexed));
        (Aspect::VectorIndex, format!("{indexed} vectors indexed, expected {}", 4 * POINTS))
    },
    |restored, _, _| {
        restored.strict = false;
        restored.docs().noise.missed_per_mille = 250;
        (Aspect::Recall, ", recorded ".to_owned())
    },
    // The backup before the last: as many points, a tenth of them as they were then.
    |restored, sampled, dice| {
        let [(_, mut stale), _] = data(0);
        let id = sampled[0];
        for other in (0..POINTS).filter(|other| *other == id || dice.one_in(10)) {
            *restored.point(other) = stale.points.remove(&other).unwrap();
        }
        (Aspect::Points, format!("point {id} has another payload"))
    },
];
