//! The second half of the demo: a new host brings itself up from the bucket, and a drill proves on a third that the next one would.

#![expect(clippy::print_stdout, reason = "the demo tells its story to a person")]

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    cloud::{Cloud, Program},
    instance::{Instance, InstanceOptions},
    qdrant::{Chosen, Server},
    stepfunctions::Status,
    workflow::{Machine, Workflow},
};

/// How long a drill may take.
const BOUND: Duration = Duration::from_secs(300);

/// An instance that takes the place of the host of `cloud`, or is there for a drill, with a Qdrant of the same kind. `None` where that is one that
/// somebody else runs: an instance starts and stops its own.
pub(super) fn instance(
    cloud: &Cloud,
    server: &Server,
    role: &'static str,
) -> anyhow::Result<Option<Instance>> {
    let binary = match server.chosen() {
        Chosen::StandIn(_) => None,
        Chosen::Child(child) => Some(child.binary().to_owned()),
        Chosen::Existing(_) | Chosen::Container(_) => return Ok(None),
    };
    let dir = cloud.dir().join(format!("instance-{role}"));
    fs_err::create_dir_all(&dir)?;
    let version = server.version();
    let image = format!("qdrant/qdrant:v{version}-unprivileged");
    let program: &Program = cloud.program();
    // The stand-in compares every vector in a search, which takes longer the more there are.
    let targets = "search-milliseconds = 500\nwarm-up-seconds = 600".to_owned();
    let options = InstanceOptions { role, binary, image, targets, ..InstanceOptions::default() };
    Instance::launch(&dir, program, &cloud.s3, options).map(Some)
}

/// Boots the instance as systemd does, with its words for a person.
pub(super) async fn boots(instance: &Instance) -> anyhow::Result<()> {
    println!("$ host-worker boot");
    let mut command = instance.worker(&["boot"]);
    command.env("RUST_LOG", "error").stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let status = command.status().await?;
    ensure!(status.success(), "host-worker boot ended with {status}");
    Ok(())
}

/// Runs a drill on the staging instance, and answers with the file of its report.
pub(super) async fn drills(
    cloud: &Cloud,
    workflow: &Workflow,
    staging: Option<&Instance>,
) -> anyhow::Result<PathBuf> {
    if let Some(staging) = staging {
        workflow.staging.on_boot(staging.lend());
    }
    let execution = workflow.start_execution_of(Machine::RestoreDrill, &json!({}))?;
    let ended = workflow.ended(&execution, BOUND).await?;
    ensure!(ended.status == Status::Succeeded, "the drill ended with {:?}", ended.failure);
    let output = ended.output.unwrap_or_default();
    let drilled = find(&output, "drilled").context("the drill says nothing of its restore")?;
    let (checks, seconds) = (&drilled["checks"], drilled["timings"].as_array().into_iter().flatten());
    let seconds: f64 = seconds.filter_map(|timing| timing["seconds"].as_f64()).sum();
    println!(
        "a staging host was launched, restored the backup in {seconds:.1} s, made {checks} comparisons, and is gone"
    );
    ensure!(
        workflow.staging.ids().is_empty(),
        "the staging host is still there: {:?}",
        workflow.staging.ids()
    );
    let key = drilled["report"].as_str().context("the drill has stored no report")?;
    Ok(cloud.object_path(key))
}

/// The value under a name, wherever it is.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            fields.get(name).or_else(|| fields.values().find_map(|field| find(field, name)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}
