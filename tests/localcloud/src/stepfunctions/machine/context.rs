//! The context object, `$$`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::flow::{Thread, Visit};
use super::token::TaskToken;
use super::{About, Execution};
use crate::stepfunctions::asl::Kind;

/// What `$$` shows to a state, and to a task that waits for `token`.
pub(super) fn context(
    execution: &Execution,
    thread: &Thread,
    visit: &Visit,
    token: Option<&TaskToken>,
) -> Value {
    let About { execution_arn, execution_name, state_machine_arn, state_machine_name, role_arn, .. } =
        &execution.about;
    let mut context = json!({
        "Execution": {
            "Id": execution_arn,
            "Input": execution.input,
            "Name": execution_name,
            "RoleArn": role_arn,
            "StartTime": time(execution.started_at),
            "RedriveCount": 0,
        },
        "StateMachine": {"Id": state_machine_arn, "Name": state_machine_name},
        "State": {"Name": visit.state.name, "EnteredTime": time(visit.entered_at)},
    });
    if matches!(visit.state.kind, Kind::Task(_) | Kind::Parallel(_) | Kind::Map(_)) {
        context["State"]["RetryCount"] = visit.retry_count.into();
    }
    if let Some(token) = token {
        context["Task"] = json!({"Token": token.reveal()});
    }
    if let Some(item) = &thread.item {
        context["Map"] = json!({"Item": item});
    }
    context
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
