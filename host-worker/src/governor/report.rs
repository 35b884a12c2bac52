//! What protecting the latency of searches came to.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::bandwidth::Rate;

/// What was measured while an archive was uploaded, and what became of the upload's rate. Times are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatencyReport {
    /// How long a search should take at most, as a person said.
    pub target_ms: f64,
    /// What was kept to instead, because searches took longer than the target before anything was uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised_target_ms: Option<f64>,
    /// The median of a few searches before the upload; absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<f64>,
    /// Searches that were answered during the upload.
    pub samples: u64,
    /// Searches that were not.
    pub unanswered: u64,
    /// The median of the answered ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_ms: Option<f64>,
    /// Of twenty answered ones nineteen took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
    /// The share of the upload's time in which it was held back, 0 to 1.
    pub throttled_share: f64,
    /// The lowest rate that it was held to, in bytes per second; absent when it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowest_bytes_per_second: Option<u64>,
    /// Why nothing was measured, or nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_measured: Option<String>,
}

/// What is seen on the way.
#[derive(Debug)]
pub(super) struct Record {
    report: LatencyReport,
    took: Vec<Duration>,
    total: Duration,
    throttled: Duration,
}

impl Record {
    pub(super) fn new(target: Duration) -> Self {
        let report = LatencyReport { target_ms: milliseconds(target), ..LatencyReport::default() };
        Self { report, took: Vec::new(), total: Duration::ZERO, throttled: Duration::ZERO }
    }

    pub(super) fn before(&mut self, median: Duration) {
        self.report.before_ms = Some(milliseconds(median));
    }

    pub(super) fn target(&mut self, raised: Duration) {
        self.report.raised_target_ms = Some(milliseconds(raised));
    }

    pub(super) fn not_measured(&mut self, reason: String) {
        self.report.not_measured = Some(reason);
    }

    pub(super) fn sample(&mut self, latency: Option<Duration>) {
        match latency {
            Some(latency) => self.took.push(latency),
            None => self.report.unanswered += 1,
        }
    }

    /// So much time has passed under this limit.
    pub(super) fn passed(&mut self, time: Duration, limit: Option<u64>) {
        self.total += time;
        if let Some(limit) = limit {
            self.throttled += time;
            let lowest = self.report.lowest_bytes_per_second.get_or_insert(limit);
            *lowest = limit.min(*lowest);
        }
    }

    pub(super) fn report(mut self) -> LatencyReport {
        self.took.sort_unstable();
        let at = |index: usize| self.took.get(index).copied().map(milliseconds);
        // Nearest rank: the p95 of three is the third.
        let rank = |percent: usize| at((self.took.len() * percent).div_ceil(100).saturating_sub(1));
        let share = self.throttled.as_secs_f64() / self.total.as_secs_f64().max(1e-9);
        LatencyReport {
            samples: self.took.len() as u64,
            median_ms: rank(50),
            p95_ms: rank(95),
            throttled_share: (share * 1e3).round() / 1e3,
            ..self.report
        }
    }
}

/// In milliseconds, to a hundredth.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 1e2
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(median), Some(p95)) = (self.median_ms, self.p95_ms) {
            write!(
                f,
                "searches took {median:.1} ms (median) and {p95:.1} ms (95 %), {} of them; ",
                self.samples
            )?;
        }
        if self.unanswered > 0 {
            write!(f, "{} were not answered; ", self.unanswered)?;
        }
        if let Some(raised) = self.raised_target_ms {
            let before = self.before_ms.unwrap_or_default();
            write!(f, "they took {before:.1} ms without the upload, so {raised:.1} ms was kept to; ")?;
        }
        if let Some(reason) = &self.not_measured {
            write!(f, "not measured: {reason}; ")?;
        }
        match self.lowest_bytes_per_second {
            Some(lowest) => {
                write!(
                    f,
                    "held back {:.0} % of the time, to {} at the lowest",
                    self.throttled_share * 100.0,
                    Rate(lowest)
                )
            }
            None => f.write_str("not held back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_was_seen() {
        let mut record = Record::new(Duration::from_millis(50));
        for milliseconds in [30, 10, 20, 400] {
            record.sample(Some(Duration::from_millis(milliseconds)));
        }
        record.sample(None);
        record.passed(Duration::from_secs(3), None);
        record.passed(Duration::from_millis(500), Some(7_000_000));
        record.passed(Duration::from_millis(500), Some(14_000_000));
        let report = record.report();
        assert_eq!((report.samples, report.unanswered), (4, 1));
        assert_eq!((report.median_ms, report.p95_ms), (Some(20.0), Some(400.0)));
        assert_eq!((report.throttled_share, report.lowest_bytes_per_second), (0.25, Some(7_000_000)));
        assert_eq!(
            report.to_string(),
            "searches took 20.0 ms (median) and 400.0 ms (95 %), 4 of them; 1 were not answered; held back 25 % of the time, to 7.0 MB/s at the lowest"
        );
    }

    #[test]
    fn a_report_of_nothing_divides_by_nothing() {
        let mut record = Record::new(Duration::from_millis(50));
        record.not_measured("no".to_owned());
        let report = record.report();
        assert_eq!((report.samples, report.median_ms, report.throttled_share), (0, None, 0.0));
        assert_eq!(report.to_string(), "not measured: no; not held back");
    }
}
