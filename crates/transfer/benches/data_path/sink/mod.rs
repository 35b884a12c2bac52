//! The store of the run: a process of its own that answers S3 calls as cheaply as it can, so that what is measured is the client.
//!
//! Bucket [`DISCARD`] counts what it receives and echoes the checksums that were sent with it; bucket [`SLOW`] does the same
//! after a while; bucket [`KEEP`] keeps objects in memory and serves ranges of them. It believes its clients: it is for
//! measuring, not for testing.

mod service;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// The bucket whose objects are dropped.
pub(crate) const DISCARD: &str = "discard";
/// The bucket whose objects are dropped, by a store that takes its time: clients have as much in flight as they ever do.
pub(crate) const SLOW: &str = "slow";
/// The bucket whose objects are kept.
pub(crate) const KEEP: &str = "keep";

/// The metadata of an object that says how many bytes of it the store has received, those of parts that broke off included.
pub(crate) const RECEIVED: &str = "received";

const ENDPOINT: &str = "endpoint.json";

/// Where the store listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) https: SocketAddr,
}

impl Endpoint {
    pub(crate) fn load(work: &Path) -> anyhow::Result<Self> {
        serde_json::from_slice(&fs_err::read(work.join(ENDPOINT))?).context("read the store's endpoint")
    }
}

/// The store as a child process. It ends with its standard input, so that it cannot outlive the suite.
#[derive(Debug)]
pub(crate) struct Sink(Child);

impl Sink {
    pub(crate) fn start(work: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["sink", "--work"])
            .arg(work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the store")?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().context("the store has no output")?;
        BufReader::new(stdout).read_line(&mut line).context("wait for the store")?;
        fs_err::write(work.join(ENDPOINT), line)?;
        Endpoint::load(work)?;
        Ok(Self(child))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // What is left of the run is removed whether or not the store ends in good order.
        let _ended = self.0.wait();
    }
}

/// The child's side.
pub(crate) fn run(work: &Path) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(tls::server(work)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = Endpoint { https: listener.local_addr()? };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(&endpoint)?)?;
        drop(stdout);
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new()));
        tokio::select! {
            ended = ended => ended?.map(drop).context("wait for the end"),
            served = serve(listener, acceptor) => served,
        }
    })
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) -> anyhow::Result<()> {
    let state = Arc::new(service::State::default());
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            Some(_ended) = connections.join_next() => continue,
        };
        stream.set_nodelay(true)?;
        let (state, acceptor) = (Arc::clone(&state), acceptor.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| service::answer(Arc::clone(&state), request));
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no failure of the store; one that is unhappy says so itself.
            let _ended = serving.await;
        });
    }
}
