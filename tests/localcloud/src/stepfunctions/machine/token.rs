//! Task tokens: whoever has one can end a task, so it is never printed.

use std::fmt;

/// The name of one attempt of one task, known to whoever is to answer for it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskToken(String);

impl TaskToken {
    /// Takes a text as a token. AWS's have 1 to 2048 characters; what comes from a client is looked at by the API.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The token itself, for the parameters of a call.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskToken(..)")
    }
}
