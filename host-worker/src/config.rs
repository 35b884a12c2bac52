//! Settings, parsed once: flags over environment over config file, then checked.
//!
//! Below this module nothing reads the environment. A secret comes from a file or the environment, never from the command line, where
//! every user of the host could read it.

use std::{
    fmt,
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use clap::Args;
use protocol::{Layout, key};
use serde::Deserialize;

use crate::{bandwidth::NetworkBandwidth, cli::BackupArgs, error::Error, qdrant::ApiKey};

/// The settings that every command shares. Each is a flag, an environment variable and a key of the config file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Settings (flag, environment, or key of the config file)")]
pub struct Settings {
    /// Qdrant's REST endpoint, as http://10.0.2.15:6333
    #[arg(long, global = true, env = "QDRANT_BACKUP_QDRANT_URL", value_name = "URL")]
    pub qdrant_url: Option<String>,
    /// File that holds Qdrant's read-write API key [or the variable QDRANT_API_KEY]
    #[arg(long, global = true, env = "QDRANT_BACKUP_QDRANT_API_KEY_FILE", value_name = "FILE")]
    pub qdrant_api_key_file: Option<PathBuf>,
    /// Qdrant's snapshots directory, as this host sees it
    #[arg(long, global = true, env = "QDRANT_BACKUP_SNAPSHOTS_DIR", value_name = "DIR")]
    pub snapshots_dir: Option<PathBuf>,
    /// The same directory as Qdrant sees it, inside its container [default: as --snapshots-dir]
    #[arg(long, global = true, env = "QDRANT_BACKUP_QDRANT_SNAPSHOTS_PATH", value_name = "DIR")]
    pub qdrant_snapshots_path: Option<PathBuf>,
    /// Qdrant's data directory on this host, recorded in the manifest [default: /workspace/qdrant/data/]
    #[arg(long, global = true, env = "QDRANT_BACKUP_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The container image that Qdrant runs from, recorded in the manifest
    #[arg(long, global = true, env = "QDRANT_BACKUP_QDRANT_IMAGE", value_name = "IMAGE")]
    pub qdrant_image: Option<String>,
    /// The bucket
    #[arg(long, global = true, env = "QDRANT_BACKUP_BUCKET")]
    pub bucket: Option<String>,
    /// The folder of the archives in the bucket [default: qdrant/backups]
    #[arg(long, global = true, env = "QDRANT_BACKUP_PREFIX")]
    pub prefix: Option<String>,
    /// The bucket's region [default: as the AWS configuration says]
    #[arg(long, global = true, env = "QDRANT_BACKUP_REGION")]
    pub region: Option<String>,
    /// Endpoint of an S3-compatible store [default: AWS]
    #[arg(long, global = true, env = "QDRANT_BACKUP_ENDPOINT_URL", value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// Key of the indexing job's success marker; when it is set, a backup records the batch it covers
    #[arg(long, global = true, env = "QDRANT_BACKUP_SUCCESS_MARKER", value_name = "KEY")]
    pub success_marker: Option<String>,
    /// Where this program keeps its lock and journals [default: /workspace/qdrant/backups]
    #[arg(long, global = true, env = "QDRANT_BACKUP_WORK_DIR", value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// What this host is for: `production`, or `staging` for one that a restore drill may fill [default: production]
    #[arg(long, global = true, env = "QDRANT_BACKUP_HOST_ROLE", value_name = "ROLE")]
    pub host_role: Option<HostRole>,
    /// By what waits are divided, in an embedded cloud whose clock runs faster [default: 1]
    #[arg(long, global = true, env = "QDRANT_BACKUP_TIME_DIVISOR", value_name = "N", hide = true)]
    pub time_divisor: Option<NonZeroU32>,
    /// Start what is to outlive this program as a process of its own, even where systemd could be asked for a unit
    #[arg(long, global = true, env = "QDRANT_BACKUP_DETACHED", hide = true)]
    #[serde(skip)]
    pub detached: bool,
    /// How tasks of the workflow are done; in the config file only.
    #[arg(skip)]
    #[serde(default)]
    pub task: TaskSettings,
    /// How the host brings itself up; in the config file only.
    #[arg(skip)]
    pub boot: Option<BootSettings>,
    /// What a restore must keep to; in the config file only.
    #[arg(skip)]
    #[serde(default)]
    pub targets: Targets,
    /// What this host's network sustains, as 7.5Gbps [default: as the instance type or the link says]
    #[arg(long, global = true, env = "QDRANT_BACKUP_NETWORK_BANDWIDTH", value_name = "RATE")]
    pub network_bandwidth: Option<NetworkBandwidth>,
    /// Bytes that moving an archive may hold in memory, as 512MiB [default: what the network needs, at most an eighth of the memory]
    #[arg(long, global = true, env = "QDRANT_BACKUP_MEMORY_BUDGET", value_name = "BYTES")]
    pub memory_budget: Option<ByteSize>,
}

/// How tasks of the workflow are done, where a person would type flags of `backup`: the table `[task]` of the config file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskSettings {
    /// Seconds to wait for writes to end, as `--quiesce-timeout`.
    pub quiesce_timeout: Option<u64>,
    /// As `--level`.
    pub level: Option<i32>,
    /// As `--bandwidth-limit`.
    pub bandwidth_limit: Option<String>,
    /// As `--protect-latency`.
    pub protect_latency: Option<String>,
    /// As `--keep-local`.
    pub keep_local: Option<usize>,
}

