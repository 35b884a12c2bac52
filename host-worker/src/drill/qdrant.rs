//! The Qdrant of a staging host: started for the drill in the backup's version, and warmed up as a host that is to serve is.

use std::time::Duration;

use protocol::Manifest;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    boot::{
        Image, Refused,
        sequence::LOOPBACK,
        warm_up::{self, WarmUp},
    },
    error::Error,
    machine::{Container, Launch, Machine},
    output::on_one_line,
    progress::Phases,
    pulse::Phase,
    select,
    session::Session,
    verify,
};

/// How long an empty Qdrant may take to answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);

/// Starts Qdrant where this host is one that starts it, and waits until it answers. Answers with a session with it; `None` where somebody else runs one.
pub(super) async fn started(
    session: &Session,
    manifest: &Manifest,
    phases: &mut Phases,
) -> Result<Option<Session>, Error> {
    let config = &session.config;
    let Some(boot) = config.boot() else { return Ok(None) };
    phases.enter(Phase::Start);
    let version = select::qdrant_version(manifest)?;
    let image = Image::new(&boot.image)?.at(version)?;
    let launch = Launch { image: image.name().to_owned(), address: LOOPBACK };
    let machine = Machine::of(config, !config.has_systemd()).await?;
    // One that an earlier attempt has started may be recovering what this one goes on with.
    if machine.running().await?.as_ref() != Some(&launch) {
        machine.start(&launch).await?;
    }
    let session = Session::open(config.with_qdrant_at(LOOPBACK)?, session.cancel.clone()).await?;
    let (client, since) = (session.qdrant()?, Instant::now());
    loop {
        let last = match session.unless_cancelled(client.version()).await? {
            Ok(_) => return Ok(Some(session)),
            Err(error) => on_one_line(&error),
        };
        let (image, waited) = (launch.image.clone(), since.elapsed());
        if machine.running().await?.is_none() {
            return Err(Refused::Ends { image, times: 1 }.into());
        }
        if waited >= PATIENCE / config.time_divisor() {
            return Err(Refused::Silent { image, address: LOOPBACK, waited, last }.into());
        }
        session.unless_cancelled(tokio::time::sleep(POLL)).await?;
    }
}

/// Warms it up, so that the drill's time is that of a recovery. That this fails says nothing about the backup.
pub(super) async fn warmed(session: &Session, manifest: &Manifest, phases: &mut Phases) -> Option<WarmUp> {
    phases.enter(Phase::WarmUp);
    let work = async {
        let golden = verify::golden(session, manifest).await?;
        let goal = warm_up::Goal::of(&session.config);
        warm_up::warm_up(&session.qdrant()?, Some(&golden), &session.config.data_dir(), goal).await
    };
    match session.unless_cancelled(work).await {
        Ok(Ok(warm_up)) => Some(warm_up),
        Ok(Err(error)) | Err(error) => {
            warn!(error = on_one_line(&error), "not warmed up");
            None
        }
    }
}
