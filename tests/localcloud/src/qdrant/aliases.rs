//! Aliases. A request's actions become visible together; the first bad one ends the request, and what came before it stays.

use super::node::{Node, missing};
use super::reply::{ApiError, Handled, ok};
use super::request::Ctx;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
struct Actions {
    actions: Vec<Action>,
}

#[derive(Deserialize)]
enum Action {
    #[serde(rename = "create_alias")]
    Create { collection_name: String, alias_name: String },
    #[serde(rename = "delete_alias")]
    Delete { alias_name: String },
    #[serde(rename = "rename_alias")]
    Rename { old_alias_name: String, new_alias_name: String },
}

pub(super) async fn list(ctx: Ctx) -> Handled {
    let aliases = ctx.node.catalog(|catalog| described(catalog.aliases.iter()));
    ok(&json!({ "aliases": aliases }))
}

pub(super) async fn list_of_collection(ctx: Ctx) -> Handled {
    let name = ctx.collection()?;
    ctx.node.collection(&name)?;
    let aliases = ctx.node.catalog(|catalog| {
        let resolved = catalog.resolve(&name);
        described(catalog.aliases.iter().filter(|(_, collection)| *collection == resolved))
    });
    ok(&json!({ "aliases": aliases }))
}

fn described<'a>(aliases: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<Value> {
    aliases.map(|(alias, collection)| json!({ "alias_name": alias, "collection_name": collection })).collect()
}

pub(super) async fn update(mut ctx: Ctx) -> Handled {
    let body: Value = ctx.json().await?;
    apply(&ctx.node, body)?;
    ok(&true)
}

pub(super) fn apply(node: &Arc<Node>, body: Value) -> Result<(), ApiError> {
    let Actions { actions } = serde_json::from_value(body).map_err(|error| {
        ApiError::format("JSON body", format!("data did not match any variant of AliasOperations: {error}"))
    })?;
    node.change_catalog(|catalog| {
        for action in actions {
            match action {
                Action::Create { collection_name, alias_name } => {
                    if !catalog.collections.contains_key(&collection_name) {
                        return Err(missing(&collection_name));
                    }
                    if catalog.collections.contains_key(&alias_name) {
                        return Err(ApiError::already_exists(format!(
                            "Collection `{alias_name}` already exists!"
                        )));
                    }
                    catalog.aliases.insert(alias_name, collection_name);
                }
                Action::Delete { alias_name } => {
                    catalog.aliases.remove(&alias_name);
                }
                Action::Rename { old_alias_name, new_alias_name } => {
                    let collection = catalog.aliases.remove(&old_alias_name).ok_or_else(|| {
                        ApiError::not_found(format!("Alias {old_alias_name} does not exists!"))
                    })?;
                    catalog.aliases.insert(new_alias_name, collection);
                }
            }
        }
        Ok(())
    })
}
