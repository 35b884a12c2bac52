//! Bytes that are sent twice when a backup is killed and run again.
//!
//! The first run kills itself, without a word, when the store has confirmed a third of the data; the second finds the journal
//! and ends the upload. The store counts what it receives, also of parts whose sender dies half-way.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Signal, getpid, kill_process};
use transfer::{MultipartStore as _, Progress, UploadOptions, Uploaded, upload};

use crate::{
    client::bucket,
    measure::{Sample, Scope, Stopwatch},
    rows::{self, runtime},
    sink::{RECEIVED, SLOW},
    snapshots::Snapshots,
    suite::DATA,
    whole::{BUDGET, sources},
};

const KEY: &str = "killed.tar.zst";
const JOURNAL: &str = "killed.journal";

/// Runs a backup that is killed, and then one that ends it, whose sample it gives.
pub(crate) fn measure(work: &Path) -> anyhow::Result<Sample> {
    let killed = Command::new(std::env::current_exe()?)
        .args(["row", "--work"])
        .arg(work)
        .arg("killed")
        .stdin(Stdio::null())
        .status()
        .context("start the backup that is killed")?;
    ensure!(
        killed.signal() == Some(Signal::KILL.as_raw()),
        "the backup that is killed ends by itself: {killed}"
    );
    let samples = rows::measure(work, &["resumed"])?;
    samples.into_iter().next().map(|(_, sample)| sample).context("a row without a sample")
}

/// The run that does not end.
pub(crate) fn killed(work: &Path) -> anyhow::Result<()> {
    let progress = Arc::new(Progress::default());
    let enough = Snapshots::load(work, DATA)?.bytes() / 3;
    let watched = Arc::clone(&progress);
    runtime()?.block_on(async {
        let kill = async {
            while watched.object_bytes() < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            kill_process(getpid(), Signal::KILL)
        };
        tokio::select! {
            uploaded = run(work, progress) => uploaded.map(drop),
            killed = kill => Ok(killed?),
        }
    })
}

/// The run that goes on.
pub(crate) fn resumed(work: &Path) -> anyhow::Result<Sample> {
    let raw_bytes = Snapshots::load(work, DATA)?.bytes();
    let store = bucket(work, SLOW)?;
    let runtime = runtime()?;
    let mut watch = Stopwatch::new(Scope::Process);
    let uploaded = watch.time(|| runtime.block_on(run(work, Arc::default())))?;
    ensure!(uploaded.resumed_parts > 0, "the backup was not resumed but made anew");
    let object = runtime.block_on(store.head(KEY, None))?.context("the object is not there")?;
    let received = object.metadata.iter().find(|(name, _)| name == RECEIVED).map(|(_, bytes)| bytes.parse());
    let received: u64 = received.context("the store does not say what it has received")??;
    fs_err::remove_file(work.join(JOURNAL))?;
    Ok(Sample {
        object_bytes: Some(uploaded.size_bytes),
        repeated_bytes: Some(received - uploaded.size_bytes),
        in_flight_bytes: Some(u64::from(uploaded.concurrency) * uploaded.part_size),
        ..watch.sample(raw_bytes)
    })
}

async fn run(work: &Path, progress: Arc<Progress>) -> anyhow::Result<Uploaded> {
    let sources = sources(&Snapshots::load(work, DATA)?)?;
    let journal = Some(work.join(JOURNAL));
    let options = UploadOptions { journal, progress, ..UploadOptions::new(BUDGET) };
    Ok(upload(&bucket(work, SLOW)?, KEY, sources, options).await?)
}
