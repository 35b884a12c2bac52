//! Qdrant refuses, fails, dies, changes under the backup's hands, or says what is not so.

use std::time::Duration;

use localcloud::{
    cloud::Finished,
    qdrant::{Change, Condition, Damage, Fault, QdrantOptions, Trickle, Via, When},
    s3::{Effect, Operation},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ALIAS, Fixture, corpus, encoded, failed, finish, id, next_second, says};

const SNAPSHOTS: &str = "/collections/{collection_name}/snapshots";

/// How often Qdrant was asked to take a snapshot.
fn snapshots_asked(fixture: &Fixture) -> usize {
    let calls = fixture.stand_in().calls();
    calls.iter().filter(|call| call.method == "POST" && call.route == SNAPSHOTS).count()
}

/// A Qdrant that takes its time for a snapshot: a second or two for `docs` of the small fixture.
fn slow() -> QdrantOptions {
    QdrantOptions { snapshot_bytes_per_second: Some(300_000), ..QdrantOptions::default() }
}

/// Names of the collections in a manifest.
fn names(manifest: &Value) -> Vec<&str> {
    manifest["collections"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_or_none_is_said_to_be_that() {
    let fixture = Fixture::small().await;
    let path = fixture.cloud.work_dir().with_extension("other-key");
    let option = format!("--qdrant-api-key-file {}", path.display());
    for (key, kind, code, text) in [
        ("mistyped", "QdrantUnauthorized", 1, "the worker needs the read-write key"),
        (localcloud::cloud::READ_ONLY_KEY, "QdrantUnauthorized", 1, "the worker needs the read-write key"),
        ("", "ConfigInvalid", 2, "qdrant-api-key-file"),
    ] {
        fs_err::write(&path, key).unwrap();
        says(&fixture.fails(&format!("backup --no-quiesce {option}"), kind, code).await, &[text]);
        fixture.assert_nothing_left().await;
    }
    let finished =
        finish(fixture.command("backup --no-quiesce").env_remove("QDRANT_BACKUP_QDRANT_API_KEY_FILE")).await;
    says(&failed(&finished, "QdrantUnauthorized", 1), &["QDRANT__SERVICE__API_KEY"]);
    fixture.assert_nothing_left().await;

    fixture.backup().await;
    fs_err::write(&path, localcloud::cloud::READ_ONLY_KEY).unwrap();
    says(
        &fixture.fails(&format!("restore --as -x {option}"), "QdrantUnauthorized", 1).await,
        &["read-write key"],
    );
    assert_eq!(fixture.collections().await, ["docs", "notes"]);
    assert_eq!(fixture.snapshot_files().len(), 0);
    for key in ["mistyped", localcloud::cloud::READ_ONLY_KEY] {
        fs_err::write(&path, key).unwrap();
        let doctor = fixture.run(&format!("doctor {option}")).await;
        assert_eq!(doctor.code(), Some(1), "{}", doctor.stdout);
        says(&doctor.json().unwrap(), &["API key", "read-write key"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_that_is_down_is_unavailable() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.cloud.qdrant.kill().await.unwrap();
    for line in ["backup", "restore"] {
        let said = fixture.fails(line, "QdrantUnavailable", 1).await;
        assert_eq!(said["transient"], true);
        says(&said, &["no connection", "the container running"]);
    }
    assert_eq!(fixture.run("doctor").await.code(), Some(1));
    fixture.ok("verify --archive").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused() {
    let fixture =
        Fixture::small_with(QdrantOptions { version: "1.15.1".to_owned(), ..QdrantOptions::default() }).await;
    let said = fixture.fails("backup --no-quiesce", "QdrantUnsupported", 1).await;
    says(&said, &["Qdrant 1.15.1 is not supported", "upgrade Qdrant"]);
    assert_eq!(snapshots_asked(&fixture), 0);
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_would_come_back_empty_is_refused() {
    let fixture = Fixture::small().await;
    let config = json!({ "vectors": { "size": 4, "distance": "Dot" }, "sharding_method": "custom" });
    fixture.call(Method::PUT, "/collections/sharded", config).await;
    let said = fixture.fails("backup --no-quiesce", "CollectionUnsupported", 1).await;
    says(&said, &["collection `sharded` uses custom sharding", "leave the collection out"]);
    assert_eq!(snapshots_asked(&fixture), 0, "refused before anything was taken");
    fixture.assert_nothing_left().await;
    let doctor = fixture.run("doctor").await;
    assert_eq!(doctor.code(), Some(1), "{}", doctor.stdout);
    says(&doctor.json().unwrap(), &["collection `sharded` uses custom sharding"]);
    fixture.ok("backup --no-quiesce --collection docs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_killed_in_mid_snapshot_is_waited_for_and_the_loss_is_named() {
    let mut fixture = Fixture::small().await;
    fixture.stand_in().faults().inject(When::next_of("docs"), Fault::DieInSnapshot { after_bytes: 10_000 });
    let worker = fixture.start("backup --no-quiesce");
    fixture.until_qdrant_is_asked("POST", "/collections/docs/snapshots").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    fixture.cloud.qdrant.restart().await.unwrap();
    let said = failed(&worker.finished().await, "SnapshotFailed", 1);
    assert_eq!(said["transient"], true);
    says(&said, &["Qdrant ended the snapshot of collection `docs` without a result", "log"]);
    assert_eq!(snapshots_asked(&fixture), 1, "never repeated blindly");
    fixture.assert_nothing_left().await;
    fixture.backup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_is_not_tried_again_and_leaves_nothing() {
    let fixture = Fixture::small().await;
    let faults = fixture.stand_in().faults();
    for (number, (fault, kind, texts)) in [
        (
            Fault::SnapshotFails { after_bytes: 5_000 },
            "SnapshotFailed",
            ["take a snapshot of collection `notes`", "scripted failure", "Qdrant's log"],
        ),
        (
            Fault::SnapshotFillsDisk { after_bytes: 5_000 },
            "LowDisk",
            ["take a snapshot of collection `notes`", "No space left", "free space on the disk"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        faults.inject(When::next_of("notes"), fault);
        says(&fixture.fails("backup --no-quiesce", kind, 1).await, &texts);
        assert_eq!(snapshots_asked(&fixture), 2 * (number + 1));
        fixture.assert_nothing_left().await;
    }
    faults.set(Condition::DiskFull);
    says(
        &fixture.fails("backup --no-quiesce", "LowDisk", 1).await,
        &["take a snapshot of collection `docs`"],
    );
    faults.clear();
    fixture.backup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_or_late_is_waited_for_and_the_snapshot_taken_once() {
    let mut fixture = Fixture::small_with(slow()).await;
    let faults = fixture.stand_in().faults();
    faults.inject(When::next_of("docs"), Fault::SnapshotReplyLost(Duration::from_millis(50)));
    faults.inject(When::next_of("notes"), Fault::SnapshotReplyDelayed(Duration::from_millis(500)));
    let manifest = fixture.backup().await;
    assert_eq!(snapshots_asked(&fixture), 2);
    assert_eq!(names(&manifest), ["docs", "notes"]);
    assert_eq!(fixture.snapshot_files().len(), 0);
    fixture.restores().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_already_runs_is_adopted() {
    let mut fixture = Fixture::small_with(slow()).await;
    fixture.call(Method::POST, "/collections/docs/snapshots?wait=false", json!({})).await;
    let manifest = fixture.backup().await;
    assert_eq!(snapshots_asked(&fixture), 2, "the one that ran, and the one of `notes`");
    let calls = fixture.stand_in().calls();
    let docs: Vec<_> = calls
        .iter()
        .filter(|call| call.method == "POST" && call.path == "/collections/docs/snapshots")
        .collect();
    assert_eq!(docs.len(), 1, "{docs:?}");
    assert_eq!(names(&manifest), ["docs", "notes"]);
    fixture.restores().await;
}

/// What a damaged snapshot file ends in, by when it is damaged.
async fn assert_torn(fixture: &Fixture, finished: &Finished, kind: &str, texts: &[&str]) {
    says(&failed(finished, kind, 1), texts);
    fixture.stand_in().faults().clear();
    // Whoever takes a snapshot away and leaves its checksum makes Qdrant forget both.
    for path in fixture.snapshot_files() {
        let snapshot = path.with_extension("");
        if path.extension().is_some_and(|extension| extension == "checksum") && !snapshot.exists() {
            fs_err::remove_file(path).unwrap();
        }
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_what_qdrant_said_is_not_stored() {
    let fixture = Fixture::small().await;
    for (damage, kind, texts) in [
        (Damage::Vanishes, "SnapshotFailed", ["open the source", "docs-"]),
        (Damage::ShrinksTo(1_000), "SnapshotFailed", ["changed", "and has 1000"]),
        (Damage::Grows(77), "SnapshotFailed", ["changed", "docs-"]),
        (Damage::BitFlip, "ChecksumMismatch", ["the source of `snapshots/docs/docs-", "check the disk"]),
    ] {
        // While `notes` is still being taken, the finished one of `docs` is damaged.
        let delay = Fault::SnapshotReplyDelayed(Duration::from_secs(1));
        fixture.stand_in().faults().inject(When::next_of("notes"), delay);
        fixture.stand_in().clear_calls();
        let worker = fixture.start("backup --no-quiesce");
        fixture.until_qdrant_is_asked("POST", "/collections/notes/snapshots").await;
        let [snapshot] = fixture.snapshots_of("docs").try_into().unwrap();
        fixture.stand_in().damage_snapshot("docs", &snapshot, damage).unwrap();
        assert_torn(&fixture, &worker.finished().await, kind, &texts).await;
    }
    fixture.stand_in().faults().inject(When::next_of("notes"), Fault::WrongChecksum);
    let finished = fixture.run("backup --no-quiesce").await;
    assert_torn(
        &fixture,
        &finished,
        "ChecksumMismatch",
        &["the source of `snapshots/notes/notes-", "has SHA-256"],
    )
    .await;
    fixture.backup().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_gone_or_cut_at_once_is_told_from_a_wrong_directory() {
    let fixture = Fixture::small().await;
    for (damage, texts) in [
        (Damage::Vanishes, ["snapshot of collection `docs` without a result", "log"]),
        (Damage::ShrinksTo(10), ["has 10 bytes, but Qdrant made it with", "must stay as it is"]),
    ] {
        let faults = fixture.stand_in().faults();
        faults.inject(When::next_of("docs"), Fault::SnapshotFile { damage, after: Duration::ZERO });
        // So that the damage is there before the answer is.
        faults.inject(When::next_of("docs"), Fault::SnapshotReplyDelayed(Duration::from_millis(200)));
        assert_torn(&fixture, &fixture.run("backup --no-quiesce").await, "SnapshotFailed", &texts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_changes_while_it_is_uploaded_is_not_completed() {
    let fixture = Fixture::small().await;
    for (damage, text) in [
        (Damage::Vanishes, "open the source"),
        (Damage::ShrinksTo(1_000), "and has 1000"),
        (Damage::BitFlip, "it was written to"),
    ] {
        let _seen = fixture.cloud.s3.take_calls();
        // The sources have been looked at by then, and not been read.
        let stall = Effect::Stall(Duration::from_millis(600));
        fixture.cloud.s3.faults().on(Operation::CreateMultipartUpload).inject(stall);
        let worker = fixture.start("backup --no-quiesce");
        fixture.until_asked(Operation::CreateMultipartUpload).await;
        let [snapshot] = fixture.snapshots_of("docs").try_into().unwrap();
        fixture.stand_in().damage_snapshot("docs", &snapshot, damage).unwrap();
        assert_torn(&fixture, &worker.finished().await, "SnapshotFailed", &[text, "must stay as it is"])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_set_is_taken_again_and_is_then_right() {
    let mut fixture = Fixture::small().await;
    let faults = fixture.stand_in().faults();
    let config = json!({ "vectors": { "size": 4, "distance": "Dot" } });
    faults.inject(When::next_of("docs"), Fault::Change(Change::Create("late".to_owned(), config)));
    let appeared = fixture.backup().await;
    assert_eq!(names(&appeared), ["docs", "late", "notes"]);
    assert_eq!(fixture.snapshot_files().len(), 0, "those of the first round are gone too");

    let actions =
        json!({ "actions": [{ "create_alias": { "alias_name": "new", "collection_name": "notes" } }] });
    fixture.stand_in().faults().inject(When::next_of("notes"), Fault::Change(Change::Aliases(actions)));
    next_second().await;
    let aliased = fixture.backup().await;
    assert_eq!(aliased["aliases"], json!({ ALIAS: "docs", "new": "notes" }));

    fixture.stand_in().faults().inject(When::next_of("docs"), Fault::Change(Change::Drop("late".to_owned())));
    next_second().await;
    let dropped = fixture.ok("backup --no-quiesce --force").await["manifest"].clone();
    assert_eq!(names(&dropped), ["docs", "notes"]);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&dropped)));
    fixture.restores().await;
    assert_eq!(fixture.aliases().await, json!({ ALIAS: "docs", "new": "notes" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_keeps_changing_is_given_up() {
    let fixture = Fixture::small().await;
    for number in 1..=3 {
        let config = json!({ "vectors": { "size": 4, "distance": "Dot" } });
        let change = Change::Create(format!("new-{number}"), config);
        fixture.stand_in().faults().inject(When::nth_of("docs", number), Fault::Change(change));
    }
    let said = fixture.fails("backup --no-quiesce", "SnapshotFailed", 1).await;
    says(
        &said,
        &[
            "collections or aliases were changed",
            "3 times in a row",
            "stop creating, deleting and re-aliasing",
        ],
    );
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_written_during_the_backup_make_the_count_a_range() {
    let mut fixture = Fixture::small_with(slow()).await;
    let writer = fixture.stand_in().start_writer(Trickle {
        collection: "docs".to_owned(),
        every: Duration::from_millis(20),
        batch: 1,
        first_id: 1_000_000,
        via: Via::Grpc,
    });
    // And sampled points change under the sample's hands.
    let changed: Vec<_> = corpus().points().take(5).map(Result::unwrap).collect();
    let points: Vec<Value> = changed
        .iter()
        .map(|p| json!({ "id": p.id, "vector": p.vector, "payload": { "kind": "rewritten" } }))
        .collect();
    let rewrite = Change::Upsert("docs".to_owned(), json!({ "points": points }));
    fixture.stand_in().faults().inject(When::next_of("docs"), Fault::Change(rewrite));
    let manifest = fixture.backup().await;
    assert!(writer.stop().await > 10);
    let docs = &manifest["collections"][0];
    let (before, after) = (docs["points_before"].as_u64().unwrap(), docs["points_after"].as_u64().unwrap());
    assert!(60 <= before && before < after, "{before} to {after}");
    assert_eq!(docs["written_during_backup"], true);
    assert_eq!(manifest["collections"][1]["written_during_backup"], false);
    assert_eq!(manifest["quiesced"], false);

    let restored = fixture.restores().await;
    let restored_count = fixture.count("docs").await;
    assert!((before..=after).contains(&restored_count), "{restored_count}");
    says(
        &restored,
        &[&format!("{restored_count} points, expected {before} to {after} (written to during the backup)")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_do_not_end_are_named() {
    let fixture = Fixture::small().await;
    let writer = fixture.stand_in().start_writer(Trickle {
        collection: "notes".to_owned(),
        every: Duration::from_millis(100),
        batch: 1,
        first_id: 1_000_000,
        via: Via::Rest,
    });
    let said = fixture.fails("backup --quiesce-timeout 5", "NotQuiesced", 1).await;
    assert_eq!(said["transient"], true);
    says(
        &said,
        &[
            "operations are being applied to collection `notes`",
            "write requests are being answered (PUT /points)",
            "--quiesce-timeout",
            "--no-quiesce",
        ],
    );
    assert!(!said["message"].as_str().unwrap().contains("`docs`"), "{said:#}");
    writer.stop().await;
    let stuck = Condition::QueueStuck { collection: "docs".to_owned(), length: 17 };
    fixture.stand_in().faults().set(stuck);
    let said = fixture.fails("backup --quiesce-timeout 1", "NotQuiesced", 1).await;
    says(&said, &["17 updates queued in collection `docs`"]);
    assert_eq!(snapshots_asked(&fixture), 0);
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_ill_is_not_backed_up_over_a_good_backup() {
    let fixture = Fixture::small().await;
    for (condition, text) in [
        (
            Condition::OptimizerError {
                collection: "docs".to_owned(),
                message: "disk quota exceeded".to_owned(),
            },
            "the optimizer of collection `docs` failed: disk quota exceeded",
        ),
        (Condition::Red("notes".to_owned()), "collection `notes` is red"),
    ] {
        fixture.stand_in().faults().set(condition);
        let said = fixture.fails("backup", "Suspicious", 1).await;
        says(&said, &["in no state to be backed up", text, "Qdrant's log"]);
        fixture.stand_in().faults().clear();
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_mode_is_never_taken_for_data() {
    let mut fixture = Fixture::small().await;
    let good = fixture.backup().await;
    fixture.stand_in().faults().set(Condition::RecoveryMode("out of memory".to_owned()));
    fixture.cloud.qdrant.restart().await.unwrap();
    let said = fixture.fails("backup", "Suspicious", 1).await;
    says(&said, &["Qdrant runs in recovery mode, without its data"]);
    let careless = fixture.run("backup --no-quiesce --force").await;
    assert_eq!(careless.code(), Some(1), "{}{}", careless.stdout, careless.stderr);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&good)));
    let doctor = fixture.run("doctor").await;
    assert_eq!(doctor.code(), Some(1));
    says(&doctor.json().unwrap(), &["Qdrant is in recovery mode"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_strict_mode_forbids_is_not_searched_and_not_failed() {
    let mut fixture = Fixture::empty().await;
    let strict = json!({ "enabled": true, "search_allow_exact": false });
    let config = json!({ "vectors": { "size": 384, "distance": "Cosine" }, "strict_mode_config": strict });
    fixture.call(Method::PUT, "/collections/strict", config).await;
    fixture.client().index("strict", corpus().points().take(50)).await.unwrap();
    let manifest = fixture.backup().await;
    assert_eq!(manifest["collections"][0]["golden"]["searches"], 0);
    assert_eq!(manifest["collections"][0]["golden"]["points"], 50);
    let restored = fixture.restores().await;
    let search =
        restored["verdict"]["checks"].as_array().unwrap().iter().find(|c| c["aspect"] == "exact-search");
    let search = search.unwrap();
    assert_eq!(search["outcome"], "skipped", "{restored:#}");
    says(search, &["not searched", "Exact search disabled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_go_through_the_whole_cycle() {
    let mut fixture = Fixture::empty().await;
    let odd = [
        " leading and trailing ",
        "%2e%2e",
        "..hidden..",
        "100%",
        "a.b",
        "naïve 検索 🦀",
        "o'neill & $HOME;ls",
    ];
    for (number, name) in odd.iter().enumerate() {
        fixture.load(name, 20 + number).await;
    }
    fixture.client().create_alias("alias of 検索", "naïve 検索 🦀").await.unwrap();
    let manifest = fixture.backup().await;
    assert_eq!(names(&manifest), odd);
    assert_eq!(fixture.ok("verify --archive").await["passed"], true);
    fixture.restores().await;
    assert_eq!(fixture.collections().await, odd);
    assert_eq!(fixture.aliases().await, json!({ "alias of 検索": "naïve 検索 🦀" }));
    assert_eq!(fixture.ok("verify --data").await["verdict"]["passed"], true);
    for (number, name) in odd.iter().enumerate() {
        assert_eq!(fixture.count(name).await, 20 + number as u64, "{name}");
    }
    let arguments = ["restore", "--collection", "naïve 検索 🦀", "--as", " (copy) %", "--switch-alias"];
    let copied = fixture.cloud.run(arguments).await.unwrap().success().unwrap();
    assert_eq!(copied["collections"], json!([["naïve 検索 🦀", "naïve 検索 🦀 (copy) %"]]));
    assert_eq!(fixture.count("naïve 検索 🦀 (copy) %").await, 25);
    assert_eq!(fixture.snapshot_files().len(), 0);
    let one = fixture
        .cloud
        .run(["backup", "--no-quiesce", "--collection", "%2e%2e"])
        .await
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(names(&one["manifest"]), ["%2e%2e"]);
    assert_eq!(encoded("a b"), "a%20b");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_points_and_an_empty_collection_come_back_as_they_were() {
    let mut fixture = Fixture::small().await;
    fixture.load("empty", 0).await;
    fixture.delete_points("docs", 25).await;
    fixture.backup().await;
    let restored = fixture.restores().await;
    assert_eq!(fixture.count("docs").await, 35);
    assert_eq!(fixture.count("empty").await, 0);
    says(&restored, &["no point was sampled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_replayed_after_a_recovery_is_waited_for() {
    let mut fixture = Fixture::empty().await;
    fixture.load("docs", 300).await;
    fixture.backup().await;
    fixture.replace_host_with(QdrantOptions { background_replay: true, ..QdrantOptions::default() }).await;
    let restored = fixture.ok("restore").await;
    assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
    assert_eq!(fixture.count("docs").await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn local_snapshots_are_kept_as_asked_and_a_persons_own_always() {
    let fixture = Fixture::small().await;
    let own = fixture.call(Method::POST, "/collections/docs/snapshots", json!({})).await;
    let own = own["name"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        next_second().await;
        fixture.ok("backup --no-quiesce --keep-local 1").await;
        assert_eq!(fixture.snapshots_of("docs").len(), 2);
        assert_eq!(fixture.snapshots_of("notes").len(), 1);
    }
    next_second().await;
    fixture.backup().await;
    assert_eq!(fixture.snapshots_of("docs"), [own]);
    assert_eq!(fixture.snapshots_of("notes"), [""; 0]);
}
