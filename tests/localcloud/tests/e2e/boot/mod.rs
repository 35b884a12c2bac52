//! A host that brings itself up: the real `host-worker boot` on an instance with a disk, Docker and a group that waits.

mod disks;
mod faults;
mod harness;
mod health;
mod holds;
mod reboot;
mod sources;

use localcloud::{
    autoscaling::Standing,
    instance::{ADDRESS, IMAGE},
};

use self::harness::{Replaced, steps};
use crate::harness::{Fixture, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_host_brings_itself_up() {
    let host = Replaced::small().await;
    assert_eq!(host.instance.auto_scaling.standing(), Some(Standing::Waiting));
    let result = host.boots().await;

    assert_eq!(result["record"]["source"]["backup_id"].as_str(), Some(id(&host.manifest)));
    assert_eq!(result["record"]["source"]["degraded"], false, "{result:#}");
    assert_eq!(result["lifecycle"]["state"], "completed");
    assert_eq!(host.instance.auto_scaling.standing(), Some(Standing::InService));
    host.assert_serves_what_was_lost().await;

    // Nobody was served before everything was verified.
    let started = host.instance.docker.started();
    let places: Vec<_> =
        started.iter().map(|(image, place)| (image.as_str(), place.ip().to_string())).collect();
    assert_eq!(places, [(IMAGE, "127.0.0.1".to_owned()), (IMAGE, ADDRESS.to_string())]);
    assert!(host.instance.private_client().count("docs").await.is_err(), "it is served at two addresses");

    // The recovery time is measured, step by step.
    let total = result["record"]["serving_after_seconds"].as_f64().unwrap();
    let sum: f64 = steps(&result).iter().map(|(_, seconds)| seconds).sum();
    assert!(total > 0.0 && sum <= total * 1.05 + 0.1, "{sum} of {total}: {result:#}");
    for step in ["disks", "choose", "room", "start", "restore", "warm-up", "serve", "lifecycle"] {
        assert!(steps(&result).iter().any(|(name, _)| name == step), "{step} has no time: {result:#}");
    }
    assert_eq!(result["record"]["warm_up"]["outcome"], "warm", "{result:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_booted_host_backs_up_moves_the_pointer() {
    let host = Replaced::small().await;
    host.boots().await;
    crate::harness::next_second().await;
    let backup = host.ok(&["backup", "--no-quiesce"]).await;
    assert_eq!(host.fixture.pointer().await.as_deref(), backup["manifest"]["backup_id"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_is_told_to_a_person() {
    let host = Replaced::small().await;
    let told = crate::harness::finish(&mut host.instance.worker(&["boot"])).await;
    assert_eq!(told.code(), Some(0), "{}{}", told.stdout, told.stderr);
    for text in ["serving", id(&host.manifest), "recovery", "told that the host is ready", "warm-up"] {
        assert!(told.stdout.contains(text), "`{text}` is missing: {}", told.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_what_a_boot_says_logs_or_leaves() {
    let host = Replaced::small().await;
    let booted =
        crate::harness::finish(host.instance.worker(&["boot", "--json"]).env("RUST_LOG", "trace")).await;
    assert_eq!(booted.code(), Some(0), "{}{}", booted.stdout, booted.stderr);
    crate::secrets::assert_silent(&host.fixture, "the result of `boot`", booted.stdout.as_bytes());
    crate::secrets::assert_silent(&host.fixture, "the log of `boot`", booted.stderr.as_bytes());
    assert!(booted.stderr.contains("TRACE"), "the log is not at its most talkative");
    for file in crate::harness::files_below(&host.instance.work_dir()) {
        let bytes = fs_err::read(&file).unwrap();
        crate::secrets::assert_silent(&host.fixture, &file.display().to_string(), &bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staging_host_prepares_itself_and_waits_for_a_drill() {
    let fixture = Fixture::small().await;
    fixture.backup().await;
    let host = Replaced::with(fixture, |options| options.role = "staging").await;
    let result = host.ok(&["boot"]).await;
    assert_eq!(result["outcome"], "ready-for-drill");
    assert_eq!(host.instance.docker.started(), []);
}
