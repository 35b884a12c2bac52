//! The history of an execution, as `GetExecutionHistory` shows it.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use crate::stepfunctions::asl::Resource;

/// One event of a history.
#[derive(Clone, PartialEq)]
pub struct HistoryEvent {
    /// From 1, without a gap.
    pub id: u64,
    /// The event that it follows; 0 for the first ones.
    pub previous: u64,
    /// When it was.
    pub timestamp: Timestamp,
    /// What it was.
    pub happening: Happening,
}

/// What can happen. The type of the state is the beginning of many names: `TaskStateEntered`, `MapStateFailed`.
#[derive(Clone, PartialEq)]
#[expect(missing_docs, reason = "the names and fields are AWS's own")]
pub enum Happening {
    ExecutionStarted { input: Value, role_arn: String },
    ExecutionSucceeded { output: Value },
    ExecutionFailed(Failure),
    ExecutionTimedOut(Failure),
    ExecutionAborted(Failure),
    StateEntered { state_type: &'static str, name: String, input: Value },
    StateExited { state_type: &'static str, name: String, output: Value },
    StateAborted { state_type: &'static str },
    ParallelStateStarted,
    MapStateStarted { length: usize },
    StateSucceeded { state_type: &'static str },
    StateFailed { state_type: &'static str },
    MapIterationStarted { name: String, index: usize },
    MapIterationSucceeded { name: String, index: usize },
    MapIterationFailed { name: String, index: usize },
    MapIterationAborted { name: String, index: usize },
    TaskScheduled(Scheduled),
    TaskStarted { resource: Resource },
    TaskSubmitted { resource: Resource, output: Value },
    TaskSucceeded { resource: Resource, output: Value },
    TaskFailed { resource: Resource, failure: Failure },
    TaskTimedOut { resource: Resource, failure: Failure },
}

/// A task that is about to be called.
#[derive(Clone, PartialEq)]
pub struct Scheduled {
    /// What is called.
    pub resource: Resource,
    /// The region's name.
    pub region: String,
    /// With which parameters. They hold the token, as on AWS.
    pub parameters: Value,
    /// The attempt's time-out, if it has one.
    pub timeout_seconds: Option<u64>,
    /// The heartbeat that it waits for, if it does.
    pub heartbeat_seconds: Option<u64>,
}

impl fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduled").field("resource", &self.resource.arn()).finish_non_exhaustive()
    }
}

impl HistoryEvent {
    /// The event's `type`.
    #[must_use]
    pub fn type_name(&self) -> String {
        self.happening.type_name()
    }

    /// The event as the API gives it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut event = json!({
            "id": self.id,
            "previousEventId": self.previous,
            "timestamp": epoch_seconds(self.timestamp),
            "type": self.type_name(),
        });
        if let Some((field, details)) = self.happening.details() {
            event[field] = details;
        }
        event
    }

    /// The event without inputs, outputs and parameters (`includeExecutionData: false`).
    #[must_use]
    pub fn to_json_without_data(&self) -> Value {
        let mut event = self.to_json();
        if let Some((field, mut details)) = self.happening.details()
            && let Some(fields) = details.as_object_mut()
        {
            fields.retain(|name, _| {
                !matches!(name.as_str(), "input" | "inputDetails" | "output" | "outputDetails")
            });
            // It is a required field of the model.
            if let Some(parameters) = fields.get_mut("parameters") {
                *parameters = "".into();
            }
            event[field] = details;
        }
        event
    }
}

/// Without payloads: a task's parameters hold its token.
impl fmt::Debug for HistoryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {}) {:?}", self.id, self.previous, self.happening)
    }
}

/// Without payloads: a task's parameters hold its token.
impl fmt::Debug for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.type_name())?;
        match self {
            Self::StateEntered { name, .. } | Self::StateExited { name, .. } => write!(f, " `{name}`"),
            Self::ExecutionFailed(failure)
            | Self::ExecutionTimedOut(failure)
            | Self::ExecutionAborted(failure)
            | Self::TaskFailed { failure, .. }
            | Self::TaskTimedOut { failure, .. } => write!(
                f,
                " {}: {}",
                failure.error.as_deref().unwrap_or("(no error)"),
                failure.cause.as_deref().unwrap_or("(no cause)")
            ),
            Self::ExecutionStarted { .. }
            | Self::ExecutionSucceeded { .. }
            | Self::StateAborted { .. }
            | Self::ParallelStateStarted
            | Self::MapStateStarted { .. }
            | Self::StateSucceeded { .. }
            | Self::StateFailed { .. }
            | Self::MapIterationStarted { .. }
            | Self::MapIterationSucceeded { .. }
            | Self::MapIterationFailed { .. }
            | Self::MapIterationAborted { .. }
            | Self::TaskScheduled(_)
            | Self::TaskStarted { .. }
            | Self::TaskSubmitted { .. }
            | Self::TaskSucceeded { .. } => Ok(()),
        }
    }
}

