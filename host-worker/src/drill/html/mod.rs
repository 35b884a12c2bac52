//! The report for people: one page that needs nothing else, for a desk, a phone and paper. The verdict comes first, then why it can be believed.
//!
//! The page is a function of the report alone. Nothing in it is markup that came from outside (`text::Text`), there is no script, and nothing is fetched.

mod chart;
mod text;

use std::fmt::Write as _;

use protocol::{
    CollectionName, DrillReport,
    drill::{DrillOutcome, Earlier, Forecast, Measured, Restored},
    verdict::{self, Check},
};

use self::text::{Text, count, day, duration, moment};
use crate::config::ByteSize;

const STYLE: &str = include_str!("style.css");
/// As many recalls are drawn: those that fell furthest.
const DRAWN: usize = 40;
/// What is compared of no collection.
const ALIASES: &str = "Aliases of all collections";

/// The page.
pub fn render(report: &DrillReport) -> String {
    let mut page = String::new();
    let title = format!("Restore drill of backup {}", report.backup_id);
    let class = if report.passed() { "good" } else { "bad" };
    let sections = [
        failures(report),
        figures(report),
        origin(report),
        timeline(report),
        counts(report),
        fidelity(report),
        trend(report),
        comparisons(report),
        evidence(report),
    ];
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header class=\"{class}\"><div>\n{}</div></header>\n<main>\n{}</main>\n\
         <footer class=\"quiet\">Drilled {} by {} {}, execution <code>{}</code>.</footer>\n</body>\n</html>\n",
        Text(&title),
        headline(report),
        sections.concat(),
        moment(report.started_at),
        Text(&report.tool.name),
        Text(&report.tool.version),
        Text(&report.execution.to_string()),
    );
    page
}

fn headline(report: &DrillReport) -> String {
    let backup = format!("The backup of {}", moment(report.backup_id.time()));
    let Measured { seconds, target_seconds } = report.recovery_time;
    let took =
        || format!("{} of the target of {}", percent(seconds, target_seconds), duration(target_seconds));
    let (sign, said, lead) = match &report.outcome {
        DrillOutcome::Passed => (
            "✓",
            "restores, and is what was recorded.",
            if report.resumed {
                format!(
                    "Restored and verified. An earlier attempt had done a part of it, so that {} is not its time.",
                    duration(seconds)
                )
            } else {
                format!("Restored and verified in {}, {}.", duration(seconds), took())
            },
        ),
        DrillOutcome::Different => (
            "✗",
            "restores, and is not what was recorded.",
            format!(
                "{} of {} comparisons came out wrong. It took {}.",
                wrong(report).count(),
                report.verdict.as_ref().map_or(0, |verdict| verdict.checks.len()),
                duration(seconds)
            ),
        ),
        DrillOutcome::Failed { .. } => {
            ("✗", "was not restored.", format!("The drill ended with a failure after {}.", duration(seconds)))
        }
    };
    format!("<h1><span class=\"sign\">{sign}</span>{backup} {said}</h1>\n<p class=\"lead\">{lead}</p>\n")
}

/// How much of a whole, for people.
fn percent(part: f64, whole: f64) -> String {
    match part / whole * 100.0 {
        share if !share.is_finite() => "no part".to_owned(),
        share if share < 1.0 => "less than 1%".to_owned(),
        share => format!("{share:.0}%"),
    }
}

fn wrong(report: &DrillReport) -> impl Iterator<Item = &Check> {
    report.verdict.iter().flat_map(verdict::Verdict::failures)
}

/// What went wrong, before anything else.
fn failures(report: &DrillReport) -> String {
    let mut items: Vec<String> = wrong(report)
        .map(|check| {
            let detail = Text(&check.detail);
            match &check.collection {
                Some(name) => format!(
                    "<li><strong>{}</strong> – {}: {detail}</li>\n",
                    Text(name.as_str()),
                    check.aspect.name()
                ),
                None => format!("<li><strong>{ALIASES}</strong> – {detail}</li>\n"),
            }
        })
        .collect();
    if let DrillOutcome::Failed { kind, message, hint } = &report.outcome {
        let hint = hint.as_ref().map(|hint| format!("<br/>What to do: {}", Text(hint))).unwrap_or_default();
        items.push(format!("<li><strong>{kind}</strong> – {}{hint}</li>\n", Text(message)));
    }
    if items.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>What is wrong</h2>\n<ul class=\"failures\">\n{}</ul>\n</section>\n",
        items.concat()
    )
}

