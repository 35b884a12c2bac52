use catalog::store::{Fault, Operation};
use protocol::{AttemptId, FailureKind, key, manifest::Origin};
use serde_json::json;

use super::*;
use crate::{
    Function,
    tests::{World, counted, decided, id, layout, manifest, told, with_points},
};

fn event(n: i64, stored: &Stored) -> Value {
    json!({"backup": decided(n), "stored": stored, "execution": "nightly-1"})
}

async fn publish(world: &World, n: i64, stored: &Stored) -> Result<Reply, Error> {
    world.call(Function::PublishManifest, event(n, stored)).await
}

fn named(world: &World) -> Option<BackupId> {
    let bytes = world.bucket.bytes(key::POINTER)?;
    Some(Manifest::from_json(&bytes).unwrap().backup_id)
}

#[tokio::test]
async fn what_is_stored_is_published_once() {
    let world = World::new();
    let stored = world.store(manifest(14));
    let first = publish(&world, 14, &stored).await.unwrap();
    assert_eq!(
        first.body,
        json!({"outcome": "published", "backup_id": "20261123T051400Z", "pointer_moved": true, "forced": []})
    );
    let counts = counted(&first);
    assert_eq!(counts["Published"], json!(1));
    assert_eq!(counts["PublishedBytes"], json!(20_500_000));
    assert_eq!(counts["PublishedPoints"], json!(1000));
    assert_eq!(counts["PublicationAge"], json!(106.0 * 60.0));
    assert_eq!(named(&world), Some(id(14)));

    let again = publish(&world, 14, &stored).await.unwrap();
    assert_eq!(
        again.body,
        json!({"outcome": "already-published", "backup_id": "20261123T051400Z", "pointer_moved": false, "forced": []})
    );
    assert_eq!(counted(&again), [("AlreadyPublished", json!(1))].into());
    assert_eq!(world.bucket.history(key::POINTER).len(), 1);
    assert_eq!(world.bucket.history(&key::manifest(id(14))).len(), 1);
}

#[tokio::test]
async fn two_calls_at_once_come_to_the_same() {
    let world = World::new();
    let stored = world.store(manifest(14));
    world.bucket.set_stepping(true);
    let (a, b) = tokio::join!(publish(&world, 14, &stored), publish(&world, 14, &stored));
    let outcomes = [a.unwrap().body["outcome"].clone(), b.unwrap().body["outcome"].clone()];
    assert!(outcomes.contains(&json!("published")), "{outcomes:?}");
    assert!(
        outcomes.iter().all(|outcome| outcome == "published" || outcome == "already-published"),
        "{outcomes:?}"
    );
    assert_eq!(named(&world), Some(id(14)));
    assert_eq!(world.bucket.history(&key::manifest(id(14))).len(), 1);
}

#[tokio::test]
async fn whatever_reply_is_lost_the_next_call_ends_it() {
    for (operation, part) in [
        (Operation::Get, ".manifest.json"),
        (Operation::Head, ".tar.zst"),
        (Operation::Now, ""),
        (Operation::Put, "manifests/"),
        (Operation::Get, "latest"),
        (Operation::Put, "latest"),
    ] {
        let world = World::new();
        let stored = world.store(manifest(14));
        world.bucket.fail(operation, part, Fault::ReplyLost);
        let (kind, message) = told(publish(&world, 14, &stored).await);
        assert_eq!(kind, FailureKind::StoreUnavailable, "{operation} {part}: {message}");
        publish(&world, 14, &stored).await.unwrap();
        assert_eq!(named(&world), Some(id(14)), "{operation} {part}");
        assert_eq!(world.bucket.history(key::POINTER).len(), 1, "{operation} {part}");
    }
}

#[tokio::test]
async fn an_older_backup_and_a_partial_one_leave_the_pointer() {
    let world = World::new();
    world.publish(manifest(20)).await;
    let stored = world.store(manifest(14));
    for _twice in 0..2 {
        let body = publish(&world, 14, &stored).await.unwrap().body;
        assert_eq!(
            body,
            json!({
                "outcome": "superseded", "by": "20261123T052000Z", "backup_id": "20261123T051400Z", "pointer_moved": false,
                "forced": [],
            })
        );
    }
    let stored = world.store(Manifest { partial: true, ..manifest(25) });
    let mut event = event(25, &stored);
    event["backup"]["collections"] = json!(["docs"]);
    for _twice in 0..2 {
        let reply = world.call(Function::PublishManifest, event.clone()).await.unwrap();
        assert_eq!(
            (&reply.body["outcome"], &reply.body["pointer_moved"]),
            (&json!("partial"), &json!(false))
        );
        assert_eq!(counted(&reply), [("Partial", json!(1))].into());
    }
    assert_eq!(named(&world), Some(id(20)));
}

#[tokio::test]
async fn damage_needs_force() {
    let world = World::new();
    world.publish(manifest(10)).await;
    let origin = Some(Origin { backup_id: None, degraded: true });
    let stored = world.store(Manifest { origin, ..with_points(14, 3) });
    let (kind, message) = told(publish(&world, 14, &stored).await);
    assert_eq!(kind, FailureKind::Suspicious);
    assert!(message.contains("fell from 1000 to 3 points") && message.contains("--force"), "{message}");
    assert_eq!(named(&world), Some(id(10)));

    let mut event = event(14, &stored);
    event["backup"]["force"] = json!(true);
    let body = world.call(Function::PublishManifest, event.clone()).await.unwrap().body;
    assert_eq!(
        (&body["outcome"], &body["forced"]),
        (
            &json!("published"),
            &json!(["the host was started empty (degraded)", "collection `docs` fell from 1000 to 3 points"])
        )
    );
    assert_eq!(
        world.call(Function::PublishManifest, event).await.unwrap().body["outcome"],
        "already-published"
    );
}

