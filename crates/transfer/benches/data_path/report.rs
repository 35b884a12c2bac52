//! What a run found, for people and for programs.

use std::{
    fmt::{Arguments, Write as _},
    path::Path,
    process::Command,
};

use serde::Serialize;
use serde_json::json;

use crate::{
    Settings,
    baseline::Programs,
    goals::{Bound, Goal},
    measure::{Sample, median},
    suite::Results,
};

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;

/// Where a run takes place.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    load_before: String,
    commit: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: memory / (1024.0 * 1024.0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").trim().to_owned(),
            commit: git.map(|git| String::from_utf8_lossy(&git.stdout).trim().to_owned()).unwrap_or_default(),
        }
    }
}

/// A run, and everything that is known of it.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) machine: Machine,
    pub(crate) programs: &'a Programs,
    pub(crate) results: &'a Results,
    pub(crate) goals: Vec<Goal>,
}

impl Report<'_> {
    /// The table, which ends with how many goals are met.
    pub(crate) fn table(&self) -> String {
        let Machine { cpu, cores, memory_gib, kernel, load_before, commit } = &self.machine;
        let Settings { size_mib, rounds, .. } = self.settings;
        let mut text = String::new();
        push(
            &mut text,
            format_args!(
                "{cores} × {cpu}, {memory_gib:.0} GiB, Linux {kernel}, load {load_before}, commit {commit}; \
                 {size_mib} MiB of snapshots, {rounds} rounds\n"
            ),
        );
        for program in &self.programs.missing {
            push(
                &mut text,
                format_args!("missing: `{program}`; goals against what it is a part of are unmet\n"),
            );
        }
        push(
            &mut text,
            format_args!(
                "{:<50} {:>9} {:>9} {:>9} {:>10} {:>11}",
                "row (medians)", "CPU s", "CPU s/GiB", "wall s", "RSS MiB", "object MiB"
            ),
        );
        for (name, samples) in &self.results.0 {
            let cell = |of: fn(&Sample) -> Option<f64>, digits: usize| {
                let value = median(samples.iter().filter_map(of).collect());
                value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
            };
            push(
                &mut text,
                format_args!(
                    "{name:<50} {:>9} {:>9} {:>9} {:>10} {:>11}",
                    cell(|sample| Some(sample.cpu_s), 3),
                    cell(|sample| Some(sample.cpu_s / (sample.raw_bytes as f64 / GIB)), 3),
                    cell(|sample| Some(sample.wall_s), 3),
                    cell(|sample| sample.peak_rss.map(|bytes| bytes as f64 / MIB), 1),
                    cell(|sample| sample.object_bytes.map(|bytes| bytes as f64 / MIB), 2),
                ),
            );
        }
        push(&mut text, format_args!("\n{:<50} {:>9} {:>9}   met", "goal", "bound", "found"));
        for goal in &self.goals {
            let bound = match goal.bound {
                Bound::AtMost(bound) => format!("≤ {bound}"),
                Bound::AtLeast(bound) => format!("≥ {bound}"),
            };
            let found = match &goal.found {
                Ok(found) => format!("{found:>9.4}   {}", if goal.is_met() { "yes" } else { "no" }),
                Err(why) => format!("{:>9}   no: {why}", "–"),
            };
            push(&mut text, format_args!("{:<50} {bound:>9} {found}", goal.name));
        }
        let met = self.goals.iter().filter(|goal| goal.is_met()).count();
        push(&mut text, format_args!("\ngoals met: {met} of {}", self.goals.len()));
        text
    }

    /// Keeps the table and everything that it is made of in `out`.
    pub(crate) fn save(&self, out: &Path) -> anyhow::Result<()> {
        fs_err::create_dir_all(out)?;
        fs_err::write(out.join("table.txt"), self.table())?;
        fs_err::write(out.join("raw.csv"), csv(self.results))?;
        let goal = |goal: &Goal| {
            let (relation, bound) = match goal.bound {
                Bound::AtMost(bound) => ("at most", bound),
                Bound::AtLeast(bound) => ("at least", bound),
            };
            json!({
                "goal": goal.name, "relation": relation, "bound": bound, "met": goal.is_met(),
                "found": goal.found.as_ref().ok(), "why_not": goal.found.as_ref().err(),
            })
        };
        let Settings { size_mib, sample_mib, rounds, .. } = self.settings;
        let run = json!({
            "machine": self.machine,
            "settings": { "size_mib": size_mib, "sample_mib": sample_mib, "rounds": rounds },
            "programs": self.programs.versions,
            "missing": self.programs.missing,
            "goals": self.goals.iter().map(goal).collect::<Vec<_>>(),
        });
        fs_err::write(out.join("run.json"), serde_json::to_string_pretty(&run)? + "\n")?;
        Ok(())
    }
}

/// Every sample, a line each. Names have commas in them, but no quotes.
fn csv(results: &Results) -> String {
    let mut csv = String::new();
    push(
        &mut csv,
        format_args!(
            "row,run,cpu_s,wall_s,raw_bytes,object_bytes,peak_rss,budget,repeated_bytes,in_flight_bytes"
        ),
    );
    for (name, samples) in &results.0 {
        for (number, sample) in (1..).zip(samples) {
            let Sample { cpu_s, wall_s, raw_bytes, .. } = sample;
            let Sample { object_bytes, peak_rss, budget, repeated_bytes, in_flight_bytes, .. } = sample;
            let optional = [object_bytes, peak_rss, budget, repeated_bytes, in_flight_bytes]
                .map(|value| value.map(|value| value.to_string()).unwrap_or_default());
            push(
                &mut csv,
                format_args!("\"{name}\",{number},{cpu_s:.6},{wall_s:.6},{raw_bytes},{}", optional.join(",")),
            );
        }
    }
    csv
}

/// Adds a line. Writing to a string cannot fail.
fn push(text: &mut String, line: Arguments<'_>) {
    let _infallible = writeln!(text, "{line}");
}
