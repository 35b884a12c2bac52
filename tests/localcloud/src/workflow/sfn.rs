//! Step Functions as a state machine calls it: the API behind its own SDK integration.
//!
//! Parameters and answers are in `PascalCase`, times are text, what is null is left out, and errors have the names of the Java SDK's exceptions.

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Map, Value, json};

use crate::stepfunctions::{Front, TARGET_PREFIX, TaskError};

/// The actions that the shipped machines call.
const ACTIONS: [&str; 4] = ["describeExecution", "describeStateMachine", "listExecutions", "startExecution"];
/// Refusals that are the framework's and not in the model: the SDK has the service's own exception for them.
const UNMODELLED: [&str; 4] =
    ["AccessDeniedException", "ServiceUnavailable", "ThrottlingException", "UnknownOperationException"];

/// Carries out `aws-sdk:sfn:ACTION`.
pub(super) async fn task(front: &Front, action: &str, parameters: &Value) -> Result<Value, TaskError> {
    if !ACTIONS.contains(&action) {
        return Err(runtime(format!("the embedded cloud has no `aws-sdk:sfn:{action}`")));
    }
    let body = request(parameters)?.to_string();
    let target = format!("{TARGET_PREFIX}{}", capital(action));
    let Some(response) = front.handle(&target, body.as_bytes()).await else {
        return Err(TaskError::new(
            "Sfn.SdkClientException",
            "Unable to execute HTTP request: Connection reset",
        ));
    };
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    let answer = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if status == 200 { Ok(passed_on(answer)) } else { Err(refused(status, &answer)) }
}

/// The parameters as the API has them.
fn request(parameters: &Value) -> Result<Value, TaskError> {
    let fields = parameters.as_object().ok_or_else(|| runtime("parameters must be an object".to_owned()))?;
    let mut request = Map::new();
    for (name, value) in fields {
        if !name.starts_with(|first: char| first.is_ascii_uppercase()) {
            return Err(runtime(format!("`{name}` is no parameter: they begin with a capital")));
        }
        let (first, rest) = name.split_at(1);
        request.insert(first.to_ascii_lowercase() + rest, value.clone());
    }
    Ok(Value::Object(request))
}

fn passed_on(answer: Value) -> Value {
    match answer {
        Value::Object(fields) => {
            let known = fields.into_iter().filter(|(_, value)| !value.is_null());
            let shown = known.map(|(name, value)| {
                let value = if name.ends_with("Date") { as_text(value) } else { passed_on(value) };
                (capital(&name), value)
            });
            Value::Object(shown.collect())
        }
        Value::Array(items) => items.into_iter().map(passed_on).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

/// Seconds as text, of the precision of the API.
fn as_text(value: Value) -> Value {
    let seconds = value.as_f64().and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
    let moment = seconds
        .and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok())
        .and_then(|moment| moment.round(Unit::Millisecond).ok());
    moment.map_or(value, |moment| json!(moment))
}

fn refused(status: u16, answer: &Value) -> TaskError {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let kind = text("__type").rsplit('#').next().unwrap_or_default();
    if kind == "SerializationException" {
        return runtime(text("message").to_owned());
    }
    let name =
        if UNMODELLED.contains(&kind) { "Sfn" } else { kind.strip_suffix("Exception").unwrap_or(kind) };
    let request = uuid::Uuid::new_v4();
    TaskError::new(
        format!("Sfn.{name}Exception"),
        format!("{} (Service: Sfn, Status Code: {status}, Request ID: {request})", text("message")),
    )
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn runtime(cause: String) -> TaskError {
    TaskError::new("States.Runtime", cause)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::stepfunctions::{Effect, Operation, Options, StepFunctions, TaskRequest, Tasks};

    struct Nobody;

    #[async_trait]
    impl Tasks for Nobody {
        async fn call(&self, _request: TaskRequest) -> Result<Value, TaskError> {
            Err(TaskError::new("Nobody", "is called"))
        }
    }

    fn front() -> (Front, String) {
        let service = StepFunctions::new(Options::default(), Arc::new(Nobody));
        let definition =
            r#"{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": true}}}"#;
        let made = service.create_state_machine("m", definition, "arn:aws:iam::000000000000:role/r").unwrap();
        (Front::new(service), made.arn)
    }

    async fn error(front: &Front, action: &str, parameters: &Value) -> String {
        task(front, action, parameters).await.unwrap_err().error
    }

    #[tokio::test]
    async fn an_execution_is_started_once_under_a_name_and_looked_at() {
        let (front, machine) = front();
        let start = json!({"StateMachineArn": machine, "Name": "n", "Input": "{}"});
        let started = task(&front, "startExecution", &start).await.unwrap();
        let again = task(&front, "startExecution", &start).await.unwrap();
        assert_eq!(started, again);
        let arn = started["ExecutionArn"].as_str().unwrap();
        let time: Timestamp = started["StartDate"].as_str().unwrap().parse().unwrap();
        assert_eq!(time.subsec_nanosecond() % 1_000_000, 0);

        let seen = task(&front, "describeExecution", &json!({"ExecutionArn": arn})).await.unwrap();
        assert_eq!((&seen["Status"], &seen["StartDate"]), (&json!("RUNNING"), &started["StartDate"]));
        assert!(seen.get("StopDate").is_none() && seen.get("Error").is_none(), "{seen}");
        let list = json!({"StateMachineArn": machine, "StatusFilter": "RUNNING", "MaxResults": 1});
        let listed = task(&front, "listExecutions", &list).await.unwrap();
        assert_eq!(listed["Executions"][0]["ExecutionArn"], arn);
        let made = task(&front, "describeStateMachine", &json!({"StateMachineArn": machine})).await.unwrap();
        assert!(made["CreationDate"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{made}");

        front.service().stop_execution(arn, Some("E"), Some("C")).unwrap();
        let seen = task(&front, "describeExecution", &json!({"ExecutionArn": arn})).await.unwrap();
        assert_eq!(
            (&seen["Status"], &seen["Error"], &seen["Cause"]),
            (&json!("ABORTED"), &json!("E"), &json!("C"))
        );
        assert!(seen["StopDate"].is_string());
        assert_eq!(error(&front, "startExecution", &start).await, "Sfn.ExecutionAlreadyExistsException");
    }

    #[tokio::test]
    async fn refusals_have_the_names_of_the_integration() {
        let (front, machine) = front();
        let absent = json!({"ExecutionArn": machine.replace("stateMachine", "execution") + ":x"});
        assert_eq!(error(&front, "describeExecution", &absent).await, "Sfn.ExecutionDoesNotExistException");
        let list = json!({"StateMachineArn": machine.clone() + "x"});
        assert_eq!(error(&front, "listExecutions", &list).await, "Sfn.StateMachineDoesNotExistException");
        for wrong in [
            json!({"stateMachineArn": machine}),
            json!({"StateMachineArn": machine, "Status": "RUNNING"}),
            json!([machine]),
        ] {
            assert_eq!(error(&front, "listExecutions", &wrong).await, "States.Runtime", "{wrong}");
        }
        assert_eq!(error(&front, "deleteStateMachine", &json!({})).await, "States.Runtime");
        let list = json!({"StateMachineArn": machine});
        for (effect, name) in [
            (Effect::AccessDenied, "Sfn.SfnException"),
            (Effect::Throttled, "Sfn.SfnException"),
            (Effect::Unavailable, "Sfn.SfnException"),
            (Effect::LoseReply, "Sfn.SdkClientException"),
        ] {
            front.faults().on(Operation::ListExecutions).inject(effect);
            assert_eq!(error(&front, "listExecutions", &list).await, name);
        }
    }
}