impl Happening {
    fn type_name(&self) -> String {
        let name = match self {
            Self::StateEntered { state_type, .. } => return format!("{state_type}StateEntered"),
            Self::StateExited { state_type, .. } => return format!("{state_type}StateExited"),
            Self::StateAborted { state_type } => return format!("{state_type}StateAborted"),
            Self::StateSucceeded { state_type } => return format!("{state_type}StateSucceeded"),
            Self::StateFailed { state_type } => return format!("{state_type}StateFailed"),
            Self::ExecutionStarted { .. } => "ExecutionStarted",
            Self::ExecutionSucceeded { .. } => "ExecutionSucceeded",
            Self::ExecutionFailed(_) => "ExecutionFailed",
            Self::ExecutionTimedOut(_) => "ExecutionTimedOut",
            Self::ExecutionAborted(_) => "ExecutionAborted",
            Self::ParallelStateStarted => "ParallelStateStarted",
            Self::MapStateStarted { .. } => "MapStateStarted",
            Self::MapIterationStarted { .. } => "MapIterationStarted",
            Self::MapIterationSucceeded { .. } => "MapIterationSucceeded",
            Self::MapIterationFailed { .. } => "MapIterationFailed",
            Self::MapIterationAborted { .. } => "MapIterationAborted",
            Self::TaskScheduled(_) => "TaskScheduled",
            Self::TaskStarted { .. } => "TaskStarted",
            Self::TaskSubmitted { .. } => "TaskSubmitted",
            Self::TaskSucceeded { .. } => "TaskSucceeded",
            Self::TaskFailed { .. } => "TaskFailed",
            Self::TaskTimedOut { .. } => "TaskTimedOut",
        };
        name.to_owned()
    }

    /// The field of the details, and the details.
    fn details(&self) -> Option<(&'static str, Value)> {
        let whole = json!({"truncated": false});
        Some(match self {
            Self::ExecutionStarted { input, role_arn } => (
                "executionStartedEventDetails",
                json!({"input": input.to_string(), "inputDetails": whole, "roleArn": role_arn}),
            ),
            Self::ExecutionSucceeded { output } => (
                "executionSucceededEventDetails",
                json!({"output": output.to_string(), "outputDetails": whole}),
            ),
            Self::ExecutionFailed(failure) => ("executionFailedEventDetails", failed(failure)),
            Self::ExecutionTimedOut(failure) => ("executionTimedOutEventDetails", failed(failure)),
            Self::ExecutionAborted(failure) => ("executionAbortedEventDetails", failed(failure)),
            Self::StateEntered { name, input, .. } => (
                "stateEnteredEventDetails",
                json!({"name": name, "input": input.to_string(), "inputDetails": whole}),
            ),
            Self::StateExited { name, output, .. } => (
                "stateExitedEventDetails",
                json!({"name": name, "output": output.to_string(), "outputDetails": whole}),
            ),
            Self::MapStateStarted { length } => ("mapStateStartedEventDetails", json!({"length": length})),
            Self::MapIterationStarted { name, index } => {
                ("mapIterationStartedEventDetails", json!({"name": name, "index": index}))
            }
            Self::MapIterationSucceeded { name, index } => {
                ("mapIterationSucceededEventDetails", json!({"name": name, "index": index}))
            }
            Self::MapIterationFailed { name, index } => {
                ("mapIterationFailedEventDetails", json!({"name": name, "index": index}))
            }
            Self::MapIterationAborted { name, index } => {
                ("mapIterationAbortedEventDetails", json!({"name": name, "index": index}))
            }
            Self::TaskScheduled(task) => {
                let mut details = of(&task.resource);
                details["region"] = task.region.as_str().into();
                details["parameters"] = task.parameters.to_string().into();
                for (field, seconds) in [
                    ("timeoutInSeconds", task.timeout_seconds),
                    ("heartbeatInSeconds", task.heartbeat_seconds),
                ] {
                    if let Some(seconds) = seconds {
                        details[field] = seconds.into();
                    }
                }
                ("taskScheduledEventDetails", details)
            }
            Self::TaskStarted { resource } => ("taskStartedEventDetails", of(resource)),
            Self::TaskSubmitted { resource, output } => {
                ("taskSubmittedEventDetails", with_output(of(resource), output))
            }
            Self::TaskSucceeded { resource, output } => {
                ("taskSucceededEventDetails", with_output(of(resource), output))
            }
            Self::TaskFailed { resource, failure } => {
                ("taskFailedEventDetails", with_failure(of(resource), failure))
            }
            Self::TaskTimedOut { resource, failure } => {
                ("taskTimedOutEventDetails", with_failure(of(resource), failure))
            }
            Self::StateAborted { .. }
            | Self::ParallelStateStarted
            | Self::StateSucceeded { .. }
            | Self::StateFailed { .. } => return None,
        })
    }
}

fn of(resource: &Resource) -> Value {
    json!({"resourceType": resource.service(), "resource": resource.history_name()})
}

fn with_output(mut details: Value, output: &Value) -> Value {
    details["output"] = output.to_string().into();
    details["outputDetails"] = json!({"truncated": false});
    details
}

fn failed(failure: &Failure) -> Value {
    with_failure(json!({}), failure)
}

/// What is not known is left out, and an empty cause too: a time-out has one in what a Catch gets, and none in the history.
fn with_failure(mut details: Value, failure: &Failure) -> Value {
    for (field, text) in [("error", &failure.error), ("cause", &failure.cause)] {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            details[field] = text.into();
        }
    }
    details
}

/// The API's timestamps: seconds since 1970 with milliseconds.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
pub(in crate::stepfunctions) fn epoch_seconds(time: Timestamp) -> Value {
    (time.as_millisecond() as f64 / 1000.0).into()
}
