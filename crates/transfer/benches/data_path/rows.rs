//! The rows that are measured, each in a process of its own.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use clap::{Subcommand, ValueEnum};
use transfer::Level;

use crate::{baseline, client, measure::Sample, resume, stages, whole};

/// A row, as its process is told.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Row {
    /// All CPU stages of a backup and of a restore, one after the other on one thread.
    Stages,
    /// The product's S3 client alone.
    Client { bytes: u64 },
    /// Plain hyper, sending the same.
    Hyper { bytes: u64 },
    /// Decoding alone, on so many threads.
    Decode { threads: usize },
    /// Fetching ranges alone.
    Fetch,
    /// The product's backup of `input`.
    Backup { input: String, level: BackupLevel, frames: Frames, kept: Kept },
    /// The product's restore of what a backup of `input` has kept.
    Restore { input: String, frames: Frames },
    /// A backup that is killed.
    Killed,
    /// The backup that ends it.
    Resumed,
    /// A shell script that moves so many bytes.
    Script { script: String, raw_bytes: u64 },
}

/// How hard a backup compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackupLevel {
    Default,
    One,
}

impl From<BackupLevel> for Level {
    fn from(level: BackupLevel) -> Self {
        match level {
            BackupLevel::Default => Self::Auto,
            BackupLevel::One => Self::Fixed(1),
        }
    }
}

/// The size of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Frames {
    /// The format's.
    Format,
    /// 1 KiB, so that a small archive has as many frames as one of 8 TiB.
    Tiny,
}

/// What becomes of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kept {
    /// The store keeps it, to be restored.
    Keep,
    /// The store drops it.
    Drop,
    /// The store drops it, and takes its time.
    Slow,
}

/// The child's side: measures, and says what it found as one line of JSON per sample.
pub(crate) fn run(work: &Path, row: Row) -> anyhow::Result<()> {
    let one = |sample: Sample| vec![(String::new(), sample)];
    let samples = match row {
        Row::Stages => stages::run(work)?,
        Row::Client { bytes } => one(client::product(work, bytes)?),
        Row::Hyper { bytes } => one(client::plain(work, bytes)?),
        Row::Decode { threads } => one(stages::decode(work, threads)?),
        Row::Fetch => one(whole::fetch(work)?),
        Row::Backup { input, level, frames, kept } => {
            one(whole::backup(work, &input, level.into(), frames, kept)?)
        }
        Row::Restore { input, frames } => one(whole::restore(work, &input, frames)?),
        Row::Killed => return resume::killed(work),
        Row::Resumed => one(resume::resumed(work)?),
        Row::Script { script, raw_bytes } => one(baseline::run(work, &script, raw_bytes)?),
    };
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&samples)?)?;
    Ok(())
}

/// Runs a row and waits for what it found: a name for each sample, empty if there is one only.
pub(crate) fn measure(work: &Path, arguments: &[&str]) -> anyhow::Result<Vec<(String, Sample)>> {
    let child = Command::new(std::env::current_exe()?)
        .args(["row", "--work"])
        .arg(work)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start row {arguments:?}"))?;
    ensure!(child.status.success(), "row {arguments:?} fails: {}", child.status);
    let last = child.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    serde_json::from_slice(last.unwrap_or_default()).with_context(|| format!("read row {arguments:?}"))
}

/// The runtime of rows that use one, as the worker has it.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
