//! `quiesce-check`: decides whether there is anything to back up, has the host wait until nothing is being written, and says how fresh the published backup is.

use catalog::{Catalog, ObjectStore};
use jiff::Timestamp;
use protocol::TaskKind;
use serde_json::Value;

use crate::{
    Reply,
    config::Settings,
    decide::decide,
    error::Error,
    event::{self, Decision},
    freshness::freshness,
    hosts::Hosts,
    trigger_snapshot::hand_over,
};

/// Answers one call: `decide`, `quiesce` or `freshness`.
pub async fn handle<S: ObjectStore, H: Hosts>(
    settings: &Settings,
    catalog: &Catalog<S>,
    hosts: &H,
    mut event: Value,
    now: Timestamp,
) -> Result<Reply, Error> {
    match event::operation(&mut event).as_deref() {
        Some("decide") => {
            let decided = decide(catalog, settings.success_marker(), event::decide(event)?, now).await?;
            let outcome = match decided.decision {
                Decision::Proceed => "Proceeded",
                Decision::AlreadyBackedUp => "AlreadyBackedUp",
            };
            Ok(Reply::to(&decided)?.count(outcome))
        }
        Some("freshness") => {
            let event = event::freshness(event)?;
            Reply::to(&freshness(catalog, settings.success_marker(), event, now).await?)
        }
        Some("quiesce") => hand_over(settings, hosts, TaskKind::Quiesce, event).await,
        other => {
            Err(event::no_such_operation(&event, other, r#"{"operation":"decide|quiesce|freshness",…}"#))
        }
    }
}
