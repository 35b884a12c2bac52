//! Where a state machine's tasks go.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    events::Sns,
    lambda::Lambda,
    stepfunctions::{LambdaCall, TaskError, TaskRequest, Tasks},
};

/// The services that the state machines call.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) lambda: Arc<Lambda>,
    pub(super) sns: Arc<Sns>,
}

#[async_trait]
impl Tasks for Router {
    async fn call(&self, request: TaskRequest) -> Result<Value, TaskError> {
        match (request.resource.service(), request.resource.action()) {
            ("lambda", "invoke") => {
                let LambdaCall { function, payload } = LambdaCall::read(&request.parameters)?;
                self.lambda
                    .invoke(&function, payload)
                    .await
                    .map_err(|error| TaskError::of_function(&error.error_type, &error.message))
            }
            ("sns", "publish") => self
                .sns
                .task(&request.parameters)
                .map_err(|error| TaskError::new(error.error_type, error.message)),
            (service, action) => Err(TaskError::new(
                "States.Runtime",
                format!("the embedded cloud has no `{service}:{action}`"),
            )),
        }
    }
}
