//! Beside the work: heartbeats by the newest token, as long as something moves; and the last word, until it is acknowledged.

use std::{cell::RefCell, fmt, time::Duration};

use protocol::{Envelope, TaskToken, TokenOrder};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    callback::{CallbackError, Callbacks},
    inbox::Inbox,
    timing::Timing,
    work::Failure,
};
use crate::pulse::{Phase, Pulse, Seen};

/// Watches over one task.
#[derive(Debug)]
pub(super) struct Watch<'a, C> {
    callbacks: &'a C,
    inbox: &'a Inbox,
    timing: Timing,
    pulse: &'a Pulse,
    held: RefCell<Held>,
}

/// The token by which is answered.
#[derive(Clone, Debug)]
struct Held {
    order: TokenOrder,
    token: TaskToken,
    /// When it came into this process.
    since: Instant,
    /// Whether a call by it was accepted.
    accepted: bool,
    /// Since when it is known not to be accepted any more.
    dead: Option<Instant>,
}

impl Held {
    fn of(envelope: &Envelope) -> Self {
        let (order, token) = (envelope.order, envelope.token.clone());
        Self { order, token, since: Instant::now(), accepted: false, dead: None }
    }
}

/// What a heartbeat has shown of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// It is accepted, or nobody knows.
    Goes,
    /// It is refused, but so soon after its arrival that it may not be known yet.
    Early,
    /// It is dead.
    Dead,
}

/// Why work is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The token is dead, and the execution has sent no other one in time.
    TokenDead,
    /// Nothing moved for longer than the phase may take.
    Stalled {
        /// The phase.
        phase: Phase,
        /// How long.
        after: Duration,
    },
}

/// The last word on a task.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Success(Value),
    Failure(Failure),
}

/// What became of the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Acknowledged,
    /// A newer token was delivered, whose own process sees to it.
    Outdated,
    /// The token is dead, or the process has to end.
    Expired,
}

impl<'a, C: Callbacks> Watch<'a, C> {
    pub(super) fn new(
        callbacks: &'a C,
        inbox: &'a Inbox,
        timing: Timing,
        pulse: &'a Pulse,
        envelope: &Envelope,
    ) -> Self {
        Self { callbacks, inbox, timing, pulse, held: RefCell::new(Held::of(envelope)) }
    }

    /// Makes the token known before anything is done for it: `false` when it is dead. What else may end the wait is looked at afterwards.
    pub(super) async fn introduce(&self, cancel: &CancellationToken) -> bool {
        loop {
            match self.beat().await {
                Beat::Goes => return true,
                Beat::Dead => return false,
                Beat::Early if cancel.is_cancelled() || self.is_outdated() => return true,
                Beat::Early => sleep(self.timing.poll).await,
            }
        }
    }

    fn is_outdated(&self) -> bool {
        let held = self.held.borrow().order;
        self.inbox.newest().is_ok_and(|newest| newest.is_some_and(|newest| newest > held))
    }

    /// Empties the envelope of the token that is held, for it is of no use any more.
    pub(super) fn spend(&self) {
        self.inbox.spend(self.held.borrow().order);
    }

    /// Sends one heartbeat. That Step Functions cannot be reached is no reason to stop: the next one may come through.
    pub(super) async fn beat(&self) -> Beat {
        let Held { order, token, .. } = self.held.borrow().clone();
        match self.callbacks.heartbeat(&token).await {
            Ok(()) => {
                let Seen { phase, marks } = self.pulse.seen();
                info!(phase = phase.name(), marks, "heartbeat");
                self.held.borrow_mut().accepted = true;
                Beat::Goes
            }
            Err(CallbackError::Unreachable { problem }) => {
                warn!(problem, "a heartbeat is lost");
                Beat::Goes
            }
            Err(CallbackError::Dead { code }) if self.may_be_early() => {
                info!(code, %order, "the token is not accepted yet");
                Beat::Early
            }
            Err(CallbackError::Dead { code }) => {
                warn!(code, %order, "the token is not accepted any more; a retry may bring another one");
                self.held.borrow_mut().dead = Some(Instant::now());
                Beat::Dead
            }
        }
    }

