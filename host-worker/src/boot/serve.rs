//! Having Qdrant up: for this machine alone or for everybody, and telling who waits for it.

use std::convert::Infallible;

use protocol::FailureKind;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Boot, Host, Refused, Timing,
    record::{Record, Stage, Step},
    report::Told,
    seconds_between, sequence,
};
use crate::{
    error::Error,
    machine::{Addresses, Container, Disks, Launch, Lifecycle},
    output::on_one_line,
};

/// How often a Qdrant that ends before it answers is started.
const STARTS: u32 = 3;
/// While it restores, a look at whether it runs costs a process, so that it is looked at this many times less often than what is waited for.
const WATCHED_EVERY: u32 = 10;
/// How often the group is told before the boot ends without.
const COMPLETIONS: u32 = 6;

impl<M, H> Boot<'_, M, H>
where
    M: Disks + Container + Addresses + Lifecycle,
    H: Host,
{
    /// Has the right Qdrant run at the right address, and waits until it answers. One that runs already is not started again.
    pub(super) async fn bring_up(&mut self) -> Result<(), Error> {
        let launch = sequence::launch(&self.record, &self.order.wanted)?;
        for _ in 0..STARTS {
            let running = self.machine.running().await?;
            if running.as_ref() == Some(&launch) {
                self.note_image(&launch)?;
            } else {
                self.refuse_served(running.as_ref())?;
                self.refuse_strange_data()?;
                self.start(&launch).await?;
            }
            if self.answers(&launch).await? {
                self.run.up = Some(launch);
                return Ok(());
            }
            warn!(image = launch.image, "Qdrant has ended before it answered");
        }
        Err(Refused::Ends { image: launch.image, times: STARTS }.into())
    }

    /// Starts it. The image is noted first, for what it writes no earlier version may read; one that cannot be started at all has written nothing.
    async fn start(&mut self, launch: &Launch) -> Result<(), Error> {
        let before = self.record.image.clone();
        self.note_image(launch)?;
        info!(image = launch.image, address = %launch.address, "starting Qdrant");
        let started = self.machine.start(launch).await;
        if started.as_ref().is_err_and(|error| error.kind() == FailureKind::ConfigInvalid) {
            self.keep(Record { image: before, ..self.record.clone() })?;
        }
        Ok(started?)
    }

    fn note_image(&mut self, launch: &Launch) -> Result<(), Error> {
        if self.record.image.as_ref() == Some(&launch.image) {
            return Ok(());
        }
        self.keep(Record { image: Some(launch.image.clone()), ..self.record.clone() })
    }

    /// Data that came while this boot was held, before it has ever started Qdrant, is somebody else's.
    fn refuse_strange_data(&self) -> Result<(), Error> {
        let started = self.record.marker.is_some() || self.record.image.is_some();
        if !started && self.record.stage == Stage::Missing && self.host.holds_data()? {
            return Err(Refused::OldData { path: self.host.data_dir() }.into());
        }
        Ok(())
    }

    /// Before the marker, whatever runs where others reach it was started by somebody else.
    pub(super) fn refuse_served(&self, running: Option<&Launch>) -> Result<(), Refused> {
        match running {
            Some(Launch { address, .. })
                if self.record.marker.is_none() && *address != sequence::LOOPBACK =>
            {
                Err(Refused::Served { address: *address })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until it answers, or has ended (`false`).
    async fn answers(&self, launch: &Launch) -> Result<bool, Error> {
        let started = Instant::now();
        let Timing { starting, loading, .. } = self.order.timing;
        let patience = if self.record.stage == Stage::Missing { starting } else { loading };
        loop {
            let last = match self.host.answers(launch.address).await {
                Ok(()) => return Ok(true),
                Err(error) => on_one_line(&error),
            };
            if self.machine.running().await?.as_ref() != Some(launch) {
                return Ok(false);
            }
            let waited = started.elapsed();
            if waited >= patience {
                return Err(Refused::Silent {
                    image: launch.image.clone(),
                    address: launch.address,
                    waited,
                    last,
                }
                .into());
            }
            self.pause(self.order.timing.poll).await?;
        }
    }

    /// Starts Qdrant again when it ends, as systemd does where it owns it: whoever waits for its answer need not wait for a person.
    pub(super) async fn keep_up(&self, launch: &Launch) -> Infallible {
        for _ in 0..STARTS {
            while !matches!(self.machine.running().await, Ok(None)) {
                tokio::time::sleep(self.order.timing.poll * WATCHED_EVERY).await;
            }
            warn!(image = launch.image, "Qdrant has ended; starting it again");
            if let Err(error) = self.machine.start(launch).await {
                warn!(error = on_one_line(&error), "Qdrant is not started again");
            }
        }
        std::future::pending().await
    }

    pub(super) async fn await_address(&mut self) -> Result<(), Error> {
        let (address, started) = (self.order.wanted.address, Instant::now());
        while !self.machine.has(address) {
            let waited = started.elapsed();
            if waited >= self.order.timing.address {
                return Err(Refused::NoAddress { address, waited }.into());
            }
            self.pause(self.order.timing.poll).await?;
        }
        self.run.address = true;
        Ok(())
    }

    /// Serves: from here on others may write.
    pub(super) async fn serve(&mut self) -> Result<(), Error> {
        let launch = sequence::launch(&self.record, &self.order.wanted)?;
        let configured = self.order.wanted.image.name();
        if launch.image != configured {
            self.note(format!(
                "Qdrant stays `{}`: the configured `{configured}` cannot take its data over, which takes one minor version at a time",
                launch.image
            ));
        }
        self.bring_up().await?;
        self.run.serving = true;
        if self.record.serving_at.is_none() {
            let now = self.now();
            self.record.serving_at = Some(now);
            self.record.serving_after_seconds = Some(seconds_between(self.record.started_at, now));
        }
        // It serves, whatever becomes of the record.
        self.save_or_warn();
        Ok(())
    }

    /// Tells the group. A host that serves goes on serving whether it can be told or not: the hook's default result is CONTINUE.
    pub(super) async fn complete(&mut self) -> Result<(), Error> {
        self.run.told = true;
        // Asked anew: an instance that has just been launched is not in every list at once.
        if matches!(self.machine.heartbeat().await, Ok(false)) {
            return Ok(());
        }
        let mut pause = self.order.timing.complete;
        for left in (0..COMPLETIONS).rev() {
            match self.machine.complete().await {
                Ok(()) => {
                    info!("the Auto Scaling group was told");
                    self.told = Told::Completed;
                    return Ok(());
                }
                Err(error) => {
                    let problem = on_one_line(&error);
                    warn!(
                        error = problem,
                        left,
                        step = Step::Lifecycle.name(),
                        "the Auto Scaling group was not told"
                    );
                    self.told = Told::Failed { problem };
                }
            }
            if left > 0 {
                self.pause(pause).await?;
                pause *= 2;
            }
        }
        if let Told::Failed { problem } = &self.told {
            self.note(format!("the Auto Scaling group was not told that the host is ready: {problem}"));
        }
        Ok(())
    }
}
