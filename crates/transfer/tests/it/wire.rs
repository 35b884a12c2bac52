//! The S3 client on the wire: servers that break off or fall silent end it soon, as a failure that may be tried again; bytes are paced; and a part goes
//! out once, unhashed, under its checksum.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Barrier,
    task::JoinSet,
};
use transfer::{
    Rate,
    store::{Crc64, MultipartStore, S3, StoreErrorKind, StoredPart, UploadRef, Whole},
};

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

/// A server that takes every request whole and answers it, when as many as `together` are there at once.
struct Taker {
    store: S3,
    taken: Arc<Taken>,
}

#[derive(Default)]
struct Taken {
    /// The heads of the requests.
    heads: Mutex<Vec<String>>,
    /// Bytes of their bodies so far.
    bytes: AtomicUsize,
}

const RANGE: usize = 1_200_000;

async fn taker(together: usize, servers: &mut JoinSet<()>) -> Taker {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(Taken::default());
    let (seen, barrier) = (Arc::clone(&taken), Arc::new(Barrier::new(together)));
    servers.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let (seen, barrier) = (Arc::clone(&seen), Arc::clone(&barrier));
            connections.spawn(async move {
                // Ends when the client goes away, which is for it to decide.
                let _gone = take(connection, &seen, &barrier).await;
            });
        }
    });
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .force_path_style(true)
        .credentials_provider(Credentials::new("access", "secret", None, None, "test"))
        .build();
    let store = S3::new(aws_sdk_s3::Client::from_conf(config), "backups");
    Taker { store: store.with_stall_timeout(Duration::from_millis(400)), taken }
}

async fn take(mut connection: TcpStream, seen: &Taken, barrier: &Barrier) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut request = Vec::new();
        let end = loop {
            if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            match connection.read(&mut buffer).await? {
                0 => return Ok(()),
                read => request.extend_from_slice(&buffer[..read]),
            }
        };
        let head = String::from_utf8(request[..end].to_vec()).unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut left = length - (request.len() - end);
        seen.bytes.fetch_add(request.len() - end, Relaxed);
        while left > 0 {
            let read = connection.read(&mut buffer).await?;
            assert!(read > 0 && read <= left);
            left -= read;
            seen.bytes.fetch_add(read, Relaxed);
        }
        barrier.wait().await;
        let gets = head.starts_with("GET");
        seen.heads.lock().unwrap().push(head);
        if gets {
            let last = RANGE - 1;
            let answer = format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-{last}/{RANGE}\r\ncontent-length: {RANGE}\r\n\r\n"
            );
            connection.write_all(answer.as_bytes()).await?;
            connection.write_all(&vec![7; RANGE]).await?;
        } else {
            connection.write_all(b"HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

async fn put(store: &S3, number: u32, size: usize) -> StoredPart {
    let upload = UploadRef { key: "a".into(), upload_id: "u".into() };
    let body = bytes::Bytes::from(vec![7; size]);
    let crc = Crc64::of(&body);
    store.upload_part(&upload, number, body, crc).await.unwrap()
}

#[tokio::test]
async fn a_part_is_hashed_for_its_signature_only_without_tls_and_is_always_under_its_checksum() {
    let mut servers = JoinSet::new();
    let Taker { store, taken } = taker(1, &mut servers).await;
    put(&store, 1, 1000).await;
    put(&store.clone().with_signed_payloads(true), 2, 1000).await;
    let heads = taken.heads.lock().unwrap().clone();
    let body = vec![7; 1000];
    let hash = hex::encode(Sha256::digest(&body));
    let crc = Crc64::of(&body).to_string();
    for (head, payload) in heads.iter().zip(["UNSIGNED-PAYLOAD", &hash]) {
        assert_eq!(header(head, "x-amz-content-sha256"), Some(payload), "{head}");
        assert_eq!(header(head, "x-amz-checksum-crc64nvme"), Some(crc.as_str()), "{head}");
        let signed = header(head, "authorization").unwrap().split("SignedHeaders=").nth(1).unwrap();
        for name in ["x-amz-checksum-crc64nvme", "x-amz-content-sha256", "content-length"] {
            assert!(
                signed.split(',').next().unwrap().split(';').any(|header| header == name),
                "{name}: {signed}"
            );
        }
        // One checksum, and neither a trailer nor chunks with checksums of their own.
        assert_eq!(head.to_lowercase().matches("\nx-amz-checksum-").count(), 1, "{head}");
        assert!(!head.to_lowercase().contains("aws-chunked"), "{head}");
        assert_eq!(header(head, "content-length"), Some("1000"));
    }
    assert_eq!(heads.len(), 2);
}

#[tokio::test]
async fn as_many_requests_as_the_rule_allows_run_on_as_many_connections() {
    let most = transfer::concurrency::in_flight(Some(u64::MAX));
    let mut servers = JoinSet::new();
    // Nobody is answered before all are there.
    let Taker { store, taken } = taker(most, &mut servers).await;
    let mut sending = JoinSet::new();
    for number in 1..=u32::try_from(most).unwrap() {
        let store = store.clone();
        sending.spawn(async move { put(&store, number, 10).await });
    }
    let sent = tokio::time::timeout(Duration::from_secs(30), sending.join_all()).await.unwrap();
    assert_eq!((sent.len(), taken.heads.lock().unwrap().len()), (most, most));
}

#[tokio::test]
async fn a_limit_holds_bytes_back_in_both_directions_and_holding_back_is_no_stall() {
    let mut servers = JoinSet::new();
    let Taker { store, taken } = taker(1, &mut servers).await;
    let rate = Rate::new(Some(1_000_000));
    let store = store.with_rate(rate.clone());
    let started = Instant::now();
    let sending = put(&store, 1, 32 << 20);
    tokio::pin!(sending);
    // Longer than a request may go without moving a byte. The bucket and a chunk may go at once, the rest is paid for by time.
    let early = tokio::time::timeout(Duration::from_millis(700), &mut sending).await;
    assert!(early.is_err(), "32 MiB in less than a second");
    let (sent, most) =
        (taken.bytes.load(Relaxed), started.elapsed().as_secs_f64() * 1e6 + 50e3 + 2.0 * 16384.0);
    assert!(sent > 0 && (sent as f64) < most, "{sent} bytes of at most {most}");
    rate.set(None);
    tokio::time::timeout(Duration::from_secs(20), sending).await.unwrap();

    rate.set(Some(4_000_000));
    let started = Instant::now();
    let mut bytes = Vec::new();
    for _ in 0..2 {
        store.get_range("a", None, None, 0..RANGE as u64, &mut bytes).await.unwrap();
    }
    assert_eq!(bytes.len(), RANGE);
    // As above, with a chunk of whatever size the connection hands over: it keeps at most some hundred kilobytes.
    let least = (2.0 * RANGE as f64 - 200e3 - 2.0 * 262_144.0) / 4e6;
    assert!(started.elapsed().as_secs_f64() > least, "{:?}", started.elapsed());
    assert_eq!(rate.moved(), (32 << 20) + 2 * RANGE as u64);
}