    /// Whether a refusal may come too early. A worker may be faster than the function that has handed it the task and not returned yet, and what Step Functions
    /// says to a token until then is nowhere promised.
    fn may_be_early(&self) -> bool {
        let held = self.held.borrow();
        !held.accepted && held.since.elapsed() < self.timing.arrival
    }

    /// Runs beside the work and ends only when that has become pointless.
    pub(super) async fn until_hopeless(&self) -> Stop {
        let mut next_beat = Instant::now() + self.timing.heartbeat;
        let (mut seen, mut moved) = (self.pulse.seen(), Instant::now());
        loop {
            sleep(self.timing.poll).await;
            if self.take_newer() {
                next_beat = Instant::now();
            }
            let latest = self.pulse.seen();
            if latest != seen {
                (seen, moved) = (latest, Instant::now());
            }
            let after = moved.elapsed();
            if after > seen.phase.deadline() / self.timing.divisor {
                return Stop::Stalled { phase: seen.phase, after };
            }
            let dead = self.held.borrow().dead;
            if let Some(since) = dead {
                if since.elapsed() > self.timing.grace {
                    return Stop::TokenDead;
                }
            } else if Instant::now() >= next_beat {
                let beat = self.beat().await;
                let pause = if beat == Beat::Early { self.timing.poll } else { self.timing.heartbeat };
                next_beat = Instant::now() + pause;
            }
        }
    }

    /// Takes over a newer token of the same execution, if one was delivered.
    fn take_newer(&self) -> bool {
        match self.newer() {
            Ok(Some(envelope)) => {
                if let Err(error) = self.inbox.take(envelope.order) {
                    // Whoever brought it waits in vain; the work goes on all the same.
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "that a token was taken over is not told"
                    );
                }
                info!(order = %envelope.order, "a newer token is taken over");
                let before = self.held.replace(Held::of(&envelope));
                self.inbox.spend(before.order);
                true
            }
            Ok(None) => false,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "whether there is a newer token is not known"
                );
                false
            }
        }
    }

    fn newer(&self) -> Result<Option<Envelope>, crate::Error> {
        let held = self.held.borrow().order;
        match self.inbox.newest()? {
            Some(newest) if newest > held => self.inbox.envelope(newest),
            Some(_) | None => Ok(None),
        }
    }

    /// Says the last word until it is acknowledged, or nobody can hear it any more. A process that has to end tries only as long as work may take to be put away,
    /// and any other as long as a token can live: a role without the permission would otherwise leave a process behind for every task.
    pub(super) async fn tell(&self, answer: &Answer, cancel: &CancellationToken) -> Told {
        let begin = Instant::now();
        let mut backoff = self.timing.backoff;
        loop {
            let Held { order, token, .. } = self.held.borrow().clone();
            if self.is_outdated() {
                self.inbox.spend(order);
                return Told::Outdated;
            }
            let told = match answer {
                Answer::Success(output) => self.callbacks.success(&token, &output.to_string()).await,
                Answer::Failure(Failure { kind, cause }) => {
                    self.callbacks.failure(&token, *kind, cause).await
                }
            };
            match told {
                Ok(()) => {
                    self.inbox.spend(order);
                    return Told::Acknowledged;
                }
                Err(CallbackError::Dead { code }) if self.may_be_early() => {
                    info!(code, %order, "the token is not accepted yet");
                }
                Err(CallbackError::Dead { code }) => {
                    warn!(code, %order, "the answer comes too late: the token is not accepted any more");
                    self.inbox.spend(order);
                    return Told::Expired;
                }
                Err(CallbackError::Unreachable { problem }) => {
                    warn!(problem, "the answer is not acknowledged: it is given again");
                }
            }
            let patience = if cancel.is_cancelled() { self.timing.put_away } else { self.timing.last_word };
            if begin.elapsed() >= patience {
                warn!(%order, "the answer is given up: whoever asks again gets the result, if there is one");
                self.inbox.spend(order);
                return Told::Expired;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(self.timing.max_backoff);
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenDead => f.write_str("its token is dead, and the execution has sent no other one"),
            Self::Stalled { phase, after } => {
                write!(f, "phase `{phase}` made no progress for {} s", after.as_secs())
            }
        }
    }
}
