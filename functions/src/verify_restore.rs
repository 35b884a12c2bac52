//! `verify-restore`: has a staging host restore a backup and compare it with what was recorded, and judges what it answers.

use std::time::Duration;

use catalog::{Catalog, ObjectStore};
use protocol::{BackupId, TaskKind, task::Drilled, verdict::Check};
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

/// How many failed comparisons are named in an error.
const NAMED: usize = 5;

/// Answer to `dispatch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrillDispatched {
    /// The backup that is restored.
    pub backup_id: BackupId,
    /// How it was handed over.
    #[serde(flatten)]
    pub dispatched: Dispatched,
}

/// Answer to `verdict`, where nothing is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Passed {
    /// The backup that was restored.
    pub backup_id: BackupId,
    /// Always true: the other case is an error.
    pub passed: bool,
    /// Comparisons made.
    pub checks: u64,
    /// How long the restore and the comparison took, in seconds.
    pub seconds: f64,
}

/// Answers one call: `dispatch` or `verdict`.
pub async fn handle<S: ObjectStore, H: Hosts>(
    settings: &Settings,
    catalog: &Catalog<S>,
    hosts: &H,
    mut event: Value,
) -> Result<Reply, Error> {
    match event::operation(&mut event).as_deref() {
        Some("dispatch") => drill(settings, catalog, hosts, event::drill(event)?).await,
        Some("verdict") => {
            let Verdict { drilled, .. } = event::verdict(event)?;
            judge(&drilled)
        }
        other => Err(event::no_such_operation(&event, other, r#"{"operation":"dispatch|verdict",…}"#)),
    }
}

async fn drill<S: ObjectStore, H: Hosts>(
    settings: &Settings,
    catalog: &Catalog<S>,
    hosts: &H,
    event: Drill,
) -> Result<Reply, Error> {
    let Drill { backup_id, instance_id, ticket } = event;
    let document = settings.document()?;
    let started = Instant::now();
    check_host(settings, hosts, &instance_id).await?;
    let backup_id = match backup_id {
        Some(backup) => backup,
        None => newest(catalog).await?,
    };
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

async fn newest<S: ObjectStore>(catalog: &Catalog<S>) -> Result<BackupId, Error> {
    match catalog.pointer().await? {
        Some(pointer) => Ok(pointer.manifest.backup_id),
        None => Err(catalog::Error::NoBackup { bucket: catalog.bucket().to_owned() }.into()),
    }
}

fn judge(drilled: &Drilled) -> Result<Reply, Error> {
    let Drilled { backup_id, passed, checks, failed, timings } = drilled;
    let backup_id = *backup_id;
    if !passed || !failed.is_empty() {
        return Err(Error::NotProved { backup: backup_id, failed: named(failed) });
    }
    if *checks == 0 {
        let failed = vec!["no comparison was made, which proves nothing".to_owned()];
        return Err(Error::NotProved { backup: backup_id, failed });
    }
    let seconds: f64 = timings.iter().map(|timing| timing.seconds).sum();
    tracing::info!(backup = %backup_id, checks, seconds, "the restore is what was recorded");
    let reply = Reply::to(&Passed { backup_id, passed: true, checks: *checks, seconds })?;
    let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(reply.count("DrillPassed").number("DrillChecks", *checks).seconds("DrillSeconds", took))
}

fn named(failed: &[Check]) -> Vec<String> {
    if failed.is_empty() {
        return vec!["the host does not say which comparisons failed".to_owned()];
    }
    let mut named: Vec<String> = failed.iter().take(NAMED).map(line).collect();
    if failed.len() > NAMED {
        named.push(format!("and {} more", failed.len() - NAMED));
    }
    named
}

fn line(check: &Check) -> String {
    let aspect = check.aspect.name();
    match &check.collection {
        Some(collection) => format!("{aspect} of collection `{collection}`: {}", check.detail),
        None => format!("{aspect}: {}", check.detail),
    }
}

#[cfg(test)]
mod tests;
