//! The clients that commands share, built from the settings once.

use std::time::Duration;

use aws_config::Region;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use catalog::Catalog;
use tokio_util::sync::CancellationToken;
use transfer::Rate;

use crate::{
    bandwidth::BandwidthLimit,
    config::{Config, StoreAccess},
    error::Error,
    qdrant,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings and the clients of the object store.
#[derive(Debug)]
pub struct Session {
    /// The settings.
    pub config: Config,
    /// The catalogue of backups.
    pub catalog: Catalog<catalog::store::S3>,
    /// The same bucket, for archives.
    pub objects: transfer::store::S3,
    /// Asks long work to stop.
    pub cancel: CancellationToken,
}

impl Session {
    /// Builds the clients; calls nobody yet.
    pub async fn open(config: Config, cancel: CancellationToken) -> Result<Self, Error> {
        let access = config.store()?;
        let (client, plain) = s3_client(&access).await;
        // Documents are small, so no call of the catalogue may take long. Archives have no limit: `transfer` watches for stalls itself, and the answer to
        // CompleteMultipartUpload may take minutes.
        let limits = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(Duration::from_secs(30))
            .operation_timeout(Duration::from_secs(120))
            .build();
        let documents =
            aws_sdk_s3::Client::from_conf(client.config().to_builder().timeout_config(limits).build());
        let catalog = Catalog::new(
            catalog::store::S3::new(documents, access.bucket.clone()),
            access.bucket.clone(),
            config.layout().clone(),
        );
        // Without TLS only the signature keeps a part's bytes as they are.
        let objects = transfer::store::S3::new(client, access.bucket).with_signed_payloads(plain);
        Ok(Self { config, catalog, objects, cancel })
    }

    /// Runs work that holds nothing which must be put away, until it ends or the process is asked to stop.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        self.cancel.run_until_cancelled(work).await.ok_or(Error::Cancelled)
    }

    /// The archives' bucket under a limit on bytes per second, and the limit.
    pub(crate) fn limited(&self, limit: Option<BandwidthLimit>) -> (transfer::store::S3, Rate) {
        let rate = Rate::new(limit.map(BandwidthLimit::bytes_per_second));
        (self.objects.clone().with_rate(rate.clone()), rate)
    }

    /// A client of Qdrant.
    pub fn qdrant(&self) -> Result<qdrant::Client, Error> {
        qdrant_client(&self.config)
    }
}

/// A client of Qdrant with the settings' address and key.
pub fn qdrant_client(config: &Config) -> Result<qdrant::Client, Error> {
    let access = config.qdrant()?;
    Ok(qdrant::Client::new(&access.url, access.api_key, qdrant::Options::STANDARD)?)
}

/// The client, and whether its endpoint is without TLS.
async fn s3_client(access: &StoreAccess) -> (aws_sdk_s3::Client, bool) {
    let mut loader = aws_config::from_env();
    if let Some(region) = &access.region {
        loader = loader.region(Region::new(region.clone()));
    } else if access.endpoint_url.is_some() {
        // A store of one's own has no regions, but a signature must name one.
        loader = loader
            .region(aws_config::meta::region::RegionProviderChain::default_provider().or_else("us-east-1"));
    }
    if let Some(endpoint) = &access.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let config = aws_sdk_s3::config::Builder::from(&shared)
        // Stores of one's own seldom answer to bucket names as host names.
        .force_path_style(access.endpoint_url.is_some())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .build();
    let plain = shared.endpoint_url().is_some_and(|url| url.to_ascii_lowercase().starts_with("http:"));
    (aws_sdk_s3::Client::from_conf(config), plain)
}
