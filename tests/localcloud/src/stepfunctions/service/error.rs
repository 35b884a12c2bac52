//! What the API refuses, in the API's own words.

use std::fmt;

use super::limits::Limit;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct ApiError {
    /// What a program looks at.
    pub kind: ErrorKind,
    /// What a person should know.
    pub message: String,
}

/// The names of the refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are AWS's own")]
pub enum ErrorKind {
    ExecutionAlreadyExists,
    ExecutionDoesNotExist,
    InvalidArn,
    InvalidDefinition,
    InvalidExecutionInput,
    InvalidName,
    InvalidOutput,
    InvalidToken,
    MissingRequiredParameter,
    StateMachineAlreadyExists,
    StateMachineDoesNotExist,
    StateMachineTypeNotSupported,
    TaskDoesNotExist,
    TaskTimedOut,
    ValidationException,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl ApiError {
    /// Most messages have a title and, in quotes, what it is about.
    fn about(kind: ErrorKind, title: &str, what: impl fmt::Display) -> Self {
        Self { kind, message: format!("{title}: '{what}'") }
    }

    pub(super) fn execution_already_exists(arn: &str) -> Self {
        Self::about(ErrorKind::ExecutionAlreadyExists, "Execution Already Exists", arn)
    }

    pub(super) fn execution_does_not_exist(arn: &str) -> Self {
        Self::about(ErrorKind::ExecutionDoesNotExist, "Execution Does Not Exist", arn)
    }

    pub(super) fn state_machine_already_exists(arn: &str) -> Self {
        Self::about(ErrorKind::StateMachineAlreadyExists, "State Machine Already Exists", arn)
    }

    pub(super) fn state_machine_does_not_exist(arn: &str) -> Self {
        Self::about(ErrorKind::StateMachineDoesNotExist, "State Machine Does Not Exist", arn)
    }

    pub(super) fn invalid_arn(arn: &str) -> Self {
        Self::about(ErrorKind::InvalidArn, "Invalid Arn", format_args!("Invalid ARN prefix: {arn}"))
    }

    pub(super) fn invalid_name(name: &str) -> Self {
        Self::about(ErrorKind::InvalidName, "Invalid Name", name)
    }

    pub(super) fn invalid_definition(problem: impl fmt::Display) -> Self {
        let what = format_args!("SCHEMA_VALIDATION_FAILED: {problem}");
        Self::about(ErrorKind::InvalidDefinition, "Invalid State Machine Definition", what)
    }

    pub(super) fn invalid_execution_input(problem: impl fmt::Display) -> Self {
        Self::about(ErrorKind::InvalidExecutionInput, "Invalid State Machine Execution Input", problem)
    }

    pub(super) fn invalid_output(problem: impl fmt::Display) -> Self {
        Self::about(ErrorKind::InvalidOutput, "Invalid Output", problem)
    }

    /// Never says which token it was.
    pub(super) fn invalid_token() -> Self {
        Self::about(ErrorKind::InvalidToken, "Invalid Token", "Invalid token")
    }

    pub(super) fn task_does_not_exist() -> Self {
        Self::about(ErrorKind::TaskDoesNotExist, "Task does not exist", "Task does not exist")
    }

    pub(super) fn task_timed_out() -> Self {
        let what = "Provided task does not exist anymore";
        Self::about(ErrorKind::TaskTimedOut, "Task Timed Out", what)
    }

    pub(super) fn missing_parameter(message: &str) -> Self {
        Self { kind: ErrorKind::MissingRequiredParameter, message: message.to_owned() }
    }

    pub(in crate::stepfunctions) fn not_a_status() -> Self {
        Self {
            kind: ErrorKind::ValidationException,
            message: "1 validation error detected: Value at 'statusFilter' failed to satisfy constraint: Member must satisfy enum value set: [RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED, PENDING_REDRIVE]".to_owned(),
        }
    }

    pub(in crate::stepfunctions) fn type_not_supported(given: &str) -> Self {
        let title = "State Machine Type Not Supported";
        Self::about(ErrorKind::StateMachineTypeNotSupported, title, given)
    }

    /// A value of a field that the model of the API does not allow. The value itself is not repeated: it may be a token.
    pub(super) fn validation(field: &str, limit: Limit) -> Self {
        Self {
            kind: ErrorKind::ValidationException,
            message: format!(
                "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must have {limit}"
            ),
        }
    }
}
