//! What a restore may touch, as a table.

use super::*;

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

/// A backup of `docs` and `notes`, with the alias `live` on `docs`.
fn manifest() -> Manifest {
    let digest = "ab".repeat(32);
    let collection = |name: &str| {
        serde_json::json!({
            "name": name, "snapshot": format!("{name}.snapshot"), "entry": format!("snapshots/{name}/{name}.snapshot"),
            "size_bytes": 5, "sha256": digest, "points_before": 1, "points_after": 1, "written_during_backup": false,
            "config": {}, "payload_schema": {}, "golden": {"points": 0, "changed": 0, "searches": 0}
        })
    };
    let entry = |name: &str| serde_json::json!({"name": format!("snapshots/{name}/{name}.snapshot"), "size": 5, "sha256": digest, "first_frame": 1, "raw_offset": 512});
    let document = serde_json::json!({
        "backup_and_restore_path": "/d", "latest_snapshot": "x", "latest_snapshot_from_path": "/s", "latest_snapshot_to_path": "s3://b/x",
        "latest_snapshot_size_in_mb": 1.0, "multipart_upload_concurrency": 1, "latest_snapshot_upload_duration_in_seconds": 1.0,
        "format_version": 1, "backup_id": "20261123T051400Z", "created_at": "2026-11-23T05:14:00Z",
        "key": "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst", "size_bytes": 1, "sha256": digest, "crc64nvme": "AAAAAAAAAAA=",
        "archive": {"raw_bytes": 1, "frame_count": 1, "frames_root": digest, "golden_sha256": digest, "entries": [entry("docs"), entry("notes")]},
        "qdrant": {"version": "1.18.3"}, "collections": [collection("docs"), collection("notes")], "aliases": {"live": "docs"},
        "quiesced": true, "partial": false, "timings": [], "tool": {"name": "t", "version": "0"}
    });
    Manifest::from_json(document.to_string().as_bytes()).unwrap()
}

fn present(collections: &[&str], aliases: &[(&str, &str)]) -> Present {
    Present {
        collections: collections.iter().map(|text| name(text)).collect(),
        aliases: aliases.iter().map(|(alias, target)| ((*alias).to_owned(), name(target))).collect(),
    }
}

fn beside(switch_alias: bool) -> Mode {
    Mode::Beside { suffix: "-copy".to_owned(), switch_alias }
}

fn names(plan: &Plan) -> Vec<(&str, Place)> {
    plan.targets.iter().map(|target| (target.name.as_str(), target.place)).collect()
}

/// The plan of a first run.
fn plan(
    manifest: &Manifest,
    wanted: &[CollectionName],
    mode: &Mode,
    present: &Present,
) -> Result<Plan, Error> {
    super::plan(manifest, wanted, mode, present, &Earlier::default())
}

fn create(alias: &str, collection: &str) -> AliasChange {
    AliasChange::Create { alias: alias.to_owned(), collection: name(collection) }
}

fn delete(alias: &str) -> AliasChange {
    AliasChange::Delete { alias: alias.to_owned() }
}

#[test]
fn an_empty_qdrant_gets_everything() {
    let plan = plan(&manifest(), &[], &Mode::Empty, &present(&[], &[])).unwrap();
    assert_eq!(names(&plan), [("docs", Place::Free), ("notes", Place::Free)]);
    assert_eq!(plan.aliases, [create("live", "docs")]);
    assert!(plan.judges_aliases());
}

#[test]
fn one_collection_may_join_others_but_not_take_their_place() {
    let wanted = [name("notes")];
    let joined = plan(&manifest(), &wanted, &Mode::Empty, &present(&["docs"], &[("live", "docs")])).unwrap();
    assert_eq!(names(&joined), [("notes", Place::Free)]);
    assert_eq!(joined.aliases, [], "the alias belongs to a collection that is not restored");
    for there in [present(&["notes"], &[]), present(&["x"], &[("notes", "x")])] {
        let refused = plan(&manifest(), &wanted, &Mode::Empty, &there).unwrap_err();
        assert!(matches!(refused, Error::InTheWay { .. }), "{refused}");
    }
}

#[test]
fn live_data_is_in_the_way_unless_replace_was_typed() {
    let there = present(&["docs", "other"], &[]);
    assert!(matches!(plan(&manifest(), &[], &Mode::Empty, &there), Err(Error::InTheWay { .. })));
    let replaced = plan(&manifest(), &[], &Mode::Replace, &there).unwrap();
    assert_eq!(names(&replaced), [("docs", Place::Taken), ("notes", Place::Free)]);
    // An alias of that name would make Qdrant overwrite what it stands for.
    let refused = plan(&manifest(), &[], &Mode::Replace, &present(&["other"], &[("docs", "other")]));
    assert!(matches!(refused, Err(Error::InTheWay { .. })));
}

