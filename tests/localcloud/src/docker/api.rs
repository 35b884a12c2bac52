//! What the program and the engine say to each other.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Refusal, Shared, lock, wait};

/// A container that is to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) image: String,
    /// Where REST is published.
    pub(super) publish: SocketAddr,
    /// The directory of the machine, and what it is inside.
    pub(super) mount: (PathBuf, String),
    pub(super) environment: BTreeMap<String, String>,
    pub(super) restart: String,
}

/// Which container or image.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Which {
    pub(super) name: String,
}

/// How a container ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) code: u8,
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/run", post(run))
        .route("/stop", post(stop))
        .route("/containers", get(containers))
        .route("/image", get(image))
        .with_state(shared)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::CONFLICT, self.0).into_response()
    }
}

async fn run(State(shared): State<Arc<Shared>>, Json(run): Json<Run>) -> Result<Json<Ended>, Refusal> {
    let mut ended = shared.run(run)?;
    Ok(Json(Ended { code: wait(&mut ended).await }))
}

async fn stop(State(shared): State<Arc<Shared>>, Json(which): Json<Which>) -> Result<(), Refusal> {
    let found = lock(&shared.state).containers.values().find(|there| is(there, &which.name)).cloned();
    let mut container = found.ok_or_else(|| Refusal(format!("No such container: {}", which.name)))?;
    container.stop.cancel();
    wait(&mut container.ended).await;
    Ok(())
}

fn is(container: &super::Container, name: &str) -> bool {
    container.run.name == name || container.id.starts_with(name)
}

async fn image(
    State(shared): State<Arc<Shared>>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Refusal> {
    if !shared.has_image(&which.name) {
        return Err(Refusal(format!("No such image: {}", which.name)));
    }
    Ok(Json(json!({"Id": format!("sha256:{:064x}", which.name.len()), "RepoTags": [which.name]})))
}

/// All that run, as `docker container inspect` shows them.
async fn containers(State(shared): State<Arc<Shared>>) -> Json<Vec<Value>> {
    let state = lock(&shared.state);
    let shown = state.containers.values().map(|container| {
        let run = &container.run;
        let environment: Vec<String> =
            run.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "Id": container.id,
            "Name": format!("/{}", run.name),
            "State": {"Status": "running", "Running": true, "ExitCode": 0},
            "Mounts": [{"Type": "bind", "Source": run.mount.0, "Destination": run.mount.1, "RW": true}],
            "Config": {"Image": run.image, "Env": environment},
            "HostConfig": {
                "RestartPolicy": {"Name": run.restart},
                "PortBindings": {"6333/tcp": [{
                    "HostIp": run.publish.ip().to_string(),
                    "HostPort": run.publish.port().to_string(),
                }]},
            },
        })
    });
    Json(shown.collect())
}
