//! Requests as they come over the wire. A field that this service does not know is refused: it would be ignored in silence.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::reply::Refusal;
use crate::stepfunctions::faults::Operation;
use crate::stepfunctions::machine::{HistoryEvent, epoch_seconds};
use crate::stepfunctions::service::{ApiError, Execution, Page, StateMachine, Status, StepFunctions};

/// Carries an operation out.
pub(super) fn carry_out(
    service: &StepFunctions,
    operation: Operation,
    body: &[u8],
) -> Result<Value, Refusal> {
    match operation {
        Operation::CreateStateMachine => create_state_machine(service, &read(body)?),
        Operation::DescribeExecution => describe_execution(service, &read(body)?),
        Operation::DescribeStateMachine => describe_state_machine(service, &read(body)?),
        Operation::GetExecutionHistory => get_execution_history(service, read(body)?),
        Operation::ListExecutions => list_executions(service, read(body)?),
        Operation::ListStateMachines => list_state_machines(service, read(body)?),
        Operation::SendTaskFailure => send_task_failure(service, &read(body)?),
        Operation::SendTaskHeartbeat => send_task_heartbeat(service, &read(body)?),
        Operation::SendTaskSuccess => send_task_success(service, &read(body)?),
        Operation::StartExecution => start_execution(service, &read(body)?),
        Operation::StopExecution => stop_execution(service, &read(body)?),
        Operation::UpdateStateMachine => update_state_machine(service, &read(body)?),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::unreadable(&error))
}

/// Logging, tracing, tags and encryption change nothing here, and may be asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateStateMachine {
    name: String,
    definition: String,
    role_arn: String,
    r#type: Option<String>,
    #[serde(rename = "loggingConfiguration")]
    _logging: Option<IgnoredAny>,
    #[serde(rename = "tracingConfiguration")]
    _tracing: Option<IgnoredAny>,
    #[serde(rename = "encryptionConfiguration")]
    _encryption: Option<IgnoredAny>,
    #[serde(rename = "tags")]
    _tags: Option<IgnoredAny>,
}

