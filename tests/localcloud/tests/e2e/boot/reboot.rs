//! Boots again: after a plain reboot, and after every kind of cut.

use localcloud::autoscaling::Effect;
use rustix::process::Signal;
use serde_json::json;

use super::harness::Replaced;
use crate::harness::{corpus, failed};

/// A point that was written after the host served, and accepted.
async fn write(host: &Replaced) {
    let point = json!({"id": 4711, "vector": corpus().points().next().unwrap().unwrap().vector, "payload": {"new": true}});
    let body = json!({"points": [point]});
    let client = host.instance.client();
    client.call(reqwest::Method::PUT, "/collections/notes/points?wait=true", Some(&body)).await.unwrap();
}

async fn assert_written_is_there(host: &Replaced) {
    let client = host.instance.client();
    let point = client.call(reqwest::Method::GET, "/collections/notes/points/4711", None).await.unwrap();
    assert_eq!(point["payload"]["new"], true, "{point}");
    assert_eq!(client.count("notes").await.unwrap(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_restores_nothing_and_loses_nothing() {
    let host = Replaced::small().await;
    host.boots().await;
    write(&host).await;
    for round in 0..2 {
        host.instance.power_cut().await;
        host.fixture.forget_calls();
        let result = host.boots().await;
        assert_eq!(host.downloads(), 0, "round {round}: something was fetched");
        assert_eq!(result["lifecycle"]["state"], "nobody-waits", "{result:#}");
        assert_written_is_there(&host).await;
    }
    // Not even at the private address does it answer before the interface's: two starts for the first boot, one for each of the others.
    assert_eq!(host.instance.docker.started().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_on_a_host_that_serves_changes_nothing() {
    let host = Replaced::small().await;
    host.boots().await;
    write(&host).await;
    let started = host.instance.docker.started().len();
    host.boots().await;
    assert_written_is_there(&host).await;
    assert_eq!(host.instance.docker.started().len(), started, "Qdrant was restarted under its users");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_is_killed_at_any_step_is_gone_on_with() {
    for step in ["choose", "start", "restore", "warm-up", "mark", "serve", "lifecycle"] {
        for power in [false, true] {
            let host = Replaced::small().await;
            let boot = host.start();
            host.until_reached(step).await;
            boot.signal(Signal::KILL);
            boot.finished().await;
            if power {
                host.instance.power_cut().await;
            }
            host.boots().await;
            host.assert_serves_what_was_lost().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_accepted_outlives_a_cut_around_the_marker() {
    // The group cannot be told, so that the boot stands where it serves already and has not ended.
    let host = Replaced::small().await;
    let effects = host.instance.auto_scaling.effects();
    effects.on("CompleteLifecycleAction").times(1000).inject(Effect::Unavailable);
    let boot = host.start();
    host.until_reached("lifecycle").await;
    write(&host).await;
    boot.signal(Signal::KILL);
    boot.finished().await;
    host.instance.power_cut().await;
    host.instance.auto_scaling.effects().clear();
    host.boots().await;
    assert_written_is_there(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_is_asked_to_stop_stops_and_is_gone_on_with() {
    let host = Replaced::small().await;
    let boot = host.start();
    host.until_reached("restore").await;
    boot.signal(Signal::TERM);
    let stopped = boot.finished().await;
    failed(&stopped, "Cancelled", 1);
    host.boots().await;
    host.assert_serves_what_was_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_boots_at_once_are_one() {
    let host = Replaced::small().await;
    let first = host.start();
    host.until_reached("start").await;
    host.fails(&["boot"], "Busy", 1).await;
    first.finished().await.success().unwrap();
    host.assert_serves_what_was_lost().await;
}
