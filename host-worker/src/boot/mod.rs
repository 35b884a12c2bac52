//! `host-worker boot`: a host brings itself up, on every boot, by systemd.
//!
//! What happens, in this order: the disks; what to restore; room for it; Qdrant on 127.0.0.1 in the backup's version; restore and verification; the
//! configured version, and verification again; warm-up; the completion marker; the machine's address; Qdrant at that address; the Auto Scaling group.
//! With the marker on the disk, a boot begins at the address and restores nothing ([`sequence`] decides, and says why that is safe).
//!
//! Each step is on the disk before it begins ([`record`]), and may be repeated: a boot that was interrupted goes on from what is there.
//! A boot that cannot go on *holds* (module `hold`): the machine stays up and serves nobody, the group is told that somebody is at work, and the log and the
//! record say why. It looks again where looking can help, and waits for a person where not.

mod choose;
mod hold;
mod host;
mod image;
mod local;
mod on_host;
pub mod record;
mod refused;
mod report;
pub mod sequence;
mod serve;
pub mod warm_up;

use std::{convert::Infallible, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    hold::Patience,
    record::{Rejected, Source, Stage, Step, StepTime},
    sequence::{After, Run},
};
pub use self::{
    host::{Host, Timing},
    image::Image,
    on_host::OnHost,
    record::Record,
    refused::Refused,
    report::{BootResult, Told},
    sequence::Wanted,
};
use crate::{
    cli::BootArgs,
    config::{BootSettings, Config, HostRole},
    error::Error,
    machine::{Addresses, Container, Disks, Lifecycle},
    output::on_one_line,
    qdrant,
};

/// What a boot is to come to.
#[derive(Clone, Debug)]
pub struct Order {
    /// The image and the address.
    pub wanted: Wanted,
    /// What the host is for.
    pub role: HostRole,
    /// What a person typed.
    pub args: BootArgs,
    /// How long to wait for what.
    pub timing: Timing,
    /// When the program was started.
    pub started_at: Timestamp,
}

impl Order {
    /// As the settings and the flags say.
    pub fn new(config: &Config, args: &BootArgs, started_at: Timestamp) -> Result<Self, Error> {
        let BootSettings { image, .. } = config.boot().ok_or(Error::MissingSetting { name: "boot" })?;
        Ok(Self {
            wanted: Wanted { image: Image::new(image)?, address: config.qdrant_address()? },
            role: config.host_role(),
            args: *args,
            timing: Timing::STANDARD.divided_by(config.time_divisor()),
            started_at,
        })
    }
}

/// Brings the host up, and answers when it serves. A boot that holds answers only when it is cancelled, unless it was asked to end instead (`--once`).
pub async fn boot<M, H>(
    machine: &M,
    host: &H,
    order: &Order,
    cancel: &CancellationToken,
) -> Result<BootResult, Error>
where
    M: Disks + Container + Addresses + Lifecycle,
    H: Host,
{
    let boot = Boot {
        machine,
        host,
        order,
        cancel,
        record: Record::new(uuid::Uuid::new_v4().to_string(), order.started_at),
        kept: false,
        run: Run::default(),
        patience: Patience::default(),
        since: Instant::now(),
        told: Told::NobodyWaits,
    };
    tokio::select! {
        result = boot.run() => result,
        never = beat(machine, order.timing.heartbeat) => match never {},
    }
}

/// Records heartbeats of the lifecycle action for as long as the boot takes.
async fn beat(machine: &impl Lifecycle, every: Duration) -> Infallible {
    loop {
        if let Err(error) = machine.heartbeat().await {
            warn!(error = on_one_line(&error), "the lifecycle heartbeat is not recorded");
        }
        tokio::time::sleep(every).await;
    }
}

/// A boot that is under way.
struct Boot<'a, M, H> {
    machine: &'a M,
    host: &'a H,
    order: &'a Order,
    cancel: &'a CancellationToken,
    record: Record,
    /// Whether the record may be put on the disk: not before the one that is there was read.
    kept: bool,
    run: Run,
    patience: Patience,
    /// When the program was started, on the clock that only goes forward.
    since: Instant,
    told: Told,
}

