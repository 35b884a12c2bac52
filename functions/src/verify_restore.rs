//! `verify-restore`: all that a restore drill decides. Which backup (`choose`), that a staging host restores it, what its answer is worth (`judge`), and what is
//! counted of it (`outcome`).

mod choose;
mod judge;
mod outcome;

use catalog::{Catalog, ObjectStore};
use jiff::Timestamp;
use protocol::{BackupId, TaskKind};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    Reply,
    config::Settings,
    dispatch::{Dispatched, dispatch},
    error::Error,
    event::{self, Drill, Verdict},
    hosts::{Host, Hosts, InstanceId},
};

pub use choose::Chosen;
pub use judge::Passed;
pub use outcome::Recorded;

/// Answer to `dispatch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrillDispatched {
    /// The backup that is restored.
    pub backup_id: BackupId,
    /// How it was handed over.
    #[serde(flatten)]
    pub dispatched: Dispatched,
}

/// Answers one call: `choose`, `dispatch`, `verdict` or `outcome`.
pub async fn handle<S: ObjectStore, H: Hosts>(
    settings: &Settings,
    catalog: &Catalog<S>,
    hosts: &H,
    mut event: Value,
    now: Timestamp,
) -> Result<Reply, Error> {
    match event::operation(&mut event).as_deref() {
        Some("choose") => Reply::to(&choose::choose(catalog, event::choose(event)?, now).await?),
        Some("dispatch") => drill(settings, hosts, event::drill(event)?).await,
        Some("verdict") => {
            let Verdict { drilled, .. } = event::verdict(event)?;
            judge::judge(&drilled)
        }
        Some("outcome") => outcome::record(event::outcome(event)?, now),
        other => {
            let known = r#"{"operation":"choose|dispatch|verdict|outcome",…}"#;
            Err(event::no_such_operation(&event, other, known))
        }
    }
}

async fn drill<H: Hosts>(settings: &Settings, hosts: &H, event: Drill) -> Result<Reply, Error> {
    let Drill { backup_id, instance_id, ticket } = event;
    let document = settings.document()?;
    let started = Instant::now();
    check_host(settings, hosts, &instance_id).await?;
    let envelope = ticket.envelope(TaskKind::Drill, backup_id, Vec::new());
    let dispatched = dispatch(hosts, document, instance_id, &envelope).await?;
    let reply = Reply::to(&DrillDispatched { backup_id, dispatched })?;
    Ok(reply.seconds("DispatchSeconds", started.elapsed()))
}

/// A drill restores over whatever the host has, so the host must be one for drills, and must not be one of production, whatever else it is tagged with.
async fn check_host<H: Hosts>(settings: &Settings, hosts: &H, instance: &InstanceId) -> Result<(), Error> {
    let (staging, production) = (settings.staging_tag()?, settings.host_tag()?);
    if hosts.tagged(production).await?.iter().any(|host| host.id == *instance) {
        return Err(Error::ProductionHost { instance: instance.clone(), tag: production.clone() });
    }
    let known = hosts.tagged(staging).await?;
    if known.iter().any(|host| host.id == *instance && Host::is_online(host)) {
        return Ok(());
    }
    Err(Error::NoStagingHost { instance: instance.clone(), tag: staging.clone(), known })
}

#[cfg(test)]
mod tests;
