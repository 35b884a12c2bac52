//! Every scripted fault, as a client meets it.

use std::time::{Duration, Instant};

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use localcloud::s3::{Call, Effect, Operation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::multipart::{complete, create, part};
use super::*;

fn statuses(calls: &[Call]) -> Vec<Option<u16>> {
    calls.iter().map(|call| call.status).collect()
}

#[tokio::test]
async fn error_answers_come_as_often_as_said_and_a_retrying_client_gets_over_them() {
    let server = server().await;
    let client = server.client().await;
    for (effect, status) in [(Effect::SlowDown, 503), (Effect::InternalError, 500)] {
        let _before = server.take_calls();
        server.faults().on(Operation::PutObject).times(2).inject(effect);
        put(&client, "k", pattern(100_000, 1)).await;
        assert_eq!(statuses(&server.calls()), [Some(status), Some(status), Some(200)]);
    }
    server.faults().on(Operation::GetObject).inject(Effect::AccessDenied);
    let denied = client.get_object().bucket(BUCKET).key("k").send().await;
    assert_eq!(refusal(denied), refused(403, "AccessDenied"));
    assert_eq!(server.faults().unfired(), [""; 0]);
}

#[tokio::test]
async fn the_code_of_an_error_answer_is_that_of_aws() {
    let server = server().await;
    let client = once(&server);
    server.faults().on_any().inject(Effect::SlowDown);
    server.faults().on_any().nth(1).inject(Effect::InternalError);
    let list = || client.list_objects_v2().bucket(BUCKET).send();
    assert_eq!(refusal(list().await), refused(503, "SlowDown"), "the fault injected first wins");
    server.faults().clear();
    server.faults().on(Operation::ListObjectsV2).nth(2).inject(Effect::InternalError);
    list().await.unwrap();
    assert_eq!(refusal(list().await), refused(500, "InternalError"));
    list().await.unwrap();
}

#[tokio::test]
async fn a_fault_strikes_the_part_it_was_told() {
    let server = server().await;
    let client = server.client().await;
    let upload = create(&client, "k").await;
    server.faults().on(Operation::UploadPart).part(2).key_containing("k").inject(Effect::SlowDown);
    for number in 1..=3 {
        part(&client, "k", &upload, number, &pattern(2000, 1)).await;
    }
    let sent: Vec<_> = server
        .calls()
        .iter()
        .filter(|call| call.operation == Operation::UploadPart)
        .map(|call| (call.part_number, call.status))
        .collect();
    assert_eq!(
        sent,
        [(Some(1), Some(200)), (Some(2), Some(503)), (Some(2), Some(200)), (Some(3), Some(200))]
    );
}

#[tokio::test]
async fn a_request_that_is_reset_halfway_does_nothing() {
    let server = server().await;
    let client = once(&server);
    for (size, after) in [(4_000_000, 1_000_000), (5000, 1_000_000), (0, 0)] {
        server.faults().on(Operation::PutObject).inject(Effect::ResetRequest { after });
        let body = ByteStream::from(pattern(size, 1));
        let error = client.put_object().bucket(BUCKET).key("k").body(body).send().await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{size} bytes: {error:?}");
        assert_eq!(refusal(client.head_object().bucket(BUCKET).key("k").send().await).0, 404);
    }
    assert_eq!(server.calls()[0].status, None);
    let incoming = fs_err::read_dir(server.root().join(".s3/incoming")).unwrap().count();
    assert_eq!(incoming, 0, "nothing is left of them");

    server.faults().on(Operation::PutObject).inject(Effect::ResetRequest { after: 1000 });
    put(&server.client().await, "k", pattern(100_000, 2)).await;
    assert_eq!(get(&client, "k").await, pattern(100_000, 2), "a retrying client gets through");
}

#[tokio::test]
async fn an_answer_is_cut_after_exactly_so_many_bytes() {
    let server = server().await;
    let client = once(&server);
    let bytes = pattern(600_000, 3);
    put(&client, "k", bytes.clone()).await;
    for after in [0_usize, 1, 300_000, 599_999] {
        let effect = Effect::CutReply { after: u64::try_from(after).unwrap() };
        server.faults().on(Operation::GetObject).inject(effect);
        let presigning = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let presigned = client.get_object().bucket(BUCKET).key("k").presigned(presigning).await.unwrap();
        let address = server.endpoint().strip_prefix("http://").unwrap();
        let path = presigned.uri().split_once(address).unwrap().1;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.expect("an orderly end, not a reset");
        let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&reply[..end]).to_lowercase();
        assert!(head.contains("content-length: 600000"), "{head}");
        assert_eq!(reply[end..], bytes[..after]);
    }
    server.faults().on(Operation::GetObject).inject(Effect::CutReply { after: 1000 });
    let reply = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(reply.body.collect().await.is_err(), "the SDK notices");
}

