//! Restores that must not happen, that fail half-way, and the proof that finds what is not as it was.

use std::{path::Path, time::Duration};

use localcloud::{
    qdrant::{Fault, QdrantOptions, When},
    s3::Operation,
};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{ALIAS, Fixture, Running, corpus, failed, finish, says};

/// What must be the same before and after a restore that failed: collections with their counts, aliases.
async fn live(fixture: &Fixture) -> Value {
    let mut counts = json!({});
    for name in fixture.collections().await {
        counts[&name] = fixture.count(&name).await.into();
    }
    json!({ "counts": counts, "aliases": fixture.aliases().await })
}

/// A fixture with a backup, whose live data has moved on since.
async fn moved_on() -> (Fixture, Value) {
    let fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.delete_points("docs", 10).await;
    let before = live(&fixture).await;
    (fixture, before)
}

#[tokio::test(flavor = "multi_thread")]
async fn live_data_is_never_in_danger_unless_replace_is_typed() {
    let (fixture, before) = moved_on().await;
    for (line, texts) in [
        ("restore", &["Qdrant is not empty, it has docs, notes", "--as SUFFIX", "--replace"][..]),
        ("restore --collection docs", &["collection `docs` is there already"]),
        ("restore --collection notes", &["collection `notes` is there already"]),
    ] {
        says(&fixture.fails(line, "RestoreFailed", 1).await, texts);
        assert_eq!(live(&fixture).await, before, "{line}");
    }
    says(
        &fixture.fails("restore --collection none", "ConfigInvalid", 2).await,
        &["does not hold collection `none`"],
    );
    fixture.ok("restore --as -copy").await;
    says(
        &fixture.fails("restore --as -copy", "RestoreFailed", 1).await,
        &["collection `docs-copy` is there already"],
    );
    assert_eq!(fixture.count("docs").await, 50);
    assert_eq!(fixture.aliases().await, json!({ ALIAS: "docs" }), "readers see what they saw");
    assert_eq!(fixture.snapshot_files().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_collection_goes_back_into_its_place_or_beside_it() {
    let fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.client().call(Method::DELETE, "/collections/docs", None).await.unwrap();
    let restored = fixture.ok("restore --collection docs").await;
    assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
    assert_eq!(
        live(&fixture).await,
        json!({ "counts": { "docs": 60, "notes": 20 }, "aliases": { ALIAS: "docs" } })
    );

    fixture.delete_points("docs", 10).await;
    let replaced = fixture.ok("restore --replace --collection docs").await;
    assert_eq!(replaced["collections"], json!([["docs", "docs"]]));
    assert_eq!(
        live(&fixture).await,
        json!({ "counts": { "docs": 60, "notes": 20 }, "aliases": { ALIAS: "docs" } })
    );

    let beside = fixture.ok("restore --collection docs --as -v2 --switch-alias").await;
    assert_eq!(beside["aliases"], json!({ ALIAS: "docs-v2" }));
    assert_eq!(fixture.aliases().await, json!({ ALIAS: "docs-v2" }));
    let verified = fixture.ok("verify --data --collection docs --as -v2").await;
    assert_eq!(verified["verdict"]["passed"], true, "{verified:#}");
    says(
        &fixture.fails("restore --collection notes --as -v2 --switch-alias", "ConfigInvalid", 2).await,
        &["there is no alias to switch"],
    );
    assert_eq!(fixture.collections().await, ["docs", "docs-v2", "notes"], "refused before anything was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_in_the_way_is_not_overwritten() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    // Restoring `docs` under its name would go through the alias and over `other`.
    fixture.load("other", 10).await;
    fixture.client().create_alias("docs", "other").await.unwrap();
    let before = live(&fixture).await;
    for line in ["restore --collection docs", "restore --collection docs --replace"] {
        says(&fixture.fails(line, "RestoreFailed", 1).await, &["`docs` is an alias of `other`"]);
        assert_eq!(live(&fixture).await, before);
    }
    // And a collection here has the name of an alias there.
    fixture.replace_host().await;
    fixture.load(ALIAS, 10).await;
    let before = live(&fixture).await;
    let said = fixture.fails("restore --collection docs", "RestoreFailed", 1).await;
    says(&said, &["`docs-live`, an alias in the backup, is a collection here"]);
    assert_eq!(live(&fixture).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_fails_takes_everything_with_it_that_was_made() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    // Beside live data.
    let before = live(&fixture).await;
    fixture.stand_in().faults().inject(When::next_of("notes-copy"), Fault::RecoverFailsAtLoad);
    let said = fixture.fails("restore --as -copy --switch-alias", "RestoreFailed", 1).await;
    says(&said, &["recover collection `notes-copy`", "Failed to load local shard"]);
    assert_eq!(live(&fixture).await, before);
    assert_eq!(fixture.snapshot_files().len(), 0, "a staged file stays");
    fixture.ok("restore --as -copy --switch-alias").await;

    // Into an empty Qdrant, the second and the first.
    for number in [2, 1] {
        fixture.replace_host().await;
        fixture.stand_in().faults().inject(When::nth(number), Fault::RecoverFailsAtLoad);
        fixture.fails("restore", "RestoreFailed", 1).await;
        fixture.assert_nothing_restored().await;
    }
    fixture.ok("restore").await;
    assert_eq!(live(&fixture).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_killed_in_mid_recovery_is_waited_for_and_no_half_is_left() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    fixture.stand_in().faults().inject(When::next_of("notes"), Fault::DieInRecover);
    let worker = fixture.start("restore");
    fixture.until_qdrant_is_asked("PUT", "/collections/notes/snapshots/recover").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    fixture.cloud.qdrant.restart().await.unwrap();
    let said = failed(&worker.finished().await, "QdrantUnavailable", 1);
    says(&said, &["look at collection `notes`", "Shard is not fully initialized"]);
    fixture.assert_nothing_restored().await;
    assert_eq!(fixture.ok("restore").await["verdict"]["passed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_stopped_or_killed_leaves_nothing_in_the_way() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    let stalled = localcloud::s3::Effect::Stall(Duration::from_secs(30));
    for signal in [Signal::TERM, Signal::KILL] {
        let _seen = fixture.cloud.s3.take_calls();
        let archive = fixture.cloud.s3.faults().on(Operation::GetObject).key_containing(".tar.zst");
        archive.nth(1).times(u64::MAX).inject(stalled);
        let worker = fixture.start("restore");
        crate::harness::until(|| {
            let calls = fixture.cloud.s3.calls();
            calls.iter().any(|call| {
                call.range.is_some() && call.key.as_deref().is_some_and(|key| key.ends_with(".tar.zst"))
            })
        })
        .await;
        worker.signal(signal);
        let finished = worker.finished().await;
        fixture.cloud.s3.faults().clear();
        if signal == Signal::TERM {
            failed(&finished, "Cancelled", 1);
            fixture.assert_nothing_restored().await;
        } else {
            assert_eq!(finished.code(), None);
            assert_eq!(fixture.collections().await, [""; 0]);
        }
    }
    fixture.ok("restore").await;
    assert_eq!(fixture.snapshot_files().len(), 0, "what the killed one staged is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_into_its_own_minor_version_or_the_next() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    for (version, fits) in
        [("1.18.9", true), ("1.19.0", true), ("1.20.0", false), ("1.17.9", false), ("2.18.0", false)]
    {
        let options = QdrantOptions { version: version.to_owned(), ..QdrantOptions::default() };
        fixture.replace_host_with(options).await;
        if fits {
            assert_eq!(fixture.ok("restore").await["verdict"]["passed"], true, "{version}");
        } else {
            let said = fixture.fails("restore", "QdrantUnsupported", 1).await;
            says(&said, &[&format!("1.18.3 cannot be restored into Qdrant {version}"), "next minor version"]);
            fixture.assert_nothing_restored().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_seen_before_anything_is_written() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    // A file system that has no room, on every host.
    let said = fixture.fails("restore --snapshots-dir /proc", "LowDisk", 1).await;
    says(
        &said,
        &["`/proc` has 0 B free", "are needed for the collections and the largest snapshot", "larger disk"],
    );
    fixture.assert_nothing_restored().await;
    fixture.load("docs", 10).await;
    let said = fixture.fails("backup --no-quiesce --snapshots-dir /proc", "LowDisk", 1).await;
    says(&said, &["`/proc` has 0 B free", "are needed for snapshots of all collections"]);
    assert_eq!(fixture.snapshot_files().len(), 0);
}

/// The worker under a limit of what a file may hold, which ends a write as a full disk does.
fn limited(fixture: &Fixture, line: &str, blocks: u32) -> Command {
    let worker = fixture.command(line);
    let worker = worker.as_std();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    command.arg(worker.get_program()).args(worker.get_args()).kill_on_drop(true);
    for (name, value) in worker.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_the_download_leaves_nothing() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    let finished = finish(&mut limited(&fixture, "restore", 64)).await;
    let said = failed(&finished, "LowDisk", 1);
    says(&said, &["write `", "0.snapshot", "free space"]);
    fixture.assert_nothing_restored().await;
    fixture.ok("restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_snapshots_directory_is_named() {
    let mut fixture = Fixture::small().await;
    let elsewhere = fixture.cloud.work_dir().with_extension("elsewhere");
    fs_err::create_dir_all(&elsewhere).unwrap();
    let option = format!("--snapshots-dir {}", elsewhere.display());
    let said = fixture.fails(&format!("backup --no-quiesce {option}"), "ConfigInvalid", 2).await;
    says(&said, &["Qdrant made the snapshot", "is not there", "--snapshots-dir must be the directory"]);
    fixture.assert_nothing_left().await;

    fixture.backup().await;
    fixture.replace_host().await;
    let said = fixture.fails(&format!("restore {option}"), "RestoreFailed", 1).await;
    says(&said, &["recover collection `docs`", "does not exist", "as Qdrant sees it"]);
    fixture.assert_nothing_restored().await;
    assert_eq!(crate::harness::files_below(Path::new(&elsewhere)).len(), 0);
}

/// What `verify --data` finds wrong: collection, aspect, detail.
async fn found(fixture: &Fixture) -> Vec<(Value, String, String)> {
    let finished = fixture.run("verify --data").await;
    assert_eq!(finished.code(), Some(3), "{}{}", finished.stdout, finished.stderr);
    let verdict = finished.json().unwrap()["verdict"].take();
    assert_eq!(verdict["passed"], false);
    let checks = verdict["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks
        .filter(|check| check["outcome"] == "failed")
        .map(|check| (check["collection"].clone(), text(&check["aspect"]), text(&check["detail"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_as_recorded_is_named() {
    let fixture = Fixture::small().await;
    fixture.backup().await;
    assert_eq!(fixture.ok("verify --data").await["verdict"]["passed"], true);
    let points: Vec<_> = corpus().points().take(20).map(Result::unwrap).collect();
    let victim = &points[7];

    let body = json!({ "payload": { "kind": "forged" }, "points": [victim.id] });
    fixture.call(Method::POST, "/collections/notes/points/payload?wait=true", body).await;
    let detail = format!("point {} has another payload", victim.id);
    assert_eq!(found(&fixture).await, [(json!("notes"), "points".to_owned(), detail)]);
    let body = json!({ "payload": victim.payload, "points": [victim.id] });
    fixture.call(Method::PUT, "/collections/notes/points/payload?wait=true", body).await;
    assert_eq!(fixture.ok("verify --data").await["verdict"]["passed"], true);

    let actions = json!({ "actions": [{ "delete_alias": { "alias_name": ALIAS } }] });
    fixture.call(Method::POST, "/collections/aliases", actions).await;
    assert_eq!(
        found(&fixture).await,
        [(Value::Null, "aliases".to_owned(), "`docs-live` is missing".to_owned())]
    );
    fixture.client().create_alias(ALIAS, "notes").await.unwrap();
    let detail = "`docs-live` is notes, expected docs".to_owned();
    assert_eq!(found(&fixture).await, [(Value::Null, "aliases".to_owned(), detail)]);
    let actions = json!({ "actions": [
        { "delete_alias": { "alias_name": ALIAS } },
        { "create_alias": { "alias_name": ALIAS, "collection_name": "docs" } },
    ]});
    fixture.call(Method::POST, "/collections/aliases", actions).await;

    // One point more, far away from every search.
    let mut stranger = vec![0.0; localcloud::corpus::DIMENSIONS];
    stranger[0] = 1.0;
    let body = json!({ "points": [{ "id": 4711, "vector": stranger, "payload": {} }] });
    fixture.call(Method::PUT, "/collections/notes/points?wait=true", body).await;
    let wrong = found(&fixture).await;
    assert!(
        wrong.contains(&(json!("notes"), "count".to_owned(), "21 points, expected 20".to_owned())),
        "{wrong:?}"
    );
    let body = json!({ "points": [4711] });
    fixture.call(Method::POST, "/collections/notes/points/delete?wait=true", body).await;

    // Another vector, the same count and payload.
    let body = json!({ "points": [{ "id": victim.id, "vector": stranger, "payload": victim.payload }] });
    fixture.call(Method::PUT, "/collections/notes/points?wait=true", body).await;
    let wrong = found(&fixture).await;
    let vector = format!("point {}: vector", victim.id);
    assert!(
        wrong.iter().any(|(_, aspect, detail)| aspect == "points" && detail.starts_with(&vector)),
        "{wrong:?}"
    );
    assert!(wrong.iter().any(|(_, aspect, _)| aspect == "exact-search"), "{wrong:?}");

    let body = json!({ "points": [victim.id] });
    fixture.call(Method::POST, "/collections/notes/points/delete?wait=true", body).await;
    let wrong = found(&fixture).await;
    assert!(
        wrong.contains(&(json!("notes"), "count".to_owned(), "19 points, expected 20".to_owned())),
        "{wrong:?}"
    );
    assert!(
        wrong.iter().any(|(_, _, detail)| *detail == format!("point {} is missing", victim.id)),
        "{wrong:?}"
    );

    fixture.client().call(Method::DELETE, "/collections/docs/index/kind?wait=true", None).await.unwrap();
    let wrong = found(&fixture).await;
    assert!(
        wrong.iter().any(|(name, aspect, detail)| {
            name == "docs" && aspect == "payload-schema" && detail.contains("`kind` is missing")
        }),
        "{wrong:?}"
    );
    fixture.client().call(Method::DELETE, "/collections/notes", None).await.unwrap();
    let wrong = found(&fixture).await;
    assert!(
        wrong.contains(&(json!("notes"), "presence".to_owned(), "the collection is not there".to_owned())),
        "{wrong:?}"
    );
    assert_eq!(fixture.run("verify --data --collection notes").await.code(), Some(3));
    fixture.fails("verify --data --collection none", "ConfigInvalid", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_and_is_not_as_recorded_is_not_shown_to_readers() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    // Somebody writes while the restore runs, before readers may see it.
    fixture.stand_in().faults().inject(When::next_of("notes"), Fault::RecoverPauses(Duration::from_secs(2)));
    let worker: Running = fixture.start("restore");
    fixture.until_qdrant_is_asked("PUT", "/collections/notes/snapshots/recover").await;
    fixture.delete_points("docs", 3).await;
    let said = failed(&worker.finished().await, "VerificationFailed", 3);
    says(&said, &["57 points, expected 60", "aliases were not touched", "left for inspection: docs, notes"]);
    assert_eq!(fixture.aliases().await, json!({}));
    assert_eq!(fixture.snapshot_files().len(), 0);
}
