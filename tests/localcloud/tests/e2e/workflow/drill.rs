//! A restore drill's two functions and the worker's task, with a state machine of this test's own around them.

use std::time::Duration;

use functions::Function;
use localcloud::{
    cloud::BUCKET,
    qdrant::{Fault, When},
    ssm::HostOptions,
    stepfunctions::{Execution, Status},
    workflow::{INSTANCE, STAGING_TAG},
};
use serde_json::{Value, json};

use super::{harness::Flow, outcome::in_words};
use crate::harness::Fixture;

/// The staging host's instance id.
const STAGING: &str = "i-0aaaaaaaaaaaaaaaa";

/// Dispatches a drill to `$.instance_id`, waits for it, and judges.
fn machine(flow: &Flow) -> String {
    let function = flow.workflow.lambda.arn(Function::VerifyRestore.name());
    let definition = json!({
        "StartAt": "Drill",
        "States": {
            "Drill": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
                "Parameters": {
                    "FunctionName": function,
                    "Payload": {
                        "operation": "dispatch",
                        "instance_id.$": "$.instance_id",
                        "execution.$": "$$.Execution.Name",
                        "entered_at.$": "$$.State.EnteredTime",
                        "retry_count.$": "$$.State.RetryCount",
                        "token.$": "$$.Task.Token",
                    },
                },
                "ResultPath": "$.drilled",
                "HeartbeatSeconds": 120,
                "TimeoutSeconds": 3600,
                "Next": "Verdict",
            },
            "Verdict": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke",
                "Parameters": {
                    "FunctionName": function,
                    "Payload": { "operation": "verdict", "drilled.$": "$.drilled", "execution.$": "$$.Execution.Name" },
                },
                "ResultSelector": { "verdict.$": "$.Payload" },
                "End": true,
            },
        },
    });
    let role = "arn:aws:iam::000000000000:role/drill";
    flow.workflow.service().create_state_machine("drill", &definition.to_string(), role).unwrap().arn
}

/// The other cloud's Qdrant as a host with the bucket of `flow`, which is tagged for drills and says whether it is one.
fn staging(flow: &Flow, qdrant: &Fixture, role: &str) -> HostOptions {
    let own = qdrant.cloud.worker_environment().unwrap();
    flow.host(STAGING, |host| {
        let (key, value) = STAGING_TAG.split_once('=').unwrap();
        host.tags = [(key.to_owned(), value.to_owned())].into();
        for name in
            ["QDRANT_URL", "QDRANT_API_KEY_FILE", "SNAPSHOTS_DIR", "QDRANT_SNAPSHOTS_PATH", "WORK_DIR"]
        {
            let name = format!("QDRANT_BACKUP_{name}");
            let value = own[&name].clone();
            host.env.insert(name, value);
        }
        host.env.insert("QDRANT_BACKUP_HOST_ROLE".to_owned(), role.to_owned());
    })
}

async fn drill(flow: &Flow, machine: &str, instance: &str) -> Execution {
    let input = json!({ "instance_id": instance }).to_string();
    let started = flow.workflow.service().start_execution(machine, None, Some(&input)).unwrap();
    flow.ended(&started.arn).await
}

