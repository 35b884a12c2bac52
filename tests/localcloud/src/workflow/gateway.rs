//! One port for several services: the target of a request says whose it is.
//!
//! Beside them, `POST /aws-sdk/SERVICE/ACTION` carries out an SDK integration of Step Functions, for an interpreter of somebody else's: parameters in, result or
//! `{"error", "cause"}` out.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::tasks::Router;
use crate::{
    lambda::Lambda,
    serve::DropConnection,
    ssm::Ssm,
    stepfunctions::{Front, TARGET_PREFIX},
};

#[derive(Clone)]
struct Services {
    step_functions: Front,
    ssm: Arc<Ssm>,
}

/// Everything that has no port of its own.
pub(super) fn router(
    step_functions: Front,
    ssm: &Arc<Ssm>,
    lambda: &Lambda,
    tasks: &Arc<Router>,
) -> axum::Router {
    let services = Services { step_functions, ssm: Arc::clone(ssm) };
    let sdk =
        axum::Router::new().route("/aws-sdk/{service}/{action}", post(by_sdk)).with_state(Arc::clone(tasks));
    axum::Router::new().route("/", post(by_target)).with_state(services).merge(lambda.router()).merge(sdk)
}

async fn by_sdk(
    State(tasks): State<Arc<Router>>,
    Path((service, action)): Path<(String, String)>,
    Json(parameters): Json<Value>,
) -> Response {
    match tasks.sdk(&service, &action, &parameters).await {
        Ok(answer) => Json(answer).into_response(),
        Err(failed) => {
            let body = json!({ "error": failed.error, "cause": failed.cause });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

async fn by_target(State(services): State<Services>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    if target.starts_with(TARGET_PREFIX) {
        let answer = services.step_functions.handle(target, &body).await;
        return answer.unwrap_or_else(DropConnection::response);
    }
    if target.starts_with("AmazonSSM.") {
        return services.ssm.handle(target, &body).await.into_response();
    }
    let message = format!("`{target}` is no service of the embedded cloud");
    (StatusCode::BAD_REQUEST, message).into_response()
}
