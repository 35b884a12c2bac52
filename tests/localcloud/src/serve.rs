//! Serves a router on 127.0.0.1, and knows how to give no answer at all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::background::Background;

/// Marks an answer (as an extension of the response) that must not be sent: the connection is dropped instead.
#[derive(Clone, Copy, Debug)]
pub struct DropConnection;

impl DropConnection {
    /// An answer with the mark.
    #[must_use]
    pub fn response() -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Self);
        response
    }
}

/// A running server, with a thread of its own. It stops, and its connections end, when it is dropped.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    _background: Background,
}

impl HttpServer {
    /// Serves the router on this port of 127.0.0.1; 0 takes a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(router: axum::Router, port: u16) -> anyhow::Result<Self> {
        let background = Background::start("localcloud-http")?;
        let (listener, address) = listen(port)?;
        background.spawner().spawn(serve(listener, router));
        Ok(Self { address, _background: background })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Takes the port at once, so that its address is known before anything serves it.
pub(crate) fn listen(port: u16) -> anyhow::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("listen on port {port} of 127.0.0.1"))?;
    listener.set_nonblocking(true).context("make the listener non-blocking")?;
    let address = listener.local_addr().context("ask for the port")?;
    Ok((listener, address))
}

/// Serves until the future is dropped; the connections end with it.
pub(crate) async fn serve(listener: std::net::TcpListener, router: axum::Router) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "take over the listener");
            return;
        }
    };
    let router = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(connection(stream, router.clone()));
                }
                Err(error) => tracing::warn!(%error, "accept a connection"),
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task panicked");
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, router: TowerToHyperService<axum::Router>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = router.call(request);
        async move {
            let response: Response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<DropConnection>().is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            Ok(response)
        }
    });
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
