//! What is used of `GET /telemetry`: when the server started, and the last operation number of every collection.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{client::Client, error::Error, operation::Operation};

/// What tells whether anything was written, and whether the numbers of two moments can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// When the server started, as it says. Counters start anew with it, and operation numbers fall back by up to 64.
    pub started: Option<String>,
    /// The sum over shards of the last operation number applied, by collection. It grows with every write. A collection is absent when the
    /// server does not say.
    pub operation_numbers: BTreeMap<String, u64>,
}

impl Client {
    /// The server's telemetry.
    pub async fn telemetry(&self) -> Result<Telemetry, Error> {
        let mut url = self.url(&["telemetry"])?;
        url.query_pairs_mut().append_pair("details_level", "3");
        let telemetry: Value = self.read_result(&Operation::Telemetry, Method::GET, url, None).await?;
        let started = telemetry.pointer("/app/startup").and_then(Value::as_str).map(str::to_owned);
        Ok(Telemetry { started, operation_numbers: numbers(&telemetry) })
    }
}

fn numbers(telemetry: &Value) -> BTreeMap<String, u64> {
    #[derive(Deserialize)]
    struct Collection {
        id: String,
        shards: Vec<Shard>,
    }
    #[derive(Deserialize)]
    struct Shard {
        local: Local,
    }
    #[derive(Deserialize)]
    struct Local {
        update_queue: Queue,
    }
    #[derive(Deserialize)]
    struct Queue {
        op_num: Option<u64>,
    }
    let collections = telemetry.pointer("/collections/collections").and_then(Value::as_array);
    collections
        .into_iter()
        .flatten()
        .filter_map(|collection| {
            let collection = Collection::deserialize(collection).ok()?;
            let numbers: Vec<u64> =
                collection.shards.iter().filter_map(|shard| shard.local.update_queue.op_num).collect();
            (!numbers.is_empty()).then(|| (collection.id, numbers.iter().sum()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_summed_over_shards_and_may_be_absent() {
        let shard =
            |op_num: Value| json!({"id": 0, "local": {"update_queue": {"length": 0, "op_num": op_num}}});
        let telemetry = json!({"collections": {"number_of_collections": 5, "collections": [
            {"id": "two shards", "shards": [shard(json!(5)), shard(json!(7)), shard(Value::Null)]},
            {"id": "fresh", "shards": [shard(Value::Null)]},
            {"id": "dummy", "shards": [{"local": null}]},
            {"id": "older server", "shards": [{"local": {"segments": []}}]},
            {"id": "no details"},
        ]}});
        assert_eq!(numbers(&telemetry), BTreeMap::from([("two shards".to_owned(), 12)]));
        assert_eq!(numbers(&json!({"app": {}})), BTreeMap::new());
    }
}
