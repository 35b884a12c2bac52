//! Drills of every kind, to look at and to test the page with.

use protocol::{
    DrillReport, Verdict,
    drill::{
        DrillOutcome, Earlier, FORMAT_VERSION, Fidelity, Measured, Restored,
        fidelity::{Recall, Tally},
        trend,
    },
    manifest::{PhaseTiming, Tool},
    verdict::{Aspect, Check, Outcome},
};

const GIB: u64 = 1 << 30;
/// A name with whatever a name may hold and markup may not.
const MISSING: &str = "R&D 'notes' {x} &amp; é";

/// Name and report.
pub(crate) fn all() -> Vec<(&'static str, DrillReport)> {
    vec![
        ("passed", passed()),
        ("different", different()),
        ("failed", failed()),
        ("first", first()),
        ("many", many()),
    ]
}

fn tool() -> Tool {
    Tool { name: "host-worker".to_owned(), version: "0.1.0".to_owned() }
}

fn fidelity(name: &str, points: u64, recall: (f64, f64)) -> Fidelity {
    Fidelity {
        name: name.parse().unwrap(),
        points_expected: (points, points),
        points: Some(points),
        sampled: Tally { of: 256, equal: 256 },
        searches: Tally { of: 8, equal: 8 },
        not_searched: 0,
        score_difference: Some(1.2e-7),
        recall: Some(Recall { recorded: recall.0, found: recall.1, tolerance: 0.06 }),
    }
}

fn check(collection: Option<&str>, aspect: Aspect, outcome: Outcome, detail: &str) -> Check {
    Check {
        collection: collection.map(|name| name.parse().unwrap()),
        aspect,
        outcome,
        detail: detail.to_owned(),
    }
}

/// A year of drills of data that grows by fifteen gigabytes a month.
fn earlier() -> Vec<Earlier> {
    let months = 1..=11_u32;
    months
        .map(|month| Earlier {
            started_at: format!("2026-{month:02}-01T03:00:00Z").parse().unwrap(),
            backup_id: format!("2026{month:02}01T000000Z").parse().unwrap(),
            raw_bytes: (100 + 15 * u64::from(month)) * GIB,
            seconds: 300.0 + 35.0 * f64::from(month) + if month.is_multiple_of(3) { 40.0 } else { 0.0 },
            passed: month != 7,
        })
        .collect()
}

pub(crate) fn passed() -> DrillReport {
    let phases = [
        ("start", 0.8),
        ("pre-flight", 1.2),
        ("download", 214.0),
        ("recover", 388.0),
        ("verify", 61.0),
        ("aliases", 0.2),
        ("warm-up", 58.8),
    ];
    let timeline: Vec<PhaseTiming> =
        phases.into_iter().map(|(phase, seconds)| PhaseTiming { phase: phase.to_owned(), seconds }).collect();
    let collections = vec![
        fidelity("handbook", 3_424, (1.0, 1.0)),
        fidelity("tickets", 8_120_334, (0.984, 0.971)),
        fidelity("prix, été", 412_034, (0.93, 0.95)),
    ];
    let checks = collections
        .iter()
        .flat_map(|collection| {
            let name = Some(collection.name.as_str());
            [
                check(name, Aspect::Presence, Outcome::Passed, "there"),
                check(name, Aspect::Count, Outcome::Passed, "as recorded"),
                check(name, Aspect::Points, Outcome::Passed, "256 sampled points equal"),
                check(name, Aspect::ExactSearch, Outcome::Passed, "8 searches with the same ids and scores"),
            ]
        })
        .chain([check(None, Aspect::Aliases, Outcome::Passed, "2 equal")])
        .collect();
    let seconds = timeline.iter().map(|timing| timing.seconds).sum();
    let mut report = DrillReport {
        format_version: FORMAT_VERSION,
        backup_id: "20261130T221500Z".parse().unwrap(),
        execution: "drill-2026-12-01".parse().unwrap(),
        started_at: "2026-12-01T03:00:12Z".parse().unwrap(),
        outcome: DrillOutcome::Passed,
        backup: Some(Restored {
            created_at: "2026-11-30T22:15:00Z".parse().unwrap(),
            published: true,
            bucket: "acme-qdrant-backups".to_owned(),
            key: "qdrant/backups/qdrant_snapshot_20261130T221500Z-0badcafe.tar.zst".to_owned(),
            version_id: Some("3HL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY".to_owned()),
            size_bytes: 171 * GIB,
            raw_bytes: 280 * GIB,
            sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            crc64nvme: "rosUhgp5mIg=".to_owned(),
            frames_root: "d74981efa70a0c880b8d8c1985d075dbcbf679b99a5f9914e5aaf96b831a9e24".to_owned(),
            frame_count: 35_840,
            golden_sha256: "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752".to_owned(),
            qdrant: "1.18.3".to_owned(),
            image: Some("qdrant/qdrant:v1.18.3-unprivileged".to_owned()),
            batch: Some("nightly-2026-11-30".to_owned()),
            tool: tool(),
        }),
        timeline,
        resumed: false,
        verdict: Some(Verdict { passed: true, checks }),
        collections,
        warm_up: Some("warm after 58.8 s".to_owned()),
        recovery_time: Measured { seconds, target_seconds: 1_200.0 },
        recovery_point: Some(Measured { seconds: 17_112.0, target_seconds: 86_400.0 }),
        earlier: earlier(),
        forecast: trend::Forecast::Broken,
        tool: tool(),
        qdrant: Some("1.18.3".to_owned()),
    };
    forecast(&mut report);
    report
}

