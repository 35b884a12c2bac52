//! Why a definition is refused. Every message begins with the place: which state, and in which branch.

use std::fmt;

/// A definition that is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The text is not JSON, or an object names a field twice.
    #[error("the definition is not acceptable JSON")]
    Json(#[source] serde_json::Error),
    /// A field that nobody would read.
    #[error("{place}: unknown field `{field}`; it may have {known}")]
    UnknownField {
        /// Where it is.
        place: Place,
        /// Its name.
        field: String,
        /// The fields that there are.
        known: String,
    },
    /// A field has to be there.
    #[error("{place}: field `{field}` is missing")]
    MissingField {
        /// Where it should be.
        place: Place,
        /// Its name.
        field: String,
    },
    /// A field holds what it cannot hold.
    #[error("{place}: field `{field}` {problem}")]
    Field {
        /// Where it is.
        place: Place,
        /// Its name.
        field: String,
        /// What is wrong, as the rest of the sentence.
        problem: String,
    },
    /// Fields or states do not fit together.
    #[error("{place}: {problem}")]
    Rule {
        /// The state.
        place: Place,
        /// What is wrong.
        problem: String,
    },
}

/// A place in a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    pub(super) fn top() -> Self {
        Self("state machine".to_owned())
    }

    pub(super) fn state(name: &str) -> Self {
        Self(format!("state `{name}`"))
    }

    pub(super) fn inside(&self, part: impl fmt::Display) -> Self {
        Self(format!("{}, {part}", self.0))
    }

    pub(super) fn rule(&self, problem: impl Into<String>) -> DefinitionError {
        DefinitionError::Rule { place: self.clone(), problem: problem.into() }
    }

    pub(super) fn field(&self, field: &str, problem: impl fmt::Display) -> DefinitionError {
        DefinitionError::Field { place: self.clone(), field: field.to_owned(), problem: problem.to_string() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