fn create_state_machine(service: &StepFunctions, request: &CreateStateMachine) -> Result<Value, Refusal> {
    if let Some(other) = request.r#type.as_deref().filter(|kind| *kind != "STANDARD") {
        return Err(ApiError::type_not_supported(other).into());
    }
    let created = service.create_state_machine(&request.name, &request.definition, &request.role_arn)?;
    Ok(json!({"stateMachineArn": created.arn, "creationDate": epoch_seconds(created.created_at)}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UpdateStateMachine {
    state_machine_arn: String,
    definition: Option<String>,
    role_arn: Option<String>,
}

fn update_state_machine(service: &StepFunctions, request: &UpdateStateMachine) -> Result<Value, Refusal> {
    let updated = service.update_state_machine(
        &request.state_machine_arn,
        request.definition.as_deref(),
        request.role_arn.as_deref(),
    )?;
    Ok(json!({"updateDate": epoch_seconds(updated)}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DescribeStateMachine {
    state_machine_arn: String,
    #[serde(rename = "includedData")]
    _included: Option<IgnoredAny>,
}

fn describe_state_machine(service: &StepFunctions, request: &DescribeStateMachine) -> Result<Value, Refusal> {
    let machine = service.describe_state_machine(&request.state_machine_arn)?;
    let mut shown = listed_machine(&machine);
    shown["status"] = "ACTIVE".into();
    shown["definition"] = machine.definition_text.into();
    shown["roleArn"] = machine.role_arn.into();
    shown["loggingConfiguration"] = json!({"level": "OFF", "includeExecutionData": false});
    shown["tracingConfiguration"] = json!({"enabled": false});
    if machine.revision > 0 {
        shown["revisionId"] = format!("revision-{}", machine.revision).into();
    }
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListStateMachines {
    max_results: Option<u32>,
    next_token: Option<String>,
}

fn list_state_machines(service: &StepFunctions, request: ListStateMachines) -> Result<Value, Refusal> {
    let page = Page { max_results: request.max_results, next_token: request.next_token };
    let page = service.list_state_machines(&page)?;
    let machines: Vec<Value> = page.machines.iter().map(listed_machine).collect();
    Ok(paged("stateMachines", machines, page.next_token))
}

fn listed_machine(machine: &StateMachine) -> Value {
    json!({
        "stateMachineArn": machine.arn,
        "name": machine.name,
        "type": "STANDARD",
        "creationDate": epoch_seconds(machine.created_at),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartExecution {
    state_machine_arn: String,
    name: Option<String>,
    input: Option<String>,
    #[serde(rename = "traceHeader")]
    _trace: Option<IgnoredAny>,
}

fn start_execution(service: &StepFunctions, request: &StartExecution) -> Result<Value, Refusal> {
    let started = service.start_execution(
        &request.state_machine_arn,
        request.name.as_deref(),
        request.input.as_deref(),
    )?;
    Ok(json!({"executionArn": started.arn, "startDate": epoch_seconds(started.started_at)}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StopExecution {
    execution_arn: String,
    error: Option<String>,
    cause: Option<String>,
}

fn stop_execution(service: &StepFunctions, request: &StopExecution) -> Result<Value, Refusal> {
    let stopped =
        service.stop_execution(&request.execution_arn, request.error.as_deref(), request.cause.as_deref())?;
    Ok(json!({"stopDate": epoch_seconds(stopped)}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DescribeExecution {
    execution_arn: String,
    #[serde(rename = "includedData")]
    _included: Option<IgnoredAny>,
}

fn describe_execution(service: &StepFunctions, request: &DescribeExecution) -> Result<Value, Refusal> {
    let execution = service.describe_execution(&request.execution_arn)?;
    let mut shown = listed_execution(&execution);
    shown["input"] = execution.input.into();
    shown["inputDetails"] = json!({"included": true});
    if let Some(output) = &execution.output {
        shown["output"] = output.to_string().into();
        shown["outputDetails"] = json!({"included": true});
    }
    for (field, text) in [("error", execution.failure.error), ("cause", execution.failure.cause)] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            shown[field] = text.into();
        }
    }
    let redrivable = matches!(execution.status, Status::Failed | Status::TimedOut | Status::Aborted);
    shown["redriveStatus"] = if redrivable { "REDRIVABLE" } else { "NOT_REDRIVABLE" }.into();
    if !redrivable {
        let reason = format!("Execution is {} and cannot be redriven", execution.status);
        shown["redriveStatusReason"] = reason.into();
    }
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListExecutions {
    state_machine_arn: String,
    status_filter: Option<String>,
    max_results: Option<u32>,
    next_token: Option<String>,
}

fn list_executions(service: &StepFunctions, request: ListExecutions) -> Result<Value, Refusal> {
    let status = match request.status_filter.as_deref().map(str::parse::<Status>) {
        None => None,
        Some(Ok(status)) => Some(status),
        Some(Err(())) => return Err(ApiError::not_a_status().into()),
    };
    let page = Page { max_results: request.max_results, next_token: request.next_token };
    let page = service.list_executions(&request.state_machine_arn, status, &page)?;
    let executions: Vec<Value> = page.executions.iter().map(listed_execution).collect();
    Ok(paged("executions", executions, page.next_token))
}

fn listed_execution(execution: &Execution) -> Value {
    let mut shown = json!({
        "executionArn": execution.arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": execution.status.to_string(),
        "startDate": epoch_seconds(execution.started_at),
        "redriveCount": 0,
    });
    if let Some(stopped_at) = execution.stopped_at {
        shown["stopDate"] = epoch_seconds(stopped_at);
    }
    shown
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GetExecutionHistory {
    execution_arn: String,
    #[serde(default)]
    reverse_order: bool,
    include_execution_data: Option<bool>,
    max_results: Option<u32>,
    next_token: Option<String>,
}

fn get_execution_history(service: &StepFunctions, request: GetExecutionHistory) -> Result<Value, Refusal> {
    let page = Page { max_results: request.max_results, next_token: request.next_token };
    let page = service.get_execution_history(&request.execution_arn, request.reverse_order, &page)?;
    let with_data = request.include_execution_data.unwrap_or(true);
    let event = |event: &HistoryEvent| if with_data { event.to_json() } else { event.to_json_without_data() };
    let events: Vec<Value> = page.events.iter().map(event).collect();
    Ok(paged("events", events, page.next_token))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SendTaskSuccess {
    task_token: String,
    output: String,
}

fn send_task_success(service: &StepFunctions, request: &SendTaskSuccess) -> Result<Value, Refusal> {
    service.send_task_success(&request.task_token, &request.output)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SendTaskFailure {
    task_token: String,
    error: Option<String>,
    cause: Option<String>,
}

fn send_task_failure(service: &StepFunctions, request: &SendTaskFailure) -> Result<Value, Refusal> {
    service.send_task_failure(&request.task_token, request.error.as_deref(), request.cause.as_deref())?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SendTaskHeartbeat {
    task_token: String,
}

fn send_task_heartbeat(service: &StepFunctions, request: &SendTaskHeartbeat) -> Result<Value, Refusal> {
    service.send_task_heartbeat(&request.task_token)?;
    Ok(json!({}))
}

fn paged(field: &str, entries: Vec<Value>, next_token: Option<String>) -> Value {
    let mut page = json!({ field: entries });
    if let Some(token) = next_token {
        page["nextToken"] = token.into();
    }
    page
}
