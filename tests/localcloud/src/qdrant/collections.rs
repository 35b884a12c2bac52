//! Collections: create, show, change, delete, and the payload index schema.

use super::reply::{ApiError, Handled, ok};
use super::request::Ctx;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Characters that no new collection may have in its name: they are unsafe in file names somewhere.
const FORBIDDEN: [char; 11] = ['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1F}'];

/// What an index can be over.
const FIELD_TYPES: [&str; 8] = ["keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid"];

pub(super) async fn list(ctx: Ctx) -> Handled {
    let collections: Vec<Value> =
        ctx.node.collections().iter().map(|collection| json!({ "name": collection.name })).collect();
    ok(&json!({ "collections": collections }))
}

pub(super) async fn get(ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    ok(&collection.info(&ctx.node.faults)?)
}

pub(super) async fn exists(ctx: Ctx) -> Handled {
    let name = ctx.collection()?;
    let exists = ctx.node.catalog(|catalog| catalog.get(&name).is_some());
    ok(&json!({ "exists": exists }))
}

pub(super) async fn create(mut ctx: Ctx) -> Handled {
    let name = ctx.collection()?;
    check_new_name(&name)?;
    let body: Map<String, Value> = ctx.json().await?;
    ctx.node.create(&name, &body)?;
    ok(&true)
}

pub(super) fn check_new_name(name: &str) -> Result<(), ApiError> {
    if let Some(forbidden) = name.chars().find(|c| FORBIDDEN.contains(c)) {
        return Err(ApiError::validation(
            "path parameters",
            format!("collection_name: collection name cannot contain \"{forbidden}\" char"),
        ));
    }
    // The real server would write beside its own directories. Nothing good comes of copying that.
    if matches!(name, "." | "..") {
        return Err(ApiError::validation("path parameters", "collection_name: value is invalid"));
    }
    Ok(())
}

pub(super) async fn update(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: Map<String, Value> = ctx.json().await?;
    let mut inner = collection.write();
    inner.config.patch(&body)?;
    inner.specs = inner.config.specs()?;
    drop(inner);
    collection.set_grey(false);
    ctx.node.change_catalog(|_| Ok(()))?;
    ok(&true)
}

/// Takes the collection's own name only: an alias names nothing that could be deleted.
pub(super) async fn delete(ctx: Ctx) -> Handled {
    let name = ctx.collection()?;
    ok(&ctx.node.delete(&name)?)
}

#[derive(Deserialize)]
struct CreateIndex {
    field_name: String,
    #[serde(alias = "field_type")]
    field_schema: Option<Value>,
}

pub(super) async fn create_index(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let wait = ctx.flag("wait", false)?;
    let CreateIndex { field_name, field_schema } = ctx.json().await?;
    let schema = field_schema.ok_or_else(|| {
        ApiError::bad_input(format!(
            "Unable to infer type for the field '{field_name}'. Please specify `field_type`"
        ))
    })?;
    let kind = schema.as_str().or_else(|| schema.get("type").and_then(Value::as_str));
    if kind.is_none_or(|kind| !FIELD_TYPES.contains(&kind)) {
        return Err(ApiError::format(
            "JSON body",
            "data did not match any variant of untagged enum PayloadFieldSchema",
        ));
    }
    let mut inner = collection.write();
    inner.schema.insert(field_name, schema);
    let number = count_operation(&mut inner)?;
    drop(inner);
    ctx.node.change_catalog(|_| Ok(()))?;
    ok(&updated(number, wait))
}

pub(super) async fn delete_index(ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let wait = ctx.flag("wait", false)?;
    let field = ctx.param("field_name")?;
    let mut inner = collection.write();
    inner.schema.remove(&field);
    let number = count_operation(&mut inner)?;
    drop(inner);
    ctx.node.change_catalog(|_| Ok(()))?;
    ok(&updated(number, wait))
}

/// Index calls go through the update queue like any write, as two operations: drop what does not fit, then build.
fn count_operation(inner: &mut super::collection::Inner) -> Result<u64, ApiError> {
    let shard = inner.shard_mut("Update Index")?;
    shard.drain();
    shard.op_num = shard.op_num.saturating_add(2);
    Ok(shard.op_num)
}

pub(super) fn updated(number: u64, done: bool) -> Value {
    json!({ "operation_id": number, "status": if done { "completed" } else { "acknowledged" } })
}