fn figures(report: &DrillReport) -> String {
    let mut figures = String::new();
    let mut figure = |name: &str, value: String, drawing: String, words: String| {
        let _ = writeln!(
            figures,
            "<div class=\"figure\"><span class=\"quiet\">{name}</span><b>{value}</b>{drawing}<p class=\"quiet\">{words}</p></div>"
        );
    };
    let kept =
        |measured: Measured| if measured.kept() { "The target is kept." } else { "The target is broken." };
    let time = report.recovery_time;
    let (name, words) = match &report.outcome {
        DrillOutcome::Passed => (
            "Recovery time",
            format!(
                "{} From the beginning of the drill to restored and verified{}.",
                kept(time),
                warm(report)
            ),
        ),
        DrillOutcome::Different => (
            "Recovery time",
            format!(
                "{} From the beginning of the drill to compared; what came out is not what was recorded.",
                kept(time)
            ),
        ),
        DrillOutcome::Failed { .. } => (
            "Time to the failure",
            "Nothing was recovered in it, so it says nothing about the target.".to_owned(),
        ),
    };
    figure(name, duration(time.seconds), chart::against_target(name, time), words);
    if let Some(point) = report.recovery_point {
        figure(
            "Recovery point",
            duration(point.seconds),
            chart::against_target("recovery point", point),
            format!(
                "{} So old was the published backup when the drill began: what a loss at that moment would have cost.",
                kept(point)
            ),
        );
    }
    format!("<section class=\"figures\">\n{figures}</section>\n")
}

fn warm(report: &DrillReport) -> String {
    report.warm_up.as_ref().map(|warm_up| format!(", warmed up ({})", Text(warm_up))).unwrap_or_default()
}

fn origin(report: &DrillReport) -> String {
    let Some(backup) = &report.backup else { return String::new() };
    let points: u64 = report.collections.iter().filter_map(|collection| collection.points).sum();
    let published = if backup.published { "the published backup" } else { "not the published backup" };
    let batch =
        backup.batch.as_deref().map_or_else(|| "none recorded".to_owned(), |batch| Text(batch).to_string());
    let into = report.qdrant.as_deref().unwrap_or("none");
    let failed = matches!(report.outcome, DrillOutcome::Failed { .. });
    let title = if failed { "What was to be restored" } else { "What was restored" };
    let mut rows = vec![
        ("What", format!("{published}, made {}", moment(backup.created_at))),
        ("From", format!("<code>s3://{}/{}</code>", Text(&backup.bucket), Text(&backup.key))),
        (
            "Size",
            format!(
                "{} of snapshots in an archive of {}",
                ByteSize(backup.raw_bytes),
                ByteSize(backup.size_bytes)
            ),
        ),
        ("Qdrant", format!("taken from {}, restored into {}", Text(&backup.qdrant), Text(into))),
        ("Batch", batch),
    ];
    if !report.collections.is_empty() {
        rows.push((
            "Content",
            format!("{} points in {} collections", count(points), report.collections.len()),
        ));
    }
    format!("<section>\n<h2>{title}</h2>\n{}</section>\n", list(&rows))
}

fn list(rows: &[(&str, String)]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n")).collect();
    format!("<dl>\n{}</dl>\n", rows.concat())
}

fn timeline(report: &DrillReport) -> String {
    if report.timeline.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>What took how long</h2>\n{}</section>\n", chart::timeline(&report.timeline))
}

