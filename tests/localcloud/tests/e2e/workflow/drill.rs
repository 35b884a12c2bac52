//! Restore drills with their real parts: what goes well, what is found, and who is refused.

use std::time::Duration;

use functions::Function;
use localcloud::{
    cloud::BUCKET,
    lambda::{Effect, FunctionError},
    qdrant::{Fault, When},
    ssm::Operation,
    workflow::{INSTANCE, TAG},
};
use protocol::task::parameter;
use serde_json::json;

use super::{
    drilling::{BRISK, QUICK, WAY},
    harness::Flow,
};
use crate::harness::{archive, id, next_second, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_proved_on_a_host_that_is_gone_afterwards_and_a_damaged_one_is_not() {
    let (flow, backup) = Flow::with_backup(BRISK).await;
    let drilled = flow.drill(json!({})).await;
    flow.succeeded(&drilled);
    assert_eq!(flow.distinct_states(&drilled.arn), WAY);
    let output = drilled.output.unwrap();
    assert_eq!(output["drill"]["backup_id"], backup["backup_id"]);
    assert_eq!(output["drill"]["version_id"], backup["version_id"]);
    let verdict = &output["judged"]["verdict"];
    assert_eq!((&verdict["backup_id"], &verdict["passed"]), (&backup["backup_id"], &json!(true)));
    assert!(verdict["checks"].as_u64().unwrap() > 3, "{verdict}");
    assert_eq!(flow.counted(), [(true, None)]);
    flow.assert_no_staging().await;
    assert_eq!(flow.workflow.sns.messages(), []);
    assert_eq!(flow.fixture.count("docs").await, 60, "the production host is not touched");
    assert_eq!(flow.workflow.events.starts(), [], "nobody has to look for what is left");

    let [instance] = flow.workflow.ec2.instances().try_into().unwrap();
    let tag = |key: &str| instance.tags[key].as_str();
    assert_eq!(tag("QdrantBackup"), "staging");
    assert_eq!(tag("qdrant-backup:execution"), drilled.arn);
    assert_eq!(tag("qdrant-backup:backup"), id(&backup));
    assert!(tag("qdrant-backup:started-at").parse::<jiff::Timestamp>().is_ok());

    let key = archive(&backup);
    flow.fixture.cloud.s3.corrupt(BUCKET, &key, 2000, 0x40).unwrap();
    let damaged = flow.drill(json!({})).await;
    flow.drill_has_failed(&damaged, "ArchiveCorrupt", &[&key, "is damaged", "hint: "]).await;
    // The drill has terminated its host: whoever looks for it finds nothing, and says nothing.
    flow.succeeded(&flow.janitor(1).await);
    assert_eq!(flow.subjects(), ["qdrant-backup: a restore drill failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_drill_is_of_an_older_backup_and_a_retry_of_the_one_that_was_chosen() {
    let (flow, old) = Flow::with_backup(BRISK).await;
    next_second().await;
    let newer = flow.fixture.backup().await;
    let random = flow.drill(json!({ "mode": "RANDOM" })).await;
    flow.succeeded(&random);
    let drill = random.output.unwrap()["drill"].clone();
    assert_eq!(drill["backup_id"], old["backup_id"]);
    assert!(drill["reason"].as_str().unwrap().contains("never proved"), "{drill}");

    let (execution, instance) = flow.drilling().await;
    flow.fixture.cloud.s3.faults().clear();
    next_second().await;
    let newest = flow.fixture.backup().await;
    assert_eq!(flow.fixture.pointer().await.as_deref(), Some(id(&newest)));
    assert!(flow.workflow.ssm.kill_all_processes(&instance).unwrap() > 0, "there is no worker");
    let drilled = flow.ended(&execution).await;
    flow.succeeded(&drilled);
    assert_eq!(flow.attempts(&execution, "RestoreAndVerify"), ["States.Timeout", "done"]);
    assert_eq!(drilled.output.unwrap()["judged"]["verdict"]["backup_id"], newer["backup_id"]);
    let commands = flow.workflow.ssm.commands();
    let drilled: Vec<_> =
        commands.iter().map(|command| command.parameters[parameter::BACKUP_ID][0].as_str()).collect();
    assert_eq!(drilled, [id(&old), id(&newer), id(&newer)]);
    flow.assert_no_staging().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_not_what_was_recorded_is_a_verdict_and_names_what_differs() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    // Somebody deletes points while the restore runs.
    flow.workflow.staging.on_boot(|qdrant, _host| {
        let pause = Fault::RecoverPauses(Duration::from_secs(3));
        qdrant.stand_in().unwrap().faults().inject(When::next_of("notes"), pause);
    });
    let execution = flow.start_drill(&json!({}));
    let recovers = |flow: &Flow, instance: &str| {
        let asked = |qdrant: &localcloud::qdrant::Server| {
            let calls = qdrant.stand_in().unwrap().calls();
            calls.iter().any(|call| call.path == "/collections/notes/snapshots/recover")
        };
        flow.workflow.staging.with_qdrant(instance, asked).unwrap_or(false)
    };
    until(|| flow.alive().first().is_some_and(|instance| recovers(&flow, &instance.id))).await;
    let instance = flow.alive().pop().unwrap().id;
    let ids: Vec<_> = crate::harness::corpus().points().take(3).map(|point| point.unwrap().id).collect();
    let deleted = json!({ "points": ids });
    let path = "/collections/docs/points/delete?wait=true";
    flow.staging_client(&instance).call(reqwest::Method::POST, path, Some(&deleted)).await.unwrap();
    let drilled = flow.ended(&execution).await;
    let texts = ["of collection `docs`", "57 points", "hint: ", "do not rely on this backup"];
    flow.drill_has_failed(&drilled, "VerificationFailed", &texts).await;
    let states = flow.states(&execution);
    assert!(
        states.contains(&"Judge".to_owned()),
        "that it differs is what the worker was asked for: {states:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_restore_fails_with_is_told_and_the_host_is_terminated() {
    let (flow, _) = Flow::with_backup(QUICK).await;
    for (nth, kind) in ["LowDisk", "RestoreFailed", "Cancelled"].into_iter().enumerate() {
        let function = Function::VerifyRestore.name().to_owned();
        let error = FunctionError::new(kind, "as scripted");
        // The first call chooses the backup.
        flow.workflow.lambda.faults().on(function).nth(2).inject(Effect::Fail(error));
        let drilled = flow.drill(json!({})).await;
        flow.drill_has_failed(&drilled, kind, &["as scripted"]).await;
        assert_eq!(flow.attempts(&drilled.arn, "RestoreAndVerify"), [kind]);
        assert_eq!(flow.workflow.ec2.instances().len(), nth + 1);
    }
    assert_eq!(flow.workflow.ssm.count(Operation::SendCommand), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_may_be_of_production_is_refused_twice_over() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    // By its tag.
    flow.workflow.staging.on_boot(|_qdrant, host| {
        let (key, value) = TAG.split_once('=').unwrap();
        host.tags.insert(key.to_owned(), value.to_owned());
    });
    let tagged = flow.drill(json!({})).await;
    let texts =
        ["has the tag `QdrantBackup=production` of production hosts, where no drill is run", "hint: "];
    flow.drill_has_failed(&tagged, "ConfigInvalid", &texts).await;
    assert!(flow.workflow.ssm.commands().is_empty(), "nobody was sent anything");

    // By its own settings.
    flow.workflow.staging.on_boot(|_qdrant, host| {
        host.env.insert("QDRANT_BACKUP_HOST_ROLE".to_owned(), "production".to_owned());
    });
    let set = flow.drill(json!({})).await;
    flow.drill_has_failed(&set, "ConfigInvalid", &["host-role = \"staging\""]).await;
    assert_eq!((flow.fixture.count("docs").await, flow.fixture.count("notes").await), (60, 20));
    assert!(flow.workflow.ssm.environment(INSTANCE).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_backup_nothing_is_launched() {
    let (flow, backup) = Flow::with_backup(QUICK).await;
    let s3 = flow.fixture.cloud.s3.client().await;
    let delete = s3.delete_object().bucket(BUCKET).key(archive(&backup));
    delete.version_id(backup["version_id"].as_str().unwrap()).send().await.unwrap();
    let gone = flow.drill(json!({})).await;
    flow.drill_has_failed(&gone, "ManifestMissing", &[&archive(&backup)]).await;
    let mistyped = flow.drill(json!({ "mode": "OLDEST" })).await;
    flow.drill_has_failed(&mistyped, "ConfigInvalid", &["unknown variant `OLDEST`", "NEWEST|RANDOM"]).await;
    let unreadable = flow.drill(json!(["RANDOM"])).await;
    flow.drill_has_failed(&unreadable, "ConfigInvalid", &["it is not an object"]).await;
    assert_eq!(flow.workflow.ec2.calls(), [], "EC2 is not even asked");
}
