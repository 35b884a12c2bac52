//! Retention as an operator has it: shown first, then done, and never to what is needed.

use localcloud::s3::Operation;
use serde_json::Value;

use crate::harness::{Fixture, archive, id, next_second, says};

/// Three backups, the last one published.
async fn three() -> (Fixture, [Value; 3]) {
    let fixture = Fixture::small().await;
    let first = fixture.backup().await;
    next_second().await;
    let second = fixture.backup().await;
    next_second().await;
    let third = fixture.backup().await;
    (fixture, [first, second, third])
}

fn fates(pruned: &Value) -> Vec<(&str, bool)> {
    let backups = pruned["backups"].as_array().unwrap();
    let fate = |backup: &'_ Value| !backup["kept"].as_array().unwrap().is_empty();
    backups.iter().map(|backup| (backup["backup_id"].as_str().unwrap(), fate(backup))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_shown_first_and_then_done() {
    let (mut fixture, [first, second, third]) = three().await;
    fixture.ok(&format!("verify --archive --backup {}", id(&second))).await;
    let before = fixture.keys().await;
    let shown = fixture.ok("prune --keep-last 1").await;
    assert_eq!(fates(&shown), [(id(&third), true), (id(&second), true), (id(&first), false)], "{shown:#}");
    assert_eq!((shown["applied"].as_bool(), shown["removed_objects"].as_u64()), (Some(false), Some(0)));
    assert_eq!(fixture.keys().await, before, "a dry run removed something");
    let person = fixture.person("prune --keep-last 1").await;
    for text in ["--apply does it", "the newest that is proved (re-read)", "published", "1 would be removed"]
    {
        assert!(person.stdout.contains(text), "{text}: {}", person.stdout);
    }

    let done = fixture.ok("prune --keep-last 1 --apply").await;
    assert_eq!(done["removed_objects"].as_u64(), Some(5), "{done:#}");
    let left = fixture.keys().await;
    assert!(left.iter().all(|key| !key.contains(id(&first))), "{left:?}");
    assert_eq!(fixture.ok("prune --keep-last 1 --apply").await["removed_objects"].as_u64(), Some(0));
    fixture.fails(&format!("restore --backup {}", id(&first)), "ManifestMissing", 1).await;
    fixture.restores().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rule_nothing_is_done() {
    let (fixture, _) = three().await;
    says(&fixture.fails("prune --apply", "ConfigInvalid", 2).await, &["--keep-last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_certainty_nothing_is_removed() {
    let (fixture, [_, second, _]) = three().await;
    let work_dir = fixture.cloud.work_dir();
    let origin = format!(r#"{{"backup_id":"{}","degraded":true}}"#, id(&second));
    fs_err::write(work_dir.join("origin.json"), origin).unwrap();
    says(&fixture.fails("prune --keep-last 1 --apply", "Suspicious", 1).await, &["acknowledge"]);
    fixture.ok("acknowledge").await;
    let pointer = fixture.cloud.object_path(protocol::key::POINTER);
    let bytes = fs_err::read(&pointer).unwrap();
    fixture.cloud.s3.faults().deny(Operation::GetObject, protocol::key::POINTER);
    says(&fixture.fails("prune --keep-last 1 --apply", "Suspicious", 1).await, &["pointer cannot be read"]);
    fixture.cloud.s3.faults().clear();
    fixture.ok(&format!("verify --archive --backup {}", id(&second))).await;
    let before = fixture.keys().await;
    fixture.cloud.s3.faults().deny(Operation::GetObject, protocol::key::PROOFS);
    says(
        &fixture.fails("prune --keep-last 1 --apply", "Suspicious", 1).await,
        &["not all proofs can be read"],
    );
    fixture.cloud.s3.faults().clear();
    assert_eq!(fixture.keys().await, before);
    assert_eq!(fs_err::read(&pointer).unwrap(), bytes);
    // What this host came from stays, even if nothing else would keep it.
    let shown = fixture.ok("prune --keep-last 1").await;
    assert!(fates(&shown).contains(&(id(&second), true)), "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_deleted_is_named_and_the_rest_goes_on() {
    let (fixture, [first, second, third]) = three().await;
    let manifest = format!("qdrant/manifests/{}.json", id(&second));
    fixture.cloud.s3.faults().deny(Operation::DeleteObject, &manifest);
    let finished = fixture.run("prune --keep-last 1 --apply").await;
    assert_eq!(finished.code(), Some(1), "{}{}", finished.stdout, finished.stderr);
    let done = finished.json().unwrap();
    let problem = done["backups"][1]["problem"].as_str().unwrap();
    assert!(problem.contains("access is refused") && problem.contains(id(&second)), "{problem}");
    let left = fixture.keys().await;
    assert!(left.contains(&archive(&second)) && left.contains(&archive(&third)), "{left:?}");
    assert!(!left.contains(&archive(&first)), "{left:?}");
    fixture.cloud.s3.faults().clear();
    fixture.ok("prune --keep-last 1 --apply").await;
    assert!(!fixture.keys().await.contains(&archive(&second)));
}
