//! `trigger-snapshot`: has the host make the backup. Also how `quiesce-check` hands its task over, which differs in the task only.

use protocol::TaskKind;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    Reply,
    config::Settings,
    dispatch::{dispatch, only_host},
    error::Error,
    event,
    hosts::Hosts,
};

/// Answers one call: `backup`.
pub async fn handle<H: Hosts>(settings: &Settings, hosts: &H, mut event: Value) -> Result<Reply, Error> {
    match event::operation(&mut event).as_deref() {
        Some("backup") => hand_over(settings, hosts, TaskKind::Backup, event).await,
        other => Err(event::no_such_operation(&event, other, r#"{"operation":"backup",…}"#)),
    }
}

/// Hands a task of a backup to the one host that is tagged for it.
pub(crate) async fn hand_over<H: Hosts>(
    settings: &Settings,
    hosts: &H,
    kind: TaskKind,
    event: Value,
) -> Result<Reply, Error> {
    let (backup, ticket) = event::dispatch(event)?;
    let (document, tag) = (settings.document()?, settings.host_tag()?);
    let envelope = ticket.envelope(kind, backup.backup_id, backup.collections);
    let started = Instant::now();
    let host = only_host(hosts, tag).await?;
    let dispatched = dispatch(hosts, document, host, &envelope).await?;
    Ok(Reply::to(&dispatched)?.seconds("DispatchSeconds", started.elapsed()))
}
