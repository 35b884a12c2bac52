//! Settings that are missing or wrong, and the words for a person who does not know the program yet.

use crate::harness::{Fixture, failed, finish, says};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_setting_is_named_with_every_way_to_give_it() {
    let fixture = Fixture::empty().await;
    for (command, variable, flag) in [
        ("list", "QDRANT_BACKUP_BUCKET", "--bucket"),
        ("backup", "QDRANT_BACKUP_QDRANT_URL", "--qdrant-url"),
        ("backup --no-quiesce", "QDRANT_BACKUP_SNAPSHOTS_DIR", "--snapshots-dir"),
    ] {
        let finished = finish(fixture.command(command).env_remove(variable)).await;
        let said = failed(&finished, "ConfigInvalid", 2);
        assert_eq!(said["transient"], false);
        says(&said, &[flag, variable, "config file", "is not set"]);
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_used_is_refused_before_anything_is_done() {
    let fixture = Fixture::empty().await;
    for (line, texts) in [
        ("backup --prefix a//b", &["`prefix` cannot be used", "a//b"][..]),
        (
            "backup --prefix qdrant/manifests",
            &["`prefix` cannot be used", "neither inside nor around the folders of manifests"],
        ),
        // Its listings would have manifests, proofs and reports in them.
        ("backup --prefix qdrant", &["`prefix` cannot be used", "nor around"]),
        ("list --prefix ../x", &["`prefix` cannot be used"]),
        ("backup --qdrant-url 10.0.0.1:6333", &["`qdrant-url` cannot be used", "http"]),
        (
            "backup --no-quiesce --qdrant-snapshots-path snapshots",
            &["`qdrant-snapshots-path` cannot be used", "not an absolute path"],
        ),
        ("backup --qdrant-api-key-file /nowhere/key", &["read Qdrant's API key", "/nowhere/key"]),
        ("backup --no-quiesce --collection none", &["collection `none` is not there"]),
    ] {
        says(&fixture.fails(line, "ConfigInvalid", 2).await, texts);
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_holds_no_frame_says_how_much_does() {
    let fixture = Fixture::empty().await;
    fixture.load("docs", 20).await;
    let said = fixture.fails("backup --no-quiesce --memory-budget 1000", "ConfigInvalid", 2).await;
    says(&said, &["memory budget of 1000 bytes", "set the memory budget to"]);
    assert_eq!((fixture.keys().await.len(), fixture.uploads().await), (0, 0));
    // With a budget that holds it, what was captured is stored.
    fixture.backup().await;
    assert_eq!(fixture.snapshot_files().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_file_is_read_and_its_typing_errors_are_not_ignored() {
    let fixture = Fixture::empty().await;
    let path = fixture.cloud.work_dir().with_extension("toml");
    let line = format!("list --config {}", path.display());

    fs_err::write(&path, "buckett = \"backups\"\n").unwrap();
    let said = fixture.fails(&line, "ConfigInvalid", 2).await;
    says(&said, &["the config file cannot be used", "unknown field `buckett`"]);

    fs_err::write(&path, "bucket = \"backups\"\n").unwrap();
    let finished = finish(fixture.command(&line).env_remove("QDRANT_BACKUP_BUCKET")).await;
    assert_eq!(finished.success().unwrap()["backups"], serde_json::json!([]));

    fs_err::remove_file(&path).unwrap();
    let said = fixture.fails(&line, "ConfigInvalid", 2).await;
    says(&said, &["the config file cannot be used", "host.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn help_goes_to_standard_output_and_usage_errors_do_not() {
    let fixture = Fixture::empty().await;
    let help = fixture.person("--help").await;
    assert_eq!(help.code(), Some(0));
    for word in
        ["backup", "restore", "verify", "list", "show", "publish", "doctor", "Exit codes: 0 done, 1 failed"]
    {
        assert!(help.stdout.contains(word), "`{word}`: {}", help.stdout);
    }
    for (line, word) in [
        ("", "Usage"),
        ("backupp", "backup"),
        ("restore --replace --as -x", "cannot be used with"),
        ("verify", "--archive"),
        ("backup --api-key secret", "--api-key"),
        ("restore --backup yesterday", "yesterday"),
    ] {
        let finished = fixture.person(line).await;
        assert_eq!(finished.code(), Some(2), "{line}: {}", finished.stdout);
        assert_eq!(finished.stdout, "", "{line}");
        assert!(finished.stderr.contains(word), "{line}: {}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_what_failed_why_and_what_to_do() {
    let fixture = Fixture::empty().await;
    let finished = fixture.person("restore").await;
    assert_eq!(finished.code(), Some(1));
    assert_eq!(finished.stdout, "");
    assert!(
        finished.stderr.contains("error: there is no backup in the bucket [ManifestMissing]\nhint: "),
        "{}",
        finished.stderr
    );
}
