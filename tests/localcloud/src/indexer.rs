//! The indexing job of `docs/clients.md`: deterministic ids, batched upserts with `wait=true`, and a success marker when nothing is in flight.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use protocol::{SuccessMarker, key, point_id};
use serde_json::{Value, json};

use crate::corpus::{DIMENSIONS, Point};

/// Points per upsert: about 1 MiB of JSON.
const BATCH: usize = 200;

/// A client of Qdrant as an indexing or inference cluster has it.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    api_key: Option<String>,
}

impl Client {
    /// A client of the Qdrant at `url`.
    pub fn new(url: &str, api_key: Option<&str>) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.trim_end_matches('/').to_owned(),
            api_key: api_key.map(str::to_owned),
        }
    }

    /// Makes a call and gives the `result` of its answer; an answer that is not 2xx is an error that quotes it.
    pub async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.clone(), &url);
        if let Some(key) = &self.api_key {
            request = request.header("api-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("{method} {url}"))?;
        let status = response.status();
        let text = response.text().await.with_context(|| format!("{method} {url}"))?;
        if !status.is_success() {
            bail!("{method} {url}: {status}: {text}");
        }
        let mut answer: Value =
            serde_json::from_str(&text).with_context(|| format!("{method} {url}: {text}"))?;
        Ok(answer["result"].take())
    }

    /// Makes a collection for the corpus: cosine, payload on disk, indexes on `kind` and `doc_id`.
    pub async fn create_collection(&self, name: &str) -> anyhow::Result<()> {
        let config =
            json!({ "vectors": { "size": DIMENSIONS, "distance": "Cosine" }, "on_disk_payload": true });
        self.call(reqwest::Method::PUT, &format!("/collections/{name}"), Some(&config)).await?;
        for field in ["kind", "doc_id"] {
            let index = json!({ "field_name": field, "field_schema": "keyword" });
            self.call(reqwest::Method::PUT, &format!("/collections/{name}/index?wait=true"), Some(&index))
                .await?;
        }
        Ok(())
    }

    /// Points readers at a collection.
    pub async fn create_alias(&self, alias: &str, collection: &str) -> anyhow::Result<()> {
        let actions = json!({ "actions": [{ "create_alias": { "collection_name": collection, "alias_name": alias } }] });
        self.call(reqwest::Method::POST, "/collections/aliases", Some(&actions)).await?;
        Ok(())
    }

    /// Indexes points; each batch is applied before the next is sent. Answers with how many there were.
    pub async fn index(
        &self,
        collection: &str,
        points: impl Iterator<Item = anyhow::Result<Point>>,
    ) -> anyhow::Result<u64> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut count = 0;
        for point in points {
            let Point { id, vector, payload } = point?;
            batch.push(json!({ "id": id, "vector": vector, "payload": payload }));
            count += 1;
            if batch.len() == BATCH {
                self.upsert(collection, std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.is_empty() {
            self.upsert(collection, batch).await?;
        }
        Ok(count)
    }

    async fn upsert(&self, collection: &str, points: Vec<Value>) -> anyhow::Result<()> {
        let body = json!({ "points": points });
        self.call(reqwest::Method::PUT, &format!("/collections/{collection}/points?wait=true"), Some(&body))
            .await?;
        Ok(())
    }

    /// The exact number of points.
    pub async fn count(&self, collection: &str) -> anyhow::Result<u64> {
        let answer = self
            .call(
                reqwest::Method::POST,
                &format!("/collections/{collection}/points/count"),
                Some(&json!({ "exact": true })),
            )
            .await?;
        answer["count"].as_u64().context("a count without a number")
    }

    /// The three best points by exact search, with their payloads.
    pub async fn answer(&self, collection: &str, embedding: &[f32]) -> anyhow::Result<Vec<Answer>> {
        let body =
            json!({ "query": embedding, "limit": 3, "params": { "exact": true }, "with_payload": true });
        let mut answer = self
            .call(reqwest::Method::POST, &format!("/collections/{collection}/points/query"), Some(&body))
            .await?;
        let Value::Array(points) = answer["points"].take() else { bail!("a query without points: {answer}") };
        Ok(points
            .into_iter()
            .map(|mut point| Answer {
                id: point["id"].take(),
                score: point["score"].as_f64().unwrap_or_default(),
                payload: point["payload"].take(),
            })
            .collect())
    }
}

/// A point that answers a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its id.
    pub id: Value,
    /// Its score.
    pub score: f64,
    /// Its payload.
    pub payload: Value,
}

/// Marks a batch as done. Call it when nothing is in flight.
pub async fn mark_success(
    s3: &aws_sdk_s3::Client,
    bucket: &str,
    batch_id: &str,
    finished_at: Timestamp,
    counts: &BTreeMap<String, u64>,
) -> anyhow::Result<()> {
    let expected_counts =
        counts.iter().map(|(name, count)| Ok((name.parse()?, *count))).collect::<anyhow::Result<_>>()?;
    let marker = SuccessMarker {
        batch_id: batch_id.to_owned(),
        finished_at,
        expected_counts,
        id_scheme: Some(point_id::SCHEME.to_owned()),
    };
    let body = serde_json::to_vec_pretty(&marker)?;
    let put = s3
        .put_object()
        .bucket(bucket)
        .key(key::DEFAULT_SUCCESS_MARKER)
        .content_type("application/json")
        .body(body.into());
    put.send().await.context("write the success marker")?;
    Ok(())
}
