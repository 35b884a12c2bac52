//! One port for several services: the target of a request says whose it is.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};

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
pub(super) fn router(step_functions: Front, ssm: &Arc<Ssm>, lambda: &Lambda) -> axum::Router {
    let services = Services { step_functions, ssm: Arc::clone(ssm) };
    axum::Router::new().route("/", post(by_target)).with_state(services).merge(lambda.router())
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
