//! How restores have gone, and when one will take too long.
//!
//! Two straight lines by least squares: bytes over time (how the data grows), and seconds over bytes (how a restore scales). Where the second reaches the target is so many
//! bytes, and the first says when that is. Little is claimed: with fewer than three drills, or less than a fortnight between the first and the last, nothing.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::BackupId;

/// The least drills that a line is drawn through.
const LEAST_DRILLS: usize = 3;
/// The least time from the first of them to the last, in seconds: a fortnight.
const LEAST_SPAN: f64 = 14.0 * DAY;
const DAY: f64 = 86_400.0;
/// As far as anybody plans, in seconds: five years.
const HORIZON: f64 = 5.0 * 365.25 * DAY;

/// What is kept of an earlier drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Earlier {
    /// When it began.
    pub started_at: Timestamp,
    /// The backup that was restored.
    pub backup_id: BackupId,
    /// Bytes of snapshots that were restored.
    pub raw_bytes: u64,
    /// The recovery time, in seconds.
    pub seconds: f64,
    /// Whether the data was what was recorded.
    pub passed: bool,
}

/// When the recovery time breaks its target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "forecast", rename_all = "kebab-case")]
pub enum Forecast {
    /// There are too few drills, or too close together, to say.
    TooEarly {
        /// How many there are, this one included.
        drills: u64,
    },
    /// It is broken already, or would be by a backup of the present size.
    Broken,
    /// At present growth on this day.
    Breaks {
        /// When.
        at: Timestamp,
        /// How many bytes of snapshots there will be.
        raw_bytes: u64,
        /// By how many bytes a day the data grows.
        bytes_per_day: f64,
    },
    /// The data does not grow, or restores do not take longer with it, or it takes longer than anybody plans.
    NotInSight {
        /// By how many bytes a day the data grows; negative where it shrinks.
        bytes_per_day: f64,
    },
}

/// Looks at drills, the last of which is the present one, and at the target in seconds.
pub fn forecast(drills: &[Earlier], target_seconds: f64) -> Forecast {
    let too_early = Forecast::TooEarly { drills: drills.len() as u64 };
    let Some(last) = drills.last() else { return too_early };
    if last.seconds > target_seconds {
        return Forecast::Broken;
    }
    let seconds_since = |at: Timestamp| at.duration_since(last.started_at).as_secs_f64();
    let earliest = drills.iter().map(|drill| seconds_since(drill.started_at)).fold(0.0, f64::min);
    if drills.len() < LEAST_DRILLS || -earliest < LEAST_SPAN {
        return too_early;
    }
    // A drill of an older backup says how long its size takes, and how large the data was then.
    let size = |drill: &Earlier| drill.raw_bytes as f64;
    let Some(growth) =
        Line::through(drills.iter().map(|drill| (seconds_since(drill.backup_id.time()), size(drill))))
    else {
        return too_early;
    };
    let bytes_per_day = growth.slope * DAY;
    let not_in_sight = Forecast::NotInSight { bytes_per_day };
    // Where all are of one size, a restore takes as long as it takes for that.
    let times = drills.iter().map(|drill| (size(drill), drill.seconds));
    let Some(scaling) = Line::through(times.clone()) else { return not_in_sight };
    // A restore of nothing takes no less than no time, and more takes no less: a line that says otherwise is one of noise.
    let scaling =
        if scaling.offset < 0.0 || scaling.slope <= 0.0 { Line::from_nothing(times) } else { scaling };
    if growth.slope <= 0.0 || scaling.slope <= 0.0 {
        return not_in_sight;
    }
    let bytes = scaling.reaches(target_seconds);
    let after = growth.reaches(bytes);
    if after <= 0.0 {
        return Forecast::Broken;
    }
    if !after.is_finite() || after > HORIZON {
        return not_in_sight;
    }
    match SignedDuration::try_from_secs_f64(after)
        .ok()
        .and_then(|after| last.started_at.checked_add(after).ok())
    {
        Some(at) => Forecast::Breaks { at, raw_bytes: whole(bytes), bytes_per_day },
        None => not_in_sight,
    }
}

/// A number of bytes that a line came to.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a fraction of a byte is none"
)]
fn whole(bytes: f64) -> u64 {
    bytes.max(0.0) as u64
}

/// `y = slope · x + offset`.
#[derive(Clone, Copy, Debug)]
struct Line {
    slope: f64,
    offset: f64,
}

