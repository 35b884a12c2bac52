//! The S3 client against servers that break off or fall silent: each ends soon, as a failure that may be tried again.

use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Region};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use transfer::store::{Crc64, MultipartStore, S3, StoreErrorKind, StoredPart, UploadRef, Whole};

/// How many bytes of a request a server reads before it answers.
#[derive(Clone, Copy)]
struct Script {
    reads: usize,
    answers: &'static str,
    then_hangs: bool,
}

/// A bucket behind a server that does the same to each connection.
async fn bucket(script: Script, servers: &mut JoinSet<()>) -> S3 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    servers.spawn(async move {
        let mut connections = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut read = vec![0; script.reads];
            connection.read_exact(&mut read).await.unwrap();
            if script.reads == 0 {
                // The whole request, so that closing is no reset.
                let mut rest = vec![0; 64 << 10];
                let _request = connection.read(&mut rest).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _rest = connection.try_read(&mut rest);
            }
            connection.write_all(script.answers.as_bytes()).await.unwrap();
            if script.then_hangs {
                connections.push(connection);
            }
        }
    });
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .force_path_style(true)
        .allow_no_auth()
        .build();
    S3::new(aws_sdk_s3::Client::from_conf(config), "backups").with_stall_timeout(Duration::from_millis(400))
}

async fn upload_part(store: &S3) -> (StoreErrorKind, String) {
    let upload = UploadRef { key: "a".into(), upload_id: "u".into() };
    let body = bytes::Bytes::from(vec![7; 32 << 20]);
    let crc = Crc64::of(&body);
    let error = store.upload_part(&upload, 1, body, crc).await.unwrap_err();
    (error.kind, error.to_string())
}

async fn get_range(store: &S3) -> (StoreErrorKind, String) {
    let error = store.get_range("a", None, None, 0..100, &mut Vec::new()).await.unwrap_err();
    (error.kind, error.to_string())
}

async fn complete(store: &S3) -> (StoreErrorKind, String) {
    let upload = UploadRef { key: "a".into(), upload_id: "u".into() };
    let whole = Whole { size: 1, crc64nvme: Crc64::of(b"a"), checked_by_store: true };
    let part = StoredPart { number: 1, size: 1, etag: "e".into(), crc64nvme: None };
    let error = store.complete(&upload, &[part], whole).await.unwrap_err();
    (error.kind, error.to_string())
}

const HALF: &str = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-99/200\r\ncontent-length: 100\r\n\r\nfifty bytes are not here, only these few";
const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour";

#[tokio::test]
async fn silence_and_broken_connections_end_soon() {
    let mut servers = JoinSet::new();
    let started = Instant::now();
    let transient = |(kind, text): (StoreErrorKind, String), what: &str| {
        assert_eq!(kind, StoreErrorKind::Transient, "{text}");
        assert!(text.contains(what), "{text}");
    };
    let silent = bucket(Script { reads: 1000, answers: "", then_hangs: true }, &mut servers).await;
    transient(upload_part(&silent).await, "UploadPart: nothing moved for 0.4 s");
    let resets = bucket(Script { reads: 1 << 20, answers: "", then_hangs: false }, &mut servers).await;
    transient(upload_part(&resets).await, "UploadPart: the connection ");

    let silent = bucket(Script { reads: 10, answers: "", then_hangs: true }, &mut servers).await;
    transient(get_range(&silent).await, "GetObject: nothing moved for 0.4 s");
    let half = bucket(Script { reads: 10, answers: HALF, then_hangs: true }, &mut servers).await;
    transient(get_range(&half).await, "GetObject: nothing moved for 0.4 s");
    let broken = bucket(Script { reads: 10, answers: HALF, then_hangs: false }, &mut servers).await;
    transient(get_range(&broken).await, "GetObject: the body breaks off");
    // Closed without an answer, after the request was read.
    let closes = bucket(Script { reads: 0, answers: "", then_hangs: false }, &mut servers).await;
    transient(get_range(&closes).await, "GetObject: the connection ");
    transient(complete(&closes).await, "CompleteMultipartUpload: the connection breaks off");
    assert!(started.elapsed() < Duration::from_secs(10));

    // A server that does not know ranges would send the object from its start.
    let rangeless = bucket(Script { reads: 10, answers: WHOLE, then_hangs: true }, &mut servers).await;
    let (kind, text) = get_range(&rangeless).await;
    assert_eq!(kind, StoreErrorKind::OutOfRange, "{text}");
}

#[tokio::test]
async fn nobody_there() {
    let mut servers = JoinSet::new();
    let store = bucket(Script { reads: 0, answers: "", then_hangs: false }, &mut servers).await;
    servers.shutdown().await;
    let error = store.head("a", None).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
}
