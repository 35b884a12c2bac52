//! The drawings: inline SVG of 360 units' width, so that its letters are readable on a phone and not too large on a desk. What a drawing shows is said in words, too.

use std::fmt::Write as _;

use jiff::Timestamp;
use protocol::{
    DrillReport,
    drill::{Earlier, Forecast, Measured, fidelity::Recall},
    manifest::PhaseTiming,
};

use super::text::{Text, duration, short_day};

const WIDTH: f64 = 360.0;
const ROW: f64 = 34.0;

/// An image with its words. Writing to a string cannot fail.
fn image(height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>{body}</svg>\n",
        Text(title)
    )
}

/// What took how long, one below the other, each where it was in time.
pub(super) fn timeline(phases: &[PhaseTiming]) -> String {
    let total: f64 = phases.iter().map(|phase| phase.seconds).sum();
    let mut body = String::new();
    let mut before = 0.0;
    for (row, phase) in phases.iter().enumerate() {
        let y = row as f64 * ROW;
        let (x, width) = (share(before, total), share(phase.seconds, total).max(1.5));
        let _ = write!(
            body,
            "<text x=\"0\" y=\"{:.1}\">{}</text><text class=\"dim\" x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"rail\" x=\"0\" y=\"{:.1}\" width=\"{WIDTH}\" height=\"6\" rx=\"3\"/>\
             <rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"6\" rx=\"3\"/>",
            y + 13.0,
            Text(&phase.phase),
            y + 13.0,
            duration(phase.seconds),
            y + 18.0,
            x.min(WIDTH - width),
            y + 18.0,
        );
        before += phase.seconds;
    }
    let title = format!("{} phases, {} in all", phases.len(), duration(total));
    image(phases.len() as f64 * ROW, &title, &body)
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * WIDTH } else { 0.0 }
}

/// A duration beside its target.
pub(super) fn against_target(what: &str, measured: Measured) -> String {
    let Measured { seconds, target_seconds } = measured;
    let largest = seconds.max(target_seconds).max(1e-9) * 1.05;
    let (bar, target) = (share(seconds, largest).max(2.0), share(target_seconds, largest));
    let class = if measured.kept() { "bar" } else { "over" };
    let body = format!(
        "<rect class=\"rail\" x=\"0\" y=\"4\" width=\"{WIDTH}\" height=\"10\" rx=\"5\"/>\
         <rect class=\"{class}\" x=\"0\" y=\"4\" width=\"{bar:.1}\" height=\"10\" rx=\"5\"/>\
         <line class=\"target\" x1=\"{target:.1}\" x2=\"{target:.1}\" y1=\"0\" y2=\"18\"/>\
         <text class=\"dim\" x=\"{target:.1}\" y=\"30\" text-anchor=\"end\">target {}</text>",
        duration(target_seconds)
    );
    image(32.0, &format!("{what} {}, target {}", duration(seconds), duration(target_seconds)), &body)
}

/// The recall of normal searches, collection by collection: what was recorded, what was found, and how low it may be.
pub(super) fn recall(collections: &[(&str, Recall)]) -> String {
    let least = collections.iter().map(|(_, recall)| recall.found.min(recall.recorded - recall.tolerance));
    // The axis begins at a tenth, so that differences can be seen.
    let begin = (least.fold(1.0, f64::min) * 10.0).floor().clamp(0.0, 9.0) / 10.0;
    let at = |recall: f64| ((recall - begin) / (1.0 - begin)).clamp(0.0, 1.0) * (WIDTH - 12.0) + 6.0;
    let mut body = String::new();
    for (row, (name, Recall { recorded, found, tolerance })) in collections.iter().enumerate() {
        let y = row as f64 * (ROW + 4.0);
        let low = at(recorded - tolerance);
        let fits = *found >= recorded - tolerance;
        let _ = write!(
            body,
            "<text x=\"0\" y=\"{:.1}\">{}</text><text class=\"dim\" x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{found:.3}, recorded {recorded:.3}</text>\
             <line class=\"axis\" x1=\"6\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <rect class=\"band\" x=\"{low:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"8\" rx=\"4\"/>\
             <line class=\"tick\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             {}",
            y + 13.0,
            Text(&shortened(name)),
            y + 13.0,
            WIDTH - 6.0,
            y + 25.0,
            y + 25.0,
            y + 21.0,
            WIDTH - 6.0 - low,
            at(*recorded),
            at(*recorded),
            y + 19.0,
            y + 31.0,
            mark(fits, at(*found), y + 25.0),
        );
    }
    let y = collections.len() as f64 * (ROW + 4.0) + 12.0;
    let _ = write!(
        body,
        "<text class=\"dim\" x=\"0\" y=\"{y:.1}\">{begin:.1}</text><text class=\"dim\" x=\"{WIDTH}\" y=\"{y:.1}\" text-anchor=\"end\">1.0</text>"
    );
    image(y + 4.0, &format!("recall of {} collections", collections.len()), &body)
}

