//! The three calls by which the holder of a token answers for its task.

use super::error::ApiError;
use super::{StepFunctions, limits};
use crate::stepfunctions::machine::{Event, TaskToken};
use crate::stepfunctions::supply::TOKEN_PREFIX;

impl StepFunctions {
    /// `SendTaskSuccess`. `output` is a JSON text.
    ///
    /// # Errors
    /// When the task does not wait for this token any more, or never did; when the output is too long or no JSON.
    pub fn send_task_success(&self, token: &str, output: &str) -> Result<(), ApiError> {
        limits::payload("output", output)?;
        self.send(token, || {
            let output = serde_json::from_str(output).map_err(ApiError::invalid_output)?;
            Ok(move |token| Event::TokenSucceeded { token, output })
        })
    }

    /// `SendTaskFailure`. Both may be left out; then a Catch gets `null`.
    ///
    /// # Errors
    /// When the task does not wait for this token any more, or never did; when error or cause are too long.
    pub fn send_task_failure(
        &self,
        token: &str,
        error: Option<&str>,
        cause: Option<&str>,
    ) -> Result<(), ApiError> {
        limits::failure(error, cause)?;
        let (error, cause) = (error.map(str::to_owned), cause.map(str::to_owned));
        self.send(token, || Ok(move |token| Event::TokenFailed { token, error, cause }))
    }

    /// `SendTaskHeartbeat`.
    ///
    /// # Errors
    /// When the task does not wait for this token any more, or never did.
    pub fn send_task_heartbeat(&self, token: &str) -> Result<(), ApiError> {
        self.send(token, || Ok(|token| Event::Heartbeat { token }))
    }

    fn send<E: FnOnce(TaskToken) -> Event>(
        &self,
        token: &str,
        event: impl FnOnce() -> Result<E, ApiError>,
    ) -> Result<(), ApiError> {
        limits::token(token)?;
        let token = TaskToken::new(token);
        self.driver.with_store(|store| {
            let Some(arn) = store.tokens.get(&token).cloned() else {
                let well_formed = token.reveal().starts_with(TOKEN_PREFIX);
                return Err(if well_formed {
                    ApiError::task_does_not_exist()
                } else {
                    ApiError::invalid_token()
                });
            };
            if !store.runs.get(&arn).is_some_and(|run| run.machine.awaits(&token)) {
                return Err(ApiError::task_timed_out());
            }
            let event = event()?(token);
            self.driver.step(store, &arn, event);
            Ok(())
        })
    }
}
