//! Drills whose staging host does not come, goes away, or comes twice.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use host_worker::lock::HostLock;
use localcloud::{
    ec2::{Effect, Fate, Operation, State},
    ssm,
};
use serde_json::json;

use super::{
    drilling::{BRISK, QUICK},
    harness::Flow,
};
use crate::harness::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staging_host_that_never_appears_fails_the_drill() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    let faults = flow.workflow.ec2.faults();
    faults.on(Operation::RunInstances).times(6).inject(Effect::NoCapacity);
    let none = flow.drill(json!({})).await;
    let texts = ["no staging host could be launched", "sufficient c8gd.medium capacity", "hint: "];
    flow.drill_has_failed(&none, "HostUnreachable", &texts).await;
    assert_eq!(flow.attempts(&none.arn, "LaunchStaging"), ["Ec2.Ec2Exception"; 6]);
    assert!(flow.states(&none.arn).contains(&"FindStaging".to_owned()), "there may be one all the same");
    assert_eq!(flow.workflow.ec2.instances(), []);

    faults.on_launch().inject(Fate::DiesPending);
    let died = flow.drill(json!({})).await;
    let texts = ["is terminated, and its SSM agent was never online", "hint: "];
    flow.drill_has_failed(&died, "HostUnreachable", &texts).await;

    faults.on(Operation::RunInstances).inject(Effect::Throttled);
    faults.on_launch().inject(Fate::NeverOnline);
    let silent = flow.drill(json!({})).await;
    let texts = ["the SSM agent of staging host i-", "is not online after 80 looks", "3.3.2746.0"];
    flow.drill_has_failed(&silent, "HostUnreachable", &texts).await;
    assert_eq!(flow.attempts(&silent.arn, "LaunchStaging"), ["Ec2.Ec2Exception", "done"]);
    assert_eq!(flow.workflow.ec2.instances().len(), 2);
    assert_eq!(faults.unfired(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_be_looked_at_is_terminated() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    let throttled = flow.workflow.ssm.faults().on(ssm::Operation::DescribeInstanceInformation);
    throttled.times(2).inject(ssm::Effect::Throttle);
    flow.workflow
        .ssm
        .faults()
        .on(ssm::Operation::DescribeInstanceInformation)
        .nth(3)
        .times(5)
        .inject(ssm::Effect::AccessDenied);
    let drilled = flow.drill(json!({})).await;
    let texts = ["comes up cannot be seen (Ssm.SsmException)", "ssm:DescribeInstanceInformation", "hint: "];
    flow.drill_has_failed(&drilled, "HostUnreachable", &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staging_host_that_dies_in_the_middle_fails_the_drill() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let (execution, instance) = flow.drilling().await;
    flow.workflow.ec2.lose(&instance).await.unwrap();
    let drilled = flow.ended(&execution).await;
    let texts = [instance.as_str(), "is not online as a host with the tag `QdrantBackup=staging`", "hint: "];
    flow.drill_has_failed(&drilled, "HostUnreachable", &texts).await;
    let attempts = flow.attempts(&execution, "RestoreAndVerify");
    assert_eq!(attempts, ["States.Timeout", "HostUnreachable", "HostUnreachable", "HostUnreachable"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_the_launch_that_is_lost_costs_no_second_host() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let faults = flow.workflow.ec2.faults();
    faults.on(Operation::RunInstances).inject(Effect::LoseReply);
    faults.on(Operation::RunInstances).nth(2).inject(Effect::Hang);
    let drilled = flow.drill(json!({})).await;
    flow.succeeded(&drilled);
    let attempts = flow.attempts(&drilled.arn, "LaunchStaging");
    assert_eq!(attempts, ["Ec2.SdkClientException", "States.Timeout", "done"]);
    assert_eq!(flow.workflow.ec2.instances().len(), 1);
    flow.assert_no_staging().await;

    // Nobody ever hears of it, and it goes all the same.
    faults.on(Operation::RunInstances).times(6).inject(Effect::LoseReply);
    let unheard = flow.drill(json!({})).await;
    flow.drill_has_failed(&unheard, "HostUnreachable", &["could be launched", "Connection reset"]).await;
    let states = flow.states(&unheard.arn);
    assert!(states.contains(&"Found".to_owned()), "{states:?}");
    assert_eq!(flow.workflow.ec2.instances().len(), 2);
    assert!(flow.workflow.ec2.instances().iter().all(|instance| instance.state != State::Running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_drills_at_once_have_a_host_each() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let executions = [flow.start_drill(&json!({})), flow.start_drill(&json!({}))];
    let mut hosts = Vec::new();
    for execution in &executions {
        let drilled = flow.ended(execution).await;
        flow.succeeded(&drilled);
        hosts.push(drilled.output.unwrap()["staging"]["instance_id"].as_str().unwrap().to_owned());
    }
    assert_ne!(hosts[0], hosts[1]);
    let commands = flow.workflow.ssm.commands();
    let to = |command: &localcloud::ssm::Command| command.invocations[0].instance_id.clone();
    let mut sent: Vec<_> = commands.iter().map(to).collect();
    sent.sort();
    hosts.sort();
    assert_eq!(sent, hosts);
    assert_eq!(flow.counted(), [(true, None), (true, None)]);
    flow.assert_no_staging().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_still_busy_with_itself_is_waited_for() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let held = Arc::<Mutex<Option<HostLock>>>::default();
    let holder = Arc::clone(&held);
    // As `boot` does while it prepares the disks.
    flow.workflow.staging.on_boot(move |_qdrant, host| {
        let work_dir = Path::new(&host.env["QDRANT_BACKUP_WORK_DIR"]);
        *holder.lock().unwrap() = Some(HostLock::acquire(work_dir, "boot").unwrap());
    });
    let execution = flow.start_drill(&json!({}));
    until(|| flow.attempts(&execution, "RestoreAndVerify").first().is_some_and(|attempt| attempt == "Busy"))
        .await;
    held.lock().unwrap().take();
    let drilled = flow.ended(&execution).await;
    flow.succeeded(&drilled);
    let mut attempts = flow.attempts(&execution, "RestoreAndVerify");
    assert_eq!(attempts.pop().as_deref(), Some("done"));
    assert!(attempts.iter().all(|attempt| attempt == "Busy"), "{attempts:?}");
    flow.assert_no_staging().await;
}
