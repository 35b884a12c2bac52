//! An EC2 instance as `host-worker boot` sees it: disks of its own, or a directory in their place, Docker, an Auto Scaling group that waits, two addresses, and a bucket.
//!
//! Its private address is 127.0.0.1, where Qdrant is while nobody is served; that of its network interface is [`ADDRESS`], at the same port.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::process::Command;

use crate::{
    autoscaling::{AutoScaling, Standing},
    cli::{DOCKER, WORKER},
    cloud::{API_KEY, BUCKET, Finished, Program, READ_ONLY_KEY, finish},
    disks::{self, Disks},
    docker::{self, Engine},
    indexer::Client,
    qdrant::{QdrantOptions, Server},
    s3::S3Server,
    ssm::HostOptions,
};

/// The address of the network interface that clients know. All of 127.0.0.0/8 is this machine's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// What Qdrant runs from.
pub const IMAGE: &str = "qdrant/qdrant:v1.18.3-unprivileged";

/// What an instance is.
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    /// What Qdrant is to run from.
    pub image: String,
    /// `production` or `staging`.
    pub role: &'static str,
    /// The address that clients know; one that the machine does not have is never there.
    pub address: Ipv4Addr,
    /// How many NVMe disks of its own it has, all blank; without any a directory stands in for them (`no-disks`).
    pub disks: usize,
    /// By what the worker's waits are divided.
    pub divisor: u32,
    /// More lines of the config file's `[targets]`.
    pub targets: String,
    /// What Qdrant is, apart from version, keys, directories and address.
    pub qdrant: QdrantOptions,
    /// A `qdrant` program that containers run, in the place of the stand-in.
    pub binary: Option<PathBuf>,
}

impl Default for InstanceOptions {
    fn default() -> Self {
        Self {
            image: IMAGE.to_owned(),
            role: "production",
            address: ADDRESS,
            disks: 0,
            divisor: 60,
            targets: "warm-up-seconds = 30".to_owned(),
            qdrant: QdrantOptions::default(),
            binary: None,
        }
    }
}

/// The instance.
#[derive(Debug)]
pub struct Instance {
    /// Docker, with its script of faults.
    pub docker: Engine,
    /// The group that waits for the instance, with its script of faults.
    pub auto_scaling: AutoScaling,
    /// Its disks, with the faults of the programs that prepare them. Nobody asks for them where a directory stands in.
    pub disks: Disks,
    options: InstanceOptions,
    dir: PathBuf,
    port: u16,
    environment: BTreeMap<String, String>,
    launches: u32,
}

impl Instance {
    /// Launches an instance with an empty disk below `dir`, which backs up to the bucket of `s3`. `program` is the worker.
    pub fn launch(
        dir: &Path,
        program: &Program,
        s3: &S3Server,
        options: InstanceOptions,
    ) -> anyhow::Result<Self> {
        let docker = Engine::start(options.qdrant.clone(), options.binary.clone())?;
        let auto_scaling = AutoScaling::start()?;
        let mut instance = Self {
            environment: BTreeMap::new(),
            port: free_port(options.address)?,
            dir: dir.to_owned(),
            docker,
            auto_scaling,
            disks: Disks::new(&dir.join("disks"), options.disks)?,
            options,
            launches: 0,
        };
        instance.environment = instance.variables(program, s3)?;
        instance.write_secrets()?;
        instance.write_settings(s3)?;
        instance.begin()?;
        Ok(instance)
    }

    /// What every program on the instance finds in its environment.
    fn variables(&self, program: &Program, s3: &S3Server) -> anyhow::Result<BTreeMap<String, String>> {
        let bin = self.install(program)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
        let (access_key, secret_key) = s3.credentials();
        let (docker, auto_scaling) = (self.docker.endpoint(), self.auto_scaling.endpoint());
        let settings = self.config_file();
        let disks = self.disks.dir();
        let variables = [
            ("PATH", path.to_str().context("the path is text")?),
            ("QDRANT_BACKUP_CONFIG", settings.to_str().context("the path of the settings is text")?),
            ("QDRANT_BACKUP_DETACHED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_REGION", s3.region()),
            ("AWS_ACCESS_KEY_ID", access_key),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
            ("AWS_ENDPOINT_URL_AUTO_SCALING", &auto_scaling),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &auto_scaling),
            (docker::VARIABLE, &docker),
            (disks::VARIABLE, disks.to_str().context("the path of the disks is text")?),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(variables.into_iter().map(owned).collect())
    }

    /// Puts the programs of the instance on its path: `host-worker`, and the stand-ins, which are this program under other names.
    fn install(&self, program: &Program) -> anyhow::Result<PathBuf> {
        let bin = self.dir.join("bin");
        fs_err::create_dir_all(&bin)?;
        let (Program::Localcloud(worker) | Program::HostWorker(worker)) = program;
        let localcloud = localcloud(program)?;
        let stand_ins = disks::PROGRAMS.into_iter().chain([DOCKER]).map(|name| (name, localcloud.as_path()));
        for (name, program) in stand_ins.chain([(WORKER, worker.as_path())]) {
            let there = bin.join(name);
            if !there.exists() {
                fs_err::hard_link(program, &there)
                    .or_else(|_other| fs_err::copy(program, &there).map(drop))?;
            }
        }
        Ok(bin)
    }

