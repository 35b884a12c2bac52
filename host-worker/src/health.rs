//! One look at the host, for a metric every minute: does Qdrant serve, how full is the disk, and how far is the boot.
//!
//! It asks nobody but Qdrant and this host's own files, so that it says the same without a network and takes seconds at most. What needs the bucket, `doctor`
//! looks at.

use std::{path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::{
    boot::record::{self, Record, Step},
    config::Config,
    error::Error,
    origin,
    output::{Render, on_one_line},
    qdrant,
};

/// What is waited for Qdrant's answer. A look is worth nothing when the next one is due.
const PATIENCE: qdrant::Options = qdrant::Options {
    connect_timeout: Duration::from_secs(3),
    request_timeout: Duration::from_secs(10),
    attempts: 2,
    ..qdrant::Options::STANDARD
};

/// For how long a boot's measured time is told after it: long enough for a metric that is read every few minutes, and not so long as to hide the next one.
const NEWS: SignedDuration = SignedDuration::from_hours(1);

/// How the host is.
#[derive(Debug)]
pub struct Health {
    /// Whether Qdrant answers at its address with the key; otherwise why not, on one line.
    qdrant: Result<(), String>,
    /// How much of the disk of Qdrant's data is used, in percent of what its users may use; `None` where it cannot be seen.
    disk_used: Option<f64>,
    /// How far the boot is, on a host that brings itself up.
    boot: Option<Boot>,
    /// Whether the data did not come from the published backup, and nobody has said that it is right.
    degraded: bool,
}

/// How far the boot is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
struct Boot {
    /// The step it is at.
    step: &'static str,
    /// Why it does not go on, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// Seconds since it began, while it does not serve.
    booting_seconds: f64,
    /// Seconds from its beginning to serving, while that is news.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_seconds: Option<f64>,
}

/// Looks at the host. That Qdrant does not answer, or that this host has no key for it, is part of the answer; a disk that cannot be read is an error.
pub async fn health(config: &Config, now: Timestamp) -> Result<Health, Error> {
    let qdrant = answers(config).await.map_err(|error| on_one_line(&error));
    let work_dir = config.work_dir();
    let (boot, disk_used) = match config.boot() {
        Some(settings) => {
            let record = record::read(&work_dir);
            // The record is on the disks. Without it they may not be mounted, and the root disk's numbers are none of theirs.
            let disk_used =
                matches!(record, Ok(Some(_))).then(|| used_percent(&settings.workspace)).flatten();
            (Some(Boot::of(record, qdrant.is_ok(), now)), disk_used)
        }
        None => (None, used_percent(&config.data_dir())),
    };
    Ok(Health {
        qdrant,
        disk_used,
        boot,
        degraded: origin::read(&work_dir)?.is_some_and(|origin| origin.degraded),
    })
}

/// Its collections are listed only by a Qdrant that has loaded them, and only to who has the key.
async fn answers(config: &Config) -> Result<(), Error> {
    let access = config.qdrant()?;
    qdrant::Client::new(&access.url, access.api_key, PATIENCE)?.collections().await?;
    Ok(())
}

impl Boot {
    fn of(record: Result<Option<Record>, Error>, serves: bool, now: Timestamp) -> Self {
        let since = |start: Timestamp| now.duration_since(start).as_secs_f64().max(0.0);
        match record {
            Ok(Some(record)) => {
                // One that has served and does not any more is not booting: that Qdrant is away is told already.
                let waiting = !serves && record.step != Step::Done;
                let news = record.serving_at.is_some_and(|at| now.duration_since(at) < NEWS);
                Self {
                    step: record.step.name(),
                    held: record.held.map(|held| {
                        format!(
                            "since {} at {}: {} [{}]",
                            held.since,
                            held.step.name(),
                            held.message,
                            held.kind
                        )
                    }),
                    booting_seconds: if waiting { since(record.started_at) } else { 0.0 },
                    boot_seconds: record.serving_after_seconds.filter(|_| news),
                }
            }
            // The record is on the disks: before they are mounted there is none, and the machine's own clock counts.
            unknown => Self {
                step: Step::Disks.name(),
                held: unknown.err().map(|error| on_one_line(&error)),
                booting_seconds: if serves { 0.0 } else { uptime().unwrap_or_default() },
                boot_seconds: None,
            },
        }
    }
}

impl Health {
    /// Whether nothing needs a person.
    pub fn good(&self) -> bool {
        let held = self.boot.as_ref().is_some_and(|boot| boot.held.is_some());
        self.qdrant.is_ok() && !held && !self.degraded
    }

    /// What `aws cloudwatch put-metric-data --metric-data` takes: an array of data without dimensions. What could not be seen is not in it.
    pub fn metric_data(&self) -> Value {
        let count = |name: &str, is: bool| {
            Some(json!({ "MetricName": name, "Value": u8::from(is), "Unit": "Count" }))
        };
        let seconds = |name: &str, value: Option<f64>| {
            Some(json!({ "MetricName": name, "Value": value?, "Unit": "Seconds" }))
        };
        let boot = self.boot.as_ref();
        let data = [
            count("QdrantReady", self.qdrant.is_ok()),
            self.disk_used
                .map(|used| json!({ "MetricName": "DiskUsedPercent", "Value": used, "Unit": "Percent" })),
            count("HostHeld", boot.is_some_and(|boot| boot.held.is_some())),
            count("HostDegraded", self.degraded),
            seconds("BootingSeconds", boot.map(|boot| boot.booting_seconds)),
            seconds("BootSeconds", boot.and_then(|boot| boot.boot_seconds)),
        ];
        Value::Array(data.into_iter().flatten().collect())
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "good": self.good(),
            "qdrant": { "ready": self.qdrant.is_ok(), "problem": self.qdrant.as_ref().err() },
            "disk_used_percent": self.disk_used,
            "boot": self.boot,
            "degraded": self.degraded,
        })
        .serialize(serializer)
    }
}