impl TaskSettings {
    /// The flags that stand for these settings, checked as flags are.
    fn backup_args(&self) -> Result<BackupArgs, Error> {
        let flags = [
            ("--quiesce-timeout", self.quiesce_timeout.map(|seconds| seconds.to_string())),
            ("--level", self.level.map(|level| level.to_string())),
            ("--bandwidth-limit", self.bandwidth_limit.clone()),
            ("--protect-latency", self.protect_latency.clone()),
            ("--keep-local", self.keep_local.map(|count| count.to_string())),
        ];
        let typed = flags.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value?)));
        BackupArgs::parsed(typed).map_err(|problem| Error::BadSetting { name: "task", problem })
    }
}

/// How the host brings itself up: the table `[boot]` of the config file. A host without it has a Qdrant that somebody else starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BootSettings {
    /// Where the instance's disks are mounted, the one mount of Qdrant's container [default: /workspace/qdrant].
    #[serde(default = "BootSettings::workspace")]
    pub workspace: PathBuf,
    /// A directory stands in for the disks: nothing is formatted or mounted. For machines without disks of their own, and for tests.
    #[serde(default)]
    pub no_disks: bool,
    /// The image that Qdrant is to run from, with a version as its tag, as `qdrant/qdrant:v1.18.3-unprivileged`. A backup of another version is restored
    /// with the same image under that version's tag first.
    pub image: String,
    /// File (0600) of `NAME=value` lines that the container is given: both API keys of Qdrant, and nothing else that is secret.
    pub environment_file: PathBuf,
    /// Memory limit of the container, as 24GiB [default: none].
    pub memory: Option<ByteSize>,
    /// Whether gRPC (6334) is published beside REST.
    #[serde(default)]
    pub grpc: bool,
    /// The Auto Scaling group and its launch hook, where one waits for this host.
    pub lifecycle: Option<LifecycleSettings>,
}

impl BootSettings {
    fn workspace() -> PathBuf {
        PathBuf::from("/workspace/qdrant")
    }
}

/// Who waits for the host: the table `[boot.lifecycle]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LifecycleSettings {
    /// The Auto Scaling group.
    pub group: String,
    /// The launch hook.
    pub hook: String,
    /// The instance [default: as the instance metadata service says].
    pub instance_id: Option<String>,
}

/// What a restore must keep to, for reports and alarms: the table `[targets]` of the config file.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Targets {
    /// Seconds from the start of a boot to verified and serving (RTO).
    pub rto_seconds: u64,
    /// Seconds between two published backups (RPO).
    pub rpo_seconds: u64,
    /// Milliseconds that 95 of 100 searches may take before a host that warms up is warm.
    pub search_milliseconds: u64,
    /// Seconds after which a host serves although it is not warm.
    pub warm_up_seconds: u64,
}

impl Default for Targets {
    /// Two hours, a day, and what the golden searches of a warm collection stay well below.
    fn default() -> Self {
        Self { rto_seconds: 7_200, rpo_seconds: 86_400, search_milliseconds: 50, warm_up_seconds: 600 }
    }
}

/// What a host is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HostRole {
    /// Its data is served, and backed up.
    #[default]
    Production,
    /// Its data is thrown away after a drill.
    Staging,
}

/// A number of bytes, written as `512MiB`, `2GiB`, `64MB` or plain digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub struct ByteSize(pub u64);

/// A config file may write plain bytes without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 8] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("B", 1),
            ("", 1),
        ];
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a number of bytes as 512MiB, 2GiB or 64MB"))
    }
}

