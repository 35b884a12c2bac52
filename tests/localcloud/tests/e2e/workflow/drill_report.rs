//! What a drill leaves behind: a report for people and one for programs, and a proof beside the backup.

use std::time::Duration;

use localcloud::{
    instance::{Instance, InstanceOptions},
    qdrant::{Fault, When},
};
use protocol::{DrillReport, drill::DrillOutcome};
use serde_json::{Value, json};

use super::{drilling::BRISK, harness::Flow};
use crate::harness::{archive, id, program};

/// The reports that are stored, oldest first, each with the page beside it.
async fn reports(flow: &Flow) -> Vec<(DrillReport, String)> {
    let keys = flow.fixture.keys().await;
    let keys = keys.iter().filter(|key| protocol::key::parse_drill(key).is_some());
    keys.map(|key| {
        let path = flow.fixture.cloud.object_path(key);
        let page = fs_err::read_to_string(path.with_extension("html")).unwrap();
        (DrillReport::from_json(&fs_err::read(path).unwrap()).unwrap(), page)
    })
    .collect()
}

async fn listed_proof(flow: &Flow) -> Value {
    flow.fixture.ok("list").await["backups"][0]["proof"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_has_a_report_and_the_backup_a_proof() {
    let (flow, backup) = Flow::with_backup(BRISK).await;
    assert_eq!(listed_proof(&flow).await, Value::Null);
    for drills in 1..=2_usize {
        let drilled = flow.drill(json!({})).await;
        flow.succeeded(&drilled);
        let stored = reports(&flow).await;
        assert_eq!(stored.len(), drills);
        let (report, page) = stored.last().unwrap();
        assert_eq!(report.outcome, DrillOutcome::Passed);
        assert_eq!(report.earlier.len(), drills - 1, "a drill looks back on those before");
        assert_eq!(report.backup_id.to_string(), id(&backup));
        let restored = report.backup.as_ref().unwrap();
        assert_eq!((restored.key.as_str(), restored.published), (archive(&backup).as_str(), true));
        let counts: Vec<_> =
            report.collections.iter().map(|docs| (docs.name.as_str(), docs.points)).collect();
        assert_eq!(counts, [("docs", Some(60)), ("notes", Some(20))]);
        assert!(
            report.collections.iter().all(|collection| collection.searches.of > 0),
            "{:?}",
            report.collections
        );
        assert!(
            page.contains("restores, and is what was recorded.") && page.contains(&restored.sha256),
            "{page}"
        );
        assert_eq!(listed_proof(&flow).await[0], "fast-enough");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_restores_nothing_says_how_far_it_came_and_proves_nothing() {
    let (flow, backup) = Flow::with_backup(BRISK).await;
    flow.fixture.cloud.s3.corrupt(localcloud::cloud::BUCKET, &archive(&backup), 2000, 0x40).unwrap();
    let damaged = flow.drill(json!({})).await;
    flow.drill_has_failed(&damaged, "ArchiveCorrupt", &["is damaged"]).await;
    let (report, page) = reports(&flow).await.pop().unwrap();
    let DrillOutcome::Failed { kind, message, .. } = &report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(*kind, protocol::FailureKind::ArchiveCorrupt);
    assert!(message.contains(&archive(&backup)), "{message}");
    assert!(page.contains("was not restored.") && page.contains("ArchiveCorrupt"), "{page}");
    assert_eq!(listed_proof(&flow).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_cannot_be_stored_does_not_change_what_was_found() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    flow.fixture.cloud.s3.faults().deny(localcloud::s3::Operation::PutObject, protocol::key::DRILLS);
    let drilled = flow.drill(json!({})).await;
    flow.succeeded(&drilled);
    assert_eq!(reports(&flow).await.len(), 0);
    assert_eq!(listed_proof(&flow).await[0], "fast-enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staging_host_that_starts_its_own_qdrant_is_timed_from_that_to_warm() {
    let (flow, backup) = Flow::with_backup(BRISK).await;
    let dir = flow.fixture.cloud.dir().join("staging-instance");
    fs_err::create_dir_all(&dir).unwrap();
    // Configured for the next minor version: a drill is in the backup's.
    let image = "qdrant/qdrant:v1.19.0-unprivileged".to_owned();
    let options = InstanceOptions { role: "staging", image, ..InstanceOptions::default() };
    let staging = Instance::launch(&dir, &program(), &flow.fixture.cloud.s3, options).unwrap();
    flow.workflow.staging.on_boot(staging.lend());
    let drilled = flow.drill(json!({})).await;
    flow.succeeded(&drilled);
    let started = staging.docker.started();
    let [(image, place)] = started.as_slice() else { panic!("{started:?}") };
    assert_eq!((image.as_str(), place.ip().to_string().as_str()), (localcloud::instance::IMAGE, "127.0.0.1"));
    let (report, page) = reports(&flow).await.pop().unwrap();
    let phases: Vec<&str> = report.timeline.iter().map(|timing| timing.phase.as_str()).collect();
    assert_eq!((phases.first(), phases.last()), (Some(&"start"), Some(&"warm-up")), "{phases:?}");
    assert!(report.warm_up.is_some() && page.contains("warm"), "{:?}", report.warm_up);
    assert_eq!(report.backup_id.to_string(), id(&backup));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_is_gone_on_with_proves_the_data_and_not_the_time() {
    let (flow, _) = Flow::with_backup(BRISK).await;
    let dir = flow.fixture.cloud.dir().join("staging-instance");
    fs_err::create_dir_all(&dir).unwrap();
    let options = InstanceOptions { role: "staging", ..InstanceOptions::default() };
    let staging = Instance::launch(&dir, &program(), &flow.fixture.cloud.s3, options).unwrap();
    flow.workflow.staging.on_boot(staging.lend());
    // `docs` is there and `notes` is being recovered when the worker is killed.
    let pause = Fault::RecoverPauses(Duration::from_secs(2));
    staging.docker.qdrant_faults().inject(When::next_of("notes"), pause);
    let execution = flow.start_drill(&json!({}));
    let half = async {
        while staging.private_client().count("docs").await.ok() != Some(60) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), half).await.expect("`docs` is restored");
    let instance = flow.alive().pop().unwrap().id;
    assert!(flow.workflow.ssm.kill_all_processes(&instance).unwrap() > 0, "there is no worker");
    let drilled = flow.ended(&execution).await;
    flow.succeeded(&drilled);
    assert_eq!(flow.attempts(&execution, "RestoreAndVerify"), ["States.Timeout", "done"]);
    let (report, page) = reports(&flow).await.pop().unwrap();
    assert!(report.resumed && report.passed(), "{report:#?}");
    assert!(page.contains("An earlier attempt had done a part of it"), "{page}");
    assert_eq!(report.as_earlier(), None);
    assert_eq!(listed_proof(&flow).await[0], "searched");
}
