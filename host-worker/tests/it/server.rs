//! An HTTP server whose every answer is decided by the test, broken connections included.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use host_worker::qdrant::{ApiKey, Client, Options};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The key that the tests' clients send.
pub(crate) const KEY: &str = "test-key-0123456789";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Percent-encoded, with the query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Request {
    /// Method and path without the query.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap_or_default())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers with JSON.
    Json(u16, Value),
    /// Answers with text and these headers.
    Text(u16, String, Vec<(&'static str, String)>),
    /// Answers like `Json` after a while.
    Late(Duration, Value),
    /// Closes the connection without a word.
    Hangup,
    /// Announces a body, sends a part of it, and closes the connection.
    Torn,
    /// Keeps the connection open and says nothing.
    Stall,
    /// Sends a body without end.
    Endless,
}

/// A success in Qdrant's envelope.
pub(crate) fn ok(result: Value) -> Reply {
    Reply::Json(
        200,
        serde_json::json!({"result": result, "status": "ok", "time": 0.001, "usage": {"new": 1}}),
    )
}

/// A failure in Qdrant's envelope.
pub(crate) fn fail(status: u16, message: &str) -> Reply {
    Reply::Json(status, serde_json::json!({"result": null, "status": {"error": message}, "time": 0.001}))
}

pub(crate) fn text(status: u16, text: &str) -> Reply {
    Reply::Text(status, text.to_owned(), vec![("content-type", "text/plain".to_owned())])
}

/// The server; it stops when dropped.
pub(crate) struct Server {
    url: String,
    calls: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers each request as `answer` says.
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&calls));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                connections.spawn(async move {
                    let mut stream = stream;
                    if let Some(request) = read(&mut stream).await {
                        seen.lock().unwrap().push(request.clone());
                        let reply = answer(&request);
                        // A client that went away is part of some tests.
                        let _gone = write(&mut stream, reply).await;
                    }
                });
            }
        });
        Self { url, calls, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The requests so far.
    pub(crate) fn calls(&self) -> Vec<Request> {
        self.calls.lock().unwrap().clone()
    }

    /// How many requests had this method and path.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.calls().iter().filter(|request| request.line() == line).count()
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.url)
    }
}

/// Short times, so that tests wait for little.
pub(crate) const QUICK: Options = Options {
    connect_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(5),
    attempts: 3,
    backoff: Duration::from_millis(1),
    poll_interval: Duration::from_millis(5),
    lost_answer_patience: Duration::from_millis(200),
};

pub(crate) fn client(url: &str) -> Client {
    Client::new(url, Some(ApiKey::new(KEY).unwrap()), QUICK).unwrap()
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = &bytes[head_end..];
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
    Some(Request { method, target, headers, body })
}

async fn write(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    let answer = |status: u16, headers: &[(&str, String)], body: &str| {
        let mut head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{head}\r\n{body}")
    };
    let json = [("content-type", "application/json".to_owned())];
    let bytes = match reply {
        Reply::Json(status, body) => answer(status, &json, &body.to_string()),
        Reply::Text(status, body, headers) => answer(status, &headers, &body),
        Reply::Late(after, body) => {
            tokio::time::sleep(after).await;
            answer(200, &json, &body.to_string())
        }
        Reply::Hangup => return Ok(()),
        Reply::Torn => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"resu".to_owned(),
        Reply::Stall => std::future::pending().await,
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 1 << 16]).await?;
            }
        }
    };
    stream.write_all(bytes.as_bytes()).await?;
    stream.shutdown().await
}
