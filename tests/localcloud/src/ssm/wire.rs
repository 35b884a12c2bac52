//! The JSON protocol: target and body in, status and body out, errors in AWS's form.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::api;
use super::call::{Call, Operation, Outcome};
use super::fault::Effect;
use super::service::Service;
use crate::serve::DropConnection;

/// What `X-Amz-Target` starts with.
const PREFIX: &str = "AmazonSSM.";

/// What is answered to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A status and a JSON body.
    Reply {
        /// The HTTP status.
        status: u16,
        /// The body; for an error with `__type` and `Message`.
        body: Value,
    },
    /// Nothing: the connection is dropped.
    Nothing,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Nothing => DropConnection::response(),
            Self::Reply { status, body } => {
                let mut response = Response::new(body.to_string().into());
                *response.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let kind = HeaderValue::from_static("application/x-amz-json-1.1");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
        }
    }
}

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

pub(super) fn router(service: Arc<Service>) -> axum::Router {
    axum::Router::new().route("/", post(answer)).with_state(service)
}

async fn answer(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Answer {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    Service::handle(&service, target.unwrap_or_default(), &body)
}

impl Service {
    pub(super) fn handle(service: &Arc<Self>, target: &str, body: &[u8]) -> Answer {
        let Some(operation) = target.strip_prefix(PREFIX).and_then(Operation::parse) else {
            return refusal(&ApiError::new(
                "UnknownOperationException",
                format!("`{target}` is not served here"),
            ));
        };
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => return refusal(&ApiError::new("SerializationException", error.to_string())),
        };
        let effect = service.faults.calls.strike(&operation);
        let result = match effect {
            Some(Effect::Throttle) => Err(ApiError::new("ThrottlingException", "Rate exceeded")),
            Some(Effect::InternalError) => {
                Err(ApiError::new("InternalServerError", "An internal error occurred."))
            }
            Some(Effect::AccessDenied) => {
                let action = format!("ssm:{operation}");
                Err(ApiError::new("AccessDeniedException", format!("not authorized to perform: {action}")))
            }
            Some(Effect::LoseReply) | None => api::call(service, operation, body.clone()),
        };
        let (outcome, answer) = match result {
            Ok(_) if effect == Some(Effect::LoseReply) => (Outcome::ReplyLost, Answer::Nothing),
            Ok(body) => (Outcome::Answered, Answer::Reply { status: 200, body }),
            Err(error) => (Outcome::Refused(error.code.to_owned()), refusal(&error)),
        };
        service.calls.add(Call { operation, body, outcome });
        answer
    }
}

fn refusal(error: &ApiError) -> Answer {
    let status = if error.code == "InternalServerError" { 500 } else { 400 };
    Answer::Reply { status, body: json!({ "__type": error.code, "Message": error.message }) }
}
