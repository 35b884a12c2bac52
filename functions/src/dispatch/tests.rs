use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{CollectionName, TaskKind, TokenOrder, task::parameter};
use regex_lite::Regex;
use serde_json::{Value, json};

use super::*;
use crate::{
    Function, Reply,
    hosts::{Call, Memory, Plan, Refusal},
    tests::{HOST_TAG, TOKEN, World, counted, ended, host, id, tag, task_event, told},
};

async fn backup(world: &World) -> Result<Reply, Error> {
    world.call(Function::TriggerSnapshot, task_event("backup", 14)).await
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_to_the_one_host_with_all_that_the_worker_needs() {
    for (function, operation) in [(Function::QuiesceCheck, "quiesce"), (Function::TriggerSnapshot, "backup")]
    {
        let world = World::new();
        world.hosts.add(&host(3), "ConnectionLost", &[&tag(HOST_TAG)]);
        world.hosts.add(&host(1), "Online", &[&tag(HOST_TAG)]);
        let mut event = task_event(operation, 14);
        event["backup"]["collections"] = json!(["docs", "a,b"]);
        // What a later release adds to the answer of decide is none of this function's business.
        event["backup"]["later"] = json!(1);
        let reply = world.call(function, event).await.unwrap();
        let sent = world.hosts.sent();
        let [only] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!(reply.body, json!({"command_id": only.id, "instance_id": host(1)}));
        assert_eq!(counted(&reply)["DispatchSeconds"], json!(2.0));
        assert_eq!(only.command.document, "qdrant-host-task");
        assert_eq!(only.command.host, host(1));
        assert_eq!(only.command.comment, format!("{operation}-20261123T051400Z of nightly-1"));
        let parameters = BTreeMap::from([
            ("Task", operation),
            ("BackupId", "20261123T051400Z"),
            ("Collections", "docs,a%2Cb"),
            ("Execution", "nightly-1"),
            ("EnteredAt", "2026-11-23T05:14:01.25Z"),
            ("RetryCount", "2"),
            ("TaskToken", TOKEN),
        ]);
        assert_eq!(only.command.parameters, parameters.into_iter().map(|(k, v)| (k, v.to_owned())).collect());
    }
}

#[tokio::test(start_paused = true)]
async fn called_twice_it_sends_the_same_twice() {
    let world = World::new();
    backup(&world).await.unwrap();
    backup(&world).await.unwrap();
    let sent = world.hosts.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].command, sent[1].command);
}

#[tokio::test(start_paused = true)]
async fn no_host_and_two_hosts_are_named() {
    let world = World::empty();
    let (kind, message) = told(backup(&world).await);
    assert_eq!(kind, FailureKind::HostUnreachable);
    assert!(
        message.starts_with("no host with the tag `Role=qdrant` is online; hint: check the tag"),
        "{message}"
    );

    world.hosts.add(&host(7), "ConnectionLost", &[&tag(HOST_TAG)]);
    let (kind, message) = told(backup(&world).await);
    assert_eq!(kind, FailureKind::HostUnreachable);
    assert!(
        message
            .contains(&format!("known are {} (ConnectionLost); hint: check that the instance runs", host(7))),
        "{message}"
    );

    let world = World::new();
    world.hosts.add(&host(9), "Online", &[&tag(HOST_TAG)]);
    let (kind, message) = told(backup(&world).await);
    assert_eq!(kind, FailureKind::HostUnreachable);
    for part in [host(1).to_string(), host(9).to_string(), HOST_TAG.to_owned()] {
        assert!(message.contains(&part), "{part}: {message}");
    }
    assert_eq!(world.hosts.sent(), []);
}

#[tokio::test(start_paused = true)]
async fn a_look_without_a_result_leaves_it_to_the_heartbeat() {
    let running = |status| Plan(vec![None, Some(ended(status, None, "", ""))]);
    for plan in [
        Plan(vec![None]),
        running("Pending"),
        running("InProgress"),
        running("Delayed"),
        running("Cancelling"),
    ] {
        let world = World::new();
        world.hosts.plan(plan.clone());
        let begun = Instant::now();
        backup(&world).await.unwrap();
        assert_eq!(begun.elapsed(), PATIENCE, "{plan:?}");
    }
    let world = World::new();
    world.hosts.fail(HostsError { call: Call::Look, refusal: Refusal::Access, detail: "no".to_owned() });
    let begun = Instant::now();
    backup(&world).await.unwrap();
    assert_eq!(begun.elapsed(), STEP, "what is refused is not asked for again");
    let world = World::new();
    world.hosts.fail(HostsError {
        call: Call::Look,
        refusal: Refusal::Transient,
        detail: "slow down".to_owned(),
    });
    world.hosts.plan(Plan(vec![Some(ended("Undeliverable", None, "", ""))]));
    assert_eq!(told(backup(&world).await).0, FailureKind::HostUnreachable);
}

