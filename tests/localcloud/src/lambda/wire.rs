//! The API by which functions are invoked over HTTP.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::Service;
use super::fault::CallError;
use crate::serve::DropConnection;

/// The largest payload of an invocation, in bytes.
const LARGEST_PAYLOAD: usize = 6 * 1024 * 1024;

pub(super) fn router(service: Arc<Service>) -> axum::Router {
    axum::Router::new()
        .route("/2015-03-31/functions/{function}/invocations", post(invoke))
        .layer(DefaultBodyLimit::max(LARGEST_PAYLOAD))
        .with_state(service)
}

async fn invoke(
    State(service): State<Arc<Service>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let payload: Value = if body.is_empty() {
        json!({})
    } else {
        match serde_json::from_slice(&body) {
            Ok(payload) => payload,
            Err(error) => {
                let message = format!("Could not parse request body into json: {error}");
                return refusal(StatusCode::BAD_REQUEST, "InvalidRequestContentException", &message);
            }
        }
    };
    let kind = headers.get("x-amz-invocation-type").and_then(|kind| kind.to_str().ok());
    match kind.unwrap_or("RequestResponse") {
        "RequestResponse" => match Service::invoke(&service, &function, payload).await {
            Ok(answer) => reply(StatusCode::OK, answer.to_string()),
            Err(error) => failed(error),
        },
        "Event" => match service.find(&function) {
            Ok(found) => {
                let job = Arc::clone(&service).run(found, payload);
                service.spawner.spawn(async move {
                    if let Err(error) = job.await {
                        tracing::info!(%error, "an asynchronous invocation failed");
                    }
                });
                reply(StatusCode::ACCEPTED, String::new())
            }
            Err(error) => failed(error),
        },
        "DryRun" => match service.find(&function) {
            Ok(_) => reply(StatusCode::NO_CONTENT, String::new()),
            Err(error) => failed(error),
        },
        other => {
            let message = format!("`{other}` is no type of invocation");
            refusal(StatusCode::BAD_REQUEST, "InvalidParameterValueException", &message)
        }
    }
}

/// A function's own failure is an answer too.
fn failed(error: CallError) -> Response {
    match error {
        CallError::Function(error) => {
            let mut response = reply(StatusCode::OK, json!(error).to_string());
            let unhandled = HeaderValue::from_static("Unhandled");
            response.headers_mut().insert("x-amz-function-error", unhandled);
            response
        }
        CallError::ReplyLost => DropConnection::response(),
        CallError::NotFound(arn) => {
            let message = format!("Function not found: {arn}");
            refusal(StatusCode::NOT_FOUND, "ResourceNotFoundException", &message)
        }
        CallError::Throttled => {
            refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.")
        }
        CallError::Service(message) => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", &message)
        }
    }
}

fn refusal(status: StatusCode, code: &'static str, message: &str) -> Response {
    let mut response = reply(status, json!({ "Type": "User", "message": message }).to_string());
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(code));
    response
}

fn reply(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-amz-executed-version", HeaderValue::from_static("$LATEST"));
    // Clients name the request in the messages of errors.
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}