#[tokio::test]
async fn a_lost_reply_is_to_an_operation_that_was_carried_out() {
    let server = server().await;
    let client = once(&server);
    server.faults().on(Operation::PutObject).inject(Effect::LoseReply);
    let body = ByteStream::from_static(b"done");
    let error =
        client.put_object().bucket(BUCKET).key("k").if_none_match("*").body(body).send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    assert_eq!(get(&client, "k").await, b"done");

    // What a retrying client makes of it: its own success is in its way.
    let retrying = server.client().await;
    let upload = create(&client, "archive").await;
    let named = [part(&client, "archive", &upload, 1, b"part").await];
    server.faults().on(Operation::CompleteMultipartUpload).inject(Effect::LoseReply);
    let retried = complete(&retrying, "archive", &upload, &named).if_none_match("*").send().await;
    assert_eq!(refusal(retried), refused(404, "NoSuchUpload"));
    assert_eq!(get(&client, "archive").await, b"part");
    let completions: Vec<_> = server
        .calls()
        .into_iter()
        .filter(|call| call.operation == Operation::CompleteMultipartUpload)
        .collect();
    assert_eq!(statuses(&completions), [None, Some(404)]);
}

#[tokio::test]
async fn a_stalled_call_runs_into_the_timeout_of_the_client() {
    let server = server().await;
    put(&server.client().await, "k", "x").await;
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(100)).build();
    let hasty = Client::from_conf(server.client_config().timeout_config(timeouts).build());
    server.faults().on(Operation::GetObject).inject(Effect::Stall(Duration::from_millis(400)));
    assert_eq!(get(&hasty, "k").await, b"x", "the second attempt is not stalled");
    assert_eq!(server.count(Operation::GetObject), 2);

    server.faults().on(Operation::GetObject).inject(Effect::Stall(Duration::from_millis(200)));
    let started = Instant::now();
    assert_eq!(get(&server.client().await, "k").await, b"x");
    assert!(started.elapsed() >= Duration::from_millis(200), "patience is rewarded");
}

#[tokio::test]
async fn a_wrong_byte_is_stored_under_the_right_checksum() {
    let server = server().await;
    let client = once(&server);
    let bytes = pattern(3000, 5);
    server.faults().on(Operation::PutObject).inject(Effect::WrongByte { offset: 1234 });
    put(&client, "k", bytes.clone()).await;
    let mut wrong = bytes.clone();
    wrong[1234] ^= 1;
    assert_eq!(fs_err::read(server.root().join(BUCKET).join("k")).unwrap(), wrong);
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.e_tag(), Some(md5_etag(&bytes).as_str()));
    let reply = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(reply.body.collect().await.is_err(), "the SDK compares the checksum");

    let parts = [pattern(2000, 6), pattern(2000, 7)];
    server.faults().on(Operation::UploadPart).part(2).inject(Effect::WrongByte { offset: u64::MAX });
    let upload = create(&client, "archive").await;
    let mut named = Vec::new();
    for (number, bytes) in (1..).zip(&parts) {
        named.push(part(&client, "archive", &upload, number, bytes).await);
    }
    let done = complete(&client, "archive", &upload, &named).checksum_crc64_nvme(crc64nvme(&parts.concat()));
    done.send().await.expect("nobody notices");
    let stored = fs_err::read(server.root().join(BUCKET).join("archive")).unwrap();
    assert_eq!(stored[..3999], parts.concat()[..3999]);
    assert_eq!(stored[3999], parts[1][1999] ^ 1, "beyond the end it is the last byte");
}

#[tokio::test]
async fn a_throttled_call_takes_its_time_both_ways() {
    let server = server().await;
    let client = once(&server);
    let throttle = Effect::Throttle { bytes_per_second: 1_000_000 };
    server.faults().on_any().times(2).inject(throttle);
    let bytes = pattern(300_000, 8);
    let started = Instant::now();
    put(&client, "k", bytes.clone()).await;
    let upload = started.elapsed();
    assert_eq!(get(&client, "k").await, bytes);
    let download = started.elapsed() - upload;
    for took in [upload, download] {
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_all_comes_back_on_the_same_port() {
    let server = server().await;
    let client = once(&server);
    put(&client, "k", "x").await;
    server.faults().refuse_all();
    for _ in 0..3 {
        let error = client.head_object().bucket(BUCKET).key("k").send().await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    }
    server.faults().resume();
    assert_eq!(get(&client, "k").await, b"x");
}
