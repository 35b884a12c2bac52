//! The state of a whole Qdrant at one moment, and what changed between two of them: what makes a backup whole.

use std::collections::{BTreeMap, BTreeSet};

use protocol::CollectionName;
use serde_json::Value;

use crate::qdrant::{Client, CollectionStatus, Error, OptimizerStatus, Telemetry, Version, WriteCounters};

/// What a Qdrant holds.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The server's version.
    pub version: Version,
    /// Every collection.
    pub collections: BTreeMap<CollectionName, CollectionState>,
    /// Alias to collection.
    pub aliases: BTreeMap<String, CollectionName>,
    /// Write requests answered since the server started.
    pub writes: WriteCounters,
    /// When the server started, as it says.
    pub started: Option<String>,
}

/// What a collection holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionState {
    /// The exact number of points.
    pub count: u64,
    /// The configuration, as Qdrant shows it.
    pub config: Value,
    /// Payload indexes: field to type and parameters, without numbers of points.
    pub payload_schema: BTreeMap<String, Value>,
    /// The last operation number applied, summed over shards; absent when the server does not say.
    pub op_num: Option<u64>,
    /// Updates waiting.
    pub queue_length: u64,
    /// About how many points there are.
    pub points_count: Option<u64>,
    /// Its status.
    pub status: CollectionStatus,
    /// What its optimizers say.
    pub optimizer_status: OptimizerStatus,
}

impl State {
    /// Reads the state of every collection. A collection that goes away meanwhile is left out.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let version = client.version().await?;
        let writes = client.metrics().await?.writes;
        let Telemetry { started, operation_numbers: numbers } = client.telemetry().await?;
        let mut collections = BTreeMap::new();
        for name in client.collections().await? {
            match CollectionState::read(client, &name, numbers.get(name.as_str()).copied()).await {
                Ok(state) => collections.insert(name, state),
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
        }
        Ok(Self { version, collections, aliases: client.aliases().await?, writes, started })
    }
}

impl CollectionState {
    async fn read(client: &Client, name: &CollectionName, op_num: Option<u64>) -> Result<Self, Error> {
        let info = client.collection(name).await?;
        let count = client.count_exact(name, None).await?;
        Ok(Self {
            count,
            op_num,
            queue_length: info.queue_length(),
            config: info.config,
            payload_schema: info.payload_schema,
            points_count: info.points_count,
            status: info.status,
            optimizer_status: info.optimizer_status,
        })
    }
}

/// What is not the same in two states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether there are other collections or aliases: the snapshots are not of one set.
    pub set_changed: bool,
    /// Collections whose configuration or payload indexes differ: their snapshots may hold either.
    pub reconfigured: BTreeSet<CollectionName>,
    /// Collections that were written to, or may have been.
    pub written: BTreeSet<CollectionName>,
}

impl Change {
    /// Whether nothing is known to have changed.
    pub fn is_none(&self) -> bool {
        !self.set_changed && self.reconfigured.is_empty() && self.written.is_empty()
    }
}