fn forecast(report: &mut DrillReport) {
    let all: Vec<Earlier> = report.earlier.iter().cloned().chain(report.as_earlier()).collect();
    report.forecast = trend::forecast(&all, report.recovery_time.target_seconds);
}

fn different() -> DrillReport {
    let mut report = passed();
    report.outcome = DrillOutcome::Different;
    report.recovery_time.target_seconds = 600.0;
    let wrong = [
        check(Some("tickets"), Aspect::Count, Outcome::Failed, "8120333 points, expected 8120334"),
        check(
            Some("tickets"),
            Aspect::Points,
            Outcome::Failed,
            "point 4711 is missing; point 12 has another payload",
        ),
        check(Some(MISSING), Aspect::Presence, Outcome::Failed, "the collection is not there"),
        check(
            None,
            Aspect::Aliases,
            Outcome::Failed,
            "`live` is missing; `<script>alert(1)</script>` is new",
        ),
    ];
    if let Some(verdict) = &mut report.verdict {
        verdict.passed = false;
        verdict.checks.extend(wrong);
    }
    if let Some(backup) = &mut report.backup {
        backup.batch = Some("\u{202e}<img src=x onerror=alert(1)>".to_owned());
    }
    report.collections[1].points = Some(8_120_333);
    report.collections[1].sampled.equal = 254;
    report.collections[1].recall = Some(Recall { recorded: 0.984, found: 0.71, tolerance: 0.06 });
    report.collections.push(Fidelity {
        points: None,
        sampled: Tally { of: 256, equal: 0 },
        searches: Tally::default(),
        score_difference: None,
        recall: None,
        ..fidelity(MISSING, 12, (1.0, 0.0))
    });
    forecast(&mut report);
    report
}

fn failed() -> DrillReport {
    let timeline: Vec<PhaseTiming> = passed().timeline.into_iter().take(3).collect();
    let seconds = timeline.iter().map(|timing| timing.seconds).sum();
    DrillReport {
        outcome: DrillOutcome::Failed {
            kind: protocol::FailureKind::ArchiveCorrupt,
            message: "frame 17 of `qdrant/backups/qdrant_snapshot_20261130T221500Z-0badcafe.tar.zst` has another hash".to_owned(),
            hint: Some("do not restore from it; drill an older backup, and take a new one".to_owned()),
        },
        verdict: None,
        collections: Vec::new(),
        warm_up: None,
        timeline,
        recovery_time: Measured { seconds, target_seconds: 1_200.0 },
        ..passed()
    }
}

fn first() -> DrillReport {
    let mut report = DrillReport { earlier: Vec::new(), warm_up: None, ..passed() };
    forecast(&mut report);
    report
}

/// Two hundred collections, some with the longest names that there can be.
fn many() -> DrillReport {
    let name = |number: usize| match number % 40 {
        7 => format!("{number}-{}", "x".repeat(250)),
        9 => format!("{number} \u{202e}desrever"),
        _ => format!("tenant-{number:04}"),
    };
    let of = |number: usize| {
        let recall = 1.0 - number as f64 / 4_000.0;
        fidelity(&name(number), number as u64 * 1_013, (recall, recall - 0.01))
    };
    let collections: Vec<Fidelity> = (0..200).map(of).collect();
    let count = |collection: &Fidelity| {
        check(Some(collection.name.as_str()), Aspect::Count, Outcome::Passed, "as recorded")
    };
    let checks = collections.iter().map(count).collect();
    DrillReport { collections, verdict: Some(Verdict { passed: true, checks }), ..passed() }
}
