//! The rules as tables.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    FailureKind, Manifest,
    manifest::{Origin, Previous},
};

use super::support::{degraded, id, manifest, minute, with_counts};
use crate::{
    Pointer, PublishPolicy, Suspicion,
    rules::{Decision, check_clock, decide, losses},
};

fn pointer(manifest: Manifest, written: Timestamp) -> Pointer {
    Pointer { manifest, etag: "e".to_owned(), bytes_sha256: "ab".repeat(32), last_modified: written }
}

fn rolled_back(to: i64, from: i64, at: i64) -> Pointer {
    let previous = Some(Previous { backup_id: id(from), sha256: "cd".repeat(32) });
    pointer(Manifest { previous, ..manifest(to) }, minute(at))
}

#[test]
fn the_pointer_goes_forward_by_itself_and_back_only_by_hand() {
    let plain = PublishPolicy::default();
    let back = PublishPolicy { rollback: true, ..plain.clone() };
    let forced = PublishPolicy { force: true, ..plain.clone() };
    let moves = || Decision::Move { forced: Vec::new() };
    let superseded = |by| Decision::Superseded { by: id(by) };
    let at = |n, written| Some(pointer(manifest(n), minute(written)));
    let other_archive = Manifest { sha256: "cd".repeat(32), ..manifest(5) };
    let cases = [
        ("the first", None, manifest(5), &plain, moves()),
        ("a newer one", at(4, 10), manifest(5), &plain, moves()),
        ("the same", at(5, 10), manifest(5), &plain, Decision::AlreadyPublished),
        ("the same, by rollback", at(5, 10), manifest(5), &back, Decision::AlreadyPublished),
        ("the same id, another archive", at(5, 10), other_archive, &plain, Decision::Contradicted),
        ("an older one", at(6, 10), manifest(5), &plain, superseded(6)),
        ("an older one by force alone", at(6, 10), manifest(5), &forced, superseded(6)),
        ("an older one by rollback", at(6, 10), manifest(5), &back, moves()),
        ("a newer one by rollback", at(4, 10), manifest(5), &back, moves()),
        ("what was rolled back from", Some(rolled_back(3, 5, 10)), manifest(5), &plain, superseded(3)),
        ("taken between both", Some(rolled_back(3, 5, 10)), manifest(4), &plain, superseded(3)),
        ("begun before the rollback", Some(rolled_back(3, 5, 10)), manifest(9), &plain, superseded(3)),
        ("begun after the rollback", Some(rolled_back(3, 5, 10)), manifest(11), &plain, moves()),
        ("forward again by hand", Some(rolled_back(3, 5, 10)), manifest(5), &back, moves()),
    ];
    for (what, current, new, policy, expected) in cases {
        assert_eq!(decide(current.as_ref(), &new, policy), expected, "{what}");
    }
}

#[test]
fn what_looks_like_damage_needs_force() {
    let vanished = |name: &str, points| Suspicion::Vanished { collection: name.parse().unwrap(), points };
    let fell = |name: &str, from, to| Suspicion::Fell { collection: name.parse().unwrap(), from, to };
    let from_degraded = || Suspicion::DegradedOrigin { restored_from: Some(id(0)) };
    let healthy = Origin { backup_id: Some(id(0)), degraded: false };
    let current = || Some(pointer(manifest(1), minute(10)));
    let cases: Vec<(&str, Option<Pointer>, Manifest, Vec<Suspicion>)> = vec![
        ("no change", current(), manifest(2), vec![]),
        (
            "growth and a new one",
            current(),
            with_counts(2, &[("docs", 5000), ("notes", 10), ("new", 1)]),
            vec![],
        ),
        ("half is allowed", current(), with_counts(2, &[("docs", 500), ("notes", 5)]), vec![]),
        (
            "more than half is not",
            current(),
            with_counts(2, &[("docs", 499), ("notes", 5)]),
            vec![fell("docs", 1000, 499)],
        ),
        ("emptied", current(), with_counts(2, &[("docs", 1000), ("notes", 0)]), vec![fell("notes", 10, 0)]),
        ("gone", current(), with_counts(2, &[("docs", 1000)]), vec![vanished("notes", 10)]),
        ("all gone", current(), with_counts(2, &[]), vec![vanished("docs", 1000), vanished("notes", 10)]),
        ("a degraded host", current(), degraded(manifest(2)), vec![from_degraded()]),
        ("a degraded host, the first backup", None, degraded(manifest(2)), vec![from_degraded()]),
        (
            "a degraded host that lost something",
            current(),
            degraded(with_counts(2, &[("docs", 1000)])),
            vec![from_degraded(), vanished("notes", 10)],
        ),
        ("a restored host", current(), Manifest { origin: Some(healthy), ..manifest(2) }, vec![]),
    ];
    for (what, current, new, reasons) in cases {
        let decision = |force| {
            let policy = PublishPolicy { force, ..PublishPolicy::default() };
            decide(current.as_ref(), &new, &policy)
        };
        let expected = if reasons.is_empty() {
            Decision::Move { forced: Vec::new() }
        } else {
            Decision::Suspicious(reasons.clone())
        };
        assert_eq!(decision(false), expected, "{what}");
        assert_eq!(decision(true), Decision::Move { forced: reasons }, "{what}, forced");
    }
}

#[test]
fn the_share_that_may_be_lost_is_configured() {
    let old = with_counts(1, &[("docs", 100)]);
    for (max_fall, least) in [(0.0, 100), (0.1, 90), (0.5, 50), (1.0, 0)] {
        for points in [0, 49, 50, 51, 89, 90, 91, 99, 100, 101] {
            let found = losses(&old, &with_counts(2, &[("docs", points)]), max_fall);
            assert_eq!(found.is_empty(), points >= least, "{points} of 100 at {max_fall}");
        }
    }
    let empty = with_counts(1, &[("docs", 0)]);
    assert_eq!(losses(&empty, &empty, 0.0), []);
    // What a rollback gives up is what it is for; where it comes from still counts.
    let back = PublishPolicy { rollback: true, ..PublishPolicy::default() };
    let current = pointer(manifest(9), minute(10));
    let emptied = with_counts(2, &[]);
    assert_eq!(decide(Some(&current), &emptied, &back), Decision::Move { forced: Vec::new() });
    assert!(matches!(decide(Some(&current), &degraded(emptied), &back), Decision::Suspicious(_)));
}

#[test]
fn a_date_in_the_future_is_refused() {
    let backup = manifest(10);
    for (store_is_behind, allowed) in [(-3600, true), (0, true), (300, true), (301, false), (86_400, false)] {
        let now = minute(10) - SignedDuration::from_secs(store_is_behind);
        let checked = check_clock(&backup, now);
        assert_eq!(checked.is_ok(), allowed, "{store_is_behind} s");
        if let Err(error) = checked {
            assert_eq!(error.kind(), FailureKind::ConfigInvalid);
            assert!(error.hint().unwrap().contains("chrony"));
        }
    }
    // The id orders backups: a harmless `created_at` does not help a future id.
    let lying = Manifest { created_at: minute(0), ..backup };
    assert!(check_clock(&lying, minute(4)).is_err());
}
