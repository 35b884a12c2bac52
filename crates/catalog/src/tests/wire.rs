//! What the S3 store makes of S3's answers, told by canned ones. The conformance suite runs over a real wire elsewhere.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, HttpClient, Region, RuntimeComponents, SharedHttpClient,
        http::HttpRequest, http::HttpResponse, retry::RetryConfig,
    },
    primitives::SdkBody,
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    result::ConnectorError,
};
use bytes::Bytes;
use protocol::FailureKind;

use super::support::catalog;
use crate::store::{Condition, MAX_OBJECT_BYTES, ObjectStore, PutError, S3, StoreError};

/// An answer; status 0 is a broken connection.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

fn error(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>the store says {code}</Message></Error>");
    answer(status, &[("date", "Mon, 23 Nov 2026 05:14:07 GMT")], &body)
}

#[derive(Clone, Debug, Default)]
struct Canned {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.requests.lock().unwrap().push(request);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let answer = answer.expect("no answer was given");
        if answer.status == 0 {
            return HttpConnectorFuture::ready(Err(ConnectorError::io("connection reset".into())));
        }
        let status = answer.status.try_into().unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
        for (name, value) in answer.headers {
            response.headers_mut().insert(name, value);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// A store that will get these answers, in this order and the last one again and again; two attempts for each call.
fn store(answers: impl IntoIterator<Item = Answer>) -> (S3, Canned) {
    let canned = Canned::default();
    canned.answers.lock().unwrap().extend(answers);
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .endpoint_url("http://store.test")
        .force_path_style(true)
        .retry_config(
            RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(1)),
        )
        .http_client(SharedHttpClient::new(canned.clone()))
        .build();
    (S3::new(Client::from_conf(config), "backups"), canned)
}

fn full(error: &dyn std::error::Error) -> String {
    crate::error::chain(error)
}

#[tokio::test]
async fn only_the_store_s_own_word_is_an_absence() {
    for code in ["NoSuchKey", "NoSuchVersion"] {
        assert_eq!(store([error(404, code)]).0.get("k", None).await.unwrap(), None, "{code}");
    }
    assert_eq!(store([answer(404, &[], "")]).0.head("k", None).await.unwrap(), None);
    let refusals = [
        (error(403, "AccessDenied"), "AccessDenied, HTTP 403"),
        (error(403, "SignatureDoesNotMatch"), "SignatureDoesNotMatch, HTTP 403"),
        (answer(403, &[], ""), "HTTP 403"),
    ];
    for (refusal, expected) in refusals {
        let got = store([refusal]).0.get("qdrant/manifests/x.json", None).await.unwrap_err();
        assert!(matches!(&got, StoreError::Denied { code, .. } if code == expected), "{}", full(&got));
        assert_eq!(got.kind(), FailureKind::StoreUnavailable);
        assert!(
            got.to_string().starts_with("get `s3://backups/qdrant/manifests/x.json`: access is refused (")
        );
    }
    let got = store([answer(403, &[], "")]).0.head("k", None).await.unwrap_err();
    assert!(matches!(got, StoreError::Denied { .. }), "{}", full(&got));
    // A gateway's own 404 page, which the client takes for a fault and asks again.
    let got = store([answer(404, &[], "<html>not found</html>")]).0.get("k", None).await.unwrap_err();
    assert!(matches!(got, StoreError::Failed { .. }), "{}", full(&got));
    assert!(full(&got).contains("HTTP 404"), "{}", full(&got));
}

#[tokio::test]
async fn a_missing_bucket_is_a_setting_not_an_absence() {
    let missing = || error(404, "NoSuchBucket");
    let errors = [
        store([missing()]).0.get("k", None).await.unwrap_err(),
        store([missing()]).0.list("p/").await.unwrap_err(),
    ];
    for got in errors {
        assert!(matches!(got, StoreError::NoSuchBucket { .. }), "{}", full(&got));
        assert_eq!(got.kind(), FailureKind::ConfigInvalid);
        assert!(got.hint().unwrap().contains("backups"));
    }
    for condition in [Condition::IfAbsent, Condition::IfMatch("e".to_owned())] {
        let got = store([missing()]).0.put("k", Bytes::new(), condition).await.unwrap_err();
        assert!(matches!(got, PutError::Other(StoreError::NoSuchBucket { .. })), "{}", full(&got));
    }
}

#[tokio::test]
async fn faults_are_retried_by_the_client_and_then_named() {
    let object = || {
        let headers = [("etag", "\"e\""), ("last-modified", "Mon, 23 Nov 2026 05:14:07 GMT")];
        answer(200, &headers, "bytes")
    };
    let broken = || answer(0, &[], "");
    let (s3, canned) = store([error(503, "SlowDown"), object()]);
    assert_eq!(s3.get("k", None).await.unwrap().unwrap().bytes, "bytes");
    assert_eq!(canned.requests.lock().unwrap().len(), 2);
    let cases = [
        (vec![error(503, "SlowDown")], "SlowDown, HTTP 503"),
        (vec![error(500, "InternalError"), broken()], "no connection"),
        (vec![broken()], "no connection"),
    ];
    for (answers, expected) in cases {
        let got = store(answers).0.get("k", None).await.unwrap_err();
        assert!(matches!(&got, StoreError::Failed { code, .. } if code == expected), "{}", full(&got));
        assert_eq!(got.kind(), FailureKind::StoreUnavailable);
    }
}

#[tokio::test]
async fn an_object_is_read_with_its_tag_version_and_date() {
    let headers = [
        ("etag", "\"e\""),
        ("x-amz-version-id", "v7"),
        ("last-modified", "Mon, 23 Nov 2026 05:14:07 GMT"),
        ("content-length", "5"),
    ];
    let (s3, canned) = store([answer(200, &headers, "bytes")]);
    let object = s3.get("a/k.json", Some("v7")).await.unwrap().unwrap();
    assert_eq!((&object.bytes[..], &*object.etag), (&b"bytes"[..], "\"e\""));
    assert_eq!(object.version_id.as_deref(), Some("v7"));
    assert_eq!(object.last_modified, "2026-11-23T05:14:07Z".parse().unwrap());
    let uri = canned.requests.lock().unwrap()[0].uri().to_owned();
    assert!(uri.starts_with("http://store.test/backups/a/k.json?") && uri.contains("versionId=v7"), "{uri}");
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_no_object() {
    let etag = ("etag", "\"e\"");
    let date = ("last-modified", "Mon, 23 Nov 2026 05:14:07 GMT");
    for (what, headers) in [
        ("no ETag", vec![date]),
        ("no date", vec![etag]),
        ("shorter than stated", vec![etag, date, ("content-length", "6")]),
    ] {
        let got = store([answer(200, &headers, "bytes")]).0.get("k", None).await;
        assert!(matches!(got, Err(StoreError::Failed { .. })), "{what}: {got:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_whole_is_read_again() {
    let headers = [
        ("etag", "\"e\""),
        ("last-modified", "Mon, 23 Nov 2026 05:14:07 GMT"),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="),
    ];
    let (damaged, cut) =
        (answer(200, &headers, "bytes"), answer(200, &[headers[0], ("content-length", "6")], "bytes"));
    let (s3, canned) = store([damaged.clone()]);
    let got = s3.get("k", None).await.unwrap_err();
    assert!(matches!(got, StoreError::Damaged { .. }), "{}", full(&got));
    assert_eq!(got.kind(), FailureKind::ChecksumMismatch);
    assert_eq!(canned.requests.lock().unwrap().len(), 3);
    let (s3, _) = store([damaged, cut, answer(200, &headers[..2], "whole")]);
    assert_eq!(&s3.get("k", None).await.unwrap().unwrap().bytes[..], b"whole");
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let date = ("last-modified", "Mon, 23 Nov 2026 05:14:07 GMT");
    let length = (MAX_OBJECT_BYTES + 1).to_string();
    let (s3, _) = store([answer(200, &[("etag", "e"), date, ("content-length", &length)], "bytes")]);
    let got = s3.get("k", None).await.unwrap_err();
    assert!(matches!(got, StoreError::TooLarge { .. }), "{}", full(&got));
    assert!(got.to_string().contains(&MAX_OBJECT_BYTES.to_string()));
    // Without a stated length the bytes are counted.
    let body = "x".repeat(usize::try_from(MAX_OBJECT_BYTES).unwrap() + 1);
    let (s3, _) = store([answer(200, &[("etag", "e"), date], &body)]);
    assert!(matches!(s3.get("k", None).await, Err(StoreError::TooLarge { .. })));
    let key = protocol::key::POINTER;
    catalog().store().insert(key, body.clone());
    let over = catalog();
    over.store().insert(key, body);
    assert_eq!(over.pointer().await.unwrap_err().kind(), FailureKind::ManifestInvalid);
}

#[tokio::test]
async fn a_write_carries_its_condition_and_checksum() {
    let cases = [
        (Condition::None, None, None),
        (Condition::IfAbsent, Some("*"), None),
        (Condition::IfMatch("\"e\"".to_owned()), None, Some("\"e\"")),
    ];
    for (condition, if_none_match, if_match) in cases {
        let (s3, canned) = store([answer(200, &[("etag", "\"f\""), ("x-amz-version-id", "null")], "")]);
        let put = s3.put("k.json", Bytes::from_static(b"123456789"), condition).await.unwrap();
        assert_eq!((&*put.etag, put.version_id), ("\"f\"", None));
        let requests = canned.requests.lock().unwrap();
        let headers = requests[0].headers();
        assert_eq!((headers.get("if-none-match"), headers.get("if-match")), (if_none_match, if_match));
        assert_eq!(headers.get("x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="));
        assert_eq!(headers.get("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_failed_condition_is_told_from_other_failures() {
    let matching = || Condition::IfMatch("\"e\"".to_owned());
    let cases = [
        (412, "PreconditionFailed", Condition::IfAbsent, true),
        (412, "PreconditionFailed", matching(), true),
        (409, "ConditionalRequestConflict", Condition::IfAbsent, true),
        (409, "ConditionalRequestConflict", matching(), true),
        (409, "OperationAborted", matching(), false),
        (404, "NoSuchKey", matching(), true),
        (404, "NoSuchKey", Condition::IfAbsent, false),
        (403, "AccessDenied", matching(), false),
        (501, "NotImplemented", Condition::IfAbsent, false),
    ];
    for (status, code, condition, expected) in cases {
        let got = store([error(status, code)]).0.put("k", Bytes::new(), condition.clone()).await.unwrap_err();
        let refused = matches!(got, PutError::PreconditionFailed { .. });
        assert_eq!(refused, expected, "{status} {code} under {condition:?}: {}", full(&got));
        assert!(full(&got).contains("`k`") || full(&got).contains("backups/k`"), "{}", full(&got));
    }
}

#[tokio::test]
async fn a_head_tells_size_checksum_key_and_version() {
    let headers = [
        ("content-length", "20500000"),
        ("etag", "\"e-3\""),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-server-side-encryption-aws-kms-key-id", "arn:aws:kms:eu-central-1:1:key/k"),
        ("x-amz-version-id", "v1"),
        ("x-amz-meta-backup-id", "20261123T051400Z"),
    ];
    let (s3, canned) = store([answer(200, &headers, "")]);
    let head = s3.head("k", None).await.unwrap().unwrap();
    assert_eq!((head.size, &*head.etag), (20_500_000, "\"e-3\""));
    assert_eq!(head.crc64nvme.as_deref(), Some("rosUhgp5mIg="));
    assert_eq!(head.sse_kms_key_id.as_deref(), Some("arn:aws:kms:eu-central-1:1:key/k"));
    assert_eq!(head.version_id.as_deref(), Some("v1"));
    assert_eq!(head.metadata["backup-id"], "20261123T051400Z");
    assert_eq!(canned.requests.lock().unwrap()[0].headers().get("x-amz-checksum-mode"), Some("ENABLED"));
}

#[tokio::test]
async fn a_listing_goes_through_every_page() {
    let page = |key: &str, more: &str| {
        let object = format!(
            "<Contents><Key>{key}</Key><Size>5</Size><LastModified>2026-11-23T05:14:07.000Z</LastModified></Contents>"
        );
        answer(200, &[], &format!("<ListBucketResult>{object}{more}</ListBucketResult>"))
    };
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t1</NextContinuationToken>";
    let (s3, canned) = store([page("p/b", more), page("p/a", "<IsTruncated>false</IsTruncated>")]);
    let listed = s3.list("p/").await.unwrap();
    assert_eq!(listed.iter().map(|object| &*object.key).collect::<Vec<_>>(), ["p/a", "p/b"]);
    assert_eq!((listed[0].size, listed[0].last_modified), (5, "2026-11-23T05:14:07Z".parse().unwrap()));
    let second = canned.requests.lock().unwrap()[1].uri().to_owned();
    assert!(second.contains("continuation-token=t1"), "{second}");
    // A page that fails is a failure, not a shorter listing.
    let (s3, _) = store([page("p/b", more), error(403, "AccessDenied")]);
    assert!(matches!(s3.list("p/").await, Err(StoreError::Denied { .. })));
}

#[tokio::test]
async fn the_clock_is_read_from_any_answer() {
    let date = ("date", "Mon, 23 Nov 2026 05:14:07 GMT");
    let head = [date, ("etag", "e"), ("content-length", "1")];
    for told in [answer(200, &head, ""), answer(404, &[date], ""), answer(403, &[date], "")] {
        let status = told.status;
        let now = store([told]).0.now().await.unwrap();
        assert_eq!(now, "2026-11-23T05:14:07Z".parse().unwrap(), "{status}");
    }
    let silent = store([answer(200, &head[1..], "")]).0.now().await.unwrap_err();
    assert!(full(&silent).contains("no Date header"), "{}", full(&silent));
    let odd = store([answer(404, &[("date", "soon")], "")]).0.now().await.unwrap_err();
    assert!(full(&odd).contains("not a date"), "{}", full(&odd));
    let broken = || answer(0, &[], "");
    assert!(matches!(store([broken()]).0.now().await, Err(StoreError::Failed { .. })));
}