impl Render for Health {
    fn render(&self) -> String {
        let mut lines = vec![match &self.qdrant {
            Ok(()) => "Qdrant   serves".to_owned(),
            Err(problem) => format!("Qdrant   does not serve: {problem}"),
        }];
        lines.extend(self.disk_used.map(|used| format!("disk     {used:.1} % used")));
        if let Some(boot) = &self.boot {
            lines.push(match &boot.held {
                Some(held) => format!("boot     held {held}"),
                None => format!("boot     {}", boot.step),
            });
        }
        if self.degraded {
            lines.push("degraded backups do not move the pointer until `host-worker acknowledge`".to_owned());
        }
        lines.join("\n")
    }
}

/// A [`Health`] as the array for CloudWatch, on one line.
#[derive(Debug)]
pub struct ForCloudWatch(pub Health);

impl Serialize for ForCloudWatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.metric_data().serialize(serializer)
    }
}

impl Render for ForCloudWatch {
    fn render(&self) -> String {
        self.0.metric_data().to_string()
    }
}

/// How much of a directory's file system is used, of what may be used by who is not root, as `df` counts it.
fn used_percent(dir: &Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let usable = used + stat.f_bavail;
    (usable > 0).then(|| used as f64 * 100.0 / usable as f64)
}

/// Seconds since the machine started.
fn uptime() -> Option<f64> {
    fs_err::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use protocol::FailureKind;

    use super::*;
    use crate::boot::record::{Held, Stage};

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn record(step: Step) -> Record {
        Record { step, stage: Stage::Ready, ..Record::new("boot".to_owned(), at(10)) }
    }

    fn seen(record: Option<Record>, serves: bool, minute: i64) -> Boot {
        Boot::of(Ok(record), serves, at(minute))
    }

    #[test]
    fn a_boot_is_counted_from_its_beginning_until_it_serves() {
        assert_eq!(seen(Some(record(Step::Restore)), false, 25).booting_seconds, 900.0);
        // A clock that was set back is no negative time.
        assert_eq!(seen(Some(record(Step::Restore)), false, 5).booting_seconds, 0.0);
        assert_eq!(seen(Some(record(Step::Serve)), true, 25).booting_seconds, 0.0);
        // It has served, and is away: no boot.
        assert_eq!(seen(Some(record(Step::Done)), false, 25).booting_seconds, 0.0);
        assert!(
            seen(None, false, 25).booting_seconds > 0.0,
            "the machine's own time counts before there is a record"
        );
        assert_eq!(seen(None, true, 25).booting_seconds, 0.0);
    }

    #[test]
    fn the_time_of_a_boot_is_news_for_an_hour() {
        let done =
            Record { serving_at: Some(at(30)), serving_after_seconds: Some(1_200.0), ..record(Step::Done) };
        assert_eq!(seen(Some(done.clone()), true, 31).boot_seconds, Some(1_200.0));
        assert_eq!(seen(Some(done.clone()), true, 89).boot_seconds, Some(1_200.0));
        assert_eq!(seen(Some(done), true, 90).boot_seconds, None);
    }

    #[test]
    fn what_could_not_be_seen_is_no_datum_and_no_zero() {
        let held = Held {
            since: at(11),
            step: Step::Choose,
            kind: FailureKind::StoreUnavailable,
            message: "the bucket refuses".to_owned(),
            hint: None,
            looks_again_at: None,
        };
        let boot = seen(Some(Record { held: Some(held), ..record(Step::Choose) }), false, 12);
        assert_eq!(
            boot.held.as_deref(),
            Some("since 1970-01-01T00:11:00Z at choose: the bucket refuses [StoreUnavailable]")
        );
        let health =
            Health { qdrant: Err("refused".to_owned()), disk_used: None, boot: Some(boot), degraded: true };
        let expected = json!([
            { "MetricName": "QdrantReady", "Value": 0, "Unit": "Count" },
            { "MetricName": "HostHeld", "Value": 1, "Unit": "Count" },
            { "MetricName": "HostDegraded", "Value": 1, "Unit": "Count" },
            { "MetricName": "BootingSeconds", "Value": 120.0, "Unit": "Seconds" },
        ]);
        assert_eq!(health.metric_data(), expected);
        assert!(!health.good());
    }

    #[test]
    fn the_disk_is_counted_as_df_does() {
        let used = used_percent(Path::new("/")).unwrap();
        assert!((0.0..=100.0).contains(&used), "{used}");
        assert_eq!(used_percent(Path::new("/no/such/directory")), None);
    }
}
