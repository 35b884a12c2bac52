//! What a watch on the host sees of it, minute by minute: before, while and after it brings itself up.

use std::collections::BTreeMap;

use localcloud::s3::Operation;
use serde_json::Value;

use super::harness::Replaced;
use crate::harness::{finish, says};

/// The data that would be put to CloudWatch, by name.
async fn metrics(host: &Replaced) -> BTreeMap<String, f64> {
    let looked = finish(&mut host.instance.worker(&["health", "--cloudwatch"])).await;
    assert_eq!(looked.code(), Some(0), "{}{}", looked.stdout, looked.stderr);
    assert_eq!(looked.stdout.trim_end().lines().count(), 1, "{}", looked.stdout);
    let data: Vec<Value> = serde_json::from_str(&looked.stdout).unwrap();
    for datum in &data {
        assert_eq!(datum.as_object().unwrap().keys().collect::<Vec<_>>(), ["MetricName", "Unit", "Value"]);
    }
    data.iter()
        .map(|datum| (datum["MetricName"].as_str().unwrap().to_owned(), datum["Value"].as_f64().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_watched_from_its_first_minute() {
    let host = Replaced::small().await;
    let before = metrics(&host).await;
    assert_eq!((before["QdrantReady"], before["HostHeld"]), (0.0, 0.0), "{before:?}");
    assert!(before["BootingSeconds"] > 0.0, "{before:?}");
    assert_eq!(before.get("DiskUsedPercent"), None, "the disks are not mounted");

    host.fixture.cloud.s3.faults().deny(Operation::GetObject, protocol::key::POINTER);
    let boot = host.start();
    host.until_held("StoreUnavailable").await;
    let held = metrics(&host).await;
    assert_eq!((held["QdrantReady"], held["HostHeld"]), (0.0, 1.0), "{held:?}");
    assert!((0.0..=100.0).contains(&held["DiskUsedPercent"]), "{held:?}");
    let told = finish(&mut host.instance.worker(&["health"])).await;
    assert_eq!(told.code(), Some(1), "{}{}", told.stdout, told.stderr);
    assert!(
        told.stdout.contains("does not serve") && told.stdout.contains("StoreUnavailable"),
        "{}",
        told.stdout
    );

    host.fixture.cloud.s3.faults().clear();
    boot.finished().await.success().unwrap();
    let serving = metrics(&host).await;
    let expected = [("QdrantReady", 1.0), ("HostHeld", 0.0), ("HostDegraded", 0.0), ("BootingSeconds", 0.0)];
    for (name, value) in expected {
        assert_eq!(serving[name], value, "{name}: {serving:?}");
    }
    let measured = host.record().unwrap()["serving_after_seconds"].as_f64().unwrap();
    assert_eq!(serving["BootSeconds"], measured, "{serving:?}");
    let told = host.ok(&["health"]).await;
    assert_eq!(told["good"], true, "{told:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_that_is_away_or_has_another_key_is_not_ready() {
    let host = Replaced::small().await;
    host.boots().await;
    let other = finish(
        host.instance.worker(&["health", "--json"]).env("QDRANT_BACKUP_QDRANT_API_KEY_FILE", "/no/such/file"),
    )
    .await;
    assert_eq!(other.code(), Some(1), "{}{}", other.stdout, other.stderr);
    assert!(other.stdout.contains("/no/such/file"), "{}", other.stdout);

    host.instance.power_cut().await;
    let away = host.instance.run(&["health"]).await.unwrap();
    let seen: Value = serde_json::from_str(&away.stdout).unwrap();
    assert_eq!(
        (seen["qdrant"]["ready"].as_bool(), seen["boot"]["booting_seconds"].as_f64()),
        (Some(false), Some(0.0)),
        "{seen:#}"
    );
    says(&seen, &["problem"]);
}
