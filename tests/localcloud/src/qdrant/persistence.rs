//! The storage directory: collections and aliases at every change, points when the server ends, however it ends.

use super::archive::{decode_points, encode_points};
use super::collection::Collection;
use super::config::Config;
use super::mix;
use super::node::{Catalog, Node, temp_dir};
use super::reply::ApiError;
use super::shard::Shard;
use anyhow::Context as _;
use fs_err as fs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn collection_dir(storage: &Path, name: &str) -> PathBuf {
    storage.join("collections").join(name)
}

/// Beside a collection while a recovery stands between clearing its shard and loading the new one.
fn initializing(storage: &Path, name: &str) -> PathBuf {
    collection_dir(storage, name).join("shard_0.initializing")
}

pub(super) fn set_initializing(storage: &Path, name: &str, on: bool) -> std::io::Result<()> {
    let flag = initializing(storage, name);
    if on {
        fs::create_dir_all(collection_dir(storage, name))?;
        fs::write(flag, b"")
    } else if flag.exists() {
        fs::remove_file(flag)
    } else {
        Ok(())
    }
}

pub(super) fn remove_collection(storage: &Path, name: &str) -> std::io::Result<()> {
    let dir = collection_dir(storage, name);
    if dir.exists() { fs::remove_dir_all(dir) } else { Ok(()) }
}

/// Everything but the points.
pub(super) fn save_catalog(storage: &Path, peer_id: u64, catalog: &Catalog) -> std::io::Result<()> {
    fs::create_dir_all(storage.join("aliases"))?;
    fs::write(storage.join("aliases/data.json"), serde_json::to_vec(&catalog.aliases)?)?;
    fs::write(storage.join("raft_state.json"), json!({ "this_peer_id": peer_id }).to_string())?;
    for (name, collection) in &catalog.collections {
        let dir = collection_dir(storage, name);
        fs::create_dir_all(&dir)?;
        let inner = collection.read();
        let described = json!({ "config": inner.config, "schema": inner.schema, "dummy": inner.dummy() });
        fs::write(dir.join("collection.json"), described.to_string())?;
    }
    Ok(())
}

/// All of it. What the queue accepted counts as written: the real server has it in its log.
pub(super) fn save(node: &Node) -> Result<(), ApiError> {
    let storage = &node.settings.storage_dir;
    node.catalog(|catalog| save_catalog(storage, node.peer_id, catalog))?;
    for collection in node.collections() {
        let mut inner = collection.write();
        // A dummy has nothing to keep.
        let Ok(shard) = inner.shard_mut("Flush") else {
            continue;
        };
        shard.drain();
        let dir = collection_dir(storage, &collection.name);
        fs::write(dir.join("points"), encode_points(&shard.points))?;
        fs::write(dir.join("op_num"), shard.op_num.to_string())?;
    }
    Ok(())
}

/// Loads what a storage directory has; returns the catalog and the peer id. Temporary directories are emptied first.
pub(super) fn load(storage: &Path, snapshots: &Path) -> anyhow::Result<(Catalog, u64)> {
    for dir in [temp_dir(storage), snapshots.join("tmp")] {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
    }
    let peer_id = peer_id(storage)?;
    let mut catalog = Catalog::default();
    let aliases = storage.join("aliases/data.json");
    if aliases.exists() {
        catalog.aliases = serde_json::from_slice(&fs::read(aliases)?)?;
    }
    let collections = storage.join("collections");
    fs::create_dir_all(&collections)?;
    for entry in fs::read_dir(&collections)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let described = collection_dir(storage, &name).join("collection.json");
        if described.exists() {
            let collection =
                load_collection(storage, &name).with_context(|| format!("load collection `{name}`"))?;
            catalog.collections.insert(name, collection);
        }
    }
    Ok((catalog, peer_id))
}

fn peer_id(storage: &Path) -> anyhow::Result<u64> {
    let path = storage.join("raft_state.json");
    if path.exists() {
        let state: Value = serde_json::from_slice(&fs::read(&path)?)?;
        return state.get("this_peer_id").and_then(Value::as_u64).context("raft_state.json has no peer id");
    }
    // Like the real one's: some 16 digits, different on every node.
    let path_bytes = storage.to_string_lossy().bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)));
    Ok(path_bytes >> 11)
}

fn load_collection(storage: &Path, name: &str) -> anyhow::Result<Arc<Collection>> {
    let dir = collection_dir(storage, name);
    let described: Value = serde_json::from_slice(&fs::read(dir.join("collection.json"))?)?;
    let part = |part: &str| described.get(part).cloned().unwrap_or(Value::Null);
    let config: Config = serde_json::from_value(part("config"))?;
    let schema: BTreeMap<String, Value> = serde_json::from_value(part("schema"))?;
    let collection = Collection::new(name, config).map_err(|error| anyhow::anyhow!(error.message))?;
    let mut inner = collection.write();
    inner.schema = schema;
    let points = dir.join("points");
    if let Some(message) = described.get("dummy").and_then(Value::as_str) {
        inner.make_dummy(message);
    } else if initializing(storage, name).exists() {
        inner.make_dummy("Shard is not fully initialized");
    } else if points.exists() {
        let points = decode_points(&fs::read(points)?)?;
        let op_num: u64 = fs::read_to_string(dir.join("op_num"))?.trim().parse()?;
        inner.replace_shard(Shard::new(points, op_num));
    }
    drop(inner);
    Ok(collection)
}
