//! How long the worker waits for what, when it works for Step Functions.

use std::time::Duration;

/// Waits of the callback protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats. The state machines allow four of them (`HeartbeatSeconds` 120), so that one lost reply costs nothing.
    pub heartbeat: Duration,
    /// Between two looks for a newer token, or for the host's lock.
    pub poll: Duration,
    /// How long a token that was never accepted may be refused before it is taken for dead: longer than the function which hands it over may run (two minutes),
    /// since a worker can be faster than that function returns.
    pub arrival: Duration,
    /// How long work goes on although its token is dead, for a retry of the state will bring a new one: longer than the greatest delay of a retry
    /// after a time-out (60 s) and the delivery of a command (600 s) together.
    pub grace: Duration,
    /// How long a task waits for other work to leave the host before it says `Busy`: enough for a process that is on its way out.
    pub patience: Duration,
    /// How long work that is stopped may take to put away what it has in hand.
    pub put_away: Duration,
    /// Before the second try of the last callback; doubled each time.
    pub backoff: Duration,
    /// The most between two tries of the last callback.
    pub max_backoff: Duration,
    /// How long the last word is given again: no state waits longer for its task (`TimeoutSeconds`), so that nobody can hear it afterwards.
    pub last_word: Duration,
    /// By how much deadlines without progress are shorter than usual.
    pub divisor: u32,
}

impl Timing {
    /// As on a real host.
    pub const STANDARD: Self = Self {
        heartbeat: Duration::from_secs(30),
        poll: Duration::from_secs(1),
        arrival: Duration::from_secs(150),
        grace: Duration::from_secs(15 * 60),
        patience: Duration::from_secs(10),
        put_away: Duration::from_secs(30),
        backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(30),
        last_word: Duration::from_secs(12 * 3600),
        divisor: 1,
    };

    /// All of them, shorter by a factor: for an embedded cloud whose clock runs faster.
    #[must_use]
    pub fn divided_by(self, divisor: u32) -> Self {
        let divisor = divisor.max(1);
        Self {
            heartbeat: self.heartbeat / divisor,
            poll: self.poll / divisor,
            arrival: self.arrival / divisor,
            grace: self.grace / divisor,
            patience: self.patience / divisor,
            put_away: self.put_away / divisor,
            backoff: self.backoff / divisor,
            max_backoff: self.max_backoff / divisor,
            last_word: self.last_word / divisor,
            divisor: self.divisor.saturating_mul(divisor),
        }
    }
}
