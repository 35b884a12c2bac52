//! Staging hosts that a drill has left, or would have: termination that is refused, drills that are stopped, the sweep.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use localcloud::{
    ec2::{Effect, Operation, State},
    events::Schedule,
    stepfunctions::Status,
    workflow::Machine,
};
use serde_json::{Value, json};

use super::{
    drilling::{BRISK, QUICK},
    harness::Flow,
};

const LEFT: &str = "qdrant-backup: a staging host was left and is terminated now";
/// How long a state may take to come about.
const BOUND: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_termination_that_is_refused_at_first_is_tried_again() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let faults = flow.workflow.ec2.faults();
    // More often than one state tries.
    faults.on(Operation::TerminateInstances).times(6).inject(Effect::Throttled);
    faults.on(Operation::TerminateInstances).nth(7).inject(Effect::LoseReply);
    let drilled = flow.drill(json!({})).await;
    flow.succeeded(&drilled);
    assert_eq!(flow.workflow.sns.messages(), []);
    flow.assert_no_staging().await;
    assert_eq!(faults.unfired(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_termination_that_fails_for_good_fails_the_drill_and_the_sweep_gets_the_host() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let faults = flow.workflow.ec2.faults();
    faults.on(Operation::TerminateInstances).times(u64::MAX).inject(Effect::Protected);
    let drilled = flow.drill(json!({})).await;
    let host = flow.alive().pop().unwrap().id;
    assert_eq!(drilled.status, Status::Failed);
    assert_eq!(drilled.failure.error.as_deref(), Some("StagingLeft"));
    let cause = drilled.failure.cause.unwrap();
    for text in ["the drill passed", host.as_str(), "disableApiTermination", "hint: terminate it by hand"] {
        assert!(cause.contains(text), "`{text}` is not in: {cause}");
    }
    assert_eq!(flow.counted(), [(true, None)], "what the drill is for is proved");
    let messages = flow.workflow.sns.messages();
    assert_eq!(messages[0].subject.as_deref(), Some("qdrant-backup: a staging host was not terminated"));
    for text in [drilled.name.as_str(), host.as_str(), "disableApiTermination", "heading StagingLeft"] {
        assert!(messages[0].text.contains(text), "`{text}` is not in: {}", messages[0].text);
    }

    let janitor = flow.janitor(1).await;
    flow.has_failed(&janitor, "StagingLeft", &[&host, "disableApiTermination", "hint: "]);
    assert_eq!(flow.alive().len(), 1);

    faults.clear();
    let sweep =
        flow.workflow.start_execution_of(Machine::TerminateStaging, &json!({ "older_than_seconds": 0 }));
    flow.succeeded(&flow.ended(&sweep.unwrap()).await);
    assert_eq!(flow.subjects().last().map(String::as_str), Some(LEFT));
    flow.assert_no_staging().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_failure_is_kept_when_the_host_stays_too() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    let faults = flow.workflow.ec2.faults();
    faults.on_launch().inject(localcloud::ec2::Fate::NeverOnline);
    let execution = flow.start_drill(&json!({}));
    // 20 minutes are long, and whether they pass is another's test.
    flow.workflow.ec2.wait_for(BOUND, |all| all.iter().any(|one| one.state == State::Running)).await.unwrap();
    faults.on(Operation::DescribeInstances).times(10).inject(Effect::Denied);
    let drilled = flow.ended(&execution).await;
    assert_eq!(drilled.failure.error.as_deref(), Some("HostUnreachable"));
    let cause = drilled.failure.cause.unwrap();
    assert!(
        cause.contains("cannot be seen (Ec2.Ec2Exception)") && cause.contains("not authorized"),
        "{cause}"
    );
    let subjects = flow.subjects();
    assert_eq!(
        subjects,
        ["qdrant-backup: a staging host was not terminated", "qdrant-backup: a restore drill failed"]
    );
    // It was terminated; it could only not be seen.
    flow.succeeded(&flow.janitor(1).await);
    flow.assert_no_staging().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_is_stopped_leaves_its_host_to_the_rule() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let (execution, host) = flow.drilling().await;
    flow.workflow.service().stop_execution(&execution, None, Some("by hand")).unwrap();
    assert_eq!(flow.ended(&execution).await.status, Status::Aborted);
    let janitor = flow.janitor(1).await;
    flow.succeeded(&janitor);
    let input: Value = serde_json::from_str(&janitor.input).unwrap();
    assert_eq!(
        (&input["detail"]["status"], &input["detail"]["executionArn"]),
        (&json!("ABORTED"), &json!(execution))
    );
    assert_eq!(flow.subjects(), [LEFT]);
    assert!(flow.workflow.sns.messages()[0].text.contains(&host));
    flow.assert_no_staging().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_launch_was_under_way_when_the_drill_was_stopped_is_found() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    flow.workflow.ec2.faults().on(Operation::RunInstances).inject(Effect::Hang);
    let execution = flow.start_drill(&json!({}));
    flow.workflow.ec2.wait_for(BOUND, |all| all.len() == 1).await.unwrap();
    flow.workflow.service().stop_execution(&execution, None, None).unwrap();
    flow.succeeded(&flow.janitor(1).await);
    assert_eq!(flow.subjects(), [LEFT]);
    flow.assert_no_staging().await;
}

/// Launches an instance that no drill has launched.
async fn launch(flow: &Flow, token: &str, tags: &[(&str, &str)]) -> String {
    let mut parameters = flow.workflow.ec2.calls()[0].parameters.clone();
    parameters["ClientToken"] = json!(token);
    let tags: Vec<_> = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    parameters["TagSpecifications"] = json!([{ "ResourceType": "instance", "Tags": tags }]);
    let answer = flow.workflow.ec2.task("runInstances", &parameters).await.unwrap();
    answer["Instances"][0]["InstanceId"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_takes_what_is_old_and_of_a_drill_and_nothing_else() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    // Two are left, both of a drill that is stopped while EventBridge is not heard.
    flow.workflow.events.faults().on("drill-ended-badly").inject(localcloud::events::Effect::Lost);
    let execution = flow.start_drill(&json!({}));
    flow.workflow.ec2.wait_for(BOUND, |all| all.len() == 1).await.unwrap();
    // An instance is there a moment before its launch is answered and in the log.
    crate::harness::until(|| flow.workflow.ec2.count(Operation::RunInstances) == 1).await;
    flow.workflow.service().stop_execution(&execution, None, None).unwrap();
    let staging = ("QdrantBackup", "staging");
    let of_drill = ("qdrant-backup:execution", "arn:aws:states:us-east-1:000000000000:execution:x:y");
    launch(&flow, "old", &[staging, of_drill]).await;
    let production = launch(&flow, "production", &[("QdrantBackup", "production"), of_drill]).await;
    let mistaken = launch(&flow, "mistaken", &[staging]).await;
    // EC2 tells whole seconds.
    crate::harness::next_second().await;

    let now = Timestamp::now();
    let schedule = Schedule {
        name: "sweep".to_owned(),
        first: now,
        every: SignedDuration::from_hours(1),
        state_machine: flow.workflow.machine(Machine::TerminateStaging).to_owned(),
        input: json!({ "older_than_seconds": 240 }),
    };
    flow.workflow.events.add_schedule(schedule).unwrap();
    let started = flow.workflow.events.tick(now).await;
    let sweep = started[0].execution.clone().unwrap();
    crate::harness::next_second().await;
    let young = launch(&flow, "young", &[staging, of_drill]).await;
    let swept = flow.ended(&sweep).await;
    flow.succeeded(&swept);
    let output = swept.output.unwrap();
    let mut alive: Vec<_> = flow.alive().into_iter().map(|instance| instance.id).collect();
    alive.sort();
    let mut left = [production, mistaken, young.clone()];
    left.sort();
    assert_eq!(alive, left, "{output}");
    assert_eq!(flow.subjects(), [LEFT, LEFT]);
    let outcome = output["sum"]["text"].as_str().unwrap();
    assert!(outcome.contains(&format!("young {young}")), "{outcome}");
}
