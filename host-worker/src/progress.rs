//! What a person, or a log, sees while work is going on; and how long each phase took.

use std::{future::Future, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::manifest::PhaseTiming;
use tokio::time::Instant;
use tracing::info;

use crate::pulse::{Phase, Pulse};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// A bar with rate and ETA, on a terminal.
    Bar,
    /// Log lines.
    Log,
}

/// The phases of one command: shown while they run, timed for the manifest and the summary.
#[derive(Debug)]
pub struct Phases {
    bar: ProgressBar,
    pulse: Pulse,
    current: Option<(Phase, Instant)>,
    timings: Vec<PhaseTiming>,
}

impl Phases {
    /// Begins with no phase.
    pub fn new(display: Display) -> Self {
        Self::watched(display, Pulse::default())
    }

    /// Begins with no phase; whatever moves is marked in `pulse`.
    pub fn watched(display: Display, pulse: Pulse) -> Self {
        let target = match display {
            Display::Bar => ProgressDrawTarget::stderr(),
            Display::Log => ProgressDrawTarget::hidden(),
        };
        let bar =
            ProgressBar::with_draw_target(None, target).with_style(style("{spinner} {msg} ({elapsed})"));
        if display == Display::Bar {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, pulse, current: None, timings: Vec::new() }
    }

    /// Ends the phase that runs and begins `phase`; time spent in one phase entered twice is added up.
    pub fn enter(&mut self, phase: Phase) {
        self.end();
        self.pulse.enter(phase);
        self.bar.set_message(phase.name());
        self.current = Some((phase, Instant::now()));
        info!(phase = phase.name(), "phase begins");
    }

    /// Where whatever moves is marked.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Says what exactly the phase is at, as the collection whose snapshot is being taken.
    pub fn detail(&self, detail: &str) {
        self.pulse.mark();
        if let Some((phase, _)) = self.current {
            self.bar.set_message(format!("{phase}: {detail}"));
            info!(phase = phase.name(), detail, "progress");
        }
    }

    /// Tells something that is worth a line: above the bar, or in the log.
    pub fn tell(&self, line: &str) {
        self.bar.println(line);
        info!("{line}");
    }

    /// Runs `work` and shows the counters of the transfer that it makes.
    pub async fn follow<T>(&self, progress: &transfer::Progress, work: impl Future<Output = T>) -> T {
        const SHOWN_EVERY: Duration = Duration::from_millis(200);
        const LOGGED_EVERY: u32 = 50;
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(SHOWN_EVERY);
        let mut count = 0_u32;
        let mut moved = (0, 0);
        self.bar.set_style(style("{spinner} {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}"));
        self.bar.reset();
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick() => {
                    self.bar.set_length(progress.raw_total());
                    self.bar.set_position(progress.raw_done());
                    let latest = (progress.raw_done(), progress.object_bytes());
                    // While it reads back, its counters stand still, and it ends by itself what stalls.
                    if latest != moved || progress.phase() == transfer::Phase::ReadingBack {
                        moved = latest;
                        self.pulse.mark();
                    }
                    count += 1;
                    if count.is_multiple_of(LOGGED_EVERY) {
                        info!(
                            raw_bytes = progress.raw_done(),
                            raw_total = progress.raw_total(),
                            object_bytes = progress.object_bytes(),
                            retries = progress.retries(),
                            "moving"
                        );
                    }
                }
            }
        };
        self.bar.set_style(style("{spinner} {msg} ({elapsed})"));
        self.bar.unset_length();
        result
    }

    /// The phases so far, in the order in which they were first entered, with the one that runs counted up to now.
    pub fn timings(&self) -> Vec<PhaseTiming> {
        let mut timings = self.timings.clone();
        if let Some((phase, since)) = self.current {
            add(&mut timings, phase, since);
        }
        timings
    }

    /// Ends the last phase and clears the bar.
    pub fn finish(mut self) -> Vec<PhaseTiming> {
        self.end();
        self.bar.finish_and_clear();
        self.timings
    }

    fn end(&mut self) {
        if let Some((phase, since)) = self.current.take() {
            add(&mut self.timings, phase, since);
            info!(phase = phase.name(), seconds = since.elapsed().as_secs_f64(), "phase ends");
        }
    }
}

fn add(timings: &mut Vec<PhaseTiming>, phase: Phase, since: Instant) {
    // Milliseconds are as fine as a reader of the manifest cares for.
    let seconds = (since.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    match timings.iter_mut().find(|timing| timing.phase == phase.name()) {
        Some(timing) => timing.seconds += seconds,
        None => timings.push(PhaseTiming { phase: phase.name().to_owned(), seconds }),
    }
}

fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_malformed| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_entered_twice_is_listed_once() {
        let mut phases = Phases::new(Display::Log);
        for phase in [Phase::Snapshot, Phase::Upload, Phase::Snapshot] {
            phases.enter(phase);
        }
        let names: Vec<String> = phases.finish().into_iter().map(|timing| timing.phase).collect();
        assert_eq!(names, ["snapshot", "upload"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_stands_still_leaves_no_marks() {
        let pulse = Pulse::default();
        let mut phases = Phases::watched(Display::Log, pulse.clone());
        phases.enter(Phase::Upload);
        let entered = pulse.seen();
        let still = tokio::time::sleep(Duration::from_secs(3600));
        phases.follow(&transfer::Progress::default(), still).await;
        assert_eq!(pulse.seen(), entered);
        phases.detail("docs");
        assert_eq!(pulse.seen().marks, entered.marks + 1);
    }
}
