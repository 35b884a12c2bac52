//! The backup of the demo: an execution of the shipped state machine, whose worker is killed in mid-upload.

#![expect(clippy::print_stdout, reason = "the demo tells its story to a person")]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cloud::Cloud,
    s3::{Effect, Operation},
    stepfunctions::{Status, machine::HistoryEvent},
    workflow::{INSTANCE, Workflow},
};

/// The part that is still on its way when the worker is killed.
const CUT_OFF: u32 = 6;
/// How long any step of the story may take.
const BOUND: Duration = Duration::from_secs(300);

/// Waits for the execution that the success marker has started, kills its worker in mid-upload, and waits for the end.
pub(super) async fn survive_a_kill(cloud: &Cloud, workflow: &Workflow) -> anyhow::Result<()> {
    let started = workflow.events.wait_for(BOUND, |starts| !starts.is_empty()).await?;
    let started = started.into_iter().next().context("an execution was started")?;
    let execution = started.execution.map_err(|problem| anyhow::anyhow!(problem))?;
    println!("the marker has started {}", execution.rsplit(':').next().unwrap_or(&execution));

    // All parts but one are stored, and that one hangs: whatever the machine's speed, this is the middle of an upload.
    wait_until("every part but one is stored", || {
        let (tried, stored) = parts(cloud);
        tried.contains(&CUT_OFF) && stored.len() >= 8 && stored.len() + 1 == tried.len()
    })
    .await?;
    let (_, stored) = parts(cloud);
    let killed = workflow.ssm.kill_all_processes(INSTANCE)?;
    ensure!(killed > 0, "there was no worker to kill");
    println!(
        "{} parts are stored, part {CUT_OFF} is on its way: the worker is killed (SIGKILL)",
        stored.len()
    );
    cloud.s3.faults().clear();
    let _first_run = cloud.s3.take_calls();

    let ended = workflow.ended(&execution, BOUND).await?;
    print_history(&workflow.service().history(&execution).map_err(|error| anyhow::anyhow!("{error}"))?);
    ensure!(ended.status == Status::Succeeded, "the execution ended with {:?}", ended.failure);
    let stored = ended.output.as_ref().map_or(&Value::Null, |output| &output["stored"]);
    ensure!(stored["resumed"] == true, "the retry did not go on with the upload: {stored}");
    let (_, again) = parts(cloud);
    let sent: Vec<String> = again.iter().map(u32::to_string).collect();
    println!("the retry sent what was missing: parts {}", sent.join(", "));
    Ok(())
}

/// Lets one part of the next upload hang.
pub(super) fn cut_off_a_part(cloud: &Cloud) {
    cloud.s3.faults().on(Operation::UploadPart).part(CUT_OFF).inject(Effect::Stall(BOUND));
}

/// The parts that were tried, and those of them that are stored.
fn parts(cloud: &Cloud) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let calls = cloud.s3.calls();
    let uploads = || calls.iter().filter(|call| call.operation == Operation::UploadPart);
    let stored = uploads().filter(|call| call.status == Some(200));
    (
        uploads().filter_map(|call| call.part_number).collect(),
        stored.filter_map(|call| call.part_number).collect(),
    )
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !holds() {
        ensure!(begin.elapsed() < BOUND, "it did not come to it that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What happened, as the console shows it: states, and how their attempts ended.
fn print_history(history: &[HistoryEvent]) {
    let begin = history.first().map_or(Timestamp::UNIX_EPOCH, |event| event.timestamp);
    println!();
    for event in history {
        let json = event.to_json();
        let kind = event.type_name();
        let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let detail = match kind.as_str() {
            kind if kind.ends_with("StateEntered") => text("/stateEnteredEventDetails/name"),
            "TaskTimedOut" => text("/taskTimedOutEventDetails/error"),
            "TaskFailed" => text("/taskFailedEventDetails/error"),
            "TaskSubmitted" => Some("handed to the host, which answers by its token".to_owned()),
            "ExecutionStarted" | "ExecutionSucceeded" | "ExecutionFailed" => Some(String::new()),
            _ => None,
        };
        if let Some(detail) = detail {
            let seconds = event.timestamp.duration_since(begin).as_secs_f64();
            println!("{seconds:7.2} s  {kind:<20} {detail}");
        }
    }
    println!();
}
