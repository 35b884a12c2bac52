//! What a person types.

use std::{path::PathBuf, time::Duration};

use clap::{Args, FromArgMatches, Parser, Subcommand};
use jiff::{SignedDuration, Timestamp};
use protocol::{BackupId, CollectionName, retention::Rules};

use crate::{bandwidth::BandwidthLimit, config::Settings};

/// The niceness of work that runs beside a Qdrant which serves people: far enough down to let it go first, and not so far as to stand still.
const NICE: &str = "10";

/// Back up a Qdrant to S3, get it back, and prove it.
///
/// Exit codes: 0 done, 1 failed, 2 usage or settings, 3 verification failed.
#[derive(Debug, Parser)]
#[command(name = "host-worker", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Settings, which flags and environment override [default: /etc/qdrant-backup.toml where it exists]
    #[arg(long, global = true, env = "QDRANT_BACKUP_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the result as one JSON document, and no progress.
    #[arg(long, global = true)]
    pub json: bool,
    /// The shared settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Snapshot, pack, upload, verify and publish
    Backup(BackupArgs),
    /// Bring a backup back and verify it
    Restore(RestoreArgs),
    /// Prove a stored archive, or the data of a running Qdrant, against a backup
    Verify(VerifyArgs),
    /// List the backups, newest first
    List,
    /// Show one backup
    Show(ShowArgs),
    /// Make an uploaded backup the one that is restored
    Publish(PublishArgs),
    /// Remove backups that no rule keeps. Shows what it would do, and does it with --apply
    Prune(PruneArgs),
    /// Say that this host's data is right although it did not come from the published backup
    Acknowledge,
    /// Check everything that a backup needs, and say what to do about it
    Doctor,
    /// Look at the host once: does Qdrant serve, how full is the disk, how far is the boot
    Health(HealthArgs),
    /// Bring this host up: disks, restore, verification, warm-up, and only then Qdrant at its address
    Boot(BootArgs),
    /// For the SSM document: keep the task in the environment (SSM_…) and start a worker for it
    Dispatch,
    /// For `dispatch`: see to a task until Step Functions has acknowledged the answer
    Task(TaskArgs),
}

impl Command {
    /// The niceness that it runs with.
    pub fn nice(&self) -> u8 {
        match self {
            Self::Backup(args) => args.nice,
            Self::Restore(args) => args.nice,
            Self::Verify(args) => args.nice,
            // A task goes as slowly as the work that it is about: a backup beside a Qdrant which serves people, or a drill beside nobody.
            Self::Task(args) => args.nice,
            Self::List
            | Self::Show(_)
            | Self::Publish(_)
            | Self::Prune(_)
            | Self::Acknowledge
            | Self::Doctor
            | Self::Health(_)
            | Self::Boot(_)
            | Self::Dispatch => 0,
        }
    }
}

/// How to back up.
#[derive(Args, Clone, Debug)]
pub struct BackupArgs {
    /// Only this collection (repeatable). A partial backup is never published as the newest
    #[arg(long = "collection", value_name = "NAME")]
    pub collections: Vec<CollectionName>,
    /// Do not wait until nothing is being written
    #[arg(long)]
    pub no_quiesce: bool,
    /// Seconds to wait for writes to end
    #[arg(long, default_value_t = 300, value_name = "SECONDS", conflicts_with = "no_quiesce")]
    pub quiesce_timeout: u64,
    /// A fixed zstd level [default: 1, or 3 where it pays]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Parts in flight [default: what the network needs and the memory budget holds]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub concurrency: Option<u32>,
    /// Upload no faster than this, as 200MB/s [default: as fast as it goes]
    #[arg(long, value_name = "RATE")]
    pub bandwidth_limit: Option<BandwidthLimit>,
    /// Slow the upload down while searches of Qdrant take longer than this, as 50ms
    #[arg(long, value_name = "TIME", value_parser = latency)]
    pub protect_latency: Option<Duration>,
    /// Priority for CPU and disk: 0 as any program, 19 the last in line
    #[arg(long, default_value = NICE, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=19))]
    pub nice: u8,
    /// How many of Qdrant's own snapshots stay on this host afterwards, per collection
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub keep_local: usize,
    /// Begin anew, even if an interrupted backup could be gone on with
    #[arg(long)]
    pub fresh: bool,
    /// Upload, but leave publication to somebody else
    #[arg(long)]
    pub no_publish: bool,
    /// Publish even what looks like damage: a vanished collection, a fallen count, a degraded host
    #[arg(long, conflicts_with = "no_publish")]
    pub force: bool,
}