/// Compares two states. Where the server gives no operation numbers, a write anywhere counts for every such collection; and after a
/// restart every collection counts as written to, because neither numbers nor counters go on from where they were.
pub fn compare(before: &State, after: &State) -> Change {
    let set_changed =
        before.aliases != after.aliases || !before.collections.keys().eq(after.collections.keys());
    let restarted = before.started != after.started;
    let somebody_wrote = before.writes != after.writes;
    let mut change = Change { set_changed, ..Change::default() };
    for (name, old) in &before.collections {
        let Some(new) = after.collections.get(name) else { continue };
        if old.config != new.config || old.payload_schema != new.payload_schema {
            change.reconfigured.insert(name.clone());
        }
        let applied = match (old.op_num, new.op_num) {
            (Some(old), Some(new)) => old != new,
            (None, Some(_)) | (Some(_), None) => true,
            (None, None) => somebody_wrote,
        };
        if restarted || applied || old.count != new.count || new.queue_length > 0 {
            change.written.insert(name.clone());
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn collection(count: u64, op_num: Option<u64>) -> CollectionState {
        CollectionState {
            count,
            config: json!({"params": {}}),
            payload_schema: BTreeMap::new(),
            op_num,
            queue_length: 0,
            points_count: Some(count),
            status: CollectionStatus::Green,
            optimizer_status: OptimizerStatus::Ok,
        }
    }

    fn state(collections: &[(&str, CollectionState)]) -> State {
        State {
            version: "1.18.3".parse().unwrap(),
            collections: collections
                .iter()
                .map(|(name, state)| (name.parse().unwrap(), state.clone()))
                .collect(),
            aliases: BTreeMap::from([("now".to_owned(), "a".parse().unwrap())]),
            writes: WriteCounters::default(),
            started: Some("2026-01-01T00:00:00Z".to_owned()),
        }
    }

    fn names(of: &[&str]) -> BTreeSet<CollectionName> {
        of.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn writes_show_by_operation_number_count_or_queue() {
        let before = state(&[("a", collection(5, Some(9))), ("b", collection(5, None))]);
        let mut waiting = collection(5, Some(9));
        waiting.queue_length = 1;
        for (a, b, written) in [
            (collection(5, Some(9)), collection(5, None), &[][..]),
            (collection(5, Some(10)), collection(5, None), &["a"][..]),
            (collection(6, Some(9)), collection(5, None), &["a"]),
            (collection(5, None), collection(5, None), &["a"]),
            (waiting, collection(5, None), &["a"]),
            (collection(5, Some(9)), collection(5, Some(1)), &["b"]),
            (collection(5, Some(9)), collection(4, None), &["b"]),
        ] {
            let change = compare(&before, &state(&[("a", a.clone()), ("b", b.clone())]));
            assert_eq!(change.written, names(written), "{a:?} {b:?}");
            assert_eq!(change.is_none(), written.is_empty());
        }
    }

    #[test]
    fn without_operation_numbers_any_write_counts_for_all() {
        let before =
            state(&[("a", collection(5, Some(9))), ("b", collection(5, None)), ("c", collection(0, None))]);
        let mut after = before.clone();
        after.writes = WriteCounters::with("PUT /points", 1);
        assert_eq!(compare(&before, &after).written, names(&["b", "c"]));
    }

    #[test]
    fn after_a_restart_nothing_is_sure() {
        let before = state(&[("a", collection(5, Some(9))), ("b", collection(5, None))]);
        let mut after = before.clone();
        after.started = Some("2026-01-01T00:01:00Z".to_owned());
        assert_eq!(compare(&before, &after).written, names(&["a", "b"]));
    }

    #[test]
    fn the_set_is_collections_and_aliases() {
        let before = state(&[("a", collection(5, Some(9)))]);
        let more = state(&[("a", collection(5, Some(9))), ("b", collection(0, None))]);
        assert!(compare(&before, &more).set_changed);
        assert!(compare(&more, &before).set_changed);
        let mut alias = before.clone();
        alias.aliases.insert("then".to_owned(), "a".parse().unwrap());
        assert_eq!(compare(&before, &alias), Change { set_changed: true, ..Change::default() });
        assert!(compare(&before, &before).is_none());
    }

    #[test]
    fn another_configuration_or_index_is_noticed() {
        let before = state(&[("a", collection(5, Some(9)))]);
        let mut config = before.clone();
        let mut index = before.clone();
        if let Some(a) = config.collections.get_mut(&"a".parse().unwrap()) {
            a.config = json!({"params": {"on_disk_payload": true}});
        }
        if let Some(a) = index.collections.get_mut(&"a".parse().unwrap()) {
            a.payload_schema.insert("city".to_owned(), json!({"data_type": "keyword"}));
        }
        for after in [config, index] {
            let change = compare(&before, &after);
            assert_eq!((change.reconfigured, change.written), (names(&["a"]), names(&[])));
        }
    }
}
