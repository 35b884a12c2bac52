//! Slowing an upload down while it makes searches of Qdrant slow (`--protect-latency`).
//!
//! Twice a second an ordinary search is made and timed, as a client on this host sees it. Too slow twice in a row: the upload's rate is halved. Not
//! too slow: it grows by a fiftieth of the ceiling. A Qdrant that does not answer gets all the room there is. `Governor::measure` looks
//! before anything moves, since what is slow without the upload will not be made fast by slowing the upload down.
//!
//! No answer of Qdrant, and no silence, ever fails a backup.

mod decide;
mod probe;
mod report;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{debug, info, warn};
use transfer::Rate;

pub(crate) use self::probe::Probe;
pub use self::report::LatencyReport;
use self::{
    decide::{Control, Policy, Sample},
    probe::Answer,
    report::Record,
};
use crate::bandwidth::Rate as Shown;

/// How often a search is made.
const EVERY: Duration = Duration::from_millis(500);
/// Searches before anything moves. The first one opens a connection, and is not counted.
const FIRST_SAMPLES: usize = 5;
/// Where the latency is above the target before anything moves: how much longer searches may take than that, in percent.
const ALLOWANCE: u32 = 150;
/// After so many samples at the floor that are still too slow, a line in the log says so, and again after as many.
const PATIENCE: u32 = 120;

/// What may move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The limit that a person set, in bytes per second.
    pub(crate) limit: Option<u64>,
    /// What the upload moves at most, limit or not.
    pub(crate) allowed: u64,
}

/// A governor that has looked, and is ready to watch.
#[derive(Debug)]
pub(crate) struct Governor {
    probe: Probe,
    /// `None` when latency cannot be measured.
    control: Option<Control>,
    bounds: Bounds,
    record: Record,
    at_floor: u32,
}

impl Governor {
    /// Measures searches before anything moves, and decides what is to be kept to.
    pub(crate) async fn measure(target: Duration, mut probe: Probe, bounds: Bounds) -> Self {
        let mut record = Record::new(target);
        let mut took = Vec::new();
        let mut control = Some(Control::new(Policy::new(target, bounds.allowed)));
        for number in 0..=FIRST_SAMPLES {
            match probe.search().await {
                Answer::Took(time) if number > 0 => took.push(time),
                Answer::Took(_) => {}
                // Asked once: each silence takes seconds.
                Answer::Silence => break,
                Answer::Refused(reason) => {
                    warn!(
                        reason,
                        "the latency of searches cannot be measured, so that the upload is not slowed down"
                    );
                    record.not_measured(reason);
                    control = None;
                    break;
                }
            }
        }
        took.sort_unstable();
        if let Some(before) = took.get(took.len() / 2).copied() {
            record.before(before);
            info!(?before, ?target, collection = %probe.collection(), "the latency of searches before the upload");
            if before > target {
                let kept = before * ALLOWANCE / 100;
                warn!(
                    ?before,
                    ?target,
                    ?kept,
                    "searches take longer than --protect-latency before anything is uploaded, which slowing the upload down cannot help: it keeps them from taking half as long again"
                );
                record.target(kept);
                control = Some(Control::new(Policy::new(kept, bounds.allowed)));
            }
        } else if let Some(control) = &mut control {
            warn!("Qdrant does not answer a search before the upload, which begins at the lowest rate");
            control.learn(Sample { latency: None, moving: 0 });
        }
        Self { probe, control, bounds, record, at_floor: 0 }
    }

    /// Runs `work`, whose bytes `rate` holds back, and watches meanwhile.
    pub(crate) async fn during<T>(
        mut self,
        rate: &Rate,
        work: impl Future<Output = T>,
    ) -> (T, Option<LatencyReport>) {
        tokio::pin!(work);
        rate.set(self.control.as_ref().and_then(Control::limit).or(self.bounds.limit));
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch { ticks, since: Instant::now(), moved: rate.moved() };
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    self.record.passed(watch.since.elapsed(), self.control.as_ref().and_then(Control::limit));
                    let report = self.record.report();
                    info!(%report, "searches during the upload");
                    return (done, Some(report));
                }
                () = self.once(&mut watch, rate), if self.control.is_some() => {}
            }
        }
    }

    /// Waits for the next look, takes it, and sets the rate.
    async fn once(&mut self, watch: &mut Watch, rate: &Rate) {
        watch.ticks.tick().await;
        let answer = self.probe.search().await;
        let Some(control) = &mut self.control else { return };
        let since = watch.since.elapsed();
        let moved = rate.moved();
        let before = control.limit();
        self.record.passed(since, before);
        let latency = match answer {
            Answer::Took(time) => Some(time),
            Answer::Silence => None,
            Answer::Refused(reason) => {
                warn!(
                    reason,
                    "the latency of searches can no longer be measured, so that the upload is no longer slowed down"
                );
                self.record.not_measured(reason);
                self.control = None;
                rate.set(self.bounds.limit);
                return;
            }
        };
        self.record.sample(latency);
        let moving = per_second(moved - watch.moved, since);
        (watch.since, watch.moved) = (Instant::now(), moved);
        control.learn(Sample { latency, moving });
        let limit = control.limit();
        rate.set(limit.or(self.bounds.limit));
        if limit != before {
            debug!(?latency, moving, ?limit, "the upload's rate changes");
        }
        let stuck = control.is_at_floor() && !control.is_content(latency);
        self.at_floor = if stuck { self.at_floor + 1 } else { 0 };
        if self.at_floor > 0 && self.at_floor.is_multiple_of(PATIENCE) {
            warn!(
                ?latency,
                rate = %Shown(limit.unwrap_or_default()),
                "searches stay slow although the upload is down to its lowest rate: something else slows them"
            );
        }
    }
}

/// Between two looks.
struct Watch {
    ticks: Interval,
    since: Instant,
    moved: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate: positive, and far below 2^64"
)]
fn per_second(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(1e-3)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_qdrant_that_is_not_there_means_the_lowest_rate_from_the_start() {
        let (rate, bounds) = (Rate::default(), Bounds { limit: None, allowed: 100_000_000 });
        let governor = Governor::measure(Duration::from_millis(50), Probe::of_nobody(), bounds).await;
        let seen = rate.clone();
        let work = async move { seen.bytes_per_second() };
        let (during, report) = governor.during(&rate, work).await;
        assert_eq!(during, Some(2_000_000));
        let report = report.unwrap();
        assert_eq!((report.before_ms, report.lowest_bytes_per_second), (None, Some(2_000_000)));
        assert!((report.throttled_share - 1.0).abs() < 1e-9, "{report:?}");
    }
}
