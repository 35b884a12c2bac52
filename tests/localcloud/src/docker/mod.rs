//! The embedded Docker: a program `docker` that takes the real one's words, and an engine in this process that runs Qdrant as its containers.
//!
//! What it guarantees:
//!
//! * a flag, a command or an image that Docker would refuse is refused, with Docker's exit code 125;
//! * a container sees what it was given: version by the image's tag, keys by the environment, storage and snapshots below the one mount, and the address that
//!   its port is published on;
//! * a container outlives its client when that is killed, and is stopped when the client is asked to stop;
//! * nothing is there after [`Engine::power_cut`] but what is on the disk, and nothing outlives the engine.
//!
//! Not there: other images than Qdrant's, networks, volumes, logs, limits of memory and CPU.

mod api;
mod arguments;
pub(crate) mod program;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Command, sync::watch};
use tokio_util::sync::CancellationToken;

use self::api::Run;
use crate::{
    background::Background,
    qdrant::{Faults, QdrantOptions, QdrantStandIn},
    script::Script,
    serve::HttpServer,
};

/// The variable by which the program finds the engine.
pub const VARIABLE: &str = "LOCALCLOUD_DOCKER";
/// The variables of Qdrant's keys.
const API_KEY: &str = "QDRANT__SERVICE__API_KEY";
const READ_ONLY_KEY: &str = "QDRANT__SERVICE__READ_ONLY_API_KEY";
/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// What happens to a container that is started; scripted by its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It ends at once, with this code.
    Exits(u8),
    /// Qdrant loads for this time before it listens.
    Loads(Duration),
    /// Qdrant never listens.
    NeverReady,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    server: HttpServer,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    effects: Script<String, Effect>,
    faults: Faults,
    /// What Qdrant is apart from what its container says: how fast its snapshots are, how much log is in them.
    qdrant: QdrantOptions,
    /// A `qdrant` program to run in the place of the stand-in.
    binary: Option<PathBuf>,
    background: Background,
}

#[derive(Debug, Default)]
struct State {
    containers: BTreeMap<String, Container>,
    missing_images: BTreeSet<String>,
    started: Vec<Run>,
    made: u64,
}

/// A container that runs. It is forgotten when it ends, as with `--rm`.
#[derive(Clone, Debug)]
struct Container {
    id: String,
    run: Run,
    stop: CancellationToken,
    ended: watch::Receiver<Option<u8>>,
}

/// What the engine says to the client where Docker's daemon would refuse.
#[derive(Debug)]
struct Refusal(String);

impl Engine {
    /// Starts the engine. Its containers run the stand-in, or the `qdrant` program that is given.
    pub fn start(qdrant: QdrantOptions, binary: Option<PathBuf>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            effects: Script::default(),
            faults: Faults::default(),
            qdrant,
            binary,
            background: Background::start("localcloud-docker")?,
        });
        let server = HttpServer::start(api::router(Arc::clone(&shared)), 0)?;
        Ok(Self { shared, server })
    }

    /// What [`VARIABLE`] has to say for clients of this engine.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// Faults of containers, by their image.
    pub fn effects(&self) -> &Script<String, Effect> {
        &self.shared.effects
    }

    /// Faults of every Qdrant that runs here, now and later.
    pub fn qdrant_faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Takes an image away.
    pub fn remove_image(&self, image: &str) {
        lock(&self.shared.state).missing_images.insert(image.to_owned());
    }

    /// Every image that was started and where it was published, in order.
    pub fn started(&self) -> Vec<(String, SocketAddr)> {
        lock(&self.shared.state).started.iter().map(|run| (run.image.clone(), run.publish)).collect()
    }

    /// Ends every container at once, as the machine does that loses its power. What was on the disk stays.
    pub async fn power_cut(&self) {
        let containers: Vec<Container> =
            std::mem::take(&mut lock(&self.shared.state).containers).into_values().collect();
        for mut container in containers {
            container.stop.cancel();
            wait(&mut container.ended).await;
        }
    }
}

/// Waits for the end of a container.
async fn wait(ended: &mut watch::Receiver<Option<u8>>) -> u8 {
    match ended.wait_for(Option::is_some).await {
        Ok(code) => code.unwrap_or(137),
        // Its job has ended without a word.
        Err(_gone) => 137,
    }
}

impl Shared {
    fn has_image(&self, image: &str) -> bool {
        version(image).is_some() && !lock(&self.state).missing_images.contains(image)
    }

    /// Starts a container; answers with what says when it has ended.
    fn run(self: &Arc<Self>, run: Run) -> Result<watch::Receiver<Option<u8>>, Refusal> {
        let image = run.image.clone();
        let version = version(&image).filter(|_| self.has_image(&image));
        let version = version.ok_or_else(|| Refusal(format!("No such image: {image}")))?;
        let options = self.options(&run, version)?;
        // The daemon takes the port before the container runs, and refuses where it cannot.
        std::net::TcpListener::bind(run.publish).map_err(|error| {
            Refusal(format!("failed to set up container networking: driver failed programming external connectivity: {}: {error}", run.publish))
        })?;
        let mut state = lock(&self.state);
        if let Some(other) = state.containers.get(&run.name) {
            return Err(Refusal(format!(
                "Conflict. The container name \"/{}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
                run.name, other.id
            )));
        }
        let effect = self.effects.strike(&image);
        if let Some(Effect::Exits(code)) = effect {
            // Nobody sees it run.
            state.started.push(run);
            return Ok(watch::channel(Some(code)).1);
        }
        state.made += 1;
        let id = format!("{:064x}", state.made);
        let stop = CancellationToken::new();
        let (tell, ended) = watch::channel(None);
        state.started.push(run.clone());
        let name = run.name.clone();
        let container = Container { id: id.clone(), run, stop: stop.clone(), ended: ended.clone() };
        state.containers.insert(name.clone(), container);
        drop(state);
        let shared = Arc::clone(self);
        self.background.spawner().spawn(async move {
            let code = match (shared.binary.clone(), effect) {
                (Some(binary), None) => program(&binary, options, &stop).await,
                (Some(_), Some(_)) | (None, _) => qdrant(options, effect, &stop).await,
            };
            let mut state = lock(&shared.state);
            if state.containers.get(&name).is_some_and(|there| there.id == id) {
                state.containers.remove(&name);
            }
            drop(state);
            tell.send_replace(Some(code));
        });
        Ok(ended)
    }

