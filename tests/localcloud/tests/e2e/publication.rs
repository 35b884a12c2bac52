//! What becomes the newest backup, and what does not by itself.

use serde_json::{Value, json};

use crate::harness::{ALIAS, Fixture, archive, id, next_second, says};

/// A backup whose publication came to this; gives its manifest.
async fn backup(fixture: &Fixture, line: &str, outcome: &str) -> Value {
    let backup = fixture.ok(line).await;
    assert_eq!(backup["publication"]["outcome"]["outcome"], outcome, "{line}: {backup:#}");
    backup["manifest"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_backup_never_moves_the_pointer() {
    let mut fixture = Fixture::small().await;
    let first = backup(&fixture, "backup --no-quiesce --collection notes", "partial").await;
    assert_eq!(first["partial"], true);
    assert_eq!(first["aliases"], json!({}), "the alias of another collection is none of its business");
    assert_eq!(fixture.pointer().await, None);
    next_second().await;
    let whole = backup(&fixture, "backup --no-quiesce", "published").await;
    next_second().await;
    let second = backup(&fixture, "backup --no-quiesce --collection docs", "partial").await;
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&whole)));

    let list = fixture.ok("list").await;
    let partial: Vec<&Value> =
        list["backups"].as_array().unwrap().iter().map(|b| &b["content"]["partial"]).collect();
    assert_eq!(partial, [true, false, true]);
    let after = second["created_at"].as_str().unwrap();
    assert_eq!(fixture.ok(&format!("show --before {after}")).await["backup_id"], whole["backup_id"]);

    fixture.replace_host().await;
    let restored = fixture.ok(&format!("restore --backup {}", id(&first))).await;
    assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
    assert_eq!(fixture.collections().await, ["notes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_whole_backup_nothing_is_restored_by_itself() {
    let mut fixture = Fixture::small().await;
    fixture.ok("backup --no-quiesce --collection notes").await;
    fixture.replace_host().await;
    let said = fixture.fails("restore", "ManifestMissing", 1).await;
    says(&said, &["there is no pointer in bucket `backups`", "host-worker list"]);
    fixture.assert_nothing_restored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_late_is_superseded_and_one_that_waits_is_published_once() {
    let fixture = Fixture::small().await;
    let late = fixture.ok("backup --no-quiesce --no-publish").await;
    assert_eq!(late["publication"], Value::Null);
    let waiting = late["unpublished_manifest"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&waiting).exists());
    assert_eq!(fixture.pointer().await, None);
    next_second().await;
    let unpublished = fixture.ok("backup --no-quiesce --no-publish").await;
    let newer = id(&unpublished["manifest"]);

    let publish = format!("publish --backup {newer}");
    assert_eq!(fixture.ok(&publish).await["publication"]["outcome"]["outcome"], "published");
    let pointer = fs_err::read(fixture.cloud.object_path(protocol::key::POINTER)).unwrap();
    assert_eq!(fixture.ok(&publish).await["publication"]["outcome"]["outcome"], "already-published");
    assert_eq!(fs_err::read(fixture.cloud.object_path(protocol::key::POINTER)).unwrap(), pointer);

    let late = fixture.ok(&format!("publish --backup {}", id(&late["manifest"]))).await;
    assert_eq!(late["publication"]["outcome"], json!({ "outcome": "superseded", "by": newer }));
    assert!(!std::path::Path::new(&waiting).exists(), "the catalogue has it now");
    assert_eq!(fixture.pointer().await.as_deref(), Some(newer));
    let said = fixture.fails("publish --backup 20200101T000000Z", "ManifestMissing", 1).await;
    says(&said, &["there is no manifest", "host-worker list"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_damage_waits_for_a_person() {
    let fixture = Fixture::small().await;
    let good = fixture.backup().await;
    fixture.delete_points("docs", 40).await;
    fixture.client().call(reqwest::Method::DELETE, "/collections/notes", None).await.unwrap();
    next_second().await;
    let said = fixture.fails("backup --no-quiesce", "Suspicious", 1).await;
    says(
        &said,
        &[
            "collection `docs` fell from 60 to 20 points",
            "collection `notes` with 20 points is gone",
            "the pointer has not moved",
            "--force",
        ],
    );
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&good)));
    assert_eq!(fixture.uploads().await, 0);

    let list = fixture.ok("list").await;
    let suspicious = list["backups"][0]["backup_id"].as_str().unwrap();
    assert_ne!(suspicious, id(&good), "its own manifest is stored");
    fixture.fails(&format!("publish --backup {suspicious}"), "Suspicious", 1).await;
    let forced = fixture.ok(&format!("publish --backup {suspicious} --force")).await;
    assert_eq!(forced["publication"]["outcome"]["outcome"], "published");
    assert_eq!(forced["publication"]["forced"].as_array().unwrap().len(), 2, "{forced:#}");
    assert_eq!(fixture.pointer().await.as_deref(), Some(suspicious));

    fixture.delete_points("docs", 60).await;
    next_second().await;
    let forced = backup(&fixture, "backup --no-quiesce --force", "published").await;
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&forced)));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_is_a_command_of_its_own() {
    let mut fixture = Fixture::small().await;
    let old = fixture.backup().await;
    fixture.delete_points("docs", 10).await;
    next_second().await;
    let new = fixture.backup().await;

    let publish = format!("publish --backup {}", id(&old));
    assert_eq!(fixture.ok(&publish).await["publication"]["outcome"]["outcome"], "superseded");
    // The store's times are whole seconds.
    next_second().await;
    let back = fixture.ok(&format!("{publish} --rollback")).await;
    assert_eq!(back["publication"]["outcome"]["outcome"], "published");
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&old)));
    let again = fixture.ok(&format!("publish --backup {}", id(&new))).await;
    assert_eq!(
        again["publication"]["outcome"]["outcome"], "superseded",
        "it holds what was rolled back from"
    );

    fixture.restores().await;
    assert_eq!(fixture.count("docs").await, 60);
    next_second().await;
    backup(&fixture, "backup --no-quiesce", "published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_ahead_of_the_stores_is_refused() {
    let fixture = Fixture::small().await;
    fixture.cloud.s3.faults().clock_skew(-200);
    let first = fixture.backup().await;
    next_second().await;
    fixture.cloud.s3.faults().clock_skew(-600);
    let said = fixture.fails("backup --no-quiesce", "ConfigInvalid", 2).await;
    says(&said, &["is dated", "after the store's clock", "set the clock of the host"]);
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&first)));
    let doctor = fixture.run("doctor").await;
    assert_eq!(doctor.code(), Some(1));
    let findings = doctor.json().unwrap();
    let clock = findings["findings"].as_array().unwrap().iter().find(|f| f["subject"] == "clock").unwrap();
    assert_eq!(clock["state"], "bad", "{findings:#}");

    fixture.cloud.s3.faults().clear();
    next_second().await;
    let second = fixture.backup().await;
    assert_eq!(fixture.pointer().await.as_deref(), Some(id(&second)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_is_chosen_by_id_or_by_time() {
    let mut fixture = Fixture::small().await;
    let old = fixture.backup().await;
    fixture.delete_points("docs", 10).await;
    next_second().await;
    let new = fixture.backup().await;

    fixture.replace_host().await;
    let restored = fixture.ok(&format!("restore --backup {} --collection docs", id(&old))).await;
    assert_eq!(restored["backup_id"], old["backup_id"]);
    assert_eq!(fixture.count("docs").await, 60);
    let before = format!("restore --before {} --as -before", new["created_at"].as_str().unwrap());
    assert_eq!(fixture.ok(&before).await["backup_id"], old["backup_id"]);
    assert_eq!(fixture.count("docs-before").await, 60);
    let newest = fixture.ok("restore --as -newest").await;
    assert_eq!(newest["backup_id"], new["backup_id"]);
    assert_eq!(fixture.count("docs-newest").await, 50);
    let said = fixture.fails("restore --before 2020-01-01T00:00:00Z --as -x", "ManifestMissing", 1).await;
    says(&said, &["no backup from before 2020-01-01T00:00:00Z"]);
    let said = fixture.fails("restore --backup 20200101T000000Z --as -x", "ManifestMissing", 1).await;
    says(&said, &["qdrant/manifests/20200101T000000Z.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_a_table_for_people_and_json_for_programs() {
    let fixture = Fixture::small().await;
    assert_eq!(fixture.person("list").await.stdout, "no backups\n");
    let manifest = fixture.backup().await;

    let list = fixture.ok("list").await;
    let backup = &list["backups"][0];
    assert_eq!(backup["backup_id"], manifest["backup_id"]);
    assert_eq!(backup["published"], true);
    assert_eq!(backup["content"]["points"], 80);
    assert_eq!(backup["content"]["collections"], 2);
    assert_eq!(backup["content"]["size_bytes"], manifest["size_bytes"]);
    let table = fixture.person("list").await.stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["backup", "age", "size", "collections", "points", "qdrant", "proof"]);
    assert_eq!(rows.len(), 2, "{table}");
    assert_eq!(rows[1][0], id(&manifest));
    assert!(table.contains("1.18.3  checksummed  published"), "{table}");

    assert_eq!(fixture.ok("show").await["sha256"], manifest["sha256"]);
    let shown = fixture.person("show").await.stdout;
    for text in [id(&manifest), &archive(&manifest), manifest["sha256"].as_str().unwrap(), ALIAS, "notes"] {
        assert!(shown.contains(text), "`{text}`: {shown}");
    }
}