#[tokio::test(start_paused = true)]
async fn every_end_of_a_command_has_its_kind() {
    let busy = r#"{
      "error": "Busy", "transient": true, "message": "another task runs", "causes": ["restore-20261123T040000Z holds the lock"], "hint": "wait for it"
    }"#;
    let around = format!("a line before\n{busy}\nand one after");
    let unknown = r#"{"error":"NoSuchKind","message":"m"}"#;
    let old = "sh: 5: SSM_TaskToken: this host's SSM agent is too old: it must be 3.3.2746.0 or newer";
    let long = format!("{}\nthe end", "x".repeat(5000));
    type Row<'a> = (&'a str, Option<i32>, &'a str, &'a str, FailureKind, &'a str);
    let table: [Row<'_>; 17] = [
        (
            "Undeliverable",
            None,
            "",
            "",
            FailureKind::HostUnreachable,
            "did not run on i-00000000000000001: Undeliverable",
        ),
        ("DeliveryTimedOut", None, "", "", FailureKind::HostUnreachable, "DeliveryTimedOut"),
        ("Delivery Timed Out", None, "", "", FailureKind::HostUnreachable, "amazon-ssm-agent"),
        ("ExecutionTimedOut", None, "", "", FailureKind::HostUnreachable, "ExecutionTimedOut"),
        ("TimedOut", None, "", "", FailureKind::HostUnreachable, "TimedOut"),
        ("Cancelled", None, "", "", FailureKind::HostUnreachable, "Cancelled"),
        ("Terminated", None, "", "", FailureKind::HostUnreachable, "Terminated"),
        ("AccessDenied", None, "", "", FailureKind::HostUnreachable, "AccessDenied"),
        ("Access Denied", None, "", "", FailureKind::HostUnreachable, "Access Denied"),
        (
            "Failed",
            Some(1),
            busy,
            "",
            FailureKind::Busy,
            "another task runs: restore-20261123T040000Z holds the lock; hint: wait for it",
        ),
        (
            "Failed",
            Some(1),
            &around,
            "last words",
            FailureKind::Busy,
            "holds the lock; it says: last words; hint: wait",
        ),
        (
            "Failed",
            Some(127),
            "",
            "sh: host-worker: not found",
            FailureKind::HostUnreachable,
            "is not installed",
        ),
        ("Failed", Some(2), "", old, FailureKind::HostUnreachable, "hint: update amazon-ssm-agent"),
        (
            "Failed",
            Some(101),
            unknown,
            "panicked\n\n at x",
            FailureKind::HostUnreachable,
            "(Failed, exit code 101); it says: panicked | at x",
        ),
        ("Failed", Some(1), "{", "", FailureKind::HostUnreachable, "(Failed, exit code 1)"),
        ("Failed", None, "", &long, FailureKind::HostUnreachable, "xx | the end"),
        ("SomethingNew", None, "", "", FailureKind::HostUnreachable, "SomethingNew"),
    ];
    for (status, code, stdout, stderr, expected, says) in table {
        let world = World::new();
        world.hosts.plan(Plan(vec![
            None,
            Some(ended("InProgress", None, "", "")),
            Some(ended(status, code, stdout, stderr)),
        ]));
        let (kind, message) = told(backup(&world).await);
        assert_eq!(kind, expected, "{status} {code:?}: {message}");
        assert!(message.contains(says), "{status} {code:?}: {message}");
        assert!(message.contains("backup-20261123T051400Z") && message.len() < 2000, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_systems_manager_refuses_is_told_by_kind() {
    for (call, refusal, expected) in [
        (Call::Describe, Refusal::Access, FailureKind::ConfigInvalid),
        (Call::Describe, Refusal::Transient, FailureKind::HostUnreachable),
        (Call::Send, Refusal::Host, FailureKind::HostUnreachable),
        (Call::Send, Refusal::Access, FailureKind::ConfigInvalid),
        (Call::Send, Refusal::Document, FailureKind::ConfigInvalid),
        (Call::Send, Refusal::Parameters, FailureKind::ConfigInvalid),
        (Call::Send, Refusal::Transient, FailureKind::HostUnreachable),
        (Call::Send, Refusal::Other, FailureKind::Internal),
    ] {
        let world = World::new();
        world.hosts.fail(HostsError { call, refusal, detail: "SomeException: some words".to_owned() });
        let (kind, message) = told(backup(&world).await);
        assert_eq!(kind, expected, "{call} {refusal:?}");
        assert!(message.starts_with(&format!("{call} fails: SomeException: some words")), "{message}");
        backup(&world).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_names_are_refused_before_anything_is_sent() {
    let world = World::new();
    let mut event = task_event("backup", 14);
    let names: Vec<String> = (0..20).map(|n| format!("{n:0>250}")).collect();
    event["backup"]["collections"] = json!(names);
    let (kind, message) = told(world.call(Function::TriggerSnapshot, event).await);
    assert_eq!(kind, FailureKind::ConfigInvalid);
    assert!(
        message.contains("at most 4096") && message.contains("hint: back up fewer collections"),
        "{message}"
    );
    assert_eq!(world.hosts.sent(), []);
}

/// The patterns of the document, by parameter.
fn patterns() -> BTreeMap<String, Regex> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/ssm/host-task.json");
    #[expect(clippy::disallowed_methods, reason = "a test that fails here says which file it was")]
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let document: Value = serde_json::from_str(&text).unwrap();
    let parameters = document["parameters"].as_object().unwrap();
    let pattern = |parameter: &Value| Regex::new(parameter["allowedPattern"].as_str().unwrap()).unwrap();
    parameters.iter().map(|(name, parameter)| (name.clone(), pattern(parameter))).collect()
}

/// A name of a collection: some are plain, some need every byte encoded.
fn names() -> impl Strategy<Value = Vec<CollectionName>> {
    let name = "[a-zA-Z0-9_.~%,;='` ${}()é日]{1,40}";
    prop::collection::btree_set(name, 0..8)
        .prop_map(|names| names.into_iter().map(|name| name.parse().unwrap()).collect())
}

proptest! {
    #[test]
    fn whatever_is_sent_is_what_the_document_allows(
        kind in prop::sample::select(TaskKind::ALL.to_vec()),
        n in 0_i64..1_000_000,
        names in names(),
        execution in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}",
        nanosecond in 0_i128..4_000_000_000_000_000_000,
        retry_count in 0_u32..=9999,
        token in "[A-Za-z0-9+/=_.-]{1,2048}",
    ) {
        let event = json!({
            "backup": {
                "decision": "Proceed", "backup_id": id(n), "trigger": "console", "force": false, "collections": names, "reason": "",
            },
            "execution": execution,
            "entered_at": jiff::Timestamp::from_nanosecond(nanosecond).unwrap().to_string(),
            "retry_count": retry_count,
            "token": token,
        });
        let (backup, ticket) = crate::event::dispatch(event).unwrap();
        let envelope = ticket.envelope(kind, backup.backup_id, backup.collections);
        let parameters = envelope.parameters().unwrap();
        let patterns = patterns();
        prop_assert_eq!(parameters.keys().map(|name| (*name).to_owned()).collect::<Vec<_>>(), patterns.keys().cloned().collect::<Vec<_>>());
        for (name, value) in &parameters {
            prop_assert!(patterns[*name].is_match(value), "{} is `{}`", name, value);
        }
        let expected = TokenOrder { entered_at: jiff::Timestamp::from_nanosecond(nanosecond).unwrap(), retry_count };
        prop_assert_eq!(envelope.order, expected);
        prop_assert!(Command::comment(&envelope).len() <= Command::MAX_COMMENT);
        prop_assert_eq!(Envelope::from_parameters(|name| parameters.get(name).cloned()), Ok(envelope));
    }
}

#[test]
fn the_documents_patterns_refuse_what_they_should() {
    let patterns = patterns();
    for (name, bad) in [
        (parameter::TASK, "reboot"),
        (parameter::TASK_TOKEN, "a b"),
        (parameter::TASK_TOKEN, "$(reboot)"),
        (parameter::EXECUTION, ""),
        (parameter::COLLECTIONS, "a b"),
    ] {
        assert!(!patterns[name].is_match(bad), "{name}: {bad}");
    }
}

#[test]
fn memory_forgets_nothing_between_clones() {
    let hosts = Memory::new();
    hosts.clone().add(&host(1), "Online", &[&tag(HOST_TAG)]);
    assert!(format!("{hosts:?}").contains(&host(1).to_string()));
    hosts.clear();
    assert!(!format!("{hosts:?}").contains(&host(1).to_string()));
}