fn refused(execution: &Execution, error: &str, texts: &[&str]) {
    assert_eq!(execution.status, Status::Failed);
    let cause = in_words(execution.failure.cause.as_deref().unwrap_or_default());
    assert_eq!(execution.failure.error.as_deref(), Some(error), "{cause}");
    for text in texts {
        assert!(cause.contains(text), "`{text}` is not in: {cause}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_proved_on_a_staging_host_and_a_damaged_one_is_not() {
    let flow = Flow::small().await;
    let backup = flow.fixture.backup().await;
    let target = Fixture::empty().await;
    flow.workflow.ssm.add_host(staging(&flow, &target, "staging")).unwrap();
    let machine = machine(&flow);
    let drilled = drill(&flow, &machine, STAGING).await;
    assert_eq!(drilled.status, Status::Succeeded, "{:?}\n{}", drilled.failure, flow.logs());
    let verdict: Value = drilled.output.unwrap()["verdict"].clone();
    assert_eq!(verdict["backup_id"], backup["backup_id"]);
    assert_eq!(verdict["passed"], true);
    assert!(verdict["checks"].as_u64().unwrap() > 3, "{verdict}");
    assert_eq!(target.collections().await, ["docs", "notes"]);
    assert_eq!(flow.fixture.count("docs").await, 60, "the production host is not touched");

    let again = drill(&flow, &machine, STAGING).await;
    // Nobody is told of an old proof, and nothing is deleted for a new one: each drill has a host of its own.
    refused(&again, "RestoreFailed", &["live data", "hint: "]);

    let mut target = target;
    target.replace_host().await;
    flow.workflow.ssm.remove_host(STAGING).unwrap();
    flow.workflow.ssm.add_host(staging(&flow, &target, "staging")).unwrap();
    let archive = crate::harness::archive(&backup);
    flow.fixture.cloud.s3.corrupt(BUCKET, &archive, 2000, 0x40).unwrap();
    let damaged = drill(&flow, &machine, STAGING).await;
    refused(&damaged, "ArchiveCorrupt", &[&archive, "is damaged", "hint: "]);
    target.assert_nothing_restored().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_serves_is_refused_twice_over() {
    let flow = Flow::small().await;
    flow.fixture.backup().await;
    let machine = machine(&flow);
    let production = drill(&flow, &machine, INSTANCE).await;
    let texts =
        ["has the tag `QdrantBackup=production` of production hosts, where no drill is run", "hint: "];
    refused(&production, "ConfigInvalid", &texts);
    let unknown = drill(&flow, &machine, STAGING).await;
    refused(&unknown, "HostUnreachable", &["is not online as a host with the tag `QdrantBackup=staging`"]);
    assert!(flow.workflow.ssm.commands().is_empty(), "nobody was sent anything");

    // Nothing is deleted, not even there.
    let target = Fixture::small().await;
    flow.workflow.ssm.add_host(staging(&flow, &target, "staging")).unwrap();
    let full = drill(&flow, &machine, STAGING).await;
    refused(&full, "RestoreFailed", &["live data", "hint: "]);
    assert_eq!((target.count("docs").await, target.count("notes").await), (60, 20));
    flow.workflow.ssm.remove_host(STAGING).unwrap();

    // Tagged for drills by mistake: the host's own settings say what it is.
    let target = Fixture::small().await;
    flow.workflow.ssm.add_host(staging(&flow, &target, "production")).unwrap();
    let mistaken = drill(&flow, &machine, STAGING).await;
    refused(&mistaken, "ConfigInvalid", &["host-role = \"staging\""]);
    assert_eq!(target.collections().await, ["docs", "notes"]);
    assert_eq!((target.count("docs").await, target.count("notes").await), (60, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_not_what_was_recorded_is_a_verdict_and_names_what_differs() {
    let flow = Flow::small().await;
    flow.fixture.backup().await;
    let target = Fixture::empty().await;
    flow.workflow.ssm.add_host(staging(&flow, &target, "staging")).unwrap();
    let machine = machine(&flow);
    // Somebody deletes points while the restore runs.
    target.stand_in().faults().inject(When::next_of("notes"), Fault::RecoverPauses(Duration::from_secs(2)));
    let input = json!({ "instance_id": STAGING }).to_string();
    let started = flow.workflow.service().start_execution(&machine, None, Some(&input)).unwrap();
    target.until_qdrant_is_asked("PUT", "/collections/notes/snapshots/recover").await;
    target.delete_points("docs", 3).await;
    let drilled = flow.ended(&started.arn).await;
    let texts = ["of collection `docs`", "57 points", "hint: ", "do not rely on this backup"];
    refused(&drilled, "VerificationFailed", &texts);
    let answered = flow.workflow.lambda.invocations(Function::VerifyRestore.name()).unwrap();
    assert_eq!(
        answered[1].payload["drilled"]["passed"], false,
        "that it differs is what the worker was asked for"
    );
    assert_eq!(target.aliases().await, json!({}), "no reader is led there");
}
