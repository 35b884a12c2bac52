//! `SendCommand`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Result, commands};
use crate::ssm::agent::Carrier;
use crate::ssm::command::{Command, Invocation, Order};
use crate::ssm::host::{Host, Presence};
use crate::ssm::service::{Contents, Service, StoredDocument};
use crate::ssm::wire::ApiError;

/// How long a command waits for its delivery when the caller does not say.
const DEFAULT_TIMEOUT: u64 = 3600;
/// What the caller may say.
const TIMEOUTS: std::ops::RangeInclusive<u64> = 30..=2_592_000;
/// The most hosts that a caller may name, and the longest comment.
const MOST_INSTANCES: usize = 50;
const LONGEST_COMMENT: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct SendCommand {
    document_name: String,
    document_version: Option<String>,
    document_hash: Option<String>,
    document_hash_type: Option<String>,
    #[serde(default)]
    instance_ids: Vec<String>,
    #[serde(default)]
    targets: Vec<Target>,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    parameters: BTreeMap<String, Vec<String>>,
    max_concurrency: Option<String>,
    max_errors: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Target {
    key: String,
    values: Vec<String>,
}

pub(super) fn send_command(service: &Arc<Service>, request: SendCommand) -> Result {
    let timeout_seconds = request.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT);
    if !TIMEOUTS.contains(&timeout_seconds) {
        let why = format!("TimeoutSeconds {timeout_seconds} is not within 30 and 2592000");
        return Err(ApiError::new("ValidationException", why));
    }
    if request.comment.chars().count() > LONGEST_COMMENT {
        return Err(ApiError::new("ValidationException", "Comment is longer than 100 characters"));
    }
    let mut state = service.state();
    let document = service.find_document(
        &state,
        &request.document_name,
        request.document_version.as_deref(),
        "InvalidDocument",
    )?;
    check_hash(&document, request.document_hash.as_deref(), request.document_hash_type.as_deref())?;
    let hosts = hosts(service, &state, &request)?;
    let values = document
        .definition
        .bind(&request.parameters)
        .map_err(|why| ApiError::new("InvalidParameters", why))?;

    let mut command = Command {
        id: uuid::Uuid::new_v4().to_string(),
        document: document.name.clone(),
        version: document.version,
        comment: request.comment,
        parameters: request.parameters,
        requested: service.now(),
        timeout_seconds,
        invocations: Vec::new(),
        execution_timeout: document.definition.step.timeout_seconds,
        instance_ids: request.instance_ids,
        targets: json!(request.targets),
        step: document.definition.step.name.clone(),
        max_concurrency: request.max_concurrency.unwrap_or_else(|| "50".to_owned()),
        max_errors: request.max_errors.unwrap_or_else(|| "0".to_owned()),
        cancel_requested: false,
    };
    let mut carriers = Vec::new();
    for host in hosts {
        let invocation = Invocation::new(host.id().to_owned(), service.unseen_calls);
        let order = Order {
            command_id: command.id.clone(),
            values: values.clone(),
            timeout_seconds,
            cancel: invocation.cancel.clone(),
        };
        command.invocations.push(invocation);
        let definition = Arc::clone(&document.definition);
        carriers.push(Carrier { service: Arc::clone(service), host, definition, order });
    }
    let answer = json!({ "Command": commands::describe(&command) });
    state.commands.push(command);
    drop(state);
    for carrier in carriers {
        let fault = service.faults.deliveries.strike(&carrier.host.id().to_owned());
        service.spawner.spawn(carrier.carry(fault));
    }
    service.changed();
    Ok(answer)
}

fn check_hash(
    document: &StoredDocument,
    hash: Option<&str>,
    kind: Option<&str>,
) -> std::result::Result<(), ApiError> {
    let Some(hash) = hash else { return Ok(()) };
    if kind.is_some_and(|kind| kind != "Sha256") {
        return Err(ApiError::new("ValidationException", "the stand-in knows only Sha256"));
    }
    if hash == hex::encode(Sha256::digest(&document.content)) {
        return Ok(());
    }
    Err(ApiError::new("InvalidDocument", "the document's hash is not the one that was given"))
}

/// The hosts that are meant. One that is named must be there; a tag takes those that have it.
fn hosts(
    service: &Service,
    state: &Contents,
    request: &SendCommand,
) -> std::result::Result<Vec<Arc<Host>>, ApiError> {
    let mut named: Vec<&String> = request.instance_ids.iter().collect();
    let mut tagged: Option<Vec<Arc<Host>>> = None;
    for target in &request.targets {
        match target.key.strip_prefix("tag:") {
            None if target.key == "InstanceIds" => named.extend(&target.values),
            None => {
                let why = format!("the stand-in knows no target `{}`", target.key);
                return Err(ApiError::new("InvalidTarget", why));
            }
            Some(tag) => {
                let has = |host: &Arc<Host>| {
                    host.options.tags.get(tag).is_some_and(|value| target.values.contains(value))
                        && host.presence() != Presence::Offline
                };
                let before = tagged.unwrap_or_else(|| state.hosts.values().cloned().collect());
                tagged = Some(before.into_iter().filter(has).collect());
            }
        }
    }
    if !named.is_empty() && tagged.is_some() || named.is_empty() && tagged.is_none() {
        return Err(ApiError::new(
            "ValidationException",
            "either instance ids or tags must be given, and not both",
        ));
    }
    if named.len() > MOST_INSTANCES {
        return Err(ApiError::new("ValidationException", "InstanceIds names more than 50 instances"));
    }
    if let Some(tagged) = tagged {
        return Ok(tagged);
    }
    let mut hosts: Vec<Arc<Host>> = Vec::new();
    for id in named {
        let reachable = state.hosts.get(id).filter(|host| host.presence() != Presence::Offline);
        let Some(host) = reachable else {
            let why = format!("Instances [[{id}]] not in a valid state for account {}", service.account);
            return Err(ApiError::new("InvalidInstanceId", why));
        };
        if hosts.iter().any(|other| other.id() == id) {
            return Err(ApiError::new("DuplicateInstanceId", format!("`{id}` is named twice")));
        }
        hosts.push(Arc::clone(host));
    }
    Ok(hosts)
}

impl Service {
    /// A version of a document, by its name or ARN; the newest is the default.
    pub(super) fn find_document(
        &self,
        state: &Contents,
        name: &str,
        version: Option<&str>,
        otherwise: &'static str,
    ) -> std::result::Result<Arc<StoredDocument>, ApiError> {
        let arn = format!("arn:aws:ssm:{}:{}:document/", self.region, self.account);
        let name = name.strip_prefix(&arn).unwrap_or(name);
        let missing = || ApiError::new(otherwise, format!("Document with name {name} does not exist."));
        let versions = state.documents.get(name).ok_or_else(missing)?;
        let found = match version {
            None | Some("$DEFAULT" | "$LATEST") => versions.last(),
            Some(number) => versions.iter().find(|document| document.version.to_string() == number),
        };
        found.cloned().ok_or_else(|| {
            ApiError::new(
                "InvalidDocumentVersion",
                format!("{name} has no version {}", version.unwrap_or("$DEFAULT")),
            )
        })
    }
}