fn counts(report: &DrillReport) -> String {
    if report.collections.is_empty() {
        return String::new();
    }
    let rows: Vec<String> = report
        .collections
        .iter()
        .map(|collection| {
            let (least, most) = collection.points_expected;
            let right = collection.points.is_some_and(|points| (least..=most).contains(&points));
            let expected = if least == most { count(least) } else { format!("{} to {}", count(least), count(most)) };
            let found = collection.points.map_or_else(|| "not there".to_owned(), count);
            format!(
                "<tr><td>{}</td><td class=\"number\">{expected}</td><td class=\"number\">{found}</td><td class=\"number\">{} of {}</td><td>{}</td></tr>\n",
                Text(collection.name.as_str()),
                count(collection.sampled.equal),
                count(collection.sampled.of),
                mark(right && collection.sampled.equal == collection.sampled.of)
            )
        })
        .collect();
    format!(
        "<section>\n<h2>Points</h2>\n<table class=\"points\">\n<caption>Exact counts, and sampled points whose payload and vectors are equal.</caption>\n\
         <thead><tr><th scope=\"col\">Collection</th><th scope=\"col\" class=\"number\">Recorded</th><th scope=\"col\" class=\"number\">Found</th><th scope=\"col\" class=\"number\">Equal</th><th scope=\"col\"><span class=\"unseen\">right</span></th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</section>\n",
        rows.concat()
    )
}

fn mark(right: bool) -> &'static str {
    if right {
        "<span class=\"ok\" title=\"right\">✓</span>"
    } else {
        "<span class=\"no\">✗ wrong</span>"
    }
}

fn fidelity(report: &DrillReport) -> String {
    if report.collections.is_empty() {
        return String::new();
    }
    let (searches, equal) = report.collections.iter().fold((0, 0), |(of, equal), collection| {
        (of + collection.searches.of, equal + collection.searches.equal)
    });
    let refused: u64 = report.collections.iter().map(|collection| collection.not_searched).sum();
    let differences = report.collections.iter().filter_map(|collection| collection.score_difference);
    let difference = differences.reduce(f64::max);
    let exact = match searches {
        0 => "No exact search was made.".to_owned(),
        _ => format!(
            "{} of {} recorded searches gave the same ids and scores; {}.{}",
            count(equal),
            count(searches),
            match difference {
                Some(difference) if difference > 0.0 =>
                    format!("no score is off by more than {difference:.1e}"),
                Some(_) => "every score is the same to the last digit".to_owned(),
                None => "no score was compared".to_owned(),
            },
            if refused > 0 {
                format!(" {} could not be made, and say nothing.", count(refused))
            } else {
                String::new()
            }
        ),
    };
    let mut recalls: Vec<_> = report
        .collections
        .iter()
        .filter_map(|collection| Some((collection.name.as_str(), collection.recall?)))
        .collect();
    recalls.sort_by(|(_, a), (_, b)| (a.found - a.recorded).total_cmp(&(b.found - b.recorded)));
    let more = recalls.len().saturating_sub(DRAWN);
    recalls.truncate(DRAWN);
    let drawn = if recalls.is_empty() {
        String::new()
    } else {
        let rest = if more > 0 {
            format!(" The {DRAWN} that fell furthest are drawn, {more} are not.")
        } else {
            String::new()
        };
        format!(
            "<p class=\"quiet\">The recall of normal searches: the line is what was recorded, the dot what was found, the band what is tolerated; a square lies below it.{rest}</p>\n{}",
            chart::recall(&recalls)
        )
    };
    format!("<section>\n<h2>Searches</h2>\n<p>{exact}</p>\n{drawn}</section>\n")
}

