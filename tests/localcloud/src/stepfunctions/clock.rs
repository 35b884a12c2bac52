//! The service's clock: tokio's, told which time it was when it started. A paused runtime pauses it, an advanced one advances it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Where the service has its time from.
#[derive(Debug, Clone)]
pub struct Clock {
    epoch: Timestamp,
    started: Instant,
    divisor: u32,
}

impl Clock {
    /// The time of the wall.
    #[must_use]
    pub fn wall() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// A clock that shows `epoch` now and goes on as tokio's does.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now(), divisor: 1 }
    }

    /// The same clock, on which waits, retry delays, heartbeats and time-outs last only this part of what the definition says.
    /// A divisor of 0 is one of 1.
    #[must_use]
    pub fn divided_by(self, divisor: u32) -> Self {
        Self { divisor: divisor.max(1), ..self }
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
        self.epoch.checked_add(elapsed).unwrap_or(self.epoch)
    }

    /// How long a time of the definition lasts here.
    #[must_use]
    pub fn real(&self, duration: Duration) -> Duration {
        duration / self.divisor
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_with_tokios_clock_and_divides_durations_only() {
        let epoch: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(epoch).divided_by(60);
        assert_eq!(clock.now(), epoch);
        assert_eq!(clock.real(Duration::from_secs(90)), Duration::from_millis(1500));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(clock.now(), "2027-01-15T08:00:30Z".parse().unwrap());
    }
}
