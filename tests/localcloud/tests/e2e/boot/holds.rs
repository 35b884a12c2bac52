//! Where a boot does not go on: it holds, serves nobody, says why, and goes on by itself where that can help.

use std::net::Ipv4Addr;

use localcloud::{autoscaling::Standing, docker::Effect, instance::IMAGE, s3::Operation};
use rustix::process::Signal;

use super::harness::Replaced;
use crate::harness::{Fixture, says};

#[tokio::test(flavor = "multi_thread")]
async fn without_access_to_the_pointer_nothing_starts_and_least_of_all_an_empty_qdrant() {
    let host = Replaced::small().await;
    host.fixture.cloud.s3.faults().deny(Operation::GetObject, protocol::key::POINTER);
    let boot = host.start();
    let held = host.until_held("StoreUnavailable").await;
    says(&held, &["looks_again_at"]);
    assert!(!host.serves().await);
    assert_eq!(host.instance.docker.started(), []);
    assert!(host.instance.auto_scaling.calls().iter().any(|call| call == "RecordLifecycleActionHeartbeat"));
    assert_eq!(host.instance.auto_scaling.standing(), Some(Standing::Waiting), "the group may go on");

    // Somebody repairs the permission, and that is all.
    host.fixture.cloud.s3.faults().clear();
    boot.finished().await.success().unwrap();
    host.assert_serves_what_was_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_is_not_to_hold_ends_with_what_it_would_hold_for() {
    let host = Replaced::small().await;
    host.fixture.cloud.s3.faults().deny(Operation::GetObject, protocol::key::POINTER);
    let said = host.fails(&["boot", "--once"], "StoreUnavailable", 1).await;
    says(&said, &[protocol::key::POINTER]);
    assert_eq!(host.instance.docker.started(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_nobody_knows_is_neither_served_nor_overwritten() {
    let host = Replaced::small().await;
    host.boots().await;
    let record = host.instance.work_dir().join("boot.json");
    fs_err::remove_file(&record).unwrap();
    host.instance.power_cut().await;
    let started = host.instance.docker.started().len();

    let boot = host.start();
    says(&host.until_held("Suspicious").await, &["--adopt", "--replace"]);
    assert!(!host.serves().await);
    assert_eq!(host.instance.docker.started().len(), started);
    boot.signal(Signal::TERM);
    boot.finished().await;

    let adopted = host.ok(&["boot", "--adopt"]).await;
    assert_eq!(adopted["record"]["source"]["from"], "adopted", "{adopted:#}");
    host.assert_serves_what_was_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_typed_replaces_what_is_there() {
    let host = Replaced::small().await;
    host.boots().await;
    let client = host.instance.client();
    client.call(reqwest::Method::DELETE, "/collections/notes", None).await.unwrap();
    assert!(client.count("notes").await.is_err());
    host.ok(&["boot", "--replace"]).await;
    host.assert_serves_what_was_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_needs_something_to_replace_with() {
    let fixture = Fixture::small().await;
    let host = Replaced::with(fixture, |_| {}).await;
    host.boots().await;
    let said = host.fails(&["boot", "--replace"], "ManifestMissing", 1).await;
    says(&said, &["nothing was touched"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_there_is_waited_for() {
    let fixture = Fixture::small().await;
    fixture.backup().await;
    // Of TEST-NET-1: nobody has it.
    let host = Replaced::with(fixture, |options| options.address = Ipv4Addr::new(192, 0, 2, 1)).await;
    let boot = host.start();
    says(&host.until_held("HostUnreachable").await, &["192.0.2.1", "looks_again_at"]);
    assert!(host.record().unwrap()["marker"].is_object(), "the data is ready all the same");
    boot.signal(Signal::TERM);
    crate::harness::failed(&boot.finished().await, "Cancelled", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_that_never_answers_holds_the_boot() {
    for (effect, kind, text) in [
        (Effect::Exits(101), "QdrantUnavailable", "did not start"),
        (Effect::NeverReady, "QdrantUnavailable", "has not answered"),
    ] {
        let host = Replaced::small().await;
        host.instance.docker.effects().on(IMAGE).times(1000).inject(effect);
        let boot = host.start();
        says(&host.until_held(kind).await, &[text]);
        assert!(!host.serves().await);
        assert_eq!(host.downloads_of_archives(), 0, "nothing is fetched for a Qdrant that does not run");
        boot.signal(Signal::TERM);
        boot.finished().await;
        host.instance.docker.effects().clear();
        host.instance.power_cut().await;
        host.boots().await;
        host.assert_serves_what_was_lost().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_named() {
    let host = Replaced::small().await;
    host.instance.docker.remove_image(IMAGE);
    let said = host.fails(&["boot", "--once"], "ConfigInvalid", 2).await;
    says(&said, &[IMAGE, "docker load"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_too_far_away_is_refused_and_the_next_one_taken() {
    for (image, serves) in [
        ("qdrant/qdrant:v1.19.0-unprivileged", true),
        ("qdrant/qdrant:v1.20.0-unprivileged", false),
        ("qdrant/qdrant:v1.17.1-unprivileged", false),
    ] {
        let fixture = Fixture::small().await;
        fixture.backup().await;
        let host = Replaced::with(fixture, |options| image.clone_into(&mut options.image)).await;
        if serves {
            let result = host.boots().await;
            assert_eq!(result["record"]["image"], image);
            host.assert_serves_what_was_lost().await;
            let images: Vec<_> = host.instance.docker.started().into_iter().map(|(image, _)| image).collect();
            assert_eq!(
                images,
                [IMAGE, image, image],
                "the backup's version first, then the configured one, verified before it serves"
            );
        } else {
            let said = host.fails(&["boot", "--once"], "QdrantUnsupported", 1).await;
            says(&said, &["[boot].image"]);
            assert!(!host.serves().await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_comes_while_a_boot_is_held_is_somebody_elses() {
    let host = Replaced::small().await;
    host.fixture.cloud.s3.faults().deny(Operation::GetObject, protocol::key::POINTER);
    let boot = host.start();
    host.until_held("StoreUnavailable").await;
    // Somebody runs a Qdrant by hand meanwhile, and fills it.
    let theirs = host.instance.workspace().join("data/collections/theirs");
    fs_err::create_dir_all(&theirs).unwrap();
    fs_err::write(theirs.join("collection.json"), "{}").unwrap();
    host.fixture.cloud.s3.faults().clear();
    says(&host.until_held("Suspicious").await, &["holds collections", "--adopt"]);
    assert_eq!(host.instance.docker.started(), []);
    boot.signal(Signal::TERM);
    boot.finished().await;
    assert!(theirs.join("collection.json").exists(), "it was removed");
}