    fn write_secrets(&self) -> anyhow::Result<()> {
        let keys = format!(
            "QDRANT__SERVICE__API_KEY={API_KEY}\nQDRANT__SERVICE__READ_ONLY_API_KEY={READ_ONLY_KEY}\n"
        );
        for (name, text) in [("qdrant.env", keys.as_str()), ("api-key", API_KEY)] {
            let path = self.dir.join(name);
            fs_err::write(&path, text)?;
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(())
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("qdrant-backup.toml")
    }

    fn write_settings(&self, s3: &S3Server) -> anyhow::Result<()> {
        let Self {
            options: InstanceOptions { image, role, address, divisor, targets, disks, .. },
            port,
            dir,
            ..
        } = self;
        let (workspace, region, endpoint) = (self.workspace(), s3.region(), s3.endpoint());
        let (workspace, dir) = (workspace.display(), dir.display());
        let no_disks = *disks == 0;
        let (group, hook) = (AutoScaling::GROUP, AutoScaling::HOOK);
        let text = format!(
            "qdrant-url = \"http://{address}:{port}\"\n\
             qdrant-api-key-file = \"{dir}/api-key\"\n\
             data-dir = \"{workspace}/data\"\n\
             snapshots-dir = \"{workspace}/snapshots\"\n\
             work-dir = \"{workspace}/backups\"\n\
             bucket = \"{BUCKET}\"\n\
             region = \"{region}\"\n\
             endpoint-url = \"{endpoint}\"\n\
             host-role = \"{role}\"\n\
             time-divisor = {divisor}\n\
             [boot]\n\
             workspace = \"{workspace}\"\n\
             no-disks = {no_disks}\n\
             image = \"{image}\"\n\
             environment-file = \"{dir}/qdrant.env\"\n\
             [boot.lifecycle]\n\
             group = \"{group}\"\n\
             hook = \"{hook}\"\n\
             [targets]\n\
             {targets}\n"
        );
        Ok(fs_err::write(self.config_file(), text)?)
    }

    /// Empty disks, and a group that waits.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.disks.renew(self.options.disks)?;
        match fs_err::remove_dir_all(self.workspace()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        fs_err::create_dir_all(self.workspace())?;
        self.launches += 1;
        self.auto_scaling.set(&format!("i-{:017x}", self.launches), Standing::Waiting);
        Ok(())
    }

    /// Where its disks are mounted.
    pub fn workspace(&self) -> PathBuf {
        self.dir.join("workspace")
    }

    /// Where the worker keeps its record.
    pub fn work_dir(&self) -> PathBuf {
        self.workspace().join("backups")
    }

    /// What programs on the instance find in their environment.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// What makes a staging host of a drill this instance: its agent finds the settings and the programs that are here.
    pub fn lend(&self) -> impl Fn(&Server, &mut HostOptions) + Send + Sync + use<> {
        let environment = self.environment.clone();
        move |_its_own, host| {
            // Variables win over the config file that is here.
            host.env.retain(|name, _| !name.starts_with("QDRANT_BACKUP_"));
            host.env.extend(environment.clone());
        }
    }

    /// The worker with these arguments, ready to be started on the instance.
    pub fn worker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dir.join("bin").join(WORKER));
        command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
        // A setting of the person who runs this must not leak into the embedded cloud.
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "QDRANT_API_KEY"] {
            command.env_remove(name);
        }
        command.envs(&self.environment);
        command
    }

    /// Runs the worker with `--json` to its end.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        finish(self.worker(arguments).arg("--json")).await
    }

    /// The image that the settings name from now on.
    pub fn set_image(&mut self, image: &str, s3: &S3Server) -> anyhow::Result<()> {
        image.clone_into(&mut self.options.image);
        self.write_settings(s3)
    }

    /// The power fails: containers end where they are, nothing is mounted any more, and the disks stay.
    pub async fn power_cut(&self) {
        self.docker.power_cut().await;
        if let Err(error) = self.disks.reboot(true) {
            tracing::error!(error = format!("{error:#}"), "the disks cannot be unmounted");
        }
    }

    /// The instance is terminated, and its successor has empty disks and another id.
    pub async fn replace(&mut self) -> anyhow::Result<()> {
        self.docker.power_cut().await;
        self.begin()
    }

    /// A client at the address that clients know.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://{}:{}", self.options.address, self.port), Some(API_KEY))
    }

    /// A client at the address where nobody is served.
    pub fn private_client(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.port), Some(API_KEY))
    }

    /// Waits until `holds`, for as long as a test may take.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let looks = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looks)
            .await
            .with_context(|| format!("not within a minute: {what}"))
    }
}

/// This program, where the worker is one of its own beside it.
fn localcloud(program: &Program) -> anyhow::Result<PathBuf> {
    match program {
        Program::Localcloud(path) => Ok(path.clone()),
        Program::HostWorker(path) => {
            let beside = path.with_file_name("localcloud");
            anyhow::ensure!(beside.is_file(), "there is no `{}`, which is the stand-ins", beside.display());
            Ok(beside)
        }
    }
}

/// A port that is free at the private address and at this one.
fn free_port(address: Ipv4Addr) -> anyhow::Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("take a port")?;
        let port = listener.local_addr()?.port();
        if TcpListener::bind((address, port)).is_ok() || TcpListener::bind((address, 0)).is_err() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free at two addresses")
}
