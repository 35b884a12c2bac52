//! How the worker answers: the port to Step Functions, and its implementation over the SDK.

use std::time::Duration;

use aws_config::{Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use protocol::{FailureKind, TaskToken};

use crate::{config::Config, output::on_one_line};

/// The most characters of a failure's cause (`SendTaskFailure`).
const MAX_CAUSE: usize = 32_768;
/// The most bytes of an output (`SendTaskSuccess`).
pub const MAX_OUTPUT: usize = 262_144;

/// The three calls by which a task is answered.
pub trait Callbacks {
    /// The task goes on.
    fn heartbeat(&self, token: &TaskToken) -> impl Future<Output = Result<(), CallbackError>>;
    /// The task is done, with this JSON.
    fn success(&self, token: &TaskToken, output: &str) -> impl Future<Output = Result<(), CallbackError>>;
    /// The task failed.
    fn failure(
        &self,
        token: &TaskToken,
        kind: FailureKind,
        cause: &str,
    ) -> impl Future<Output = Result<(), CallbackError>>;
}

/// A call did not get through. Never holds the token.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The task is closed, timed out or was never there: this token will never be accepted again.
    #[error("the token is not accepted any more ({code})")]
    Dead {
        /// What Step Functions calls it.
        code: String,
    },
    /// Nobody knows whether the call had its effect. Worth another try.
    #[error("Step Functions cannot be told: {problem}")]
    Unreachable {
        /// What went wrong.
        problem: String,
    },
}

/// Step Functions, by its API.
#[derive(Clone, Debug)]
pub struct StepFunctions(aws_sdk_sfn::Client);

impl StepFunctions {
    /// A client with the region of the settings; everything else is as the AWS configuration says.
    pub async fn new(config: &Config) -> Self {
        let mut loader = aws_config::from_env()
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            // A call that hangs must not cost the next heartbeat.
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .operation_attempt_timeout(Duration::from_secs(10))
                    .operation_timeout(Duration::from_secs(25))
                    .build(),
            );
        if let Some(region) = config.region() {
            loader = loader.region(Region::new(region.to_owned()));
        }
        Self(aws_sdk_sfn::Client::new(&loader.load().await))
    }
}

impl Callbacks for StepFunctions {
    async fn heartbeat(&self, token: &TaskToken) -> Result<(), CallbackError> {
        let sent = self.0.send_task_heartbeat().task_token(token.expose()).send().await;
        sent.map(drop).map_err(|error| failed(&error, token))
    }

    async fn success(&self, token: &TaskToken, output: &str) -> Result<(), CallbackError> {
        let sent = self.0.send_task_success().task_token(token.expose()).output(output).send().await;
        sent.map(drop).map_err(|error| failed(&error, token))
    }

    async fn failure(&self, token: &TaskToken, kind: FailureKind, cause: &str) -> Result<(), CallbackError> {
        let cause: String = cause.chars().take(MAX_CAUSE).collect();
        let call = self.0.send_task_failure().task_token(token.expose()).error(kind.name()).cause(cause);
        call.send().await.map(drop).map_err(|error| failed(&error, token))
    }
}

fn failed<E>(error: &SdkError<E>, token: &TaskToken) -> CallbackError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error.code() {
        Some(code @ ("TaskTimedOut" | "TaskDoesNotExist" | "InvalidToken")) => {
            CallbackError::Dead { code: code.to_owned() }
        }
        Some(code @ "AccessDeniedException") => CallbackError::Unreachable {
            problem: format!(
                "{code}: this host's role needs states:SendTaskSuccess, SendTaskFailure and SendTaskHeartbeat on the state machine"
            ),
        },
        // A refused value is quoted in some messages.
        _ => CallbackError::Unreachable { problem: on_one_line(error).replace(token.expose(), "…") },
    }
}
