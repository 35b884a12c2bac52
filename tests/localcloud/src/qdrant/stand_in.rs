//! The stand-in as a whole: started, killed, restarted.

use super::faults::{Damage, Faults};
use super::node::{Node, Settings};
use super::router::{self, DropConnection};
use super::service::{Call, CallLog};
use super::writer::{Trickle, Writer};
use super::{lock, persistence, tamper};
use anyhow::Context as _;
use axum::extract::Request;
use axum::response::Response;
use fs_err as fs;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// `keep_alive` of the real server's HTTP side: an idle connection is closed after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the stand-in is.
#[derive(Clone, Debug)]
pub struct QdrantOptions {
    /// The version that `GET /` names.
    pub version: String,
    /// The read-write key; without any key the server is open.
    pub api_key: Option<String>,
    /// The read-only key.
    pub read_only_key: Option<String>,
    /// Where collections are kept; a temporary directory when not given.
    pub storage_dir: Option<PathBuf>,
    /// Where snapshots are kept; beside the storage when not given.
    pub snapshots_dir: Option<PathBuf>,
    /// How fast snapshots are written; as fast as possible when not given.
    pub snapshot_bytes_per_second: Option<u64>,
    /// Size in bytes to which the log inside every snapshot is preallocated with zeros.
    pub wal_bytes: u64,
    /// How long connections are refused after a start, as while collections load.
    pub startup_delay: Duration,
    /// After a recovery the tail of the data is replayed in the background, as in 1.17.0 to 1.18.3.
    pub background_replay: bool,
    /// After a restart collections with points are grey until something is written, as when optimizations are pending.
    pub grey_after_restart: bool,
    /// The address that it listens on.
    pub address: IpAddr,
    /// The port there; 0 picks a free one.
    pub port: u16,
    /// Its script of faults; clones are of the same.
    pub faults: Faults,
}

impl Default for QdrantOptions {
    /// Version 1.18.3 without keys, in temporary directories, at full speed.
    fn default() -> Self {
        Self {
            version: "1.18.3".to_owned(),
            api_key: None,
            read_only_key: None,
            storage_dir: None,
            snapshots_dir: None,
            snapshot_bytes_per_second: None,
            wal_bytes: 0,
            startup_delay: Duration::ZERO,
            background_replay: false,
            grey_after_restart: false,
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            faults: Faults::default(),
        }
    }
}

/// A Qdrant server in this process.
///
/// Dropping it kills it; a storage directory that was given is left as a killed server leaves it.
#[derive(Debug)]
pub struct QdrantStandIn {
    settings: Settings,
    startup_delay: Duration,
    address: SocketAddr,
    faults: Faults,
    calls: CallLog,
    running: Option<Running>,
    /// Which node runs now, for writers that go on across a restart.
    current: Arc<Mutex<Option<Arc<Node>>>>,
    _temp: TempDir,
}

#[derive(Debug)]
struct Running {
    node: Arc<Node>,
    server: JoinSet<()>,
}

impl QdrantStandIn {
    /// Starts a server. When this returns it answers, unless `startup_delay` says otherwise.
    pub async fn start(options: QdrantOptions) -> anyhow::Result<Self> {
        let temp = tempfile::Builder::new().prefix("qdrant-stand-in-").tempdir()?;
        let settings = Settings {
            version: options.version,
            commit: "db8fa43fcb6aedec1e739487e17a99731b74590a".to_owned(),
            api_key: options.api_key,
            read_only_key: options.read_only_key,
            storage_dir: options.storage_dir.unwrap_or_else(|| temp.path().join("storage")),
            snapshots_dir: options.snapshots_dir.unwrap_or_else(|| temp.path().join("snapshots")),
            snapshot_bytes_per_second: options.snapshot_bytes_per_second,
            wal_bytes: options.wal_bytes,
            background_replay: options.background_replay,
            grey_after_restart: options.grey_after_restart,
        };
        fs::create_dir_all(&settings.storage_dir)?;
        fs::create_dir_all(&settings.snapshots_dir)?;
        // Taken now, so that the address is known although nothing may listen yet.
        let listener = TcpListener::bind((options.address, options.port)).await?;
        let mut stand_in = Self {
            settings,
            startup_delay: options.startup_delay,
            address: listener.local_addr()?,
            faults: options.faults,
            calls: CallLog::default(),
            running: None,
            current: Arc::default(),
            _temp: temp,
        };
        if stand_in.startup_delay.is_zero() {
            stand_in.run(Some(listener)).await?;
        } else {
            drop(listener);
            stand_in.run(None).await?;
        }
        Ok(stand_in)
    }

