//! The HTTP side: JSON 1.0, as `aws-sdk-sfn` and `aws stepfunctions` speak it. Signatures are not looked at.

mod reply;
mod request;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, Response};

use self::reply::Refusal;
use super::faults::{Effect, Faults, Operation};
use super::lock;
use super::service::StepFunctions;
use crate::serve::DropConnection;

/// What every `X-Amz-Target` of this service begins with: by it a port that several services share tells them apart.
pub const TARGET_PREFIX: &str = "AWSStepFunctions.";

/// The service's HTTP side without a port: a request's target and body in, a response out. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Front {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    service: StepFunctions,
    faults: Faults,
    calls: Mutex<BTreeMap<Operation, usize>>,
}

impl Front {
    /// The HTTP side of a service.
    #[must_use]
    pub fn new(service: StepFunctions) -> Self {
        Self { inner: Arc::new(Inner { service, faults: Faults::default(), calls: Mutex::default() }) }
    }

    /// The service behind it.
    #[must_use]
    pub fn service(&self) -> &StepFunctions {
        &self.inner.service
    }

    /// The script of faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// How many calls of that operation have come, those that a fault struck too.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        lock(&self.inner.calls).get(&operation).copied().unwrap_or_default()
    }

    /// Answers a request. `target` is its `X-Amz-Target`; `None` means that the connection is to be dropped without an answer.
    pub async fn handle(&self, target: &str, body: &[u8]) -> Option<Response<Body>> {
        let operation = target.strip_prefix(TARGET_PREFIX).and_then(|name| name.parse::<Operation>().ok());
        let Some(operation) = operation else {
            return Some(self.refuse(Refusal::unknown_operation(target)));
        };
        *lock(&self.inner.calls).entry(operation).or_default() += 1;
        let effect = self.inner.faults.strike(operation);
        match effect {
            Some(Effect::Unavailable) => return Some(self.refuse(Refusal::unavailable())),
            Some(Effect::Throttled) => return Some(self.refuse(Refusal::throttled())),
            Some(Effect::AccessDenied) => return Some(self.refuse(Refusal::access_denied(operation))),
            Some(Effect::HangUp) => return None,
            Some(Effect::Stall(time)) => tokio::time::sleep(time).await,
            Some(Effect::LoseReply) | None => {}
        }
        let answer = request::carry_out(&self.inner.service, operation, body);
        if effect == Some(Effect::LoseReply) {
            return None;
        }
        Some(match answer {
            Ok(answer) => reply::answer(&answer),
            Err(refusal) => self.refuse(refusal),
        })
    }

    /// The service on a port of its own, for [`HttpServer`](crate::serve::HttpServer).
    pub fn router(&self) -> axum::Router {
        axum::Router::new().route("/", post(answer)).with_state(self.clone())
    }

    fn refuse(&self, refusal: Refusal) -> Response<Body> {
        tracing::debug!(kind = refusal.kind(), "Step Functions refuses a call");
        refusal.response()
    }
}

async fn answer(State(front): State<Front>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    front.handle(target, &body).await.unwrap_or_else(DropConnection::response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stepfunctions::{Options, TaskError, TaskRequest, Tasks};
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    struct Nobody;

    #[async_trait::async_trait]
    impl Tasks for Nobody {
        async fn call(&self, _: TaskRequest) -> Result<Value, TaskError> {
            Err(TaskError::new("Nobody", "nobody is there"))
        }
    }

    async fn asked(target: &str, body: &Value) -> (u16, Value) {
        let front = Front::new(StepFunctions::new(Options::default(), Arc::new(Nobody)));
        let response = front.handle(target, body.to_string().as_bytes()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.0");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn refusals_are_written_as_aws_writes_them() {
        let (status, body) = asked("AWSStepFunctions.SendTaskHeartbeat", &json!({"taskToken": "x"})).await;
        assert_eq!(status, 400);
        assert_eq!(
            body,
            json!({
                "__type": "com.amazonaws.swf.service.v2.model#InvalidToken",
                "message": "Invalid Token: 'Invalid token'",
            })
        );
        let (_, body) = asked("AWSStepFunctions.SendTaskHeartbeat", &json!({"taskToken": ""})).await;
        assert_eq!(body["__type"], "com.amazon.coral.validate#ValidationException");
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused() {
        for (target, body, kind, what) in [
            ("AWSStepFunctions.RedriveExecution", json!({}), "UnknownOperationException", "RedriveExecution"),
            ("AmazonSSM.SendCommand", json!({}), "UnknownOperationException", "AmazonSSM.SendCommand"),
            (
                "AWSStepFunctions.SendTaskSuccess",
                json!({"taskToken": "x"}),
                "SerializationException",
                "`output`",
            ),
            (
                "AWSStepFunctions.StartExecution",
                json!({"stateMachineArn": "arn:aws:x", "title": "x"}),
                "SerializationException",
                "`title`",
            ),
        ] {
            let (status, answer) = asked(target, &body).await;
            assert_eq!(status, 400);
            assert_eq!(answer["__type"], format!("com.amazon.coral.service#{kind}"));
            assert!(answer["message"].as_str().unwrap().contains(what), "{answer}");
        }
    }
}
