//! Holding: the machine stays up and serves nobody, and says why.
//!
//! Nothing is abandoned: an instance that is terminated because it could not restore is replaced by one that cannot either, for ever, and takes with it what a
//! person would look at. Heartbeats of the lifecycle action go on meanwhile, beside this.

use std::{future::pending, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::error;

use super::{Boot, Host, Step, record::Held, sequence::After};
use crate::{
    error::Error,
    machine::{Addresses, Container, Disks, Lifecycle},
    output::Failure,
};

/// How often the boot has looked in vain since something moved.
#[derive(Debug, Default)]
pub(super) struct Patience {
    looks: u32,
    since: Option<Timestamp>,
}

impl<M, H> Boot<'_, M, H>
where
    M: Disks + Container + Addresses + Lifecycle,
    H: Host,
{
    /// Holds until it is time to look again. Where looking cannot help, until the process is asked to stop.
    pub(super) async fn hold(&mut self, step: Step, error: Error, after: After) -> Result<(), Error> {
        if self.order.args.once || matches!(error, Error::Cancelled) {
            return Err(error);
        }
        let timing = self.order.timing;
        let pause = (after != After::Person).then(|| {
            let doubled = timing.look_again * 2_u32.saturating_pow(self.patience.looks.min(16));
            doubled.min(timing.look_again_at_most)
        });
        self.patience.looks += 1;
        let now = self.now();
        let since = *self.patience.since.get_or_insert(now);
        let held = Held::new(step, Failure::from(&error), since, pause.map(|pause| now + pause));
        self.record.held = Some(held.clone());
        self.save_or_warn();
        match pause {
            Some(pause) => {
                held.say();
                self.pause(pause).await
            }
            None => {
                self.cancel.run_until_cancelled(held.repeat(timing.say_again)).await.ok_or(Error::Cancelled)
            }
        }
    }
}

impl Held {
    /// One line, for a person and for an alarm that looks for its words.
    fn say(&self) {
        let Self { since, step, kind, message, hint, looks_again_at } = self;
        error!(
            step = step.name(),
            kind = kind.name(),
            hint = hint.as_deref().unwrap_or_default(),
            %since,
            looks_again_at = looks_again_at.map(tracing::field::display),
            "the host is held and serves nobody: {message}"
        );
    }

    /// Says it again and again.
    async fn repeat(&self, every: Duration) {
        loop {
            self.say();
            let _elapsed = timeout(every, pending::<()>()).await;
        }
    }
}