    async fn run(&mut self, listener: Option<TcpListener>) -> anyhow::Result<()> {
        let (catalog, peer_id) = persistence::load(&self.settings.storage_dir, &self.settings.snapshots_dir)?;
        let node =
            Node::new(self.settings.clone(), self.faults.clone(), self.calls.clone(), catalog, peer_id);
        node.change_catalog(|_| Ok(())).map_err(|error| anyhow::anyhow!(error.message))?;
        if let Some(why) = self.faults.recovery_mode() {
            for collection in node.collections() {
                collection.write().hide(&why);
            }
        }
        if self.settings.grey_after_restart {
            for collection in node.collections() {
                let points = collection.read().shard("").map_or(0, |shard| shard.points.len());
                collection.set_grey(points > 0);
            }
        }
        *lock(&self.current) = Some(Arc::clone(&node));
        let listener = match listener {
            Some(listener) => Some(listener),
            None if self.startup_delay.is_zero() => Some(bind(self.address).await?),
            None => None,
        };
        let mut server = JoinSet::new();
        server.spawn(serve(Arc::clone(&node), listener, self.address, self.startup_delay));
        self.running = Some(Running { node, server });
        Ok(())
    }

    /// `http://address:port`, the same after a restart.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the snapshot files are, for the server and for us.
    pub fn snapshots_dir(&self) -> &Path {
        &self.settings.snapshots_dir
    }

    /// Where the collections are.
    pub fn storage_dir(&self) -> &Path {
        &self.settings.storage_dir
    }

    /// The version that it claims.
    pub fn version(&self) -> &str {
        &self.settings.version
    }

    /// The faults to script.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Every call so far, those in flight included.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.all()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.calls.clear();
    }

    /// Damages a finished snapshot now.
    pub fn damage_snapshot(&self, collection: &str, name: &str, damage: Damage) -> io::Result<()> {
        tamper::damage(&self.settings.snapshots_dir.join(collection).join(name), damage)
    }

    /// Starts to write into a collection in the background. The writer goes on across restarts, until it is stopped.
    pub fn start_writer(&self, trickle: Trickle) -> Writer {
        Writer::start(Arc::clone(&self.current), trickle)
    }

    /// True while it answers (or will, once its start-up delay is over).
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.node.death.is_cancelled())
    }

    /// As by SIGKILL: connections drop, running snapshots and recoveries end where they stand.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.node.death.cancel();
            while running.server.join_next().await.is_some() {}
            *lock(&self.current) = None;
        }
    }

    /// Waits until a scripted fault has killed it.
    pub async fn died(&mut self) {
        if let Some(running) = &mut self.running {
            while running.server.join_next().await.is_some() {}
        }
        self.kill().await;
    }

    /// Kills it if it still runs, and starts it again on the same port and storage.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill().await;
        self.run(None).await
    }
}

impl Drop for QdrantStandIn {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.node.death.cancel();
            if let Err(error) = persistence::save(&running.node) {
                tracing::warn!(error = error.message, "the stand-in's storage could not be saved");
            }
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("bind {address}"))
}

/// Serves until the node dies, then drops every connection and job, and saves what a real server's log would have.
async fn serve(node: Arc<Node>, listener: Option<TcpListener>, address: SocketAddr, delay: Duration) {
    let listener = match listener {
        Some(listener) => listener,
        None => {
            tokio::select! {
                () = node.death.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            match bind(address).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the stand-in cannot listen");
                    return;
                }
            }
        }
    };
    let router = TowerToHyperService::new(router::build(&node));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = node.death.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, router.clone()));
                }
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
    node.end_jobs().await;
    if let Err(error) = persistence::save(&node) {
        tracing::error!(error = error.message, "the stand-in's storage could not be saved");
    }
}

async fn connection(stream: TcpStream, router: TowerToHyperService<axum::Router>) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(trimmed) = router::trimmed(request.uri()) {
            *request.uri_mut() = trimmed;
        }
        let answer = router.call(request);
        async move {
            let mut response: Response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            // An unknown method is an unknown route there, and nothing is said about others.
            response.headers_mut().remove(http::header::ALLOW);
            if response.extensions().get::<DropConnection>().is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            Ok(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the stand-in ended early");
    }
}
