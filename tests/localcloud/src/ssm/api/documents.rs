//! Documents over the API.

use std::error::Error as _;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Result, epoch};
use crate::ssm::service::{Service, StoredDocument};
use crate::ssm::wire::ApiError;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct CreateDocument {
    name: String,
    content: String,
    document_type: Option<String>,
    document_format: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct NamedDocument {
    name: String,
    document_version: Option<String>,
}

/// `CreateDocument`, of a command document in JSON.
pub(super) fn create(service: &Service, request: &CreateDocument) -> Result {
    if request.document_type.as_ref().is_some_and(|kind| kind != "Command")
        || request.document_format.as_ref().is_some_and(|format| format != "JSON")
    {
        let why = "the stand-in takes only command documents in JSON";
        return Err(ApiError::new("ValidationException", why));
    }
    if service.state().documents.contains_key(&request.name) {
        let why = format!("document with same name {} already exists", request.name);
        return Err(ApiError::new("DocumentAlreadyExists", why));
    }
    let document = service.store_document(&request.name, &request.content).map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        ApiError::new("InvalidDocumentContent", format!("{error}{cause}"))
    })?;
    Ok(json!({ "DocumentDescription": description(service, &document) }))
}

/// `DescribeDocument`.
pub(super) fn describe(service: &Service, request: &NamedDocument) -> Result {
    Ok(json!({ "Document": description(service, &*find(service, request)?) }))
}

/// `GetDocument`.
pub(super) fn get(service: &Service, request: &NamedDocument) -> Result {
    let document = find(service, request)?;
    Ok(json!({
        "Name": document.name,
        "CreatedDate": epoch(document.created),
        "DocumentVersion": document.version.to_string(),
        "Status": "Active",
        "Content": document.content,
        "DocumentType": "Command",
        "DocumentFormat": "JSON",
    }))
}

fn find(
    service: &Service,
    request: &NamedDocument,
) -> std::result::Result<std::sync::Arc<StoredDocument>, ApiError> {
    let state = service.state();
    service.find_document(&state, &request.name, request.document_version.as_deref(), "InvalidDocument")
}

fn description(service: &Service, document: &StoredDocument) -> Value {
    let parameters: Vec<Value> = document
        .definition
        .parameters
        .iter()
        .map(|(name, parameter)| {
            let mut shown = json!({ "Name": name, "Type": parameter.kind.name() });
            if let Some(text) = &parameter.description {
                shown["Description"] = json!(text);
            }
            if let Some(default) = &parameter.default {
                shown["DefaultValue"] = json!(default.join(","));
            }
            shown
        })
        .collect();
    json!({
        "Hash": hex::encode(Sha256::digest(&document.content)),
        "HashType": "Sha256",
        "Name": document.name,
        "Owner": service.account,
        "CreatedDate": epoch(document.created),
        "Status": "Active",
        "DocumentVersion": document.version.to_string(),
        "Description": document.definition.description,
        "Parameters": parameters,
        "PlatformTypes": ["Linux", "MacOS"],
        "DocumentType": "Command",
        "SchemaVersion": "2.2",
        "LatestVersion": document.version.to_string(),
        "DefaultVersion": document.version.to_string(),
        "DocumentFormat": "JSON",
        "Tags": [],
    })
}
