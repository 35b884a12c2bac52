//! Envelopes and errors, worded and coded as the real server does.

use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// What a handler ends with.
pub(super) enum Outcome {
    /// `200` with this JSON as `result`.
    Json(Vec<u8>),
    /// `202`: the job goes on, nobody will hear of it.
    Accepted,
    /// An answer without envelope.
    Raw(Response),
    /// No answer: the connection is dropped.
    Dropped,
}

pub(super) type Handled = Result<Outcome, ApiError>;

pub(super) fn ok<T: Serialize + ?Sized>(result: &T) -> Handled {
    serde_json::to_vec(result)
        .map(Outcome::Json)
        .map_err(|error| ApiError::service(format!("serialize the reply: {error}")))
}

pub(super) fn text(status: StatusCode, body: &str) -> Response {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A refusal without a content type, as the authentication layer answers.
pub(super) fn bare(status: StatusCode, body: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

/// An error outside the envelope: streams and early refusals answer like this.
pub(super) fn plain(error: &ApiError) -> Response {
    text(error.status, &error.message)
}

/// An error as the REST API words it.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn bad_input(message: impl AsRef<str>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: format!("Wrong input: {}", message.as_ref()) }
    }

    pub(super) fn already_exists(message: impl AsRef<str>) -> Self {
        Self { status: StatusCode::CONFLICT, message: format!("Wrong input: {}", message.as_ref()) }
    }

    pub(super) fn not_found(message: impl AsRef<str>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: format!("Not found: {}", message.as_ref()) }
    }

    pub(super) fn bad_request(message: impl AsRef<str>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: format!("Bad request: {}", message.as_ref()) }
    }

    pub(super) fn service(message: impl AsRef<str>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: format!("Service internal error: {}", message.as_ref()),
        }
    }

    pub(super) fn forbidden(message: impl AsRef<str>) -> Self {
        Self { status: StatusCode::FORBIDDEN, message: format!("Forbidden: {}", message.as_ref()) }
    }

    pub(super) fn checksum_mismatch(expected: &str, actual: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("Checksum mismatch: expected {expected}, actual {actual}"),
        }
    }

    pub(super) fn format(part: &str, message: impl AsRef<str>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("Format error in {part}: {}", message.as_ref()),
        }
    }

    pub(super) fn deserialize(part: &str, message: impl AsRef<str>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: format!("Deserialize error in {part}: {}", message.as_ref()),
        }
    }

    pub(super) fn validation(part: &str, message: impl AsRef<str>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: format!("Validation error in {part}: [{}]", message.as_ref()),
        }
    }

    pub(super) fn no_space() -> Self {
        Self::service("No space left on device (os error 28)")
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::service(error.to_string())
    }
}

/// Puts the outcome into the envelope; `None` means that the connection is to be dropped.
pub(super) fn respond(handled: Handled, started: Instant) -> Option<Response> {
    let time = started.elapsed().as_secs_f64();
    let (status, body) = match handled {
        Ok(Outcome::Json(result)) => {
            let mut body = Vec::with_capacity(result.len() + 64);
            body.extend_from_slice(b"{\"result\":");
            body.extend_from_slice(&result);
            body.extend_from_slice(format!(",\"status\":\"ok\",\"time\":{time:?}}}").as_bytes());
            (StatusCode::OK, body)
        }
        Ok(Outcome::Accepted) => {
            (StatusCode::ACCEPTED, json!({ "status": "accepted", "time": time }).to_string().into_bytes())
        }
        Ok(Outcome::Raw(response)) => return Some(response),
        Ok(Outcome::Dropped) => return None,
        Err(error) => {
            let body = json!({ "status": { "error": error.message }, "time": time });
            (error.status, body.to_string().into_bytes())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Some(response)
}
