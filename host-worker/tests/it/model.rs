//! A small Qdrant with points in it, whose state and rules a test can change between calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use host_worker::qdrant::Client;
use serde_json::{Value, json};

use crate::server::{Reply, Request, Server, fail, ok, text};

#[derive(Clone, Debug)]
pub(crate) struct Collection {
    /// By id: payload and vectors.
    pub(crate) points: BTreeMap<u64, (Value, Value)>,
    pub(crate) config: Value,
    pub(crate) payload_schema: Value,
    pub(crate) op_num: u64,
    pub(crate) queue: u64,
    pub(crate) status: &'static str,
    pub(crate) optimizer: Value,
    /// Says that there are this many, to look large.
    pub(crate) claimed: Option<u64>,
    /// Points that the index does not find.
    pub(crate) hidden: Vec<u64>,
    /// How many vectors it says are indexed.
    pub(crate) indexed: Option<u64>,
    pub(crate) noise: Noise,
}

/// How a server may differ from another one with the same data.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noise {
    /// Sums are of `f32`, in so many partial sums, as wide registers make them. None: of `f64`.
    pub(crate) lanes: usize,
    /// Decides in which order equal scores come, and which points a normal search misses.
    pub(crate) seed: u64,
    /// Of a thousand points a normal search misses so many.
    pub(crate) missed_per_mille: u64,
}

impl Collection {
    pub(crate) fn new(points: impl IntoIterator<Item = (u64, Value, Value)>) -> Self {
        let points: BTreeMap<_, _> =
            points.into_iter().map(|(id, payload, vector)| (id, (payload, vector))).collect();
        Self {
            op_num: points.len() as u64,
            points,
            config: json!({"params": {"vectors": {"size": 2, "distance": "Dot"}}}),
            payload_schema: json!({"n": {"data_type": "integer", "points": 3}}),
            queue: 0,
            status: "green",
            optimizer: json!("ok"),
            claimed: None,
            hidden: Vec::new(),
            indexed: None,
            noise: Noise::default(),
        }
    }

    /// `count` points with one dense vector each, on a half circle.
    pub(crate) fn dense(count: u32) -> Self {
        Self::new((0..count).map(|n| {
            let angle = f64::from(n) * std::f64::consts::PI / f64::from(count);
            (u64::from(n), json!({"n": n}), json!([angle.cos(), angle.sin()]))
        }))
    }