/// Not by colour alone: what is right is round, what is wrong has corners.
fn mark(right: bool, x: f64, y: f64) -> String {
    if right {
        format!("<circle class=\"found\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>")
    } else {
        format!("<rect class=\"lost\" x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"/>", x - 4.5, y - 4.5)
    }
}

/// A collection's name has up to 255 characters; the tables show them all.
fn shortened(name: &str) -> String {
    const MOST: usize = 24;
    if name.chars().count() <= MOST {
        name.to_owned()
    } else {
        name.chars().take(MOST - 1).chain(['…']).collect()
    }
}

/// How long drills took, the present one last, with the target and where the forecast meets it.
pub(super) fn trend(report: &DrillReport, drills: &[Earlier]) -> String {
    const TOP: f64 = 16.0;
    const BOTTOM: f64 = 130.0;
    let target = report.recovery_time.target_seconds;
    let breaks = match report.forecast {
        Forecast::Breaks { at, .. } => Some(at),
        Forecast::TooEarly { .. } | Forecast::Broken | Forecast::NotInSight { .. } => None,
    };
    let times = || drills.iter().map(|drill| drill.started_at).chain(breaks);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return String::new() };
    let span = last.duration_since(first).as_secs_f64();
    let x = |time: Timestamp| {
        let part = if span > 0.0 { time.duration_since(first).as_secs_f64() / span } else { 0.5 };
        8.0 + part * (WIDTH - 16.0)
    };
    let most = drills.iter().map(|drill| drill.seconds).fold(target, f64::max) * 1.08;
    let y = |seconds: f64| BOTTOM - seconds / most.max(1e-9) * (BOTTOM - TOP);
    let mut body = format!(
        "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>\
         <line class=\"target\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>\
         <text class=\"dim\" x=\"0\" y=\"{1:.1}\">target {2}</text>",
        y(target),
        y(target) - 4.0,
        duration(target)
    );
    let place = |drill: &Earlier| format!("{:.1},{:.1}", x(drill.started_at), y(drill.seconds));
    let line: Vec<String> = drills.iter().map(place).collect();
    let _ = write!(body, "<polyline class=\"path\" points=\"{}\"/>", line.join(" "));
    if let (Some(at), Some(present)) = (breaks, drills.last()) {
        let _ = write!(
            body,
            "<line class=\"ahead\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            x(present.started_at),
            y(present.seconds),
            x(at),
            y(target)
        );
    }
    for drill in drills {
        body.push_str(&mark(drill.passed, x(drill.started_at), y(drill.seconds)));
    }
    let _ = write!(
        body,
        "<text class=\"dim\" x=\"0\" y=\"{0}\">{1}</text><text class=\"dim\" x=\"{WIDTH}\" y=\"{0}\" text-anchor=\"end\">{2}</text>",
        BOTTOM + 15.0,
        short_day(first),
        short_day(last)
    );
    image(
        BOTTOM + 20.0,
        &format!("recovery times of {} drills against the target {}", drills.len(), duration(target)),
        &body,
    )
}
