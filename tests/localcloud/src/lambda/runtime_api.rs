//! The Runtime API (2018-06-01) of one instance.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::fault::FunctionError;

/// What an instance is to do.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) request_id: String,
    pub(super) arn: String,
    /// By the clock of this machine, in milliseconds since 1970.
    pub(super) deadline_ms: u128,
    pub(super) payload: String,
}

/// What an instance has told.
#[derive(Debug)]
pub(super) enum Event {
    /// It asks for work.
    Next,
    /// The answer to this request.
    Answered(String, Value),
    /// It failed to answer this request.
    Failed(String, FunctionError),
    /// It failed before it asked for work.
    InitFailed(FunctionError),
}

#[derive(Debug)]
struct Desk {
    queue: AsyncMutex<mpsc::UnboundedReceiver<Work>>,
    told: mpsc::UnboundedSender<Event>,
    /// The request that it works on.
    current: Mutex<Option<String>>,
}

pub(super) fn router(
    queue: mpsc::UnboundedReceiver<Work>,
    told: mpsc::UnboundedSender<Event>,
) -> axum::Router {
    let desk = Desk { queue: AsyncMutex::new(queue), told, current: Mutex::default() };
    axum::Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{request_id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        // Answers are up to 6 MB.
        .layer(axum::extract::DefaultBodyLimit::max(8 * 1024 * 1024))
        .with_state(Arc::new(desk))
}

async fn next(State(desk): State<Arc<Desk>>) -> Response {
    desk.tell(Event::Next);
    let Some(work) = desk.queue.lock().await.recv().await else {
        return refusal(StatusCode::GONE, "Gone", "there will be no more work");
    };
    *desk.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.request_id.clone());
    let trace = format!("Root=1-00000000-{:.24};Sampled=0", work.request_id.replace('-', ""));
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", work.request_id),
        ("lambda-runtime-deadline-ms", work.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", work.arn),
        ("lambda-runtime-trace-id", trace),
    ];
    (headers, work.payload).into_response()
}

async fn response(State(desk): State<Arc<Desk>>, Path(request_id): Path<String>, body: Bytes) -> Response {
    desk.settle(request_id, |request_id| match serde_json::from_slice(&body) {
        Ok(value) => Event::Answered(request_id, value),
        Err(error) => {
            let message = format!("the function's answer is no JSON: {error}");
            Event::Failed(request_id, FunctionError::new("Runtime.InvalidResponse", message))
        }
    })
}

async fn error(
    State(desk): State<Arc<Desk>>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    desk.settle(request_id, |request_id| Event::Failed(request_id, failure(&headers, &body)))
}

async fn init_error(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    desk.tell(Event::InitFailed(failure(&headers, &body)));
    accepted()
}

impl Desk {
    /// Passes on how the current request ended. Another one cannot end.
    fn settle(&self, request_id: String, event: impl FnOnce(String) -> Event) -> Response {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref() != Some(&request_id) {
            return refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID");
        }
        *current = None;
        self.tell(event(request_id));
        accepted()
    }

    fn tell(&self, event: Event) {
        if self.told.send(event).is_err() {
            tracing::debug!("an instance said something after its end");
        }
    }
}

/// The error that an instance reports: its body, or at least the type in its header.
fn failure(headers: &HeaderMap, body: &[u8]) -> FunctionError {
    serde_json::from_slice(body).unwrap_or_else(|_other_form| {
        let named = headers.get("lambda-runtime-function-error-type").and_then(|name| name.to_str().ok());
        FunctionError::new(named.unwrap_or("Runtime.Unknown"), String::from_utf8_lossy(body))
    })
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, json!({ "status": "OK" }).to_string()).into_response()
}

fn refusal(status: StatusCode, error_type: &str, message: &str) -> Response {
    (status, json!({ "errorType": error_type, "errorMessage": message }).to_string()).into_response()
}
