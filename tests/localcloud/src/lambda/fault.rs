//! How an invocation can fail, by itself and as scripted.

use serde::{Deserialize, Serialize};

/// What happens to an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// 429 `TooManyRequestsException`; the function does not run.
    Throttle,
    /// 500 `ServiceException`; the function does not run.
    ServiceError,
    /// The function fails with this before it has done anything.
    Fail(FunctionError),
    /// The function runs, and this is reported instead of its answer.
    FailAfter(FunctionError),
    /// The function runs, and the connection is dropped instead of its answer.
    LoseReply,
    /// The function runs and does not come back: it is killed at its time-out.
    Hang,
    /// The function runs twice, and the second answer counts.
    RunTwice,
}

/// Why a function failed: what `ErrorEquals` of a state machine compares, and what a person reads.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{error_type}: {message}")]
pub struct FunctionError {
    /// `errorType`.
    #[serde(rename = "errorType")]
    pub error_type: String,
    /// `errorMessage`.
    #[serde(rename = "errorMessage")]
    pub message: String,
}

impl FunctionError {
    /// An error of this type.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error_type: error_type.into(), message: message.into() }
    }
}

/// Why a call did not bring an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    #[error("function not found: {0}")]
    NotFound(String),
    #[error("rate exceeded")]
    Throttled,
    #[error("{0}")]
    Service(String),
    #[error("the connection was dropped")]
    ReplyLost,
    #[error(transparent)]
    Function(FunctionError),
}

impl CallError {
    /// The error as Step Functions names it.
    pub(super) fn for_step_functions(self) -> FunctionError {
        let name = match self {
            Self::Function(error) => return error,
            Self::NotFound(_) => "Lambda.ResourceNotFoundException",
            Self::Throttled => "Lambda.TooManyRequestsException",
            Self::Service(_) => "Lambda.ServiceException",
            Self::ReplyLost => "Lambda.SdkClientException",
        };
        FunctionError::new(name, self.to_string())
    }
}