fn trend(report: &DrillReport) -> String {
    let drills: Vec<Earlier> = report.earlier.iter().cloned().chain(report.as_earlier()).collect();
    let target = duration(report.recovery_time.target_seconds);
    let growth = |bytes_per_day: f64| {
        let size = ByteSize(whole(bytes_per_day.abs() * 30.4375));
        if bytes_per_day < 0.0 {
            format!("shrinks by {size} a month")
        } else {
            format!("grows by {size} a month")
        }
    };
    let sentence = match report.forecast {
        Forecast::TooEarly { drills } => {
            let so_far = match drills {
                0 => "No drill so far has restored anything".to_owned(),
                1 if report.as_earlier().is_some() => {
                    "This is the first drill that has restored anything".to_owned()
                }
                1 => "One drill so far has restored something".to_owned(),
                drills => format!("The {drills} drills so far are too few, or too close together"),
            };
            format!(
                "{so_far}: when the recovery time will break its target of {target} cannot be said before three of them cover a fortnight."
            )
        }
        Forecast::Broken => format!(
            "The recovery time is over its target of {target} already, or would be with a backup of the present size."
        ),
        Forecast::Breaks { at, raw_bytes, bytes_per_day } => format!(
            "The data {}. If it goes on so, a restore takes longer than {target} from about {} on, with {} of snapshots.",
            growth(bytes_per_day),
            day(at),
            ByteSize(raw_bytes)
        ),
        Forecast::NotInSight { bytes_per_day } => {
            format!(
                "The data {}. That a restore takes longer than {target} is not in sight.",
                growth(bytes_per_day)
            )
        }
    };
    let drawing = if drills.len() < 2 { String::new() } else { chart::trend(report, &drills) };
    format!("<section>\n<h2>Trend</h2>\n<p>{sentence}</p>\n{drawing}</section>\n")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and the number is not negative"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Every comparison, those of one collection together: a name may be long, and is written once.
fn comparisons(report: &DrillReport) -> String {
    let Some(verdict) = &report.verdict else { return String::new() };
    let mut groups: Vec<(Option<&CollectionName>, String)> = Vec::new();
    for check in &verdict.checks {
        let outcome = match check.outcome {
            verdict::Outcome::Passed => mark(true),
            verdict::Outcome::Failed => mark(false),
            verdict::Outcome::Skipped => "<span class=\"quiet\" title=\"not made\">–</span>",
        };
        let row = format!(
            "<tr><td>{outcome}</td><td>{}</td><td>{}</td></tr>\n",
            check.aspect.name(),
            Text(&check.detail)
        );
        let subject = check.collection.as_ref();
        match groups.iter_mut().find(|(group, _)| *group == subject) {
            Some((_, rows)) => rows.push_str(&row),
            None => groups.push((subject, row)),
        }
    }
    let bodies: Vec<String> = groups
        .iter()
        .map(|(subject, rows)| {
            let subject = subject.map_or(ALIASES, CollectionName::as_str);
            format!(
                "<tbody>\n<tr><th colspan=\"3\" scope=\"rowgroup\">{}</th></tr>\n{rows}</tbody>\n",
                Text(subject)
            )
        })
        .collect();
    format!(
        "<section>\n<h2>Every comparison</h2>\n<table class=\"comparisons\">\n<caption>{} comparisons; a dash is one that could not be made and says nothing.</caption>\n\
         <thead><tr><th scope=\"col\"><span class=\"unseen\">right</span></th><th scope=\"col\">Compared</th><th scope=\"col\">Result</th></tr></thead>\n{}</table>\n</section>\n",
        verdict.checks.len(),
        bodies.concat()
    )
}

fn evidence(report: &DrillReport) -> String {
    let Some(backup) = &report.backup else { return String::new() };
    let Restored { sha256, crc64nvme, frames_root, frame_count, golden_sha256, tool, .. } = backup;
    let code = |text: &str| format!("<code>{}</code>", Text(text));
    let rows = [
        (
            "Object version",
            backup.version_id.as_deref().map_or_else(|| "the bucket keeps none".to_owned(), code),
        ),
        ("SHA-256", code(sha256)),
        ("CRC-64/NVME", code(crc64nvme)),
        ("Frames", format!("{} with root {}", count(*frame_count), code(frames_root))),
        ("Golden set", code(golden_sha256)),
        ("Image", backup.image.as_deref().map_or_else(|| "not recorded".to_owned(), code)),
        ("Backed up by", format!("{} {}", Text(&tool.name), Text(&tool.version))),
    ];
    format!("<section>\n<h2>Evidence</h2>\n{}</section>\n", list(&rows))
}
