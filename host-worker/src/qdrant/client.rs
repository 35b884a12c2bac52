//! How calls are sent and answers read.

use std::time::Duration;

use protocol::CollectionName;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    error::{Cause, Error},
    key::ApiKey,
    operation::Operation,
    version::Version,
};
use crate::pulse::Pulse;

/// An answer to an ordinary call may have this many bytes: sixteen points of 4 MiB each.
const ANSWER_LIMIT: usize = 64 << 20;
/// Characters of Qdrant's own words that go into an error.
const MESSAGE_LIMIT: usize = 300;
/// A server that asks to be left alone for longer than this is not waited for, in seconds.
const RETRY_AFTER_LIMIT: u64 = 30;

/// Time-outs and retries.
#[derive(Clone, Debug)]
pub struct Options {
    /// For a connection to be made.
    pub connect_timeout: Duration,
    /// For an ordinary call to be answered, its body included. Creating a snapshot and recovering have none.
    pub request_timeout: Duration,
    /// How often a read is tried in all.
    pub attempts: u32,
    /// The pause after the first failed try; it doubles with each.
    pub backoff: Duration,
    /// Between two looks at something that is running.
    pub poll_interval: Duration,
    /// How long Qdrant may be away after an answer was lost, before the outcome is given up as unknown. Loading large collections after a
    /// restart takes minutes.
    pub lost_answer_patience: Duration,
}

impl Options {
    /// The values for production.
    pub const STANDARD: Self = Self {
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(30),
        attempts: 4,
        backoff: Duration::from_millis(200),
        poll_interval: Duration::from_secs(2),
        lost_answer_patience: Duration::from_secs(600),
    };
}

/// A client of one Qdrant. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Client {
    base: Url,
    key: Option<ApiKey>,
    options: Options,
    /// For ordinary calls.
    ordinary: reqwest::Client,
    /// For calls that take as long as they take: no time-out, and a new connection each, because a kept one may be closed by the server at
    /// the moment of sending, which looks like a lost answer.
    patient: reqwest::Client,
    /// Where answers are marked.
    pulse: Pulse,
}

/// Whether a server asks for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A call without the key is refused.
    Required,
    /// The server is open to everybody who reaches it.
    Open,
}

impl Client {
    /// A client of the Qdrant at `url`, as `http://127.0.0.1:6333`.
    pub fn new(url: &str, key: Option<ApiKey>, options: Options) -> Result<Self, Error> {
        let invalid = || Error::InvalidUrl { url: url.chars().take(200).collect() };
        let base: Url = url.parse().map_err(|_e| invalid())?;
        if !matches!(base.scheme(), "http" | "https")
            || base.cannot_be_a_base()
            || !base.username().is_empty()
            || base.password().is_some()
        {
            return Err(invalid());
        }
        let builder = || {
            let builder = reqwest::Client::builder()
                .connect_timeout(options.connect_timeout)
                .redirect(reqwest::redirect::Policy::none())
                .tcp_keepalive(Duration::from_secs(30))
                .no_proxy();
            // Without https no certificates are needed, and a small image may have none.
            if base.scheme() == "http" { builder.tls_certs_only([]) } else { builder }
        };
        let setup = |source| Error::Setup { source };
        let ordinary = builder()
            .timeout(options.request_timeout)
            // Qdrant closes idle connections after 5 s.
            .pool_idle_timeout(Duration::from_secs(3))
            .build()
            .map_err(setup)?;
        let patient = builder().pool_max_idle_per_host(0).build().map_err(setup)?;
        Ok(Self { base, key, options, ordinary, patient, pulse: Pulse::default() })
    }