impl TryFrom<NumberOrText> for ByteSize {
    type Error = String;

    fn try_from(size: NumberOrText) -> Result<Self, String> {
        match size {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

/// Checked settings. What only some commands need is checked when they ask for it.
#[derive(Clone, Debug)]
pub struct Config {
    settings: Settings,
    api_key_from_environment: Option<ApiKey>,
    layout: Layout,
    task_backup_args: BackupArgs,
}

/// What is wrong with a config file, without the line it stands on: that line may hold a secret in the wrong place.
fn config_problem(error: toml::de::Error) -> Error {
    Error::BadConfigFile { problem: error.message().to_owned() }
}

/// How to reach Qdrant.
#[derive(Clone, Debug)]
pub struct QdrantAccess {
    /// The REST endpoint.
    pub url: String,
    /// The read-write key.
    pub api_key: Option<ApiKey>,
}

/// Qdrant's snapshots directory under its two names.
#[derive(Clone, Debug)]
pub struct SnapshotsDir {
    /// As this host sees it.
    pub host: PathBuf,
    /// As Qdrant sees it.
    pub qdrant: PathBuf,
}

/// Where backups are stored.
#[derive(Clone, Debug)]
pub struct StoreAccess {
    /// The bucket.
    pub bucket: String,
    /// Its region, when it is not the AWS configuration's.
    pub region: Option<String>,
    /// The endpoint of an S3-compatible store.
    pub endpoint_url: Option<String>,
}

impl Config {
    /// Fills `settings` (flags and environment) up from the text of a config file, and checks them.
    pub fn new(settings: Settings, file: Option<&str>, api_key: Option<String>) -> Result<Self, Error> {
        let settings = match file {
            Some(text) => settings.or(toml::from_str(text).map_err(config_problem)?),
            None => settings,
        };
        let prefix = settings.prefix.clone().unwrap_or_else(|| key::DEFAULT_PREFIX.to_owned());
        let prefix =
            prefix.parse().map_err(|source| Error::Setting { name: "prefix", source: Box::new(source) })?;
        let api_key_from_environment = match api_key.filter(|key| !key.is_empty()) {
            Some(key) => Some(
                ApiKey::new(&key)
                    .map_err(|source| Error::Setting { name: "QDRANT_API_KEY", source: Box::new(source) })?,
            ),
            None => None,
        };
        let task_backup_args = settings.task.backup_args()?;
        Ok(Self { settings, api_key_from_environment, layout: Layout::new(prefix), task_backup_args })
    }

    /// How to reach Qdrant; reads the key's file.
    pub fn qdrant(&self) -> Result<QdrantAccess, Error> {
        let url = required(&self.settings.qdrant_url, "qdrant-url")?.trim_end_matches('/').to_owned();
        match reqwest::Url::parse(&url) {
            Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
                let problem =
                    "it holds a user or a password, which everybody could read; the key goes into a file"
                        .to_owned();
                return Err(Error::BadSetting { name: "qdrant-url", problem });
            }
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {}
            Ok(_) | Err(_) => {
                return Err(Error::BadSetting {
                    name: "qdrant-url",
                    problem: "it is not an http:// or https:// URL".to_owned(),
                });
            }
        }
        let api_key = match &self.settings.qdrant_api_key_file {
            Some(path) => {
                let text = fs_err::read_to_string(path).map_err(|source| Error::ApiKeyFile { source })?;
                let key = ApiKey::new(&text).map_err(|source| Error::Setting {
                    name: "qdrant-api-key-file",
                    source: Box::new(source),
                })?;
                Some(key)
            }
            None => self.api_key_from_environment.clone(),
        };
        Ok(QdrantAccess { url, api_key })
    }

    /// The address that Qdrant is to answer at, which has to be one of this machine's: its network interface's.
    pub fn qdrant_address(&self) -> Result<IpAddr, Error> {
        let url = self.qdrant()?.url;
        let host = reqwest::Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let address = host.and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        address.ok_or_else(|| Error::BadSetting {
            name: "qdrant-url",
            problem: format!("`{url}` names no IP address, which is what `boot` publishes Qdrant on"),
        })
    }

    /// These settings for a Qdrant at another address of this machine, at the same port.
    pub fn with_qdrant_at(&self, address: IpAddr) -> Result<Self, Error> {
        let mut url = reqwest::Url::parse(&self.qdrant()?.url)
            .map_err(|source| Error::Setting { name: "qdrant-url", source: Box::new(source) })?;
        url.set_ip_host(address).map_err(|()| Error::BadSetting {
            name: "qdrant-url",
            problem: format!("`{address}` cannot be put into it"),
        })?;
        let settings = Settings { qdrant_url: Some(url.into()), ..self.settings.clone() };
        Ok(Self { settings, ..self.clone() })
    }

    /// Qdrant's snapshots directory.
    pub fn snapshots_dir(&self) -> Result<SnapshotsDir, Error> {
        let host = required(&self.settings.snapshots_dir, "snapshots-dir")?.clone();
        let absolute = std::path::absolute(&host)
            .map_err(|source| Error::Setting { name: "snapshots-dir", source: Box::new(source) })?;
        let qdrant = self.settings.qdrant_snapshots_path.clone().unwrap_or_else(|| absolute.clone());
        if !qdrant.is_absolute() {
            let problem = format!("`{}` is not an absolute path", qdrant.display());
            return Err(Error::BadSetting { name: "qdrant-snapshots-path", problem });
        }
        Ok(SnapshotsDir { host: absolute, qdrant })
    }

    /// Where backups are stored.
    pub fn store(&self) -> Result<StoreAccess, Error> {
        let bucket = required(&self.settings.bucket, "bucket")?.clone();
        Ok(StoreAccess {
            bucket,
            region: self.settings.region.clone(),
            endpoint_url: self.settings.endpoint_url.clone(),
        })
    }

    /// The region, when it is not the AWS configuration's.
    pub fn region(&self) -> Option<&str> {
        self.settings.region.as_deref()
    }

    /// Where objects are in the bucket.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The key of the indexing job's success marker, when a marker is configured.
    pub fn success_marker(&self) -> Option<&str> {
        self.settings.success_marker.as_deref()
    }

    /// Where this program keeps its lock and journals.
    pub fn work_dir(&self) -> PathBuf {
        self.settings.work_dir.clone().unwrap_or_else(|| PathBuf::from("/workspace/qdrant/backups"))
    }

    /// Qdrant's data directory, for the manifest.
    pub fn data_dir(&self) -> PathBuf {
        self.settings.data_dir.clone().unwrap_or_else(|| PathBuf::from("/workspace/qdrant/data/"))
    }

    /// The image that Qdrant runs from, for the manifest.
    pub fn qdrant_image(&self) -> Option<&str> {
        self.settings.qdrant_image.as_deref()
    }

    /// By what waits are divided.
    pub fn time_divisor(&self) -> u32 {
        self.settings.time_divisor.map_or(1, NonZeroU32::get)
    }

    /// How a backup is made that is a task of the workflow.
    pub fn task_backup_args(&self) -> &BackupArgs {
        &self.task_backup_args
    }

    /// Whether systemd is there, and is to be asked for units.
    pub fn has_systemd(&self) -> bool {
        !self.settings.detached && Path::new("/run/systemd/system").is_dir()
    }

    /// The port of Qdrant's REST endpoint.
    pub fn qdrant_port(&self) -> Result<u16, Error> {
        let url = self.qdrant()?.url;
        let port = reqwest::Url::parse(&url).ok().and_then(|url| url.port_or_known_default());
        port.ok_or_else(|| Error::BadSetting {
            name: "qdrant-url",
            problem: format!("`{url}` names no port"),
        })
    }

    /// How the host brings itself up, where it does.
    pub fn boot(&self) -> Option<&BootSettings> {
        self.settings.boot.as_ref()
    }

    /// What a restore must keep to.
    pub fn targets(&self) -> Targets {
        self.settings.targets
    }

    /// What this host is for.
    pub fn host_role(&self) -> HostRole {
        self.settings.host_role.unwrap_or_default()
    }

    /// What the network sustains, when a person said so.
    pub fn network_bandwidth(&self) -> Option<NetworkBandwidth> {
        self.settings.network_bandwidth
    }

    /// Bytes that moving an archive may hold in memory, when a person chose.
    pub fn memory_budget(&self) -> Option<u64> {
        self.settings.memory_budget.map(|size| size.0)
    }
}

fn required<'a, T>(value: &'a Option<T>, name: &'static str) -> Result<&'a T, Error> {
    value.as_ref().ok_or(Error::MissingSetting { name })
}

impl Settings {
    /// These settings, and `fallback`'s where there are none.
    fn or(self, fallback: Self) -> Self {
        Self {
            qdrant_url: self.qdrant_url.or(fallback.qdrant_url),
            qdrant_api_key_file: self.qdrant_api_key_file.or(fallback.qdrant_api_key_file),
            snapshots_dir: self.snapshots_dir.or(fallback.snapshots_dir),
            qdrant_snapshots_path: self.qdrant_snapshots_path.or(fallback.qdrant_snapshots_path),
            data_dir: self.data_dir.or(fallback.data_dir),
            qdrant_image: self.qdrant_image.or(fallback.qdrant_image),
            bucket: self.bucket.or(fallback.bucket),
            prefix: self.prefix.or(fallback.prefix),
            region: self.region.or(fallback.region),
            endpoint_url: self.endpoint_url.or(fallback.endpoint_url),
            success_marker: self.success_marker.or(fallback.success_marker),
            work_dir: self.work_dir.or(fallback.work_dir),
            host_role: self.host_role.or(fallback.host_role),
            time_divisor: self.time_divisor.or(fallback.time_divisor),
            // Flags cannot set it.
            detached: self.detached,
            task: fallback.task,
            boot: fallback.boot,
            targets: fallback.targets,
            network_bandwidth: self.network_bandwidth.or(fallback.network_bandwidth),
            memory_budget: self.memory_budget.or(fallback.memory_budget),
        }
    }
}

impl fmt::Display for ByteSize {
    /// In binary units with one decimal, as `15.3 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "bucket = \"from-file\"\nqdrant-url = \"http://127.0.0.1:6333/\"\nmemory-budget = \"64MiB\"\nnetwork-bandwidth = \"7.5Gbps\"\n";
        let config =
            Config::new(settings(|s| s.bucket = Some("from-flag".to_owned())), Some(file), None).unwrap();
        assert_eq!(config.store().unwrap().bucket, "from-flag");
        assert_eq!(config.qdrant().unwrap().url, "http://127.0.0.1:6333");
        assert_eq!(config.memory_budget(), Some(64 << 20));
        assert_eq!(config.network_bandwidth().map(|rate| rate.to_string()).as_deref(), Some("7.5Gbps"));
        assert!(Config::new(Settings::default(), Some("network-bandwidth = \"fast\""), None).is_err());
    }

    #[test]
    fn a_misspelt_key_of_the_file_is_an_error() {
        assert!(Config::new(Settings::default(), Some("buckett = \"x\""), None).is_err());
    }

    #[test]
    fn bytes_need_no_quotes_and_secrets_are_not_quoted_back() {
        let config = Config::new(Settings::default(), Some("memory-budget = 134217728"), None).unwrap();
        assert_eq!(config.memory_budget(), Some(128 << 20));
        for misplaced in
            ["qdrant-api-key = \"s3cr3t\"", "bucket = s3cr3t", "qdrant-url = \"http://u:s3cr3t@h:1\""]
        {
            let error = Config::new(Settings::default(), Some(misplaced), None)
                .and_then(|config| config.qdrant())
                .unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let config = Config::new(Settings::default(), None, None).unwrap();
        let message = config.store().unwrap_err().to_string();
        assert!(message.contains("bucket"), "{message}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs_err::write(&path, "s3cr3t-in-file\n").unwrap();
        let from_file = settings(|s| {
            s.qdrant_url = Some("http://127.0.0.1:6333".to_owned());
            s.qdrant_api_key_file = Some(path);
        });
        let config = Config::new(from_file, None, Some("s3cr3t-in-env".to_owned())).unwrap();
        let printed = format!("{config:?} {:#?} {:?}", config, config.qdrant().unwrap());
        assert!(!printed.contains("s3cr3t"), "{printed}");
    }

    #[test]
    fn qdrant_is_at_an_address_and_can_be_at_another() {
        let at = |url: &str| {
            let url = url.to_owned();
            Config::new(settings(|s| s.qdrant_url = Some(url)), None, None).unwrap()
        };
        let config = at("http://10.0.2.15:6333");
        assert_eq!(config.qdrant_address().unwrap().to_string(), "10.0.2.15");
        assert_eq!(at("http://[fd00::1]:6333").qdrant_address().unwrap().to_string(), "fd00::1");
        let local = config.with_qdrant_at([127, 0, 0, 1].into()).unwrap();
        assert_eq!(local.qdrant().unwrap().url, "http://127.0.0.1:6333");
        let refused = at("http://qdrant.internal:6333").qdrant_address().unwrap_err().to_string();
        assert!(refused.contains("names no IP address"), "{refused}");
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("0", 0), ("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("64MB", 64_000_000), ("7 B", 7)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "5 bananas", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(1023).to_string(), "1023 B");
        assert_eq!(ByteSize(16_043_213).to_string(), "15.3 MiB");
    }
}
