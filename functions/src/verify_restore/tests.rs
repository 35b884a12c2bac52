use protocol::{
    FailureKind, key,
    manifest::PhaseTiming,
    verdict::{Aspect, Outcome},
};
use serde_json::json;

use super::*;
use crate::{
    Function,
    tests::{HOST_TAG, STAGING_TAG, World, counted, drill_event, host, id, manifest, tag, told},
};

async fn call(world: &World, event: Value) -> Result<Reply, Error> {
    world.call(Function::VerifyRestore, event).await
}

#[tokio::test(start_paused = true)]
async fn a_drill_is_of_the_published_backup_unless_another_is_named() {
    let world = World::new();
    world.publish(manifest(10)).await;
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

    let mut event = drill_event();
    event["backup_id"] = json!(id(7));
    assert_eq!(call(&world, event).await.unwrap().body["backup_id"], json!(id(7)));

    assert_eq!(call(&world, drill_event()).await.unwrap().body["backup_id"], json!(id(10)));
    assert_eq!(world.hosts.sent()[2].command, sent[0].command);
}

#[tokio::test(start_paused = true)]
async fn without_a_backup_there_is_nothing_to_drill() {
    let world = World::new();
    let (kind, message) = told(call(&world, drill_event()).await);
    assert_eq!(kind, FailureKind::ManifestMissing);
    assert!(message.contains("there is no backup in bucket `memory`"), "{message}");
    world.bucket.insert(key::POINTER, "{");
    assert_eq!(told(call(&world, drill_event()).await).0, FailureKind::ManifestInvalid);
    assert_eq!(world.hosts.sent(), []);
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
    assert_eq!(
        counted(&reply),
        [("DrillPassed", json!(1)), ("DrillChecks", json!(12)), ("DrillSeconds", json!(1.75))].into()
    );
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
