//! What can go wrong, in the words of Step Functions.

use serde_json::{Value, json};

use crate::stepfunctions::asl::Evaluation;

/// An error's name and its cause. `SendTaskFailure` may leave both out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// What `ErrorEquals` is compared with.
    pub error: Option<String>,
    /// What a person should know.
    pub cause: Option<String>,
}

impl Failure {
    /// A failure that has both.
    pub fn new(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { error: Some(error.into()), cause: Some(cause.into()) }
    }

    /// What a Catch puts into the state's input.
    pub(super) fn output(&self) -> Value {
        json!({"Error": self.error, "Cause": self.cause})
    }

    /// `States.Runtime` ends the execution, whatever a Retry or a Catch says.
    pub(super) fn is_final(&self) -> bool {
        self.error.as_deref() == Some("States.Runtime")
    }

    pub(super) fn too_large(who: &str) -> Self {
        let cause = format!(
            "The state/task '{who}' returned a result with a size exceeding the maximum number of bytes service limit."
        );
        Self::new("States.DataLimitExceeded", cause)
    }
}

/// What a state cannot do with its data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// A path of a template leads nowhere, or a function cannot do it.
    Evaluation(Evaluation),
    /// A path of the state itself leads nowhere.
    NoSuchPath(String),
    /// A result cannot be put there.
    Misfit { path: String, input: String },
    /// It is above the limit.
    TooLarge,
    /// No choice holds.
    NoChoice,
    /// A value is not what the field needs.
    Unusable(String),
}

impl From<Evaluation> for Trouble {
    fn from(evaluation: Evaluation) -> Self {
        Self::Evaluation(evaluation)
    }
}

impl Trouble {
    /// The failure of the state that was entered by the event `entered`.
    pub(super) fn failure(self, state: &str, entered: u64) -> Failure {
        let (error, reason) = match self {
            Self::TooLarge => return Failure::too_large(state),
            Self::Evaluation(Evaluation::NotFound { path, field, input }) => (
                "States.Runtime",
                format!(
                    "The JSONPath '{path}' specified for the field '{field}' could not be found in the input '{input}'"
                ),
            ),
            Self::Evaluation(Evaluation::Intrinsic { call, problem }) => (
                "States.IntrinsicFailure",
                format!("The function '{call}' had the following error: {problem}"),
            ),
            Self::NoSuchPath(path) => {
                ("States.Runtime", format!("Invalid path '{path}' : No results for path: {path}"))
            }
            Self::Misfit { path, input } => (
                "States.ResultPathMatchFailure",
                format!("Unable to apply Reference Path {path} to input {input}"),
            ),
            Self::NoChoice => (
                "States.NoChoiceMatched",
                "Failed to transition out of the state. The state does not point to a next state.".to_owned(),
            ),
            Self::Unusable(problem) => ("States.Runtime", problem),
        };
        let cause = format!(
            "An error occurred while executing the state '{state}' (entered at the event id #{entered}). {reason}"
        );
        Failure::new(error, cause)
    }
}
