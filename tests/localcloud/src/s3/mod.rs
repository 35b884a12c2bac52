//! The embedded S3: a server on a free port of 127.0.0.1, in this process, that keeps what the product depends on as AWS keeps it.
//!
//! `s3s` speaks the protocol (signatures, XML, chunked payloads); the storage and the rules are this module's own, because
//! versions, checksums of parts and conditions have to be one thing with the bytes. What it guarantees:
//!
//! * multipart uploads verify every checksum, `ETag`, size and condition that the caller gives, and refuse what AWS refuses;
//! * a conditional write and its condition are one step: of two that race, one wins;
//! * the current version of every object is a plain file below [`S3Server::root`], metadata and older versions lie in `.s3` beside it;
//! * a server started on the folder of an earlier one has its objects, versions and uploads;
//! * no payload is held in memory;
//! * a fault strikes exactly where [`Faults`] was told, and [`S3Server::calls`] tells what was asked, in order;
//! * [`S3Server::object_created`] tells of every object that was written, once it is there.
//!
//! Not there: copies (`CopyObject`, `UploadPartCopy`), tags, object lock, ACLs, policies, lifecycle and the settings of notifications (501).

mod body;
mod call;
mod checksum;
mod clock;
mod fault;
mod link;
mod notice;
mod service;
mod store;
mod wire;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub use self::call::{Call, Operation};
pub use self::fault::{Effect, FaultBuilder, Faults};
pub use self::notice::{ObjectCreated, Reason};

use self::call::CallLog;
use self::clock::Clock;
use self::service::{Account, Service};
use self::store::{Store, Versioning};
use self::wire::Front;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The folder of the objects; `None` is a temporary one that goes with the server.
    pub root: Option<PathBuf>,
    /// Buckets to make, unless they are there.
    pub buckets: Vec<String>,
    /// Whether those buckets keep versions.
    pub versioning: bool,
    /// The least size of every part but the last, in bytes. AWS's is 5 MiB.
    pub minimum_part_size: u64,
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            root: None,
            buckets: Vec::new(),
            versioning: true,
            minimum_part_size: 5 * 1024 * 1024,
            port: 0,
        }
    }
}

/// A running server. It has a thread of its own, so it serves whatever the caller's runtime does, and stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    account: Account,
    store: Arc<Store>,
    faults: Arc<Faults>,
    calls: Arc<CallLog>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Goes last, when nothing writes into it any more.
    _temporary: Option<TempDir>,
}

impl S3Server {
    /// Starts a server.
    ///
    /// # Errors
    /// When the folder cannot be used or the port is taken.
    pub async fn start(options: S3Options) -> anyhow::Result<S3Server> {
        let (root, temporary) = match options.root {
            Some(root) => (root, None),
            None => {
                let folder = TempDir::with_prefix("localcloud-s3-").context("make a temporary folder")?;
                (folder.path().to_path_buf(), Some(folder))
            }
        };
        let clock = Arc::new(Clock::default());
        let store = Arc::new(
            Store::open(root.clone(), options.minimum_part_size, Arc::clone(&clock))
                .with_context(|| format!("open the folder `{}`", root.display()))?,
        );
        let versioning = if options.versioning { Versioning::Enabled } else { Versioning::Off };
        for bucket in &options.buckets {
            store.create_bucket(bucket, versioning).with_context(|| format!("make the bucket `{bucket}`"))?;
        }
        let account = Account {
            access_key: "AKIALOCALCLOUD000000".to_owned(),
            secret_key: "localcloud/secret/key/for/tests/only/000".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let faults = Arc::new(Faults::new(Arc::clone(&clock)));
        let calls = Arc::new(CallLog::default());
        let mut service = S3ServiceBuilder::new(Service::new(
            Arc::clone(&store),
            Arc::clone(&faults),
            account.region.clone(),
        ));
        service.set_auth(account.clone());
        // Times are judged by our clock, which may be set wrong, and not by the one of `s3s`.
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        service.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let front = Arc::new(Front::new(service.build(), Arc::clone(&faults), Arc::clone(&calls), clock));

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))
            .with_context(|| format!("listen on port {} of 127.0.0.1", options.port))?;
        listener.set_nonblocking(true).context("make the listener non-blocking")?;
        let endpoint = format!("http://{}", listener.local_addr().context("ask for the port")?);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("localcloud-s3".to_owned())
            .spawn(move || run(front, listener, stopped))
            .context("start the server's thread")?;
        Ok(S3Server {
            endpoint,
            account,
            store,
            faults,
            calls,
            stop: Some(stop),
            thread: Some(thread),
            _temporary: temporary,
        })
    }

    /// `http://127.0.0.1:PORT`. Clients must use path style.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Access key and secret key of the one account.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        (&self.account.access_key, &self.account.secret_key)
    }

    /// The region the server claims to be in.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.account.region
    }

    /// The folder where a person can look at the objects: `<root>/<bucket>/<key>`.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.store.layout_root()
    }

    /// The script of faults.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Every call so far, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.snapshot()
    }

    /// Every call since the last time, and forgets them.
    #[must_use]
    pub fn take_calls(&self) -> Vec<Call> {
        self.calls.take()
    }

    /// How many calls of that operation there were.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.calls.snapshot().iter().filter(|call| call.operation == operation).count()
    }

    /// The `Object Created` events from now on, in the order in which the objects came to be.
    #[must_use]
    pub fn object_created(&self) -> tokio::sync::broadcast::Receiver<ObjectCreated> {
        self.store.notices().listen()
    }

    /// The settings of a client of this server, for a test that changes some of them.
    #[must_use]
    pub fn client_config(&self) -> aws_sdk_s3::config::Builder {
        let (access_key, secret_key) = self.credentials();
        let quick = RetryConfig::standard().with_initial_backoff(std::time::Duration::from_millis(10));
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .region(Region::new(self.account.region.clone()))
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "localcloud"))
            .retry_config(quick)
    }

    /// A client of this server.
    pub async fn client(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(self.client_config().build())
    }

    /// Makes an object, with all its versions, as if it had never been.
    ///
    /// # Errors
    /// When the object is not there.
    pub fn remove(&self, bucket: &str, key: &str) -> anyhow::Result<()> {
        self.store.forget(bucket, key).with_context(|| format!("remove `{bucket}/{key}`"))
    }

    /// Damages one byte of the current version in place: the byte at `offset` becomes itself XOR `mask`. S3 does not notice:
    /// it goes on reporting the old checksum.
    ///
    /// # Errors
    /// When the object is not there or is shorter.
    pub fn corrupt(&self, bucket: &str, key: &str, offset: u64, mask: u8) -> anyhow::Result<()> {
        self.store
            .corrupt(bucket, key, offset, mask)
            .with_context(|| format!("corrupt `{bucket}/{key}` at {offset}"))
    }

    /// Shortens the current version in place to `length` bytes. S3 reports the new size and the old checksum.
    ///
    /// # Errors
    /// When the object is not there.
    pub fn truncate(&self, bucket: &str, key: &str, length: u64) -> anyhow::Result<()> {
        self.store
            .truncate(bucket, key, length)
            .with_context(|| format!("truncate `{bucket}/{key}` to {length} bytes"))
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread panicked");
        }
    }
}

/// The server's thread: serves until `stopped` resolves or its sender is gone.
fn run(front: Arc<Front>, listener: TcpListener, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("localcloud-s3-io")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "build the server's runtime");
            return;
        }
    };
    runtime.block_on(async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "take over the listener");
                return;
            }
        };
        tokio::select! {
            () = front.serve(listener) => {}
            _ = stopped => {}
        }
    });
}
