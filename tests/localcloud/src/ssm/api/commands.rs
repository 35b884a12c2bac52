//! What became of commands, and their end.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Result, epoch, page, page_size};
use crate::ssm::command::{Command, Invocation, State};
use crate::ssm::service::Service;
use crate::ssm::wire::ApiError;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct GetCommandInvocation {
    command_id: String,
    instance_id: String,
    plugin_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct List {
    command_id: Option<String>,
    instance_id: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
    #[serde(default)]
    details: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct ListCommands {
    command_id: Option<String>,
    instance_id: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct CancelCommand {
    command_id: String,
    #[serde(default)]
    instance_ids: Vec<String>,
}

/// `GetCommandInvocation`. The first calls after `SendCommand` may not see it yet.
pub(super) fn get_invocation(service: &Service, request: &GetCommandInvocation) -> Result {
    let missing = || ApiError::new("InvocationDoesNotExist", "");
    let mut state = service.state();
    let command = state.commands.iter_mut().find(|command| command.id == request.command_id);
    let command = command.ok_or_else(missing)?;
    let invocation = command.invocation_mut(&request.instance_id).ok_or_else(missing)?;
    if hidden(invocation) {
        return Err(missing());
    }
    let step = command.step.clone();
    if request.plugin_name.as_ref().is_some_and(|name| *name != step) {
        return Err(ApiError::new("InvalidPluginName", "The plugin name isn't valid."));
    }
    let invocation = command.invocation(&request.instance_id).ok_or_else(missing)?;
    let time = |time: Option<jiff::Timestamp>| time.map(iso).unwrap_or_default();
    let elapsed = match (invocation.started, invocation.ended) {
        (Some(started), Some(ended)) => format!("PT{:.3}S", ended.duration_since(started).as_secs_f64()),
        _ => String::new(),
    };
    Ok(json!({
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.version.to_string(),
        "PluginName": step,
        "ResponseCode": invocation.response_code,
        "ExecutionStartDateTime": time(invocation.started),
        "ExecutionElapsedTime": elapsed,
        "ExecutionEndDateTime": time(invocation.ended),
        "Status": invocation.state.status(),
        "StatusDetails": invocation.state.details(),
        "StandardOutputContent": invocation.stdout,
        "StandardOutputUrl": "",
        "StandardErrorContent": invocation.stderr,
        "StandardErrorUrl": "",
        "CloudWatchOutputConfig": { "CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": false },
    }))
}

/// `ListCommandInvocations`, newest first.
pub(super) fn list_invocations(service: &Service, request: List) -> Result {
    let most = page_size(request.max_results, 50, 1..=50)?;
    let mut state = service.state();
    let mut found = Vec::new();
    for command in state.commands.iter_mut().rev() {
        if request.command_id.as_ref().is_some_and(|id| *id != command.id) {
            continue;
        }
        let asked = |id: &String| request.instance_id.as_ref().is_none_or(|asked| asked == id);
        let invocations = command.invocations.iter_mut().filter(|one| asked(&one.instance_id));
        let seen: Vec<String> =
            invocations.filter_map(|one| (!hidden(one)).then(|| one.instance_id.clone())).collect();
        let seen = seen.iter().filter_map(|id| command.invocation(id));
        found.extend(seen.map(|invocation| listed(command, invocation, request.details)));
    }
    if found.is_empty() && request.command_id.as_ref().is_some_and(|id| !known(&state.commands, id)) {
        return Err(ApiError::new("InvalidCommandId", ""));
    }
    let (found, next) = page(found, request.next_token.as_deref(), most)?;
    Ok(json!({ "CommandInvocations": found, "NextToken": next }))
}

/// `ListCommands`, newest first, with parameters in plain text as AWS shows them.
pub(super) fn list(service: &Service, request: ListCommands) -> Result {
    let most = page_size(request.max_results, 50, 1..=50)?;
    let state = service.state();
    if request.command_id.as_ref().is_some_and(|id| !known(&state.commands, id)) {
        return Err(ApiError::new("InvalidCommandId", ""));
    }
    let commands = state.commands.iter().rev();
    let commands = commands.filter(|command| request.command_id.as_ref().is_none_or(|id| *id == command.id));
    let commands = commands
        .filter(|command| request.instance_id.as_ref().is_none_or(|id| command.invocation(id).is_some()));
    let (commands, next) = page(commands.map(describe).collect(), request.next_token.as_deref(), most)?;
    Ok(json!({ "Commands": commands, "NextToken": next }))
}

/// `CancelCommand`: what was not delivered is cancelled, what runs is to be killed, what has ended stays as it is.
pub(super) fn cancel(service: &Service, request: &CancelCommand) -> Result {
    let mut state = service.state();
    let command = state.commands.iter_mut().find(|command| command.id == request.command_id);
    let command = command.ok_or_else(|| ApiError::new("InvalidCommandId", ""))?;
    if let Some(stranger) = request.instance_ids.iter().find(|id| command.invocation(id).is_none()) {
        return Err(ApiError::new("InvalidInstanceId", format!("the command did not go to `{stranger}`")));
    }
    command.cancel_requested = true;
    let now = service.now();
    let meant = |id: &String| request.instance_ids.is_empty() || request.instance_ids.contains(id);
    for invocation in command.invocations.iter_mut().filter(|invocation| meant(&invocation.instance_id)) {
        match invocation.state {
            State::Pending => {
                invocation.state = State::Cancelled;
                invocation.ended = Some(now);
            }
            State::InProgress => invocation.state = State::Cancelling,
            State::Cancelling
            | State::Success
            | State::Failed
            | State::Cancelled
            | State::DeliveryTimedOut
            | State::ExecutionTimedOut
            | State::Undeliverable => {}
        }
        invocation.cancel.cancel();
    }
    drop(state);
    service.changed();
    Ok(json!({}))
}

/// A command as `SendCommand` and `ListCommands` show it.
pub(super) fn describe(command: &Command) -> Value {
    let (status, details) = command.state();
    json!({
        "CommandId": command.id,
        "DocumentName": command.document,
        "DocumentVersion": command.version.to_string(),
        "Comment": command.comment,
        "ExpiresAfter": epoch(command.expires()),
        "Parameters": command.parameters,
        "InstanceIds": command.instance_ids,
        "Targets": command.targets,
        "RequestedDateTime": epoch(command.requested),
        "Status": status,
        "StatusDetails": details,
        "OutputS3BucketName": "",
        "OutputS3KeyPrefix": "",
        "MaxConcurrency": command.max_concurrency,
        "MaxErrors": command.max_errors,
        "TargetCount": command.invocations.len(),
        "CompletedCount": command.count(State::is_final),
        "ErrorCount": command.count(|state| matches!(state, State::Failed | State::ExecutionTimedOut)),
        "DeliveryTimedOutCount": command.count(|state| state == State::DeliveryTimedOut),
        "ServiceRole": "",
        "NotificationConfig": { "NotificationArn": "", "NotificationEvents": [], "NotificationType": "" },
        "CloudWatchOutputConfig": { "CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": false },
        "TimeoutSeconds": command.timeout_seconds,
    })
}

fn listed(command: &Command, invocation: &Invocation, details: bool) -> Value {
    let mut listed = json!({
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "InstanceName": "",
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.version.to_string(),
        "RequestedDateTime": epoch(command.requested),
        "Status": invocation.state.status(),
        "StatusDetails": invocation.state.details(),
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "CommandPlugins": [],
        "ServiceRole": "",
        "NotificationConfig": { "NotificationArn": "", "NotificationEvents": [], "NotificationType": "" },
        "CloudWatchOutputConfig": { "CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": false },
    });
    if details {
        let mut plugin = json!({
            "Name": command.step,
            "Status": invocation.state.status(),
            "StatusDetails": invocation.state.details(),
            "ResponseCode": invocation.response_code,
            "Output": invocation.stdout,
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
            "OutputS3BucketName": "",
            "OutputS3KeyPrefix": "",
        });
        for (name, time) in
            [("ResponseStartDateTime", invocation.started), ("ResponseFinishDateTime", invocation.ended)]
        {
            if let Some(time) = time {
                plugin[name] = epoch(time);
            }
        }
        listed["CommandPlugins"] = json!([plugin]);
    }
    listed
}

fn known(commands: &[Command], id: &str) -> bool {
    commands.iter().any(|command| command.id == id)
}

/// Whether this call comes too early to see the invocation; counts it.
fn hidden(invocation: &mut Invocation) -> bool {
    let hidden = invocation.unseen > 0;
    invocation.unseen = invocation.unseen.saturating_sub(1);
    hidden
}

/// A time in the form of the texts of `GetCommandInvocation`.
fn iso(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