#[test]
fn beside_live_data_nothing_is_touched_until_the_alias_is_switched() {
    let there = present(&["docs", "notes"], &[("live", "docs"), ("young", "notes")]);
    let copy = plan(&manifest(), &[], &beside(false), &there).unwrap();
    assert_eq!(names(&copy), [("docs-copy", Place::Free), ("notes-copy", Place::Free)]);
    assert_eq!(copy.aliases, []);
    assert!(!copy.judges_aliases());

    let switched = plan(&manifest(), &[], &beside(true), &there).unwrap();
    let expected =
        [delete("live"), create("live", "docs-copy"), delete("young"), create("young", "notes-copy")];
    assert_eq!(switched.aliases, expected);
    let shown = BTreeMap::from([("live".to_owned(), name("docs-copy")), ("young".to_owned(), name("notes"))]);
    assert!(matches!(switched.require_aliases(&shown), Err(Error::AliasNotSet { .. })));

    let taken = plan(&manifest(), &[], &beside(false), &present(&["docs-copy"], &[]));
    assert!(matches!(taken, Err(Error::InTheWay { .. })));
}

#[test]
fn wishes_that_cannot_be_met_are_refused() {
    assert!(matches!(
        plan(&manifest(), &[name("nope")], &Mode::Empty, &present(&[], &[])),
        Err(Error::NotInBackup { .. })
    ));
    let no_suffix = Mode::Beside { suffix: String::new(), switch_alias: false };
    assert!(matches!(plan(&manifest(), &[], &no_suffix, &present(&[], &[])), Err(Error::BadSetting { .. })));
    assert!(matches!(
        plan(&manifest(), &[name("notes")], &beside(true), &present(&[], &[])),
        Err(Error::Request { .. })
    ));
    // The backup's alias has meanwhile become the name of a collection.
    assert!(matches!(
        plan(&manifest(), &[name("docs")], &Mode::Empty, &present(&["live"], &[])),
        Err(Error::InTheWay { .. })
    ));
}

#[test]
fn an_alias_that_readers_use_for_other_data_is_not_moved_unasked() {
    let today = present(&["docs-2"], &[("live", "docs-2")]);
    let wanted = [name("docs")];
    for mode in [Mode::Empty, Mode::Replace] {
        let refused = plan(&manifest(), &wanted, &mode, &today).unwrap_err();
        assert!(matches!(refused, Error::InTheWay { .. }), "{mode:?}: {refused}");
    }
    let asked = plan(&manifest(), &wanted, &beside(true), &today).unwrap();
    assert_eq!(asked.aliases, [delete("live"), create("live", "docs-copy")]);
    // After one switch, the alias of today is on a copy; the backup still says what it belongs to.
    let again =
        plan(&manifest(), &wanted, &beside(true), &present(&["docs", "docs-old"], &[("live", "docs-old")]))
            .unwrap();
    assert_eq!(again.aliases, [delete("live"), create("live", "docs-copy")]);
}

#[test]
fn what_an_earlier_run_made_is_not_in_the_way() {
    let made = Earlier { made: BTreeSet::from([name("docs")]), ..Earlier::default() };
    let go_on = |mode: &Mode, there: &[&str], earlier: &Earlier| {
        super::plan(&manifest(), &[], mode, &present(there, &[]), earlier)
    };
    for mode in [Mode::Empty, Mode::Replace] {
        let plan = go_on(&mode, &["docs"], &made).unwrap();
        assert_eq!(names(&plan), [("docs", Place::Done), ("notes", Place::Free)], "{mode:?}");
        assert_eq!(plan.aliases, [create("live", "docs")]);
    }
    // Whatever else is there belongs to somebody.
    for there in [&["docs", "notes"][..], &["docs", "other"]] {
        let refused = go_on(&Mode::Empty, there, &made).unwrap_err();
        let named = refused.to_string();
        assert!(matches!(refused, Error::InTheWay { .. }) && named.ends_with(there[1]), "{named}");
    }
    let copy = Earlier { made: BTreeSet::from([name("notes-copy")]), ..Earlier::default() };
    let plan = go_on(&beside(false), &["docs", "notes", "notes-copy"], &copy).unwrap();
    assert_eq!(names(&plan), [("docs-copy", Place::Free), ("notes-copy", Place::Done)]);
}

#[test]
fn half_a_collection_is_replaced_only_if_that_was_typed() {
    let half = |text: &str| Earlier {
        wrong: BTreeMap::from([(name(text), "0 points, expected 1".to_owned())]),
        ..Earlier::default()
    };
    for (mode, wanted, there, remedy) in [
        (
            Mode::Empty,
            vec![],
            "docs",
            "`host-worker restore --backup 20261123T051400Z --replace` replaces it",
        ),
        (Mode::Empty, vec![name("docs")], "docs", "20261123T051400Z --collection docs --replace`"),
        (beside(false), vec![], "docs-copy", "delete it (`DELETE /collections/docs-copy`)"),
    ] {
        let refused = super::plan(&manifest(), &wanted, &mode, &present(&[there], &[]), &half(there));
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::HalfInTheWay { .. }), "{refused}");
        assert_eq!(refused.kind(), protocol::FailureKind::RestoreFailed);
        assert!(refused.to_string().contains("0 points, expected 1"), "{refused}");
        assert!(refused.hint().unwrap().contains(remedy), "{:?}", refused.hint());
    }
    let replaced =
        super::plan(&manifest(), &[], &Mode::Replace, &present(&["docs"], &[]), &half("docs")).unwrap();
    assert_eq!(names(&replaced), [("docs", Place::Taken), ("notes", Place::Free)]);
}