    pub(crate) fn write(&mut self, id: u64, payload: Value) {
        let vector = self.points.get(&id).map_or_else(|| json!([1.0, 1.0]), |(_, vector)| vector.clone());
        self.points.insert(id, (payload, vector));
        self.op_num += 1;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) collections: BTreeMap<String, Collection>,
    pub(crate) aliases: BTreeMap<String, String>,
    /// More lines of metrics.
    pub(crate) metrics: String,
    /// Whether operation numbers are told.
    pub(crate) without_telemetry: bool,
    /// Calls to this path end in this failure.
    pub(crate) refuse: Vec<(Refusal, u16, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    Sample,
    Scroll,
    ExactSearch,
    NormalSearch,
}

type Hook = Box<dyn Fn(&Request, &mut Model) + Send + Sync>;

pub(crate) struct Qdrant {
    model: Arc<Mutex<Model>>,
    pub(crate) server: Server,
}

impl Qdrant {
    pub(crate) async fn start(collections: impl IntoIterator<Item = (&'static str, Collection)>) -> Self {
        Self::with_hook(collections, Box::new(|_, _| {})).await
    }

    /// `hook` runs before each call is answered.
    pub(crate) async fn with_hook(
        collections: impl IntoIterator<Item = (&'static str, Collection)>,
        hook: Hook,
    ) -> Self {
        let collections = collections.into_iter().map(|(name, c)| (name.to_owned(), c)).collect();
        let model = Arc::new(Mutex::new(Model { collections, ..Model::default() }));
        let shared = Arc::clone(&model);
        let server = Server::start(move |request| {
            let mut model = shared.lock().unwrap();
            hook(request, &mut model);
            model.answer(request)
        })
        .await;
        Self { model, server }
    }

    pub(crate) fn client(&self) -> Client {
        self.server.client()
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}

impl Model {
    pub(crate) fn collection(&mut self, name: &str) -> &mut Collection {
        self.collections.get_mut(name).unwrap()
    }

    fn refused(&self, what: Refusal) -> Option<Reply> {
        self.refuse
            .iter()
            .find(|(refused, ..)| *refused == what)
            .map(|(_, status, message)| fail(*status, message))
    }

    fn answer(&self, request: &Request) -> Reply {
        let line = request.line();
        let parts: Vec<&str> = line.split(['/', ' ']).filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["GET"] => Reply::Json(200, json!({"title": "qdrant", "version": "1.18.3"})),
            ["GET", "metrics"] => text(200, &self.metrics),
            ["GET", "telemetry"] => self.telemetry(),
            ["GET", "aliases"] => {
                let list: Vec<Value> = self
                    .aliases
                    .iter()
                    .map(|(alias, name)| json!({"alias_name": alias, "collection_name": name}))
                    .collect();
                ok(json!({ "aliases": list }))
            }
            ["GET", "collections"] => {
                let list: Vec<Value> = self.collections.keys().map(|name| json!({ "name": name })).collect();
                ok(json!({ "collections": list }))
            }
            [method, "collections", name, rest @ ..] => match self.collections.get(*name) {
                Some(collection) => self.on_collection(collection, method, rest, &request.body),
                None => fail(404, &format!("Not found: Collection `{name}` doesn't exist!")),
            },
            _ => fail(404, "no such route"),
        }
    }

    fn telemetry(&self) -> Reply {
        let collections: Vec<Value> = self
            .collections
            .iter()
            .filter(|_| !self.without_telemetry)
            .map(|(name, collection)| {
                json!({"id": name, "shards": [{"local": {"update_queue": {"length": 0, "op_num": collection.op_num}}}]})
            })
            .collect();
        ok(json!({"collections": {"collections": collections}}))
    }

    fn on_collection(&self, of: &Collection, method: &str, rest: &[&str], body: &Value) -> Reply {
        match (method, rest) {
            ("GET", []) => ok(json!({
                "status": of.status, "optimizer_status": of.optimizer, "segments_count": 2, "config": of.config,
                "payload_schema": of.payload_schema, "points_count": of.points.len(),
                "indexed_vectors_count": of.indexed,
                "update_queue": {"length": of.queue},
            })),
            ("POST", ["points", "count"]) => {
                ok(json!({"count": of.claimed.unwrap_or(of.points.len() as u64)}))
            }
            ("POST", ["points"]) => {
                let points: Vec<Value> = body["ids"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(|id| {
                        let (payload, vector) = of.points.get(&id.as_u64()?)?;
                        Some(json!({"id": id, "payload": payload, "vector": vector}))
                    })
                    .collect();
                ok(json!(points))
            }
            ("POST", ["points", "scroll"]) => {
                if let Some(refused) = self.refused(Refusal::Scroll) {
                    return refused;
                }
                let (from, limit) = (body["offset"].as_u64().unwrap_or(0), limit(body));
                let ids: Vec<u64> = of.points.range(from..).map(|(id, _)| *id).collect();
                let page: Vec<Value> = ids.iter().take(limit).map(|id| json!({ "id": id })).collect();
                ok(json!({"points": page, "next_page_offset": ids.get(limit)}))
            }
            ("POST", ["points", "query"]) if body["query"].get("sample").is_some() => {
                self.refused(Refusal::Sample).unwrap_or_else(|| {
                    let points: Vec<Value> = of
                        .points
                        .keys()
                        .rev()
                        .take(limit(body))
                        .map(|id| json!({"id": id, "score": 0.0}))
                        .collect();
                    ok(json!({ "points": points }))
                })
            }
            ("POST", ["points", "query"]) => self.search(of, body),
            _ => fail(404, "no such route"),
        }
    }

    fn search(&self, of: &Collection, body: &Value) -> Reply {
        let exact = body["params"]["exact"] == json!(true);
        let refusal = if exact { Refusal::ExactSearch } else { Refusal::NormalSearch };
        if let Some(refused) = self.refused(refusal) {
            return refused;
        }
        let asked = body["query"].to_string().bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        let among = body.pointer("/filter/must/0/has_id").and_then(Value::as_array);
        let mut hits: Vec<(f64, u64)> = of
            .points
            .iter()
            .filter(|(id, _)| among.is_none_or(|ids| ids.contains(&json!(id))))
            .filter(|(id, _)| exact || !(of.hidden.contains(id) || of.noise.misses(**id, asked)))
            .filter_map(|(id, (_, vector))| {
                let vector = match body["using"].as_str() {
                    Some(using) => vector.get(using)?,
                    None => vector,
                };
                Some((dot(&body["query"], vector, of.noise.lanes), *id))
            })
            .collect();
        hits.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| of.noise.order(a.1).cmp(&of.noise.order(b.1))));
        let points: Vec<Value> = hits
            .iter()
            .take(limit(body))
            .map(|(score, id)| json!({"id": id, "score": score, "version": 1}))
            .collect();
        ok(json!({ "points": points }))
    }
}

impl Noise {
    /// Where a point stands among others of the same score.
    fn order(self, id: u64) -> u64 {
        if self.seed == 0 { id } else { mix(self.seed ^ mix(id)) }
    }

    /// Whether the graph of this server does not lead to a point from what is asked.
    fn misses(self, id: u64, asked: u64) -> bool {
        mix(self.seed ^ mix(id) ^ asked) % 1000 < self.missed_per_mille
    }
}

/// SplitMix64's finalizer.
pub(crate) fn mix(value: u64) -> u64 {
    let word = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

fn limit(body: &Value) -> usize {
    usize::try_from(body["limit"].as_u64().unwrap()).unwrap()
}

/// The dot product of dense vectors, of sparse ones, and the sum of the best of each row for lists of vectors.
fn dot(a: &Value, b: &Value, lanes: usize) -> f64 {
    match (a, b) {
        (Value::Array(rows), Value::Array(others)) if rows.first().is_some_and(Value::is_array) => rows
            .iter()
            .map(|row| others.iter().map(|other| dot(row, other, lanes)).fold(f64::MIN, f64::max))
            .sum(),
        (Value::Array(a), Value::Array(b)) if lanes > 0 => {
            let mut sums = vec![0.0_f32; lanes];
            for (number, (a, b)) in a.iter().zip(b).enumerate() {
                sums[number % lanes] += single(a) * single(b);
            }
            f64::from(sums.iter().sum::<f32>())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.iter().zip(b).map(|(a, b)| a.as_f64().unwrap() * b.as_f64().unwrap()).sum()
        }
        _ => {
            let pairs = |v: &Value| -> Vec<(u64, f64)> {
                let indices = v["indices"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap());
                indices.zip(v["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap())).collect()
            };
            let b: BTreeMap<u64, f64> = pairs(b).into_iter().collect();
            pairs(a).iter().map(|(index, value)| value * b.get(index).copied().unwrap_or(0.0)).sum()
        }
    }
}

/// A number as the server keeps it.
#[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is meant")]
pub(crate) fn single(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}