    /// What Qdrant makes of the container's environment.
    fn options(&self, run: &Run, version: String) -> Result<QdrantOptions, Refusal> {
        let inside = |name: &str| {
            let path = run.environment.get(name).ok_or_else(|| Refusal(format!("{name} is not set")))?;
            let below = path.strip_prefix(&run.mount.1).and_then(|below| below.strip_prefix('/'));
            let below = below
                .ok_or_else(|| Refusal(format!("{name}={path} is not below the mount, and would be lost")))?;
            Ok(run.mount.0.join(below))
        };
        if !run.mount.0.is_dir() {
            let source = run.mount.0.display();
            return Err(Refusal(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {source}"
            )));
        }
        Ok(QdrantOptions {
            version,
            api_key: run.environment.get(API_KEY).cloned(),
            read_only_key: run.environment.get(READ_ONLY_KEY).cloned(),
            storage_dir: Some(inside("QDRANT__STORAGE__STORAGE_PATH")?),
            snapshots_dir: Some(inside("QDRANT__STORAGE__SNAPSHOTS_PATH")?),
            address: run.publish.ip(),
            port: run.publish.port(),
            faults: self.faults.clone(),
            ..self.qdrant.clone()
        })
    }
}

/// Runs Qdrant until it dies or is stopped; answers with its exit code.
async fn qdrant(mut options: QdrantOptions, effect: Option<Effect>, stop: &CancellationToken) -> u8 {
    match effect {
        Some(Effect::Loads(time)) => options.startup_delay = time,
        Some(Effect::NeverReady) => options.startup_delay = FOR_EVER,
        Some(Effect::Exits(_)) | None => {}
    }
    match QdrantStandIn::start(options).await {
        Ok(mut server) => {
            let stopped = stop.run_until_cancelled(server.died()).await.is_none();
            server.kill().await;
            if stopped { 0 } else { 137 }
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the container's Qdrant does not start");
            101
        }
    }
}

/// Runs a real Qdrant until it ends or is stopped; answers with its exit code.
async fn program(binary: &Path, options: QdrantOptions, stop: &CancellationToken) -> u8 {
    let ended = async {
        let directory = tempfile::TempDir::with_prefix("qdrant-container-")?;
        let keys = [(API_KEY, options.api_key), (READ_ONLY_KEY, options.read_only_key)];
        let paths = [
            ("QDRANT__STORAGE__STORAGE_PATH", options.storage_dir),
            ("QDRANT__STORAGE__SNAPSHOTS_PATH", options.snapshots_dir),
        ];
        let grpc = std::net::TcpListener::bind((options.address, 0))?.local_addr()?.port();
        let mut child = Command::new(binary)
            .current_dir(directory.path())
            // Nothing that the environment says about another Qdrant may reach this one.
            .env_clear()
            .envs(keys.into_iter().filter_map(|(name, key)| Some((name, key?))))
            .envs(paths.into_iter().filter_map(|(name, path)| Some((name, path?))))
            .env("QDRANT__SERVICE__HOST", options.address.to_string())
            .env("QDRANT__SERVICE__HTTP_PORT", options.port.to_string())
            .env("QDRANT__SERVICE__GRPC_PORT", grpc.to_string())
            .env("QDRANT__TELEMETRY_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        match stop.run_until_cancelled(child.wait()).await {
            Some(status) => Ok(status?.code()),
            None => {
                if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
                    kill_process(pid, Signal::TERM)?;
                }
                Ok(child.wait().await?.code())
            }
        }
    };
    match ended.await {
        Ok(code) => code.and_then(|code| u8::try_from(code).ok()).unwrap_or(137),
        Err(error) => {
            let error: anyhow::Error = error;
            tracing::error!(error = format!("{error:#}"), "the container's Qdrant does not run");
            101
        }
    }
}

/// The version that an image's tag names: `qdrant/qdrant:v1.18.3-unprivileged`, with or without a digest.
fn version(image: &str) -> Option<String> {
    let tagged = image.split_once('@').map_or(image, |(tagged, _digest)| tagged);
    let (_repository, tag) = tagged.rsplit_once(':')?;
    let version = tag.strip_prefix('v')?.split('-').next()?;
    let numbers = version.split('.').filter(|number| number.parse::<u32>().is_ok()).count();
    (numbers == 3).then(|| version.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the program finds the engine.
#[expect(clippy::disallowed_methods, reason = "a stand-in for a program that has its own variables")]
fn endpoint() -> anyhow::Result<String> {
    std::env::var(VARIABLE).with_context(|| format!("{VARIABLE} does not say where the engine is"))
}
