//! What makes a backup whole: the state is read before the first snapshot and again after the last, and what moved in between is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;
use protocol::{CollectionName, golden::CollectionGolden};
use tracing::{info, warn};

use super::local::LocalSnapshots;
use crate::{
    config::SnapshotsDir,
    error::Error,
    golden::{self, Reference, Sample},
    progress::Phases,
    pulse::Phase,
    qdrant::{self, Checksum},
    state::{self, CollectionState, State},
};

/// How often snapshots are taken again when collections or aliases change under them.
const ROUNDS: u32 = 3;

/// Snapshots of all wanted collections, and what is known of their content.
pub(crate) struct Captured {
    pub(crate) before: State,
    pub(crate) after: State,
    /// Collections that were written to in between.
    pub(crate) written: BTreeSet<CollectionName>,
    pub(crate) snapshots: Vec<CapturedSnapshot>,
    pub(crate) golden: BTreeMap<CollectionName, CollectionGolden>,
}

/// One snapshot, complete on this host's disk.
pub(crate) struct CapturedSnapshot {
    pub(crate) collection: CollectionName,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) sha256: Checksum,
}

/// Takes the snapshots of `wanted` collections (all by default), in the order of their names.
pub(crate) async fn capture(
    qdrant: &qdrant::Client,
    wanted: Option<&BTreeSet<CollectionName>>,
    dir: &SnapshotsDir,
    local: &mut LocalSnapshots,
    phases: &mut Phases,
) -> Result<Captured, Error> {
    'rounds: for round in 1..=ROUNDS {
        phases.enter(Phase::Record);
        let before = read_state(qdrant, wanted).await?;
        require_room(dir, &before)?;
        let mut samples = BTreeMap::new();
        for name in before.collections.keys() {
            phases.detail(name.as_str());
            match Sample::take(qdrant, name).await {
                Ok(sample) => samples.insert(name.clone(), sample),
                Err(error) if error.is_not_found() && round < ROUNDS => continue 'rounds,
                Err(error) => return Err(error.into()),
            };
        }

        phases.enter(Phase::Snapshot);
        let mut snapshots = Vec::new();
        let mut vanished = None;
        for name in before.collections.keys() {
            phases.detail(name.as_str());
            match take_snapshot(qdrant, name, dir, local).await {
                Ok(snapshot) => snapshots.push(snapshot),
                // A collection deleted under our hands is a change of the set, which the next reading of the state will show.
                Err(error) if round < ROUNDS => {
                    vanished = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }

        phases.enter(Phase::Record);
        let after = read_state(qdrant, wanted).await?;
        let change = state::compare(&before, &after);
        match (change.set_changed || !change.reconfigured.is_empty(), vanished) {
            (false, Some(error)) => return Err(error),
            (false, None) => {
                let mut golden = BTreeMap::new();
                for (name, sample) in samples {
                    phases.detail(name.as_str());
                    // The set is unchanged: every sampled collection is in both states.
                    if let Some(reference) = Reference::of(&name, &before, &after, &change) {
                        golden.insert(name, golden::finish(qdrant, sample, reference).await?);
                    }
                }
                return Ok(Captured { before, after, written: change.written, snapshots, golden });
            }
            (true, _) => {
                warn!(
                    round,
                    "collections, their configuration or aliases changed while snapshots were taken: taking them again"
                );
                local.discard_run(qdrant).await?;
            }
        }
    }
    Err(Error::KeepsChanging { rounds: ROUNDS })
}

async fn read_state(
    qdrant: &qdrant::Client,
    wanted: Option<&BTreeSet<CollectionName>>,
) -> Result<State, Error> {
    let mut state = State::read(qdrant).await?;
    if let Some(wanted) = wanted {
        if let Some(missing) = wanted.iter().find(|name| !state.collections.contains_key(name)) {
            return Err(Error::NoSuchCollection { collection: missing.clone() });
        }
        state.collections.retain(|name, _| wanted.contains(name));
        state.aliases.retain(|_, target| wanted.contains(target));
    }
    for (name, collection) in &state.collections {
        qdrant::check_config(name, &collection.config)?;
    }
    Ok(state)
}

/// Qdrant checks nothing before it fills the disk, and a full disk stops its writes too.
///
/// A snapshot holds at least the vectors; what payload, index and WAL add is not known before it is taken.
fn require_room(dir: &SnapshotsDir, state: &State) -> Result<(), Error> {
    /// Qdrant refuses writes below twice its WAL's capacity (32 MiB by default).
    const LEFT_FOR_QDRANT: u64 = 64 << 20;
    let needed = state.collections.values().map(vector_bytes).fold(LEFT_FOR_QDRANT, u64::saturating_add);
    super::local::require_free(&dir.host, needed, "snapshots of all collections")
}

async fn take_snapshot(
    qdrant: &qdrant::Client,
    collection: &CollectionName,
    dir: &SnapshotsDir,
    local: &mut LocalSnapshots,
) -> Result<CapturedSnapshot, Error> {
    local.ask(collection, Timestamp::now())?;
    let made = qdrant.create_snapshot(collection).await?;
    local.made(&made)?;
    let path = dir.host.join(collection.as_str()).join(&made.name);
    match fs_err::metadata(&path) {
        Ok(metadata) if metadata.len() == made.size => {}
        Ok(metadata) => {
            return Err(Error::SnapshotSize { path, expected: made.size, found: metadata.len() });
        }
        Err(_) => {
            // Gone for Qdrant too, or only out of our sight?
            let listed = qdrant.snapshots(collection).await?;
            if listed.iter().all(|snapshot| snapshot.name != made.name) {
                return Err(qdrant::Error::SnapshotVanished { collection: collection.clone() }.into());
            }
            return Err(Error::SnapshotNotVisible {
                collection: collection.clone(),
                snapshot: made.name,
                path,
            });
        }
    }
    info!(%collection, snapshot = made.name, bytes = made.size, adopted = made.adopted, "snapshot taken");
    Ok(CapturedSnapshot {
        collection: collection.clone(),
        name: made.name,
        path,
        size: made.size,
        sha256: made.checksum,
    })
}

/// The least that the vectors of a collection take: what every point has, which of named vectors is only the smallest.
fn vector_bytes(collection: &CollectionState) -> u64 {
    let vectors = &collection.config["params"]["vectors"];
    let size = |vector: &serde_json::Value| {
        let width = match vector["datatype"].as_str() {
            Some("uint8") => 1,
            Some("float16") => 2,
            _ => 4,
        };
        vector["size"].as_u64().map(|components| components.saturating_mul(width))
    };
    let bytes = size(vectors)
        .or_else(|| vectors.as_object().and_then(|named| named.values().filter_map(size).min()))
        .unwrap_or_default();
    collection.count.saturating_mul(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::qdrant::{CollectionStatus, OptimizerStatus};

    #[test]
    fn the_least_size_is_what_every_point_has() {
        let bytes = |vectors| {
            vector_bytes(&CollectionState {
                count: 10,
                config: json!({"params": {"vectors": vectors}}),
                payload_schema: BTreeMap::new(),
                op_num: None,
                queue_length: 0,
                points_count: None,
                status: CollectionStatus::Green,
                optimizer_status: OptimizerStatus::Ok,
            })
        };
        assert_eq!(bytes(json!({"size": 4, "distance": "Dot"})), 160);
        assert_eq!(bytes(json!({"size": 4, "distance": "Dot", "datatype": "uint8"})), 40);
        assert_eq!(bytes(json!({"a": {"size": 4}, "b": {"size": 1, "datatype": "float16"}})), 20);
        assert_eq!(bytes(json!({})), 0);
    }
}
