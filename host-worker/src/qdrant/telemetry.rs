//! What is used of `GET /telemetry`: the last operation number of every collection.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    client::Client,
    error::{Error, Operation},
};

impl Client {
    /// The sum over shards of the last operation number applied, by collection. A collection is absent when the server does not say, as before
    /// its first operation. The number grows with every write, so that an equal one means that nothing was applied.
    pub async fn operation_numbers(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut url = self.url(&["telemetry"])?;
        url.query_pairs_mut().append_pair("details_level", "3");
        let telemetry: Value = self.read_result(&Operation::Telemetry, Method::GET, url, None).await?;
        Ok(numbers(&telemetry))
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
