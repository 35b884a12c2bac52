//! Answers and refusals as AWS writes them.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::stepfunctions::faults::Operation;
use crate::stepfunctions::service::{ApiError, ErrorKind};

/// A refusal, of the API or of what is in front of it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// AWS writes its own name space before the name, and clients cut it off again.
    namespace: &'static str,
    name: String,
    message: String,
}

const SERVICE: &str = "com.amazonaws.swf.service.v2.model#";
const FRAMEWORK: &str = "com.amazon.coral.service#";
const VALIDATION: &str = "com.amazon.coral.validate#";

impl Refusal {
    pub(super) fn unknown_operation(target: &str) -> Self {
        let message = format!("the embedded Step Functions does not have `{target}`");
        Self::framework(StatusCode::BAD_REQUEST, "UnknownOperationException", message)
    }

    pub(super) fn unreadable(problem: &serde_json::Error) -> Self {
        Self::framework(StatusCode::BAD_REQUEST, "SerializationException", problem.to_string())
    }

    pub(super) fn unavailable() -> Self {
        let message = "Service is unavailable.".to_owned();
        Self::framework(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    pub(super) fn throttled() -> Self {
        Self::framework(StatusCode::BAD_REQUEST, "ThrottlingException", "Rate exceeded".to_owned())
    }

    pub(super) fn access_denied(operation: Operation) -> Self {
        let message = format!("User is not authorized to perform: states:{operation}");
        Self::framework(StatusCode::BAD_REQUEST, "AccessDeniedException", message)
    }

    fn framework(status: StatusCode, name: &str, message: String) -> Self {
        Self { status, namespace: FRAMEWORK, name: name.to_owned(), message }
    }

    pub(super) fn kind(&self) -> &str {
        &self.name
    }

    pub(super) fn response(self) -> Response<Body> {
        let body = json!({"__type": format!("{}{}", self.namespace, self.name), "message": self.message});
        respond(self.status, &body)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let namespace = if error.kind == ErrorKind::ValidationException { VALIDATION } else { SERVICE };
        Self {
            status: StatusCode::BAD_REQUEST,
            namespace,
            name: error.kind.to_string(),
            message: error.message,
        }
    }
}

pub(super) fn answer(body: &Value) -> Response<Body> {
    respond(StatusCode::OK, body)
}

fn respond(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}