impl BackupArgs {
    /// What these flags would be on a command line; the error is one line for a person.
    pub(crate) fn parsed(flags: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let command = Self::augment_args(clap::Command::new("backup").no_binary_name(true));
        let matches = command.try_get_matches_from(flags).map_err(|error| one_line(&error))?;
        Self::from_arg_matches(&matches).map_err(|error| one_line(&error))
    }
}

/// The first line of a usage error, without the word that `clap` begins it with.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// How to say how the host is.
#[derive(Args, Clone, Copy, Debug)]
pub struct HealthArgs {
    /// Print the array that `aws cloudwatch put-metric-data --metric-data` takes, whatever it says
    #[arg(long)]
    pub cloudwatch: bool,
}

/// Which backup.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub struct Selection {
    /// The backup with this id [default: the published one]
    #[arg(long, value_name = "ID")]
    pub backup: Option<BackupId>,
    /// The newest backup before this time, as 2026-11-23T05:14:00Z
    #[arg(long, value_name = "TIME")]
    pub before: Option<Timestamp>,
}

/// How to restore.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// Which backup.
    #[command(flatten)]
    pub selection: Selection,
    /// Only this collection (repeatable)
    #[arg(long = "collection", value_name = "NAME")]
    pub collections: Vec<CollectionName>,
    /// Restore beside live data: append this to every collection's name
    #[arg(long = "as", value_name = "SUFFIX", conflicts_with = "replace", allow_hyphen_values = true, value_parser = suffix)]
    pub suffix: Option<String>,
    /// With --as: when the copy is verified, point the aliases at it
    #[arg(long, requires = "suffix")]
    pub switch_alias: bool,
    /// Delete collections that are in the way. The only form that destroys data
    #[arg(long)]
    pub replace: bool,
    /// When the published backup cannot be used, fall back to the newest that can
    #[arg(long, conflicts_with_all = ["backup", "before"])]
    pub fallback: bool,
    /// Restore even if the golden set is lost: only counts, configuration and aliases are compared
    #[arg(long, conflicts_with = "fallback")]
    pub unproved: bool,
    /// Ranges in flight [default: what the network needs and the memory budget holds]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub concurrency: Option<u32>,
    /// Download no faster than this, as 200MB/s [default: as fast as it goes]
    #[arg(long, value_name = "RATE")]
    pub bandwidth_limit: Option<BandwidthLimit>,
    /// Priority for CPU and disk: 0 as any program, 19 the last in line. Nobody is served by a Qdrant that is being restored
    #[arg(long, default_value = "0", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=19))]
    pub nice: u8,
}

impl RestoreArgs {
    /// This backup, whole and into an empty Qdrant, as fast as it goes: what nobody types.
    pub(crate) fn of(backup: BackupId) -> Self {
        Self {
            selection: Selection { backup: Some(backup), before: None },
            collections: Vec::new(),
            suffix: None,
            switch_alias: false,
            replace: false,
            fallback: false,
            unproved: false,
            concurrency: None,
            bandwidth_limit: None,
            nice: 0,
        }
    }
}

