//! An instance, its life, and how it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Service;
use super::fault::Fate;

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`.
    pub id: String,
    /// How it is with it.
    pub state: State,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// By which its launch was made only once.
    pub client_token: String,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// The reservation that its launch made.
    pub(super) reservation: String,
    /// From when on it is shown.
    pub(super) visible: Instant,
}

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are AWS's own")]
pub enum State {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl State {
    /// AWS's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// As the API shows it.
    pub(super) fn describe(self) -> Value {
        let code = match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
        };
        json!({ "Code": code, "Name": self.name() })
    }
}

impl Instance {
    /// Whether it costs money.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Pending | State::Running)
    }

    /// As the API shows it.
    pub(super) fn describe(&self) -> Value {
        let tags: Vec<Value> =
            self.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        json!({
            "InstanceId": self.id,
            "ClientToken": self.client_token,
            "LaunchTime": self.launched_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "State": self.state.describe(),
            "Tags": tags,
            "AmiLaunchIndex": 0,
            "Architecture": "arm64",
            "InstanceType": "c8gd.medium",
            "PrivateIpAddress": "127.0.0.1",
        })
    }
}

/// From the launch until it has booted.
pub(super) async fn come_up(service: Arc<Service>, instance: Instance, fate: Option<Fate>) {
    let id = &instance.id;
    tokio::time::sleep(service.options.pending).await;
    match fate {
        Some(Fate::StaysPending) => return,
        Some(Fate::DiesPending) => return service.die(id).await,
        Some(Fate::NeverOnline) | None => {}
    }
    if !service.advance(id, State::Pending, State::Running) || fate == Some(Fate::NeverOnline) {
        return;
    }
    tokio::time::sleep(service.options.boot).await;
    let runs = || {
        let instances = service.instances.borrow();
        instances.iter().any(|instance| instance.id == *id && instance.state == State::Running)
    };
    if !runs() {
        return;
    }
    if let Err(error) = service.fleet.boot(&instance).await {
        tracing::error!(instance = id, error = format!("{error:#}"), "an instance does not boot");
    }
    // It was terminated meanwhile: what has come up has missed that.
    if !runs() {
        service.fleet.halt(id).await;
    }
}

/// From `shutting-down` to the end.
pub(super) async fn go_down(service: Arc<Service>, instance_id: String) {
    service.fleet.halt(&instance_id).await;
    tokio::time::sleep(service.options.shutting_down).await;
    service.advance(&instance_id, State::ShuttingDown, State::Terminated);
}