impl<M, H> Boot<'_, M, H>
where
    M: Disks + Container + Addresses + Lifecycle,
    H: Host,
{
    async fn run(mut self) -> Result<BootResult, Error> {
        while let Err(error) = self.disks().await {
            self.hold(Step::Disks, error, After::LookAgain).await?;
        }
        self.patience = Patience::default();
        if self.order.role == HostRole::Staging {
            info!("the disks are prepared, and the host is ready for a drill");
            return Ok(BootResult::ReadyForDrill);
        }
        while let Err(error) = self.begin().await {
            // Somebody else is at it, or has typed what cannot be done.
            let ends = matches!(error, Error::Locked { .. } | Error::Cancelled) || self.order.args.is_typed();
            if ends {
                return Err(error);
            }
            let after = sequence::after(Step::Disks, &error, 0, false);
            let unknown =
                matches!(error, Error::Boot(Refused::RecordUnreadable { .. } | Refused::RecordNewer { .. }));
            self.hold(Step::Disks, error, if unknown { After::Person } else { after }).await?;
        }
        self.log_plan();
        loop {
            let step = match sequence::next(&self.record, &self.run, &self.order.wanted) {
                Ok(Step::Done) => break,
                Ok(step) => step,
                Err(refused) => {
                    let step = self.record.step;
                    self.hold(step, refused.into(), After::Person).await?;
                    continue;
                }
            };
            match self.take(step).await {
                Ok(()) => self.moved(),
                Err(Error::Cancelled | Error::Stopped { .. }) => return Err(Error::Cancelled),
                Err(error) => self.failed(step, error).await?,
            }
        }
        Ok(self.finish())
    }

    async fn disks(&self) -> Result<(), Error> {
        let prepared = self.machine.prepare().await?;
        info!(how = ?prepared.how, devices = ?prepared.devices, "the disks are prepared");
        Ok(())
    }

    /// Reads what an earlier boot has left, and says what comes of that.
    async fn begin(&mut self) -> Result<(), Error> {
        let earlier = self.host.open()?;
        let data = self.host.holds_data()?;
        let new = Record::new(self.record.boot_id.clone(), self.order.started_at);
        let begun = if self.order.args.replace {
            self.replaced(new).await?
        } else {
            match sequence::begin(earlier.clone(), data, self.order.args.adopt, new, &self.host.data_dir()) {
                Ok(begun) => begun,
                Err(refused) => {
                    // Why the host is held belongs into the record, and changes nothing of what that says already.
                    if let Some(earlier) = earlier {
                        self.record = earlier;
                    }
                    self.kept = true;
                    return Err(refused.into());
                }
            }
        };
        self.kept = true;
        let seconds = self.since.elapsed().as_secs_f64();
        let disks = StepTime { step: Step::Disks, started_at: self.order.started_at, seconds };
        let steps = [begun.steps.as_slice(), &[disks]].concat();
        self.keep(Record { steps, ..begun })
    }

    /// What `--replace` begins with: without the marker, and not before there is something to put in the place of what goes.
    async fn replaced(&self, new: Record) -> Result<Record, Error> {
        match self.host.choose(&[]).await? {
            Some(source @ Source::Backup { .. }) => {
                warn!("the data on this host's disk is replaced, as asked for");
                Ok(Record { source: Some(source), clear: true, ..new })
            }
            Some(Source::LocalSnapshots { .. } | Source::Nothing | Source::Adopted) | None => {
                Err(Refused::NothingToReplaceWith.into())
            }
        }
    }

    fn log_plan(&self) {
        let Record { boot_id, marker, source, runs, .. } = &self.record;
        match marker {
            Some(marker) => {
                info!(boot_id, completed_at = %marker.completed_at, "the data on the disk is complete; nothing is restored")
            }
            None => info!(boot_id, runs, ?source, "the data on the disk is not complete"),
        }
    }

    /// Takes one step; what comes of it is on the disk afterwards.
    async fn take(&mut self, step: Step) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.enter(step)?;
        match step {
            Step::Disks | Step::Done => {}
            Step::Choose => self.choose().await?,
            Step::Clear => self.clear().await?,
            Step::Room => {
                if let Some(source) = &self.record.source {
                    self.host.require_room(source).await?;
                }
                self.run.room = true;
            }
            Step::Start => self.bring_up().await?,
            Step::Restore => self.restore().await?,
            Step::Move => self.move_on().await?,
            Step::WarmUp => self.warm_up().await,
            Step::Mark => {
                self.keep(sequence::marked(&self.record, self.now()))?;
                info!("the completion marker is on the disk");
            }
            Step::Address => self.await_address().await?,
            Step::Serve => self.serve().await?,
            Step::Lifecycle => self.complete().await?,
        }
        Ok(())
    }

    async fn choose(&mut self) -> Result<(), Error> {
        let Some(source) = self.host.choose(&self.record.rejected).await? else {
            let rejected = &self.record.rejected;
            let kind = rejected.last().map_or(protocol::FailureKind::ManifestMissing, |last| last.kind);
            let rejected = rejected.iter().map(|rejected| format!("{}: {}", rejected.source, rejected.why));
            return Err(Refused::NothingLeft { rejected: rejected.collect(), kind }.into());
        };
        info!(%source, degraded = source.degraded(), "chosen");
        if let Source::Backup { qdrant, .. } = source
            && qdrant::version::can_restore(qdrant, self.order.wanted.image.version()).is_err()
        {
            // Told now, so that it can be mended while the restore runs.
            let problem = Refused::TooFar { from: qdrant, to: self.order.wanted.image.version() };
            warn!(error = on_one_line(&problem), "the host will not serve with this setting");
        }
        self.keep(Record { source: Some(source), failures: 0, ..self.record.clone() })
    }

    async fn clear(&mut self) -> Result<(), Error> {
        // What others reach may have been written to; only who typed --replace has said that it goes.
        if !self.order.args.replace {
            self.refuse_served(self.machine.running().await?.as_ref())?;
        }
        self.machine.stop().await?;
        self.run.up = None;
        self.run.room = false;
        self.host.clear()?;
        self.keep(Record { image: None, stage: Stage::Missing, clear: false, ..self.record.clone() })
    }

    async fn restore(&mut self) -> Result<(), Error> {
        let Some(source) = self.record.source.clone() else { return Ok(()) };
        let launch = sequence::launch(&self.record, &self.order.wanted)?;
        tokio::select! {
            restored = self.host.restore(&source) => restored?,
            never = self.keep_up(&launch) => match never {},
        }
        let stage = sequence::restored(&self.record, &self.order.wanted);
        self.keep(Record { stage, failures: 0, ..self.record.clone() })
    }

    /// The configured version on what an older one has restored.
    async fn move_on(&mut self) -> Result<(), Error> {
        self.bring_up().await?;
        if let Some(source) = self.record.source.clone() {
            self.host.verify(&source).await?;
        }
        self.keep(Record { stage: Stage::Ready, ..self.record.clone() })
    }

    /// Nobody is kept waiting because the warm-up fails: whatever is wrong with Qdrant shows when it is to serve.
    async fn warm_up(&mut self) {
        self.run.warmed = true;
        let Some(source) = self.record.source.clone() else { return };
        match self.host.warm_up(&source).await {
            Ok(warm_up) => {
                info!(%warm_up, "warmed up");
                self.record.warm_up = Some(warm_up);
            }
            Err(error) => self.note(format!("Qdrant was not warmed up: {}", on_one_line(&error))),
        }
    }

    /// What a failed step leads to.
    async fn failed(&mut self, step: Step, error: Error) -> Result<(), Error> {
        self.record.failures += u32::from(sequence::counts(step, &error));
        self.run.up = None;
        let half = self.record.stage == Stage::Missing && self.host.holds_data().unwrap_or(false);
        let after = sequence::after(step, &error, self.record.failures, half);
        match (after, self.record.source.take()) {
            (After::Reject, Some(source)) => {
                let (kind, why) = (error.kind(), on_one_line(&error));
                warn!(%source, error = why, "it cannot be used; looking for another");
                self.record.rejected.push(Rejected { source, kind, why });
                // What it has left on the disk was never served, and goes as soon as there is something to take its place.
                self.record.clear = true;
                self.record.failures = 0;
                self.save_or_warn();
                Ok(())
            }
            (After::Anew, source) => {
                warn!(
                    error = on_one_line(&error),
                    "what an interrupted run has left is not as it should be, and is made again"
                );
                self.record.source = source;
                self.record.clear = true;
                self.save_or_warn();
                Ok(())
            }
            (after, source) => {
                self.record.source = source;
                self.hold(step, error, after).await
            }
        }
    }

    /// The host serves, whatever becomes of its record. Where the group could not be told, the next run has that left to do.
    fn finish(self) -> BootResult {
        let mut boot = self;
        if !matches!(boot.told, Told::Failed { .. }) {
            boot.record.step = Step::Done;
        }
        boot.save_or_warn();
        info!(seconds = boot.record.serving_after_seconds, "the host serves");
        BootResult::Serving { record: Box::new(boot.record), lifecycle: boot.told }
    }

    /// Begins a step, on the disk as well. One that is taken again goes on being timed.
    fn enter(&mut self, step: Step) -> Result<(), Error> {
        if self.record.step == step && self.record.steps.last().is_some_and(|last| last.step == step) {
            return Ok(());
        }
        info!(step = step.name(), "step begins");
        let mut record = Record { step, ..self.record.clone() };
        if step != Step::Done {
            record.steps.push(StepTime { step, started_at: self.now(), seconds: 0.0 });
        }
        self.keep(record)
    }

    /// Something has moved.
    fn moved(&mut self) {
        self.patience = Patience::default();
        self.record.held = None;
        let now = self.now();
        if let Some(last) = self.record.steps.last_mut() {
            last.seconds = seconds_between(last.started_at, now);
        }
    }

    fn note(&mut self, note: String) {
        warn!("{note}");
        if !self.record.notes.contains(&note) {
            self.record.notes.push(note);
        }
    }

    /// Goes by a record from now on, once it is on the disk.
    fn keep(&mut self, record: Record) -> Result<(), Error> {
        self.host.save(&record)?;
        self.record = record;
        Ok(())
    }

    /// For what is only told: the next save has it, too.
    fn save_or_warn(&self) {
        if self.kept
            && let Err(error) = self.host.save(&self.record)
        {
            warn!(error = on_one_line(&error), "the boot record is not on the disk");
        }
    }

    fn now(&self) -> Timestamp {
        self.order.started_at + self.since.elapsed()
    }

    /// Waits, unless the process is asked to stop.
    async fn pause(&self, duration: Duration) -> Result<(), Error> {
        let slept = self.cancel.run_until_cancelled(tokio::time::sleep(duration)).await;
        slept.ok_or(Error::Cancelled)
    }
}

/// Milliseconds are as fine as a reader of the record cares for.
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.duration_since(from).as_secs_f64() * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests;