impl Line {
    /// The line of least squares; `None` where all points have one x.
    fn through(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<Self> {
        let n = points.clone().count() as f64;
        let mean_x = points.clone().map(|(x, _)| x).sum::<f64>() / n;
        let mean_y = points.clone().map(|(_, y)| y).sum::<f64>() / n;
        let spread: f64 = points.clone().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let together: f64 = points.map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let slope = together / spread;
        (spread > 0.0 && slope.is_finite()).then_some(Self { slope, offset: mean_y - slope * mean_x })
    }

    /// The line of least squares through the origin.
    fn from_nothing(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let together: f64 = points.clone().map(|(x, y)| x * y).sum();
        let square: f64 = points.map(|(x, _)| x * x).sum();
        Self { slope: if square > 0.0 { together / square } else { 0.0 }, offset: 0.0 }
    }

    /// The x at which the line has this y.
    fn reaches(self, y: f64) -> f64 {
        (y - self.offset) / self.slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: f64 = 7_200.0;

    /// One drill every thirty days, with these gigabytes and seconds; each of a backup of the same day.
    fn drills(of: &[(f64, f64)]) -> Vec<Earlier> {
        let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let drill = |(number, (gigabytes, seconds)): (usize, &(f64, f64))| {
            let days = i64::try_from(number).unwrap() * 30;
            let started_at = first + SignedDuration::from_hours(24 * days);
            let backup_id = BackupId::from_time(started_at).unwrap();
            Earlier {
                started_at,
                backup_id,
                raw_bytes: whole(gigabytes * 1e9),
                seconds: *seconds,
                passed: true,
            }
        };
        of.iter().enumerate().map(drill).collect()
    }

    #[test]
    fn growth_reaches_the_target_on_a_day() {
        // 100 GB more a month, ten seconds a gigabyte: 720 GB after seven months and six days.
        let Forecast::Breaks { at, raw_bytes, bytes_per_day } =
            forecast(&drills(&[(0.0, 0.0), (100.0, 1000.0), (200.0, 2000.0), (300.0, 3000.0)]), TARGET)
        else {
            panic!("it is in sight")
        };
        assert!((bytes_per_day - 100e9 / 30.0).abs() < 1e6, "{bytes_per_day}");
        assert!(raw_bytes.abs_diff(720_000_000_000) < 1_000_000, "{raw_bytes}");
        let expected: Timestamp = "2026-08-05T00:00:00Z".parse().unwrap();
        assert!(at.duration_since(expected).abs() < SignedDuration::from_hours(1), "{at}");
    }

    #[test]
    fn noise_moves_the_day_a_little() {
        let noisy =
            drills(&[(102.0, 1080.0), (198.0, 1930.0), (305.0, 3110.0), (396.0, 3880.0), (501.0, 5090.0)]);
        let Forecast::Breaks { at, .. } = forecast(&noisy, TARGET) else { panic!("it is in sight") };
        let clean =
            drills(&[(100.0, 1000.0), (200.0, 2000.0), (300.0, 3000.0), (400.0, 4000.0), (500.0, 5000.0)]);
        let Forecast::Breaks { at: expected, .. } = forecast(&clean, TARGET) else {
            panic!("it is in sight")
        };
        assert!(
            at.duration_since(expected).abs() < SignedDuration::from_hours(24 * 10),
            "{at} and {expected}"
        );
    }

    #[test]
    fn little_is_claimed_of_little() {
        for (of, drills_seen) in [(vec![], 0), (vec![(1.0, 10.0)], 1), (vec![(1.0, 10.0), (2.0, 20.0)], 2)] {
            assert_eq!(forecast(&drills(&of), TARGET), Forecast::TooEarly { drills: drills_seen });
        }
        // Three on one day are one.
        let mut same_day = drills(&[(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]);
        let day = same_day[0].clone();
        for drill in &mut same_day {
            drill.started_at = day.started_at;
            drill.backup_id = day.backup_id;
        }
        assert_eq!(forecast(&same_day, TARGET), Forecast::TooEarly { drills: 3 });
    }

    #[test]
    fn what_does_not_grow_does_not_break() {
        let daily = |of: &[(f64, f64)]| {
            let forecast = forecast(&drills(of), TARGET);
            let Forecast::NotInSight { bytes_per_day } = forecast else { panic!("{forecast:?}") };
            bytes_per_day
        };
        assert!(daily(&[(300.0, 3000.0), (200.0, 2000.0), (100.0, 1000.0)]) < 0.0, "it shrinks");
        assert_eq!(daily(&[(100.0, 1000.0), (100.0, 1100.0), (100.0, 900.0)]), 0.0, "it stands");
        assert!(daily(&[(100.0, 1000.0), (110.0, 990.0), (120.0, 980.0)]) > 0.0, "a faster host");
        assert!(daily(&[(100.0, 1000.0), (100.001, 1000.01), (100.002, 1000.02)]) > 0.0, "not in five years");
    }

    #[test]
    fn noise_that_is_larger_than_the_growth_is_not_a_trend() {
        let Forecast::NotInSight { .. } =
            forecast(&drills(&[(100.0, 1000.0), (100.2, 1400.0), (100.4, 1500.0)]), TARGET)
        else {
            panic!("some 560 GB are decades away")
        };
    }

    #[test]
    fn an_old_backup_that_is_drilled_last_does_not_hide_what_the_newest_takes() {
        let mut of = drills(&[(600.0, 6000.0), (750.0, 7500.0), (900.0, 9000.0), (300.0, 3000.0)]);
        of[3].backup_id = BackupId::from_time("2025-11-02T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(forecast(&of, TARGET), Forecast::Broken);
    }

    #[test]
    fn a_target_that_is_broken_is_broken() {
        assert_eq!(forecast(&drills(&[(900.0, 9000.0)]), TARGET), Forecast::Broken);
    }
}