#[tokio::test]
async fn nothing_that_is_handed_over_is_believed() {
    type Change = fn(&World, &mut Stored);
    let rows: [(Change, FailureKind, &str); 9] = [
        (
            |world, stored| world.bucket.remove(&stored.key.manifest()),
            FailureKind::ManifestMissing,
            "there is no manifest",
        ),
        (
            |world, stored| drop(world.bucket.insert(&stored.key.manifest(), manifest(15).to_json())),
            FailureKind::ChecksumMismatch,
            "and the host stored",
        ),
        (
            |world, stored| {
                world.bucket.insert(&stored.key.manifest(), "{");
                stored.manifest_sha256 = Manifest::digest(b"{");
            },
            FailureKind::ManifestInvalid,
            "that the host hands over cannot be used",
        ),
        (
            |world, stored| {
                let other = world.store(manifest(15));
                let bytes = world.bucket.bytes(&other.key.manifest()).unwrap();
                world.bucket.insert(&stored.key.manifest(), bytes);
                stored.manifest_sha256 = other.manifest_sha256;
            },
            FailureKind::ManifestInvalid,
            "the manifest's `backup_id` is 20261123T051500Z, not 20261123T051400Z",
        ),
        (|_, stored| stored.backup_id = id(15), FailureKind::ManifestInvalid, "the answer's `backup_id`"),
        (
            |_, stored| stored.key = layout().archive(id(15), AttemptId::from_bits(1)),
            FailureKind::ManifestInvalid,
            "the answer's `key`",
        ),
        (
            |_, stored| {
                let elsewhere = stored.key.to_string().replace(key::DEFAULT_PREFIX, "other/place");
                stored.key = elsewhere.parse().unwrap();
            },
            FailureKind::ManifestInvalid,
            "the answer's `key` is other/place/",
        ),
        (|_, stored| stored.size_bytes += 1, FailureKind::ManifestInvalid, "the manifest's `size_bytes`"),
        (
            |world, stored| {
                let bytes = Manifest { partial: true, ..manifest(14) }.to_json();
                stored.manifest_sha256 = Manifest::digest(&bytes);
                world.bucket.insert(&stored.key.manifest(), bytes);
            },
            FailureKind::ManifestInvalid,
            "the manifest's `partial` is true, not false",
        ),
    ];
    for (change, expected, says) in rows {
        let world = World::new();
        let mut stored = world.store(manifest(14));
        change(&world, &mut stored);
        for _twice in 0..2 {
            let (kind, message) = told(publish(&world, 14, &stored).await);
            assert_eq!(kind, expected, "{message}");
            assert!(message.contains(says), "{says}: {message}");
        }
        assert_eq!(named(&world), None, "{says}");
        assert_eq!(world.bucket.bytes(&key::manifest(id(14))), None, "{says}");
    }
}

#[tokio::test]
async fn a_backup_of_chosen_collections_cannot_call_itself_whole() {
    let world = World::new();
    let stored = world.store(manifest(14));
    let mut event = event(14, &stored);
    event["backup"]["collections"] = json!(["docs"]);
    let (kind, message) = told(world.call(Function::PublishManifest, event).await);
    assert_eq!(kind, FailureKind::ManifestInvalid);
    assert!(message.contains("the manifest's `partial` is false, not true"), "{message}");
    assert_eq!(named(&world), None);
}

#[tokio::test]
async fn the_archive_is_looked_at_before_anything_is_written() {
    let world = World::new();
    let stored = world.store(manifest(14));
    let attributes = catalog::store::Attributes {
        size: stored.size_bytes,
        crc64nvme: Some("rosUhgp5mIg=".to_owned()),
        sse_kms_key_id: Some("arn:aws:kms:eu-central-1:111122223333:key/another".to_owned()),
    };
    // The version that the manifest names is gone, and another lies in its place.
    world.bucket.remove(&stored.key.to_string());
    let (kind, _) = told(publish(&world, 14, &stored).await);
    assert_eq!(kind, FailureKind::ManifestMissing);

    let version = world.bucket.insert_with(&stored.key.to_string(), attributes);
    let bytes = Manifest { version_id: Some(version), ..manifest(14) }.to_json();
    let stored = Stored { manifest_sha256: Manifest::digest(&bytes), ..stored };
    world.bucket.insert(&stored.key.manifest(), bytes);
    let (kind, message) = told(publish(&world, 14, &stored).await);
    assert_eq!(kind, FailureKind::ConfigInvalid);
    assert!(message.contains("key/another"), "{message}");
    assert_eq!(world.bucket.bytes(&key::manifest(id(14))), None);
}

#[tokio::test]
async fn a_store_without_checksums_needs_the_archive_to_have_been_read_back() {
    let world = World::new();
    let mut stored = world.store(manifest(14));
    let attributes = catalog::store::Attributes {
        size: stored.size_bytes,
        crc64nvme: None,
        sse_kms_key_id: Some(crate::tests::KMS_KEY.to_owned()),
    };
    let version = world.bucket.insert_with(&stored.key.to_string(), attributes);
    let bytes = Manifest { version_id: Some(version), ..manifest(14) }.to_json();
    stored.manifest_sha256 = Manifest::digest(&bytes);
    world.bucket.insert(&stored.key.manifest(), bytes);
    assert_eq!(told(publish(&world, 14, &stored).await).0, FailureKind::ChecksumMismatch);
    stored.read_back = true;
    assert_eq!(publish(&world, 14, &stored).await.unwrap().body["outcome"], "published");
}
