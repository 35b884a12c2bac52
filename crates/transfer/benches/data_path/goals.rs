//! The goals: ratios of rows of the same run.

use crate::{
    baseline::Programs,
    measure::{Sample, median},
    stages::BACKUP_STAGES,
    suite::{Results, row},
};

/// What buffers and everything else together may take beyond the budget, in bytes.
const ALLOWANCE: u64 = 64 << 20;

/// A number that a goal is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A goal, and how it comes out.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    pub(crate) bound: Bound,
    /// The number, or why there is none.
    pub(crate) found: Result<f64, String>,
}

impl Goal {
    pub(crate) fn is_met(&self) -> bool {
        match (&self.found, self.bound) {
            (Ok(found), Bound::AtMost(bound)) => *found <= bound,
            (Ok(found), Bound::AtLeast(bound)) => *found >= bound,
            (Err(_), _) => false,
        }
    }
}

/// Every goal, in the order in which they are agreed.
pub(crate) fn all(results: &Results, programs: &Programs) -> Vec<Goal> {
    let missing = |row: &str| match programs.missing.as_slice() {
        [] => format!("no row `{row}`"),
        missing => format!("missing: {}", missing.join(", ")),
    };
    let value = |row: &str, of: fn(&Sample) -> Option<f64>| {
        let samples = results.get(row).map(|samples| samples.iter().filter_map(of).collect());
        samples.and_then(median).ok_or_else(|| missing(row))
    };
    let cpu = |row: &str| value(row, |sample| Some(sample.cpu_s));
    let wall = |row: &str| value(row, |sample| Some(sample.wall_s));
    let object = |row: &str| value(row, |sample| sample.object_bytes.map(|bytes| bytes as f64));
    let ratio = |a: Result<f64, String>, b: Result<f64, String>| Ok(a? / b?);
    let stages = BACKUP_STAGES.iter().chain(&[row::CLIENT]).try_fold(0.0, |sum, stage| Ok(sum + cpu(stage)?));
    // How much of what is allowed was taken by the worst run of several rows.
    let memory = |rows: &[&str]| {
        let share = |sample: &Sample| Some(sample.peak_rss? as f64 / (sample.budget? + ALLOWANCE) as f64);
        rows.iter().try_fold(0.0, |worst, row| {
            let taken = results.get(row).into_iter().flatten().filter_map(share).reduce(f64::max);
            Ok(f64::max(worst, taken.ok_or_else(|| missing(row))?))
        })
    };
    let goal = |name, bound, found| Goal { name, bound, found };
    let at_most = |name, bound, found| goal(name, Bound::AtMost(bound), found);
    vec![
        at_most("backup: CPU / sum of its stages alone", 1.15, ratio(cpu(row::BACKUP), stages)),
        at_most("backup: CPU / pipeline with zstd -3", 0.40, ratio(cpu(row::BACKUP), cpu(row::PIPELINE))),
        at_most("backup: wall / pipeline with zstd -3", 0.60, ratio(wall(row::BACKUP), wall(row::PIPELINE))),
        at_most("backup --level 1: CPU / pipeline", 0.33, ratio(cpu(row::BACKUP_ONE), cpu(row::PIPELINE))),
        at_most("backup --level 1: wall / pipeline", 0.50, ratio(wall(row::BACKUP_ONE), wall(row::PIPELINE))),
        at_most("backup: CPU / three passes with zstd -19", 0.01, ratio(cpu(row::SAMPLE), cpu(row::PASSES))),
        at_most("backup: object / three passes", 1.03, ratio(object(row::SAMPLE), object(row::PASSES))),
        at_most(
            "backup: object / single-frame zstd -3",
            1.005,
            ratio(object(row::BACKUP), object(row::SINGLE)),
        ),
        at_most("S3 client: CPU / plain hyper", 1.10, ratio(cpu(row::CLIENT), cpu(row::HYPER))),
        at_most("restore: CPU / curl pipeline", 0.65, ratio(cpu(row::RESTORE), cpu(row::CURL))),
        at_most("restore: wall / curl pipeline", 0.65, ratio(wall(row::RESTORE), wall(row::CURL))),
        goal(
            "decoding on two threads: times as fast as on one",
            Bound::AtLeast(1.5),
            ratio(wall(row::DECODE_ONE), wall(row::DECODE_TWO)),
        ),
        at_most(
            "backup: peak RSS / (budget + 64 MiB), worst row",
            1.0,
            memory(&[row::BACKUP, row::BACKUP_SLOW, row::BACKUP_ZEROS, row::BACKUP_FRAMES]),
        ),
        at_most(
            "restore: peak RSS / (budget + 64 MiB), worst row",
            1.0,
            memory(&[row::RESTORE, row::RESTORE_ZEROS, row::RESTORE_FRAMES]),
        ),
        at_most(
            "backup killed: bytes sent twice / parts in flight",
            1.0,
            ratio(
                value(row::RESUMED, |sample| sample.repeated_bytes.map(|bytes| bytes as f64)),
                value(row::RESUMED, |sample| sample.in_flight_bytes.map(|bytes| bytes as f64)),
            ),
        ),
    ]
}
