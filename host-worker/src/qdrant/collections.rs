//! Collections, their configuration, counts and aliases.

use std::collections::BTreeMap;

use protocol::{CollectionName, PointId};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Client, result},
    error::{Cause, Error},
    operation::Operation,
};

/// What Qdrant says of a collection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CollectionInfo {
    /// Its state; no gate for a backup except [`CollectionStatus::Red`].
    pub status: CollectionStatus,
    /// What the optimizers say.
    pub optimizer_status: OptimizerStatus,
    /// Its configuration, as it is shown.
    pub config: Value,
    /// Payload indexes: field to type and parameters. Without the numbers of points, which move.
    #[serde(default, deserialize_with = "without_points")]
    pub payload_schema: BTreeMap<String, Value>,
    /// About how many points there are; copies may be counted twice. [`Client::count_exact`] is exact.
    #[serde(default)]
    pub points_count: Option<u64>,
    /// How many vectors are in an index; vectors with several names count several times.
    #[serde(default)]
    pub indexed_vectors_count: Option<u64>,
    /// The number of segments.
    #[serde(default)]
    pub segments_count: u64,
    /// Updates waiting.
    #[serde(default)]
    update_queue: Option<UpdateQueue>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct UpdateQueue {
    length: u64,
}

/// The state of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionStatus {
    /// Nothing pending.
    Green,
    /// Optimizing, or a snapshot is being taken.
    Yellow,
    /// Optimizations wait for the next update; the usual state after a restart.
    Grey,
    /// An operation or an optimizer failed; sticky.
    Red,
    /// A state that this program does not know.
    #[serde(other)]
    Unknown,
}

/// What the optimizers of a collection say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerStatus {
    /// Nothing is wrong.
    Ok,
    /// One failed, with its message.
    Error(String),
}

impl CollectionInfo {
    /// The number of updates waiting. The one being applied is not among them.
    pub fn queue_length(&self) -> u64 {
        self.update_queue.as_ref().map_or(0, |queue| queue.length)
    }

    /// The greatest `limit` that strict mode lets a request have.
    pub fn max_query_limit(&self) -> Option<usize> {
        let strict = self.config.get("strict_mode_config")?;
        if strict.get("enabled").and_then(Value::as_bool) != Some(true) {
            return None;
        }
        usize::try_from(strict.get("max_query_limit")?.as_u64()?).ok()
    }

    /// Whether the scores of searches by the sparse vector `using` depend on how often its terms occur in the whole collection.
    pub fn weighs_by_frequency(&self, using: &str) -> bool {
        let sparse = self.config.pointer("/params/sparse_vectors").and_then(|vectors| vectors.get(using));
        sparse.and_then(|vector| vector.get("modifier")).and_then(Value::as_str) == Some("idf")
    }
}

/// Refuses the configuration of a collection whose snapshot could not be restored.
pub fn check_config(name: &CollectionName, config: &Value) -> Result<(), Error> {
    match config.pointer("/params/sharding_method").and_then(Value::as_str) {
        Some("custom") => Err(Error::CustomSharding { collection: name.clone() }),
        Some(_) | None => Ok(()),
    }
}

/// One step of an atomic change of aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AliasChange {
    /// Create the alias.
    Create {
        /// Its name.
        alias: String,
        /// The collection that it stands for.
        collection: CollectionName,
    },
    /// Delete the alias.
    Delete {
        /// Its name.
        alias: String,
    },
}

impl Client {
    /// The names of all collections, sorted.
    pub async fn collections(&self) -> Result<Vec<CollectionName>, Error> {
        #[derive(Deserialize)]
        struct Collections {
            collections: Vec<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            name: CollectionName,
        }
        let list: Collections =
            self.read_result(&Operation::Collections, Method::GET, self.url(&["collections"])?, None).await?;
        let mut names: Vec<CollectionName> =
            list.collections.into_iter().map(|collection| collection.name).collect();
        names.sort();
        Ok(names)
    }

    /// A collection's state and configuration. The name may be an alias.
    pub async fn collection(&self, name: &CollectionName) -> Result<CollectionInfo, Error> {
        let operation = Operation::Collection(name.clone());
        self.read_result(&operation, Method::GET, self.collection_url(name, &[])?, None).await
    }

    /// The exact number of points; with `among`, of those ids only.
    ///
    /// Where strict mode forbids exact counts, the number of all points is the sum over segments instead. That is exact, too, unless
    /// points are being moved between segments at that moment.
    pub async fn count_exact(&self, name: &CollectionName, among: Option<&[PointId]>) -> Result<u64, Error> {
        let filter = among.map(|ids| json!({ "must": [{ "has_id": ids }] }));
        let refused = match self.count(name, filter.as_ref(), true).await {
            Err(error) if filter.is_none() && error.strict_mode().is_some() => error,
            counted => return counted,
        };
        tracing::debug!(collection = %name, error = %refused, "exact counts are forbidden; adding up segments");
        self.count(name, None, false).await
    }

