use std::collections::BTreeMap;

use protocol::{
    FailureKind, Manifest, Proof, ProofLevel, key,
    manifest::PhaseTiming,
    task::Drilled,
    verdict::{Aspect, Check, Outcome},
};
use serde_json::json;

use super::*;
use crate::{
    Function,
    tests::{HOST_TAG, STAGING_TAG, World, counted, drill_event, host, id, manifest, minute, tag, told},
};

async fn call(world: &World, event: Value) -> Result<Reply, Error> {
    world.call(Function::VerifyRestore, event).await
}

fn choose(input: Value) -> Value {
    json!({"operation": "choose", "input": input, "execution": "drill-1", "started_at": minute(100)})
}

async fn chosen(world: &World, event: Value) -> (Value, String) {
    let body = call(world, event).await.unwrap().body;
    (body["backup_id"].clone(), body["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_drill_is_of_the_published_backup_unless_another_is_named() {
    let world = World::new();
    world.publish(manifest(7)).await;
    world.publish(manifest(10)).await;
    let body = call(&world, choose(json!({}))).await.unwrap().body;
    assert_eq!(body["backup_id"], json!("20261123T051000Z"));
    assert_eq!(body["version_id"], json!(world.catalog().manifest(id(10)).await.unwrap().version_id));
    assert!(body["version_id"].is_string(), "{body}");
    assert_eq!(call(&world, choose(json!({"mode": "NEWEST"}))).await.unwrap().body, body);
    let (named, reason) = chosen(&world, choose(json!({"backup_id": id(7)}))).await;
    assert_eq!((named, reason.as_str()), (json!(id(7)), "asked for by its id"));
    assert_eq!(world.hosts.sent(), []);

    for (input, says) in [
        (json!({"mode": "OLDEST"}), "unknown variant `OLDEST`"),
        (json!({"backup": "x"}), "unknown field `backup`"),
        (json!({"backup_id": "newest"}), "not a backup id"),
        (json!({"mode": "RANDOM", "backup_id": id(7)}), "names a backup and asks for a random one"),
        (json!([]), "it is not an object"),
        (json!({"detail-type": "Scheduled Event", "source": "aws.events"}), "{} for a drill"),
    ] {
        let (kind, message) = told(call(&world, choose(input)).await);
        assert_eq!(kind, FailureKind::ConfigInvalid);
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn without_a_usable_backup_there_is_nothing_to_drill() {
    let world = World::new();
    let (kind, message) = told(call(&world, choose(json!({}))).await);
    assert_eq!(kind, FailureKind::ManifestMissing);
    assert!(message.contains("there is no backup in bucket `memory`"), "{message}");
    let (kind, _) = told(call(&world, choose(json!({"mode": "RANDOM"}))).await);
    assert_eq!(kind, FailureKind::ManifestMissing);
    world.publish(manifest(10)).await;
    let (kind, message) = told(call(&world, choose(json!({"backup_id": id(7)}))).await);
    assert_eq!(kind, FailureKind::ManifestMissing);
    assert!(message.contains("20261123T050700Z"), "{message}");
    // Known before a host is launched for it.
    world.bucket.remove(&manifest(10).key.to_string());
    assert_eq!(told(call(&world, choose(json!({}))).await).0, FailureKind::ManifestMissing);
    world.bucket.insert(key::POINTER, "{");
    assert_eq!(told(call(&world, choose(json!({}))).await).0, FailureKind::ManifestInvalid);
    assert_eq!(world.hosts.sent(), []);
}

#[tokio::test]
async fn a_random_drill_is_of_an_older_whole_backup_and_the_same_when_asked_again() {
    let world = World::new();
    world.publish(manifest(1)).await;
    let (only, reason) = chosen(&world, choose(json!({"mode": "RANDOM"}))).await;
    assert_eq!((only, reason.contains("no older one")), (json!(id(1)), true));

    for n in 2..10 {
        world.publish(manifest(n)).await;
    }
    world.publish(Manifest { partial: true, ..manifest(10) }).await;
    world.bucket.insert(&key::manifest(id(0)), "{");
    let proved_at = world.now;
    for n in 1..5 {
        let proof = Proof { backup_id: id(n), level: ProofLevel::Searched, proved_at, tool: "t".to_owned() };
        world.catalog().put_proof(&proof).await.unwrap();
    }
    let mut drawn = BTreeMap::new();
    for n in 0..200 {
        let mut event = choose(json!({"mode": "RANDOM"}));
        event["execution"] = json!(format!("drill-{n}"));
        let (backup, reason) = chosen(&world, event.clone()).await;
        assert_eq!(chosen(&world, event).await.0, backup);
        let never = reason.contains("never proved");
        assert!(never || reason.contains("last proved 0 days ago"), "{reason}");
        *drawn.entry((backup.to_string(), never)).or_insert(0) += 1;
    }
    let candidates: Vec<String> = (1..9).map(|n| json!(id(n)).to_string()).collect();
    assert_eq!(drawn.keys().map(|(backup, _)| backup.clone()).collect::<Vec<_>>(), candidates);
    let unproved: i32 = drawn.iter().filter(|((_, never), _)| *never).map(|(_, count)| count).sum();
    assert!(unproved > 130, "what nobody has read back is drawn four times as often: {drawn:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drill_is_handed_to_its_host_as_often_as_asked() {
    let world = World::new();
    let reply = call(&world, drill_event()).await.unwrap();
    let sent = world.hosts.sent();
    assert_eq!(
        reply.body,
        json!({"backup_id": "20261123T051000Z", "command_id": sent[0].id, "instance_id": host(2)})
    );
    assert_eq!(sent[0].command.host, host(2));
    let parameter = |name: &str| sent[0].command.parameters[name].clone();
    assert_eq!(
        (parameter("Task"), parameter("BackupId"), parameter("Collections")),
        ("drill".to_owned(), id(10).to_string(), "*".to_owned())
    );
    // The pointer is not asked: it may have moved on since the drill began.
    world.publish(manifest(11)).await;
    assert_eq!(call(&world, drill_event()).await.unwrap().body["backup_id"], json!(id(10)));
    assert_eq!(world.hosts.sent()[1].command, sent[0].command);
}

#[tokio::test(start_paused = true)]
async fn a_drill_is_run_on_a_staging_host_only() {
    let (production, staging) = (tag(HOST_TAG), tag(STAGING_TAG));
    for (tags, ping, expected, says) in [
        (vec![&production], "Online", FailureKind::ConfigInvalid, "of production hosts"),
        (vec![&production, &staging], "Online", FailureKind::ConfigInvalid, "of production hosts"),
        (vec![&production, &staging], "ConnectionLost", FailureKind::ConfigInvalid, "of production hosts"),
        (vec![&staging], "ConnectionLost", FailureKind::HostUnreachable, "(ConnectionLost)"),
        (
            vec![],
            "Online",
            FailureKind::HostUnreachable,
            "is not online as a host with the tag `Role=qdrant-staging`",
        ),
    ] {
        let world = World::empty();
        world.publish(manifest(10)).await;
        world.hosts.add(&host(2), ping, &tags);
        world.hosts.add(&host(3), "Online", &[&staging]);
        for _twice in 0..2 {
            let (kind, message) = told(call(&world, drill_event()).await);
            assert_eq!(kind, expected, "{message}");
            assert!(message.contains(says) && message.contains(&host(2).to_string()), "{message}");
        }
        assert_eq!(world.hosts.sent(), []);
    }
}

#[tokio::test]
async fn an_instance_needs_an_id() {
    let mut event = drill_event();
    event["instance_id"] = json!("production");
    let (kind, message) = told(call(&World::new(), event).await);
    assert_eq!(kind, FailureKind::ConfigInvalid);
    assert!(message.contains("`production` is not the id of an instance"), "{message}");
}

fn drilled(checks: u64, wrong: usize) -> Drilled {
    let check = |n| Check {
        collection: (n > 0).then(|| "docs".parse().unwrap()),
        aspect: if n > 0 { Aspect::Count } else { Aspect::Aliases },
        outcome: Outcome::Failed,
        detail: format!("wrong {n}"),
    };
    let timing = |phase: &str, seconds| PhaseTiming { phase: phase.to_owned(), seconds };
    Drilled {
        backup_id: id(10),
        passed: wrong == 0,
        checks,
        failed: (0..wrong).map(check).collect(),
        report: None,
        timings: vec![timing("download", 1.5), timing("verify", 0.25)],
    }
}

fn verdict(drilled: &Drilled) -> Value {
    json!({"operation": "verdict", "drilled": drilled})
}

#[tokio::test]
async fn a_restore_that_is_what_was_recorded_is_summed_up() {
    let world = World::new();
    let reply = call(&world, verdict(&drilled(12, 0))).await.unwrap();
    assert_eq!(
        reply.body,
        json!({"backup_id": "20261123T051000Z", "passed": true, "checks": 12, "seconds": 1.75})
    );
    assert_eq!(counted(&reply), [("DrillChecks", json!(12)), ("RestoreSeconds", json!(1.75))].into());
    assert_eq!(call(&world, verdict(&drilled(12, 0))).await.unwrap(), reply);
}

#[tokio::test]
async fn what_came_out_wrong_is_named() {
    let one = drilled(12, 1);
    let many = drilled(12, 8);
    let silent = Drilled { passed: false, ..drilled(12, 0) };
    let contradicting = Drilled { passed: true, ..drilled(12, 1) };
    for (drilled, says) in [
        (one, "is not what was recorded: aliases: wrong 0; hint"),
        (many, "count of collection `docs`: wrong 4; and 3 more; hint"),
        (silent, "does not say which"),
        (contradicting, "aliases: wrong 0"),
        (super::tests::drilled(0, 0), "no comparison was made"),
    ] {
        let (kind, message) = told(call(&World::new(), verdict(&drilled)).await);
        assert_eq!(kind, FailureKind::VerificationFailed);
        assert!(message.contains(says), "{message}");
    }
}

fn outcome(judged: Value, failure: Value) -> Value {
    json!({
        "operation": "outcome", "drill": {"backup_id": id(10), "reason": "the pointer names it"}, "judged": judged,
        "failure": failure, "execution": "drill-1", "started_at": minute(100),
    })
}

#[tokio::test]
async fn every_drill_is_counted_once_as_the_one_or_the_other() {
    let world = World::new();
    let passed = json!({"verdict": {"backup_id": id(10), "passed": true, "checks": 12, "seconds": 1.75}});
    let failed = json!({"Error": "VerificationFailed", "Cause": "…"});
    for (judged, failure, kind) in [
        (passed.clone(), json!({}), None),
        (json!({}), failed.clone(), Some("VerificationFailed")),
        // A verdict is no success where something failed after it.
        (passed, failed, Some("VerificationFailed")),
        (json!({}), json!({"Error": null, "Cause": null}), Some("(no name)")),
    ] {
        let reply = call(&world, outcome(judged, failure)).await.unwrap();
        let (ok, bad) = (u64::from(kind.is_none()), u64::from(kind.is_some()));
        assert_eq!(
            counted(&reply),
            [("DrillPassed", json!(ok)), ("DrillFailed", json!(bad)), ("DrillSeconds", json!(1200.0))].into()
        );
        assert_eq!(reply.body["failure"], json!(kind));
        let property =
            |name| reply.properties.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        assert_eq!(property("FailureKind"), kind);
        assert_eq!(
            (property("BackupId"), property("Execution")),
            (Some("20261123T051000Z"), Some("drill-1"))
        );
    }
    let mut early = outcome(json!({}), json!({"Error": "ManifestMissing", "Cause": "…"}));
    early["drill"] = json!({});
    let reply = call(&world, early).await.unwrap();
    assert_eq!(
        reply.body,
        json!({"passed": false, "backup_id": null, "failure": "ManifestMissing", "seconds": 1200.0})
    );

    let (kind, message) = told(call(&world, outcome(json!({}), json!({}))).await);
    assert_eq!(kind, FailureKind::Internal);
    assert!(message.contains("drill drill-1 has neither a verdict nor a failure"), "{message}");
}