/// What to verify.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Read the stored archive again: every frame, every hash, the whole object
    #[arg(long, required_unless_present = "data", conflicts_with = "data")]
    pub archive: bool,
    /// Compare the running Qdrant with what was recorded: counts, points, searches, aliases
    #[arg(long)]
    pub data: bool,
    /// Which backup.
    #[command(flatten)]
    pub selection: Selection,
    /// With --archive: read no faster than this, as 200MB/s [default: as fast as it goes]
    #[arg(long, value_name = "RATE", conflicts_with = "data")]
    pub bandwidth_limit: Option<BandwidthLimit>,
    /// Priority for CPU and disk: 0 as any program, 19 the last in line
    #[arg(long, default_value = NICE, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=19))]
    pub nice: u8,
    /// With --data: only this collection (repeatable)
    #[arg(long = "collection", value_name = "NAME", requires = "data")]
    pub collections: Vec<CollectionName>,
    /// With --data: the collections were restored under this suffix
    #[arg(long = "as", value_name = "SUFFIX", requires = "data", allow_hyphen_values = true, value_parser = suffix)]
    pub suffix: Option<String>,
}

/// What to show.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Which backup.
    #[command(flatten)]
    pub selection: Selection,
}

/// What to publish.
#[derive(Args, Clone, Debug)]
pub struct PublishArgs {
    /// The backup, uploaded with --no-publish from this host, or already in the catalogue
    #[arg(long, value_name = "ID")]
    pub backup: BackupId,
    /// Go back to an older backup on purpose
    #[arg(long)]
    pub rollback: bool,
    /// Publish even what looks like damage
    #[arg(long)]
    pub force: bool,
}

/// How to boot.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct BootArgs {
    /// End with an exit code where the host would be held
    #[arg(long)]
    pub once: bool,
    /// Delete the data on this host's disk, and restore the published backup in its place. Clears the completion marker
    #[arg(long, conflicts_with = "adopt")]
    pub replace: bool,
    /// Serve the data on this host's disk as it is, although no boot has verified it
    #[arg(long)]
    pub adopt: bool,
}

impl BootArgs {
    /// Whether a person typed a decision, and is there to read what is wrong with it.
    pub(crate) fn is_typed(&self) -> bool {
        self.replace || self.adopt
    }
}

/// Which backups stay. One that any rule keeps stays; so does the published one, the newest proved one, and whatever is newer than the published one.
#[derive(Args, Clone, Debug)]
pub struct PruneArgs {
    /// Keep the newest N
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    pub keep_last: usize,
    /// Keep everything that is not older than this, as 36h, 30d or 12w. The one rule by which partial backups go
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub keep_within: Option<SignedDuration>,
    /// Keep the newest of each of the newest N days (UTC) that have one
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    pub keep_daily: usize,
    /// Keep the newest of each of the newest N weeks that have one
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    pub keep_weekly: usize,
    /// Keep the newest of each of the newest N months that have one
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    pub keep_monthly: usize,
    /// Archives that no manifest names are left-overs once nobody has touched them for this time
    #[arg(long, default_value = "7d", value_name = "AGE", value_parser = age)]
    pub orphans_after: SignedDuration,
    /// Remove, instead of showing what would be removed
    #[arg(long)]
    pub apply: bool,
}

impl PruneArgs {
    /// The rules that these flags state.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            last: self.keep_last,
            within: self.keep_within,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
        }
    }
}

/// Which task.
#[derive(Args, Clone, Debug)]
pub struct TaskArgs {
    /// The envelope that `dispatch` kept
    #[arg(value_name = "FILE")]
    pub envelope: PathBuf,
    /// Priority for CPU and disk: 0 as any program, 19 the last in line
    #[arg(long, default_value = NICE, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=19))]
    pub nice: u8,
}

/// A suffix may begin with a hyphen, as `-copy` does, but a forgotten one must not swallow the flag that follows.
fn suffix(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an empty suffix would restore over live data".to_owned()),
        flag if flag.starts_with("--") => Err(format!("`{flag}` is a flag, not a suffix")),
        suffix => Ok(suffix.to_owned()),
    }
}