    async fn count(&self, name: &CollectionName, filter: Option<&Value>, exact: bool) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
        }
        let mut body = json!({ "exact": exact });
        if let Some(filter) = filter {
            body["filter"] = filter.clone();
        }
        let operation = Operation::Count(name.clone());
        let url = self.collection_url(name, &["points", "count"])?;
        let count: Count = self.read_result(&operation, Method::POST, url, Some(&body)).await?;
        Ok(count.count)
    }

    /// Every alias and the collection that it stands for.
    pub async fn aliases(&self) -> Result<BTreeMap<String, CollectionName>, Error> {
        #[derive(Deserialize)]
        struct Aliases {
            aliases: Vec<Alias>,
        }
        #[derive(Deserialize)]
        struct Alias {
            alias_name: String,
            collection_name: CollectionName,
        }
        let list: Aliases =
            self.read_result(&Operation::Aliases, Method::GET, self.url(&["aliases"])?, None).await?;
        Ok(list.aliases.into_iter().map(|alias| (alias.alias_name, alias.collection_name)).collect())
    }

    /// Makes all changes in one request: readers see all of them or none.
    pub async fn change_aliases(&self, changes: &[AliasChange]) -> Result<(), Error> {
        if changes.is_empty() { Ok(()) } else { self.post_aliases(&Operation::ChangeAliases, changes).await }
    }

    /// Fails unless the key may change things: a read-only key reads everything that a backup looks at, and is refused only when the snapshot is
    /// asked for. A change of no alias is refused to it too (seen on 1.18.3), and changes nothing.
    pub async fn check_write(&self) -> Result<(), Error> {
        self.post_aliases(&Operation::CheckWrite, &[]).await
    }

    async fn post_aliases(&self, operation: &Operation, changes: &[AliasChange]) -> Result<(), Error> {
        let actions: Vec<Value> = changes
            .iter()
            .map(|change| match change {
                AliasChange::Create { alias, collection } => {
                    json!({ "create_alias": { "alias_name": alias, "collection_name": collection } })
                }
                AliasChange::Delete { alias } => json!({ "delete_alias": { "alias_name": alias } }),
            })
            .collect();
        let body = json!({ "actions": actions });
        let url = self.url(&["collections", "aliases"])?;
        self.acknowledged(operation, Method::POST, url, Some(&body)).await
    }

    /// Deletes a collection. Its snapshots stay on the disk. A collection that is not there is no error.
    pub async fn delete_collection(&self, name: &CollectionName) -> Result<(), Error> {
        let operation = Operation::DeleteCollection(name.clone());
        let url = self.collection_url(name, &[])?;
        let body = match self.change(&operation, Method::DELETE, url, None).await {
            Ok(body) => body,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        // `false` says that there was none.
        result::<bool>(&operation, &body).map(|_existed| ())
    }

    /// A change that is answered `true` when it was made.
    async fn acknowledged(
        &self,
        operation: &Operation,
        method: Method,
        url: reqwest::Url,
        body: Option<&Value>,
    ) -> Result<(), Error> {
        let answer = self.change(operation, method, url, body).await?;
        if result::<bool>(operation, &answer)? {
            return Ok(());
        }
        let source = Cause::Unexpected { what: "it was not done, and no reason is given".to_owned() };
        Err(Error::Call { operation: operation.clone(), source })
    }
}

fn without_points<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Value>, D::Error> {
    let mut schema = BTreeMap::<String, Value>::deserialize(deserializer)?;
    for index in schema.values_mut() {
        if let Value::Object(fields) = index {
            fields.remove("points");
        }
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(extra: Value) -> CollectionInfo {
        let mut value = json!({
            "status": "green", "optimizer_status": "ok", "segments_count": 2, "config": {"params": {}},
            "payload_schema": {}, "from a later version": {"a": 1},
        });
        for (key, field) in extra.as_object().unwrap() {
            value[key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_collection_is_read_with_and_without_what_came_later() {
        assert_eq!(info(json!({})).queue_length(), 0);
        assert_eq!(info(json!({"update_queue": {"length": 3, "deferred_points": 1}})).queue_length(), 3);
        for (text, status) in [
            ("yellow", CollectionStatus::Yellow),
            ("grey", CollectionStatus::Grey),
            ("red", CollectionStatus::Red),
            ("mauve", CollectionStatus::Unknown),
        ] {
            assert_eq!(info(json!({ "status": text })).status, status);
        }
        assert_eq!(
            info(json!({"optimizer_status": {"error": "disk"}})).optimizer_status,
            OptimizerStatus::Error("disk".to_owned())
        );
    }

    #[test]
    fn payload_indexes_lose_their_counts_only() {
        let schema = info(json!({"payload_schema": {"city": {
            "data_type": "keyword", "params": {"type": "keyword", "is_tenant": true}, "points": 7,
        }}}))
        .payload_schema;
        assert_eq!(
            schema["city"],
            json!({"data_type": "keyword", "params": {"type": "keyword", "is_tenant": true}})
        );
    }

    #[test]
    fn custom_sharding_is_refused() {
        let name: CollectionName = "docs".parse().unwrap();
        let sharded = |method: &str| info(json!({"config": {"params": {"sharding_method": method}}}));
        assert!(check_config(&name, &sharded("auto").config).is_ok());
        assert!(check_config(&name, &info(json!({})).config).is_ok());
        assert!(matches!(
            check_config(&name, &sharded("custom").config),
            Err(Error::CustomSharding { collection }) if collection == name
        ));
    }

    #[test]
    fn the_limit_of_strict_mode_counts_when_it_is_enabled() {
        let strict = |enabled: bool| {
            info(json!({"config": {"strict_mode_config": {"enabled": enabled, "max_query_limit": 5}}}))
        };
        assert_eq!(strict(true).max_query_limit(), Some(5));
        assert_eq!(strict(false).max_query_limit(), None);
        assert_eq!(info(json!({})).max_query_limit(), None);
    }

    #[test]
    fn idf_is_seen() {
        let info =
            info(json!({"config": {"params": {"sparse_vectors": {"a": {"modifier": "idf"}, "b": {}}}}}));
        assert!(info.weighs_by_frequency("a"));
        assert!(!info.weighs_by_frequency("b"));
        assert!(!info.weighs_by_frequency(""));
    }
}
