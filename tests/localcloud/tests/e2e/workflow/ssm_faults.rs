//! The host cannot be reached, cannot be told apart, or does not get its command as it was sent.

use localcloud::{
    ssm::{Delivery, Effect, Operation, Presence, State},
    workflow::INSTANCE,
};
use serde_json::{Value, json};

use super::harness::Flow;

/// A backup that is published although something struck on its way; answers with the errors of failed attempts.
async fn survives(flow: &Flow) -> Vec<String> {
    let execution = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(flow.workflow.ssm.faults().unfired(), [""; 0]);
    let backup = flow.backup_of(&execution);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&backup));
    assert_eq!(flow.published().await, [backup]);
    let archives = flow.fixture.keys().await.iter().filter(|key| key.ends_with(".tar.zst")).count();
    assert_eq!(archives, 1, "the work was done once");
    flow.assert_put_away().await;
    flow.errors(&execution.arn)
}

/// A backup that fails with this error and leaves nothing anywhere.
async fn fails(flow: &Flow, error: &str, attempts: usize, texts: &[&str]) {
    let execution = flow.run(json!({})).await;
    flow.has_failed(&execution, error, texts);
    assert_eq!(flow.errors(&execution.arn), vec![error; attempts]);
    flow.fixture.assert_nothing_left().await;
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_offline_missing_or_two_are_named() {
    let flow = Flow::eager().await;
    let ssm = &flow.workflow.ssm;
    ssm.set_presence(INSTANCE, Presence::Offline).unwrap();
    let offline = [
        "no host with the tag `QdrantBackup=production` is online",
        "known are i-0123456789abcdef0",
        "hint: check that the instance runs",
    ];
    fails(&flow, "HostUnreachable", 3, &offline).await;
    ssm.set_presence(INSTANCE, Presence::ConnectionLost).unwrap();
    fails(&flow, "HostUnreachable", 3, &["ConnectionLost"]).await;

    ssm.set_presence(INSTANCE, Presence::Online).unwrap();
    let second = flow.host("i-0fedcba9876543210", |_| {});
    ssm.add_host(second).unwrap();
    let two = [
        "2 hosts with the tag `QdrantBackup=production` are online, and one is wanted",
        "i-0123456789abcdef0",
        "i-0fedcba9876543210",
        "hint: a backup is of one host",
    ];
    fails(&flow, "HostUnreachable", 3, &two).await;

    ssm.remove_host("i-0fedcba9876543210").unwrap();
    flow.change_host(|host| host.tags.clear());
    let none =
        ["no host with the tag `QdrantBackup=production` is online", "hint: check the tag of the host"];
    fails(&flow, "HostUnreachable", 3, &none).await;
    assert!(flow.workflow.ssm.commands().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_comes_back_between_two_attempts_is_backed_up() {
    let flow = Flow::small().await;
    let ssm = &flow.workflow.ssm;
    ssm.set_presence(INSTANCE, Presence::Offline).unwrap();
    let execution = flow.start(json!({}));
    crate::harness::until(|| !flow.errors(&execution).is_empty()).await;
    ssm.set_presence(INSTANCE, Presence::Online).unwrap();
    let ended = flow.ended(&execution).await;
    assert_eq!(flow.is_success(&ended), "BackedUp");
    let errors = flow.errors(&execution);
    assert!(
        (1..=2).contains(&errors.len()) && errors.iter().all(|error| error == "HostUnreachable"),
        "{errors:?}"
    );
    assert_eq!(flow.workflow.sns.messages(), [], "nobody is woken by what passes");
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_take_the_task_says_why() {
    let flow = Flow::eager().await;
    flow.change_host(|host| host.agent_version = "3.3.2299.0".to_owned());
    let old = [
        "its SSM agent is too old",
        "this host's SSM agent is too old: it must be 3.3.2746.0 or newer",
        "hint: update amazon-ssm-agent to 3.3.2746.0 or newer",
    ];
    fails(&flow, "HostUnreachable", 3, &old).await;

    let flow = Flow::eager().await;
    flow.change_host(|host| {
        host.env.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    });
    let absent = [
        "`host-worker` is not installed, or not where root finds it",
        "hint: install host-worker in /usr/local/bin on the host",
    ];
    fails(&flow, "HostUnreachable", 3, &absent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_host_that_are_wrong_are_told_by_the_dispatch() {
    let flow = Flow::eager().await;
    let settings = flow.fixture.cloud.dir().join("qdrant-backup.toml");
    fs_err::write(&settings, "[task]\nquiesce-time-out = 1\n").unwrap();
    let settings = settings.to_str().unwrap().to_owned();
    flow.change_host(|host| host.env.extend([("QDRANT_BACKUP_CONFIG".to_owned(), settings)]));
    fails(&flow, "ConfigInvalid", 1, &["refuses task quiesce-", "unknown field `quiesce-time-out`"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_not_there_or_not_ours_is_a_setting() {
    let flow = Flow::eager().await;
    let other = json!({
        "schemaVersion": "2.2",
        "parameters": { "Task": { "type": "String" } },
        "mainSteps": [{ "action": "aws:runShellScript", "name": "dispatch", "inputs": { "runCommand": ["true"] } }],
    });
    flow.workflow.ssm.create_document(localcloud::workflow::DOCUMENT, &other.to_string()).unwrap();
    let texts = ["InvalidParameters", "hint: the document in the account is of another release"];
    fails(&flow, "ConfigInvalid", 1, &texts).await;
    flow.workflow.ssm.faults().on(Operation::SendCommand).inject(Effect::AccessDenied);
    let texts = ["AccessDenied", "hint: the function's role needs ssm:SendCommand"];
    fails(&flow, "ConfigInvalid", 1, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_are_refused_slowed_down_or_not_yet_seen_are_sent_again_or_waited_for() {
    let flow = Flow::small().await;
    let faults = flow.workflow.ssm.faults();
    faults.on(Operation::DescribeInstanceInformation).times(2).inject(Effect::Throttle);
    faults.on(Operation::SendCommand).times(2).inject(Effect::Throttle);
    faults.on(Operation::GetCommandInvocation).nth(2).inject(Effect::Throttle);
    faults.on(Operation::GetCommandInvocation).nth(3).inject(Effect::InternalError);
    assert_eq!(survives(&flow).await, [""; 0], "the client tries again by itself");
    let unseen = flow.workflow.ssm.calls();
    let unseen =
        unseen.iter().filter(|call| format!("{:?}", call.outcome).contains("InvocationDoesNotExist"));
    assert_eq!(unseen.count(), 2, "the first look at each command came too early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_throttles_for_longer_than_the_client_tries_is_tried_by_the_state() {
    let flow = Flow::eager().await;
    let faults = flow.workflow.ssm.faults();
    faults.on(Operation::DescribeInstanceInformation).times(3).inject(Effect::Throttle);
    faults.on(Operation::SendCommand).times(3).inject(Effect::Throttle);
    assert_eq!(survives(&flow).await, ["HostUnreachable", "HostUnreachable"]);

    let flow = Flow::eager().await;
    flow.workflow
        .ssm
        .faults()
        .on(Operation::DescribeInstanceInformation)
        .times(u64::MAX)
        .inject(Effect::Throttle);
    fails(&flow, "HostUnreachable", 3, &["ThrottlingException", "ssm:DescribeInstanceInformation"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_receipt_is_lost_is_sent_again_and_done_once() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on(Operation::SendCommand).inject(Effect::LoseReply);
    flow.workflow.ssm.faults().on(Operation::SendCommand).nth(3).inject(Effect::LoseReply);
    assert_eq!(survives(&flow).await, [""; 0]);
    assert_eq!(flow.workflow.ssm.commands().len(), 4, "the client sends again, with the same token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_delivered_twice_is_done_once() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on_delivery().inject(Delivery::Twice);
    flow.workflow.ssm.faults().on_delivery().nth(2).inject(Delivery::TwiceAtOnce);
    assert_eq!(survives(&flow).await, [""; 0]);
    for command in flow.workflow.ssm.commands() {
        let runs = &command.invocations[0].runs;
        assert_eq!(runs.iter().map(|run| run.exit_code).collect::<Vec<_>>(), [Some(0), Some(0)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_delivered_is_sent_again() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on_delivery().inject(Delivery::Undeliverable);
    flow.workflow.ssm.faults().on_delivery().nth(3).inject(Delivery::Undeliverable);
    assert_eq!(survives(&flow).await, ["HostUnreachable", "HostUnreachable"]);

    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on_delivery().times(u64::MAX).inject(Delivery::Undeliverable);
    let texts =
        ["did not run on i-0123456789abcdef0: Undeliverable", "hint: the agent did not take it in time"];
    fails(&flow, "HostUnreachable", 3, &texts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_never_arrives_is_found_out_by_the_missing_heartbeat() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on_delivery().inject(Delivery::Never);
    // How it fares may not be looked at, so that the function does not wait for it either.
    flow.workflow.ssm.faults().on(Operation::GetCommandInvocation).inject(Effect::AccessDenied);
    assert_eq!(survives(&flow).await, ["States.Timeout"]);
    let commands = flow.workflow.ssm.commands();
    assert_eq!(commands.len(), 3);
    assert_eq!(commands[0].invocations[0].state, State::Pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_never_heard_fails_the_execution_after_two_retries() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on_delivery().times(u64::MAX).inject(Delivery::Never);
    flow.workflow
        .ssm
        .faults()
        .on(Operation::GetCommandInvocation)
        .times(u64::MAX)
        .inject(Effect::AccessDenied);
    let execution = flow.run(json!({})).await;
    let texts =
        ["nothing was heard in time", "States.Timeout", "hint: docs/operations.md, The worker is not heard"];
    flow.has_failed(&execution, "HostUnreachable", &texts);
    assert_eq!(flow.errors(&execution.arn), ["States.Timeout"; 3]);
    flow.fixture.assert_nothing_left().await;
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_command_that_arrives_after_its_successor_changes_nothing() {
    let flow = Flow::eager().await;
    flow.workflow.ssm.faults().on_delivery().inject(Delivery::AfterNewer);
    flow.workflow.ssm.faults().on(Operation::GetCommandInvocation).inject(Effect::AccessDenied);
    assert_eq!(survives(&flow).await, ["States.Timeout"]);
    crate::harness::until(|| flow.workflow.ssm.commands()[0].invocations[0].state == State::Success).await;
    let commands = flow.workflow.ssm.commands();
    let said: Value = serde_json::from_str(&commands[0].invocations[0].stdout).unwrap();
    assert_eq!(said["dispatched"], "outdated");
    assert_eq!(commands.len(), 3);
}
