//! A call as Step Functions makes it: faults first, then the operation; errors by the names that `ErrorEquals` compares.

use std::sync::Arc;

use serde_json::Value;

use super::fault::{Effect, Operation};
use super::{Service, api, lock};
use crate::stepfunctions::TaskError;

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// With which parameters.
    pub parameters: Value,
    /// The code of EC2's error; none where it was carried out.
    pub refused: Option<String>,
}

/// What EC2 answers when it does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: &'static str,
    pub(super) status: u16,
    pub(super) message: String,
}

impl ApiError {
    /// A mistake of the caller's.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, status: 400, message: message.into() }
    }

    fn scripted(code: &'static str, status: u16, message: &str) -> Self {
        Self { code, status, message: message.to_owned() }
    }
}

/// EC2's model has no errors of its own, so that the SDK has one exception for all of them, whose message does not have the code.
impl From<ApiError> for TaskError {
    fn from(error: ApiError) -> Self {
        let ApiError { status, message, .. } = error;
        let request = uuid::Uuid::new_v4();
        Self::new(
            "Ec2.Ec2Exception",
            format!("{message} (Service: Ec2, Status Code: {status}, Request ID: {request})"),
        )
    }
}

pub(super) async fn task(
    service: &Arc<Service>,
    action: &str,
    parameters: &Value,
) -> Result<Value, TaskError> {
    let operation: Operation = action
        .parse()
        .map_err(|()| TaskError::new("States.Runtime", format!("the embedded EC2 has no `{action}`")))?;
    let effect = service.faults.calls.strike(&operation);
    let answer = match effect {
        Some(Effect::NoCapacity) => Err(ApiError::scripted(
            "InsufficientInstanceCapacity",
            500,
            "We currently do not have sufficient c8gd.medium capacity in the Availability Zone you requested.",
        )),
        Some(Effect::Throttled) => {
            Err(ApiError::scripted("RequestLimitExceeded", 503, "Request limit exceeded."))
        }
        Some(Effect::Denied) => Err(ApiError::scripted(
            "UnauthorizedOperation",
            403,
            "You are not authorized to perform this operation.",
        )),
        Some(Effect::Protected) => Err(ApiError::new(
            "OperationNotPermitted",
            "The instance may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.",
        )),
        Some(Effect::LoseReply | Effect::Hang) | None => api::call(service, operation, parameters),
    };
    let refused = answer.as_ref().err().map(|error| error.code.to_owned());
    lock(&service.calls).push(Call { operation, parameters: parameters.clone(), refused });
    match (effect, answer) {
        (Some(Effect::LoseReply), Ok(_)) => {
            Err(TaskError::new("Ec2.SdkClientException", "Unable to execute HTTP request: Connection reset"))
        }
        (Some(Effect::Hang), Ok(_)) => std::future::pending().await,
        (_, answer) => Ok(answer?),
    }
}
