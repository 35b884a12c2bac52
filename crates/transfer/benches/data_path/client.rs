//! The product's S3 client, and plain hyper that makes the same requests, both over TLS with the same checksums.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, ensure};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{
    TlsConnector,
    rustls::pki_types::{IpAddr, ServerName},
};
use transfer::store::{Crc64, MultipartStore, S3};

use crate::{
    corpus::SplitMix,
    measure::{Sample, Scope, Stopwatch, peak_rss},
    rows::runtime,
    sink::{DISCARD, Endpoint},
    tls,
};

/// The size of the parts that are sent, as the product chooses it.
const PART: usize = 16 << 20;
/// Requests in flight, as the product has them.
const IN_FLIGHT: usize = transfer::upload::DEFAULT_CONCURRENCY;

/// The bucket `bucket` of the run's store, as the product reaches a bucket: the SDK's HTTP client as it is by default, but
/// for whom it trusts.
pub(crate) fn bucket(work: &Path, bucket: &str) -> anyhow::Result<S3> {
    let trusted = TrustStore::empty().with_pem_certificate(fs_err::read(work.join(tls::CA))?);
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(TlsContext::builder().with_trust_store(trusted).build()?)
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("benchmark", "benchmark", None, None, "benchmark"))
        .endpoint_url(format!("https://{}", Endpoint::load(work)?.https))
        .force_path_style(true)
        .http_client(http)
        .build();
    Ok(S3::new(aws_sdk_s3::Client::from_conf(config), bucket))
}

/// Parts to send, of bytes that look random, with their checksums.
struct Parts {
    distinct: Vec<(Bytes, Crc64)>,
    bytes: u64,
}

impl Parts {
    fn new(bytes: u64) -> Self {
        let part = |seed| {
            let mut random = SplitMix(seed);
            let body: Vec<u8> = (0..PART / 8).flat_map(|_| random.next().to_le_bytes()).collect();
            (Crc64::of(&body), Bytes::from(body))
        };
        let distinct = (0..IN_FLIGHT as u64).map(|seed| part(seed << 40)).map(|(crc, body)| (body, crc));
        Self { distinct: distinct.collect(), bytes }
    }

    /// Part number `number`, from 1; `None` behind the last one.
    fn get(&self, number: u32) -> Option<(Bytes, Crc64)> {
        let start = u64::from(number - 1) * PART as u64;
        let left = usize::try_from(self.bytes.checked_sub(start).filter(|left| *left > 0)?).unwrap_or(PART);
        let (body, crc) = &self.distinct[number as usize % self.distinct.len()];
        if left >= PART {
            return Some((body.clone(), *crc));
        }
        let body = body.slice(..left);
        Some((body.clone(), Crc64::of(&body)))
    }
}

/// Sends `bytes` bytes through the product's client, without the rest of the product.
pub(crate) fn product(work: &Path, bytes: u64) -> anyhow::Result<Sample> {
    send(bytes, async |parts, numbers| {
        let store = bucket(work, DISCARD)?;
        let upload = Arc::new(store.create(&format!("parts-{}", std::process::id()), &[]).await?);
        let mut senders = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (store, parts) = (store.clone(), Arc::clone(&parts));
            let (upload, numbers) = (Arc::clone(&upload), Arc::clone(&numbers));
            senders.spawn(async move {
                loop {
                    let number = numbers.fetch_add(1, Relaxed);
                    let Some((body, crc)) = parts.get(number) else { return anyhow::Ok(()) };
                    let stored = store.upload_part(&upload, number, body, crc).await?;
                    ensure!(stored.crc64nvme == Some(crc), "the store has another checksum");
                }
            });
        }
        while let Some(sent) = senders.join_next().await {
            sent??;
        }
        store.abort(&upload).await?;
        Ok(())
    })
}

/// Sends `bytes` bytes through plain hyper.
pub(crate) fn plain(work: &Path, bytes: u64) -> anyhow::Result<Sample> {
    send(bytes, async |parts, numbers| {
        let address = Endpoint::load(work)?.https;
        let connector = TlsConnector::from(tls::client(work)?);
        let store = bucket(work, DISCARD)?;
        let upload = store.create(&format!("parts-{}", std::process::id()), &[]).await?;
        let mut senders = JoinSet::new();
        let mut connections = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::IpAddress(IpAddr::from(address.ip()));
            let stream = TokioIo::new(connector.connect(name, stream).await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            connections.spawn(connection);
            let (parts, numbers) = (Arc::clone(&parts), Arc::clone(&numbers));
            let target = format!("/{DISCARD}/{}?uploadId={}&partNumber=", upload.key, upload.upload_id);
            senders.spawn(async move {
                loop {
                    let number = numbers.fetch_add(1, Relaxed);
                    let Some((body, crc)) = parts.get(number) else { return anyhow::Ok(()) };
                    put(&mut sender, &format!("{target}{number}"), &address.to_string(), body, crc).await?;
                }
            });
        }
        while let Some(sent) = senders.join_next().await {
            sent??;
        }
        while let Some(ended) = connections.join_next().await {
            ended??;
        }
        store.abort(&upload).await?;
        Ok(())
    })
}

async fn put(
    sender: &mut SendRequest<Full<Bytes>>,
    target: &str,
    host: &str,
    body: Bytes,
    crc: Crc64,
) -> anyhow::Result<()> {
    let request = Request::put(target)
        .header("host", host)
        .header("content-length", body.len())
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .header("x-amz-checksum-crc64nvme", crc.to_string())
        .body(Full::new(body))?;
    let answer = sender.send_request(request).await?;
    let stored = answer.headers().get("x-amz-checksum-crc64nvme").context("an answer without checksum")?;
    ensure!(answer.status().is_success() && stored == crc.to_string().as_str(), "{:?}", answer.status());
    answer.into_body().collect().await?;
    Ok(())
}

fn send(
    bytes: u64,
    sending: impl AsyncFnOnce(Arc<Parts>, Arc<AtomicU32>) -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let parts = Arc::new(Parts::new(bytes));
    let runtime = runtime()?;
    let mut watch = Stopwatch::new(Scope::Process);
    watch.time(|| runtime.block_on(sending(parts, Arc::new(AtomicU32::new(1)))))?;
    Ok(Sample { object_bytes: Some(bytes), peak_rss: Some(peak_rss()?), ..watch.sample(bytes) })
}