/// An age in hours, days or weeks, of an hour at the least: what is younger may still be in the making.
fn age(text: &str) -> Result<SignedDuration, String> {
    let hours = |unit: char| match unit {
        'h' => Some(1),
        'd' => Some(24),
        'w' => Some(7 * 24),
        _ => None,
    };
    let unit = text.chars().last().and_then(hours);
    let number = text
        .get(..text.len().saturating_sub(1))
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|number| number.parse::<i64>().ok());
    let hours = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let hours = hours.filter(|hours| (1..=24 * 366 * 100).contains(hours));
    hours
        .map(SignedDuration::from_hours)
        .ok_or_else(|| format!("`{text}` is not an age from 1h to a hundred years, as 36h, 30d or 12w"))
}

/// A latency that is worth protecting: from what a search takes at least to what nobody waits for.
fn latency(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time from 1ms to 60s, as 50ms or 2s");
    let (number, milliseconds) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1_000),
        (None, None) => return Err(wrong()),
    };
    let number = Some(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let number =
        number.and_then(|number| number.parse::<u64>().ok()).and_then(|n| n.checked_mul(milliseconds));
    number.filter(|time| (1..=60_000).contains(time)).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        let command = Cli::command();
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            let takes_secret = name.contains("key") || name.contains("secret") || name.contains("token");
            assert!(
                !takes_secret || name.ends_with("_file"),
                "{name}: a secret on the command line is seen by every user of the host"
            );
        }
    }

    #[test]
    fn the_destructive_form_must_be_typed_alone() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        assert!(parse("host-worker restore --replace").is_ok());
        assert!(parse("host-worker restore --replace --as -copy").is_err());
        assert!(parse("host-worker restore --switch-alias").is_err());
        assert!(parse("host-worker restore --as -copy --switch-alias").is_ok());
        assert!(parse("host-worker restore --as --switch-alias").is_err());
        assert!(
            parse("host-worker restore --backup 20261123T051400Z --before 2026-11-23T05:14:00Z").is_err()
        );
        assert!(parse("host-worker verify").is_err());
        assert!(parse("host-worker verify --archive --data").is_err());
        assert!(parse("host-worker backup --level 0").is_err());
    }

    #[test]
    fn a_latency_is_a_time_that_a_search_may_take() {
        for (text, milliseconds) in
            [("50ms", 50), ("1ms", 1), ("2s", 2_000), ("60s", 60_000), ("60000ms", 60_000)]
        {
            assert_eq!(latency(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "50",
            "ms",
            "s",
            "0ms",
            "0s",
            "61s",
            "-1ms",
            "+5ms",
            "1.5s",
            "50 ms",
            "1m",
            "99999999999999999999s",
        ] {
            assert!(latency(text).unwrap_err().contains("as 50ms or 2s"), "{text}");
        }
    }

    #[test]
    fn an_age_has_a_unit_and_is_no_less_than_an_hour() {
        for (text, hours) in [("1h", 1), ("36h", 36), ("30d", 720), ("12w", 2016)] {
            assert_eq!(age(text), Ok(SignedDuration::from_hours(hours)), "{text}");
        }
        for text in [
            "",
            "d",
            "30",
            "0d",
            "-1d",
            "+1d",
            "1.5d",
            "1 d",
            "1m",
            "99999999999999999w",
            "36601d",
            "1\u{e4}",
        ] {
            assert!(age(text).unwrap_err().contains("as 36h, 30d or 12w"), "{text}");
        }
    }

    #[test]
    fn who_runs_beside_a_serving_qdrant_is_nice_by_default() {
        let nice = |line: &str| Cli::try_parse_from(line.split_whitespace()).unwrap().command.nice();
        assert_eq!(nice("host-worker backup"), 10);
        assert_eq!(nice("host-worker verify --archive"), 10);
        assert_eq!(nice("host-worker restore"), 0);
        assert_eq!(nice("host-worker list"), 0);
        assert_eq!(nice("host-worker backup --nice 0"), 0);
        assert_eq!(nice("host-worker restore --nice 19"), 19);
        for wrong in ["backup --nice 20", "backup --nice -1", "verify --data --bandwidth-limit 5MB/s"] {
            let line = format!("host-worker {wrong}");
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{wrong}");
        }
    }
}
