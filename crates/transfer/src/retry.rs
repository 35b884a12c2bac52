//! How often a call is tried and how long is waited in between. A pure function of what is tried, so that a test can say it.

use std::time::Duration;

use crate::{
    progress::Progress,
    store::{StoreError, StoreErrorKind},
};

/// Bounded attempts with exponential back-off and jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a call is made at most, the first time included.
    pub attempts: u32,
    /// The greatest wait after the first failure; it doubles with each further one.
    pub base: Duration,
    /// The greatest wait at all.
    pub cap: Duration,
}

impl RetryPolicy {
    /// Eight attempts over about a minute: longer than an S3 partition takes to scale, shorter than any heartbeat.
    pub const STANDARD: Self =
        Self { attempts: 8, base: Duration::from_millis(250), cap: Duration::from_secs(20) };

    /// How long to wait after failure number `failed` (from 1) of the call that `what` names.
    ///
    /// Between half and all of the exponential step; which, is derived from `what`, so that many parts which fail at
    /// once come back spread out, and the same test waits the same times.
    pub fn wait(&self, failed: u32, what: &str) -> Duration {
        let doublings = failed.saturating_sub(1).min(16);
        let step = self.base.saturating_mul(1 << doublings).min(self.cap);
        let hash = blake3::hash(format!("{what}#{failed}").as_bytes());
        let spread = u32::from(hash.as_bytes()[0]);
        step / 2 + step / 2 * spread / 255
    }
}

/// How often a call is tried that never gets as far as the store. What keeps it is mostly permanent, but the place that
/// gives credentials may have hiccups, too.
const UNSENT_ATTEMPTS: u32 = 3;

/// Makes the call that `what` names until it succeeds, its failure is no passing one, or the attempts are used up.
pub(crate) async fn retried<T, F: Future<Output = Result<T, StoreError>>>(
    policy: RetryPolicy,
    progress: &Progress,
    what: String,
    call: impl Fn() -> F,
) -> Result<T, StoreError> {
    let mut attempts = Attempts::new(policy, progress, what);
    loop {
        match call().await {
            Err(error) if attempts.again(&error).await => {}
            result => return result,
        }
    }
}

/// Counts the attempts of one call and waits in between.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    policy: RetryPolicy,
    progress: &'a Progress,
    what: String,
    failed: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(policy: RetryPolicy, progress: &'a Progress, what: String) -> Self {
        Self { policy, progress, what, failed: 0 }
    }

    /// How many attempts have failed.
    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// Says whether to try again after `error`, and has waited if so.
    pub(crate) async fn again(&mut self, error: &StoreError) -> bool {
        let limit = if error.kind == StoreErrorKind::Unsent {
            UNSENT_ATTEMPTS.min(self.policy.attempts)
        } else if error.kind.is_transient() {
            self.policy.attempts
        } else {
            0
        };
        self.again_up_to(limit, error).await
    }

    /// As [`Attempts::again`], whatever the error is.
    pub(crate) async fn again_anyway(&mut self, error: &StoreError) -> bool {
        self.again_up_to(self.policy.attempts, error).await
    }

    async fn again_up_to(&mut self, limit: u32, error: &StoreError) -> bool {
        self.failed += 1;
        if self.failed >= limit {
            return false;
        }
        let wait = self.policy.wait(self.failed, &self.what);
        let wait = error.retry_after.map_or(wait, |asked| wait.max(asked.min(self.policy.cap)));
        tracing::warn!(what = self.what, failed = self.failed, ?wait, %error, "trying again");
        self.progress.add_retry();
        tokio::time::sleep(wait).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds_and_spread() {
        let policy = RetryPolicy::STANDARD;
        for failed in 1..40 {
            let step = policy.base.saturating_mul(1 << (failed - 1).min(16)).min(policy.cap);
            for part in 0..50 {
                let wait = policy.wait(failed, &format!("part {part}"));
                assert!(wait >= step / 2 && wait <= step, "{failed} {part} {wait:?}");
            }
        }
        let distinct: std::collections::HashSet<_> =
            (0..50).map(|part| policy.wait(3, &format!("part {part}"))).collect();
        assert!(distinct.len() > 20);
    }
}