    /// The same client, which marks in `pulse` every answer that is part of some work.
    pub fn watched(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// The settings that it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The server's version.
    pub async fn version(&self) -> Result<Version, Error> {
        #[derive(Deserialize)]
        struct Root {
            version: String,
        }
        let operation = Operation::Version;
        let body = self.read(&operation, Method::GET, self.url(&[])?, None).await?;
        let root: Root = json(&operation, &body)?;
        root.version.parse().map_err(|error: super::version::InvalidVersion| Error::Call {
            operation,
            source: Cause::Unexpected { what: error.to_string() },
        })
    }

    /// Checks that the key works, and whether calls without it are refused.
    pub async fn check_auth(&self) -> Result<Auth, Error> {
        let operation = Operation::CheckAuth;
        let url = self.url(&["collections"])?;
        self.read(&operation, Method::GET, url.clone(), None).await?;
        match self.try_once(self.ordinary.get(url)).await {
            Ok(_) => Ok(Auth::Open),
            Err(Cause::Status { status: 401 | 403, .. }) => Ok(Auth::Required),
            Err(source) => Err(Error::Call { operation, source }),
        }
    }

    /// The URL of a path; each segment is percent-encoded.
    pub(super) fn url(&self, segments: &[&str]) -> Result<Url, Error> {
        let mut url = self.base.clone();
        // A URL has no way to say these: parsers drop them, encoded or not.
        if let Some(name) = segments.iter().find(|segment| matches!(**segment, "." | "..")) {
            return Err(Error::Unaddressable { name: (*name).to_owned() });
        }
        url.path_segments_mut()
            .map_err(|()| Error::InvalidUrl { url: self.base.to_string() })?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    /// The URL of a path below a collection.
    pub(super) fn collection_url(&self, name: &CollectionName, rest: &[&str]) -> Result<Url, Error> {
        let mut segments = vec!["collections", name.as_str()];
        segments.extend(rest);
        self.url(&segments)
    }

    /// A read, retried while the failure is transient.
    pub(super) async fn read(
        &self,
        operation: &Operation,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, Error> {
        let mut tried = 0;
        loop {
            tried += 1;
            let source =
                match self.try_once(self.keyed(&self.ordinary, method.clone(), url.clone(), body)).await {
                    Ok(bytes) => {
                        if !operation.is_a_look() {
                            self.pulse.mark();
                        }
                        return Ok(bytes);
                    }
                    Err(cause) => cause,
                };
            let pause = self.options.backoff * 2_u32.saturating_pow(tried - 1);
            let pause = match &source {
                Cause::Status { retry_after: Some(seconds), .. } if *seconds <= RETRY_AFTER_LIMIT => {
                    pause.max(Duration::from_secs(*seconds))
                }
                Cause::Status { retry_after: Some(_), .. } => {
                    return Err(Error::Call { operation: operation.clone(), source });
                }
                Cause::Status { .. }
                | Cause::Connect { .. }
                | Cause::TimedOut { .. }
                | Cause::Broken { .. }
                | Cause::TooLarge { .. }
                | Cause::Json { .. }
                | Cause::Unexpected { .. } => pause,
            };
            let hopeless = matches!((&source, operation), (Cause::TimedOut { .. }, Operation::Search(_)));
            if hopeless || !source.is_transient() || tried >= self.options.attempts {
                return Err(Error::Call { operation: operation.clone(), source });
            }
            tracing::debug!(%operation, error = %source, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// A read whose answer is the `result` of the usual envelope.
    pub(super) async fn read_result<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let bytes = self.read(operation, method, url, body).await?;
        result(operation, &bytes)
    }

    /// A change, sent once.
    pub(super) async fn change(
        &self,
        operation: &Operation,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, Error> {
        self.try_once(self.keyed(&self.ordinary, method, url, body))
            .await
            .map_err(|source| Error::Call { operation: operation.clone(), source })
    }

    /// A change that may take hours, sent once.
    pub(super) async fn long_change(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, Cause> {
        self.try_once(self.keyed(&self.patient, method, url, body)).await
    }

    fn keyed(
        &self,
        client: &reqwest::Client,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> RequestBuilder {
        let mut request = client.request(method, url);
        if let Some(key) = &self.key {
            request = request.header("api-key", key.header());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request
    }

    async fn try_once(&self, request: RequestBuilder) -> Result<Vec<u8>, Cause> {
        let response = request.send().await.map_err(|source| self.transport(source))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = self.body(response).await;
        if status.is_success() {
            return body;
        }
        // An error whose body cannot be read is still that error.
        let message = self.message(status, &body.unwrap_or_default());
        Err(Cause::Status { status: status.as_u16(), message, retry_after })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Cause> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| self.transport(source))? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(Cause::TooLarge { limit: ANSWER_LIMIT });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, source: reqwest::Error) -> Cause {
        // A time-out of the connection attempt is both: nothing was sent then.
        if source.is_connect() {
            Cause::Connect { source }
        } else if source.is_timeout() {
            Cause::TimedOut { after: self.options.request_timeout }
        } else {
            Cause::Broken { source }
        }
    }

    /// What Qdrant says of a failure: `status.error` of its JSON, or the first line of its text; short, and without the key.
    fn message(&self, status: StatusCode, body: &[u8]) -> String {
        #[derive(Deserialize)]
        struct Failure {
            status: FailureStatus,
        }
        #[derive(Deserialize)]
        struct FailureStatus {
            error: String,
        }
        let said = match serde_json::from_slice::<Failure>(body) {
            Ok(failure) => failure.status.error,
            Err(_) => {
                let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
                text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
            }
        };
        let said =
            if said.is_empty() { status.canonical_reason().unwrap_or("no reason").to_owned() } else { said };
        let said = match &self.key {
            Some(key) => key.redact(&said),
            None => said,
        };
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if said.chars().count() > MESSAGE_LIMIT {
            said.chars().take(MESSAGE_LIMIT).chain(['…']).collect()
        } else {
            said
        }
    }
}

/// Reads a whole answer as JSON.
pub(super) fn json<T: DeserializeOwned>(operation: &Operation, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|source| Error::Call { operation: operation.clone(), source: Cause::Json { source } })
}

/// Reads the `result` of the usual envelope.
pub(super) fn result<T: DeserializeOwned>(operation: &Operation, body: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        result: T,
    }
    json::<Envelope<T>>(operation, body).map(|envelope| envelope.result)
}
