//! Who may what: signatures, denials, the clock.

use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::presigning::PresigningConfig;
use localcloud::s3::Operation;
use std::time::Duration;

use super::*;

fn client_with(server: &S3Server, access_key: &str, secret_key: &str) -> Client {
    let credentials = Credentials::new(access_key, secret_key, None, None, "test");
    let config =
        server.client_config().credentials_provider(credentials).retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

#[tokio::test]
async fn signatures_are_verified() {
    let server = server().await;
    let (access_key, secret_key) = server.credentials();
    let wrong = client_with(&server, access_key, "another secret");
    let listed = wrong.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(refusal(listed), refused(403, "SignatureDoesNotMatch"));
    let unknown = client_with(&server, "AKIAUNKNOWN", secret_key);
    let listed = unknown.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(refusal(listed), refused(403, "InvalidAccessKeyId"));
    let unsigned = reqwest::get(format!("{}/{BUCKET}?list-type=2", server.endpoint())).await.unwrap();
    assert_eq!(unsigned.status().as_u16(), 403);
    assert_eq!(server.calls().iter().filter(|call| call.status == Some(403)).count(), 3);
}

#[tokio::test]
async fn a_presigned_address_works() {
    let server = server().await;
    let client = server.client().await;
    put(&client, "k", "shared").await;
    let presigning = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let presigned = client.get_object().bucket(BUCKET).key("k").presigned(presigning).await.unwrap();
    let reply = reqwest::get(presigned.uri()).await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "shared");
}

#[tokio::test]
async fn a_denial_covers_an_operation_below_a_prefix() {
    let server = server().await;
    let client = once(&server);
    server.faults().deny(Operation::PutObject, "qdrant/manifests/");
    let body = || aws_sdk_s3::primitives::ByteStream::from_static(b"x");
    let put = |key: &str| client.put_object().bucket(BUCKET).key(key).body(body()).send();
    assert_eq!(refusal(put("qdrant/manifests/a.json").await), refused(403, "AccessDenied"));
    put("qdrant/backups/a").await.unwrap();
    server.faults().allow_all();
    put("qdrant/manifests/a.json").await.unwrap();
}

#[tokio::test]
async fn who_may_not_list_may_not_learn_that_a_key_is_absent() {
    let server = server().await;
    let client = once(&server);
    put(&client, "there", "x").await;
    server.faults().deny(Operation::ListObjectsV2, "");
    assert_eq!(refusal(client.list_objects_v2().bucket(BUCKET).send().await), refused(403, "AccessDenied"));
    assert_eq!(
        refusal(client.get_object().bucket(BUCKET).key("absent").send().await),
        refused(403, "AccessDenied")
    );
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key("absent").send().await).0, 403);
    assert_eq!(get(&client, "there").await, b"x");
    server.faults().allow_all();
    assert_eq!(
        refusal(client.get_object().bucket(BUCKET).key("absent").send().await),
        refused(404, "NoSuchKey")
    );
}

#[tokio::test]
async fn the_clock_of_s3_can_be_wrong() {
    let server = server().await;
    let client = once(&server);
    let date = |skew: i64| {
        server.faults().clock_skew(skew);
        let presigning = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let request = client.head_object().bucket(BUCKET).key("absent").presigned(presigning);
        async {
            let reply = reqwest::Client::new().head(request.await.unwrap().uri()).send().await.unwrap();
            let date = reply.headers()["date"].to_str().unwrap().to_owned();
            let date = date.strip_suffix(" GMT").unwrap();
            let date = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", date).unwrap();
            date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second()
                - jiff::Timestamp::now().as_second()
        }
    };
    for skew in [0, 600, -600] {
        let seen = date(skew).await;
        assert!((seen - skew).abs() <= 2, "set {skew} s, seen {seen} s");
    }
    server.faults().clock_skew(600);
    put(&client, "k", "x").await;
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    let ahead = head.last_modified().unwrap().secs() - jiff::Timestamp::now().as_second();
    assert!((595..=601).contains(&ahead), "last modified {ahead} s ahead");

    server.faults().clock_skew(3600);
    let surprised = once(&server);
    let read = || surprised.get_object().bucket(BUCKET).key("k").send();
    assert_eq!(refusal(read().await), refused(403, "RequestTimeTooSkewed"));
    assert!(read().await.is_ok(), "the SDK has learned the difference");
    server.faults().clear();
    assert_eq!(get(&once(&server), "k").await, b"x");
}
