//! The decision: which rate follows from what was seen. No clock, no network.

use std::time::Duration;

use transfer::rate::LEAST_RATE;

/// The floor and the step, as shares of the ceiling. At two looks a second, the way from the floor to the ceiling takes 25 s.
const SHARE: u64 = 50;
/// Looks in a row that must be too slow before the rate is halved: one alone is what every server has now and then.
const TWICE: u32 = 2;

/// What is kept to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// How long a search may take.
    pub(super) target: Duration,
    /// The lowest rate, in bytes per second. Never nothing: an upload that stands still never ends.
    pub(super) floor: u64,
    /// The rate at which nothing is held back.
    pub(super) ceiling: u64,
    /// What is added after a look that is good.
    pub(super) step: u64,
}

impl Policy {
    /// Between a fiftieth of `ceiling`, if that is no less than a rate can be, and the ceiling.
    pub(super) fn new(target: Duration, ceiling: u64) -> Self {
        let floor = (ceiling / SHARE).max(LEAST_RATE);
        let ceiling = ceiling.max(floor);
        Self { target, floor, ceiling, step: (ceiling / SHARE).max(1) }
    }
}

/// One look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// How long the search took; `None` if no answer came.
    pub(super) latency: Option<Duration>,
    /// What moved since the look before, in bytes per second.
    pub(super) moving: u64,
}

/// Additive increase, multiplicative decrease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Control {
    policy: Policy,
    rate: u64,
    slow: u32,
}

impl Control {
    /// Begins at the ceiling.
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, rate: policy.ceiling, slow: 0 }
    }

    /// The rate in bytes per second, if it is one that holds back.
    pub(super) fn limit(&self) -> Option<u64> {
        (self.rate < self.policy.ceiling).then_some(self.rate)
    }

    /// Whether it cannot become slower.
    pub(super) fn is_at_floor(&self) -> bool {
        self.rate == self.policy.floor
    }

    /// Whether a search that took this long is fast enough.
    pub(super) fn is_content(&self, latency: Option<Duration>) -> bool {
        latency.is_some_and(|latency| latency <= self.policy.target)
    }

    /// What follows from a look.
    pub(super) fn learn(&mut self, sample: Sample) {
        let Policy { floor, ceiling, step, .. } = self.policy;
        if sample.latency.is_none() {
            // A server that does not answer is in worse trouble than a slow one.
            (self.rate, self.slow) = (floor, 0);
        } else if self.is_content(sample.latency) {
            (self.rate, self.slow) = (self.rate.saturating_add(step).min(ceiling), 0);
        } else {
            self.slow += 1;
            if self.slow >= TWICE {
                // Half of what moves: an upload that is slow for other reasons would not feel half of its limit.
                (self.rate, self.slow) = ((self.rate.min(sample.moving) / 2).max(floor), 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;
    const TARGET: Duration = Duration::from_millis(50);

    /// A look: milliseconds (0 for silence), and megabytes per second that moved.
    type Look = (u64, u64);

    #[test]
    fn the_rate_follows_from_what_was_seen() {
        // A ceiling of 1000 MB/s, so that floor and step are 20.
        for (name, looks, expected) in [
            ("fast searches leave it alone", &[(10, 900), (50, 900), (49, 0)][..], None),
            (
                "one slow search is no reason",
                &[(10, 900), (400, 900), (10, 900), (400, 900), (10, 900)],
                None,
            ),
            ("two in a row halve what moves", &[(51, 900), (51, 800)], Some(400)),
            ("an upload slower than its limit is halved from where it is", &[(51, 100), (51, 100)], Some(50)),
            ("two more are needed to halve again", &[(51, 900), (51, 800), (51, 400)], Some(400)),
            ("then it is halved again", &[(51, 900), (51, 800), (51, 400), (51, 400)], Some(200)),
            ("a good one adds a step", &[(51, 900), (51, 800), (10, 400), (10, 420)], Some(440)),
            ("never below the floor", &[(51, 30), (51, 30), (51, 20), (51, 20)], Some(20)),
            (
                "an upload that stands still starts again from the floor",
                &[(51, 0), (51, 0), (10, 0)],
                Some(40),
            ),
            ("silence leads to the floor at once", &[(10, 900), (0, 900)], Some(20)),
            ("an answer leads back up", &[(0, 900), (10, 20), (10, 40)], Some(60)),
        ] {
            let mut control = Control::new(Policy::new(TARGET, 1000 * MB));
            for &(milliseconds, moving) in looks {
                let latency = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
                control.learn(Sample { latency, moving: moving * MB });
            }
            assert_eq!(control.limit(), expected.map(|rate: u64| rate * MB), "{name}");
        }
    }

    #[test]
    fn from_the_floor_to_the_ceiling_takes_fifty_good_looks() {
        let mut control = Control::new(Policy::new(TARGET, 900 * MB));
        control.learn(Sample { latency: None, moving: 0 });
        assert!(control.is_at_floor());
        let mut looks: Vec<Look> = Vec::new();
        while control.limit().is_some() {
            control.learn(Sample { latency: Some(TARGET), moving: 0 });
            looks.push((50, 0));
        }
        assert_eq!(looks.len(), 49);
    }

    #[test]
    fn the_bounds_are_in_order_whatever_the_ceiling() {
        for ceiling in [0, 1, LEAST_RATE, 2 * LEAST_RATE, 937 * MB, u64::MAX] {
            let policy = Policy::new(TARGET, ceiling);
            assert!(
                LEAST_RATE <= policy.floor && policy.floor <= policy.ceiling && policy.step > 0,
                "{policy:?}"
            );
            let mut control = Control::new(policy);
            for latency in [None, Some(TARGET * 2), Some(TARGET * 2), Some(TARGET)] {
                control.learn(Sample { latency, moving: ceiling });
                assert!((policy.floor..=policy.ceiling).contains(&control.rate), "{control:?}");
            }
        }
    }
}
