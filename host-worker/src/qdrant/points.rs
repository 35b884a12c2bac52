//! Reading points and searching.

use protocol::{CollectionName, PointId, golden::Hit};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{client::Client, error::Error, operation::Operation};

/// A point.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Point {
    /// Its id.
    pub id: PointId,
    /// Its payload; null where it has none or none was asked for.
    #[serde(default)]
    pub payload: Value,
    /// Its vectors; null where none were asked for.
    #[serde(default)]
    pub vector: Value,
}

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct Search<'a> {
    /// The vector that is searched; empty for the default one.
    pub using: &'a str,
    /// The query: a list of numbers, a list of such lists, or `{indices, values}`.
    pub query: &'a Value,
    /// How many results are asked for.
    pub limit: usize,
    /// Whether every vector is compared, instead of asking the index.
    pub exact: bool,
    /// Only these points are searched.
    pub among: Option<&'a [PointId]>,
}

#[derive(Deserialize)]
struct Hits {
    points: Vec<Hit>,
}

impl Client {
    /// The points of these ids that are there, with payloads and vectors, in no order.
    pub async fn retrieve(&self, name: &CollectionName, ids: &[PointId]) -> Result<Vec<Point>, Error> {
        let body = json!({ "ids": ids, "with_payload": true, "with_vector": true });
        let operation = Operation::Retrieve(name.clone());
        let url = self.collection_url(name, &["points"])?;
        self.read_result(&operation, Method::POST, url, Some(&body)).await
    }

    /// The ids of up to `limit` random points.
    pub async fn sample(&self, name: &CollectionName, limit: usize) -> Result<Vec<PointId>, Error> {
        let body = json!({
            "query": { "sample": "random" }, "limit": limit, "with_payload": false, "with_vector": false,
        });
        let operation = Operation::Sample(name.clone());
        let url = self.collection_url(name, &["points", "query"])?;
        let hits: Hits = self.read_result(&operation, Method::POST, url, Some(&body)).await?;
        Ok(hits.points.into_iter().map(|hit| hit.id).collect())
    }

    /// The ids of up to `limit` points from `offset` on in the order of ids, and where the next page starts.
    pub async fn scroll(
        &self,
        name: &CollectionName,
        offset: Option<PointId>,
        limit: usize,
    ) -> Result<(Vec<PointId>, Option<PointId>), Error> {
        #[derive(Deserialize)]
        struct Page {
            points: Vec<Point>,
            #[serde(default)]
            next_page_offset: Option<PointId>,
        }
        let mut body = json!({ "limit": limit, "with_payload": false, "with_vector": false });
        if let Some(offset) = offset {
            body["offset"] = json!(offset);
        }
        let operation = Operation::Scroll(name.clone());
        let url = self.collection_url(name, &["points", "scroll"])?;
        let page: Page = self.read_result(&operation, Method::POST, url, Some(&body)).await?;
        Ok((page.points.into_iter().map(|point| point.id).collect(), page.next_page_offset))
    }

    /// The results of a search, best first.
    pub async fn search(&self, name: &CollectionName, search: &Search<'_>) -> Result<Vec<Hit>, Error> {
        let mut body = json!({
            "query": search.query, "limit": search.limit, "with_payload": false, "with_vector": false,
        });
        if !search.using.is_empty() {
            body["using"] = json!(search.using);
        }
        if search.exact {
            body["params"] = json!({ "exact": true });
        }
        if let Some(ids) = search.among {
            body["filter"] = json!({ "must": [{ "has_id": ids }] });
        }
        let operation = Operation::Search(name.clone());
        let url = self.collection_url(name, &["points", "query"])?;
        let hits: Hits = self.read_result(&operation, Method::POST, url, Some(&body)).await?;
        Ok(hits.points)
    }
}
