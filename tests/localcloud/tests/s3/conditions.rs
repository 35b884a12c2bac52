//! Conditional reads and writes, alone and in races.

use aws_sdk_s3::primitives::ByteStream;

use super::multipart::{complete, create, part};
use super::*;

fn write(
    client: &Client,
    key: &str,
    body: &'static str,
) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
    client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(body.as_bytes()))
}

#[tokio::test]
async fn a_put_is_conditional_on_the_current_version() {
    let server = server().await;
    let client = once(&server);
    assert_eq!(refusal(write(&client, "k", "x").if_match("\"abc\"").send().await), refused(404, "NoSuchKey"));
    let first = write(&client, "k", "1").if_none_match("*").send().await.unwrap();
    assert_eq!(
        refusal(write(&client, "k", "2").if_none_match("*").send().await),
        refused(412, "PreconditionFailed")
    );
    let etag = first.e_tag().unwrap();
    let second = write(&client, "k", "2").if_match(etag).send().await.unwrap();
    assert_eq!(
        refusal(write(&client, "k", "3").if_match(etag).send().await),
        refused(412, "PreconditionFailed")
    );
    assert_ne!(first.version_id(), second.version_id());
    assert_eq!(get(&client, "k").await, b"2");
    assert_eq!(server.calls()[1].if_none_match.as_deref(), Some("*"));

    // A delete marker counts as absent.
    client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(refusal(write(&client, "k", "3").if_match(etag).send().await), refused(404, "NoSuchKey"));
    write(&client, "k", "4").if_none_match("*").send().await.unwrap();
}

#[tokio::test]
async fn a_completion_is_conditional_and_keeps_the_upload_when_refused() {
    let server = server().await;
    let client = once(&server);
    let upload = create(&client, "k").await;
    let named = [part(&client, "k", &upload, 1, b"part").await];
    let absent = complete(&client, "k", &upload, &named).if_match("\"abc\"").send().await;
    assert_eq!(refusal(absent), refused(404, "NoSuchKey"));
    let other = write(&client, "k", "other").send().await.unwrap();
    let present = complete(&client, "k", &upload, &named).if_none_match("*").send().await;
    assert_eq!(refusal(present), refused(412, "PreconditionFailed"));
    complete(&client, "k", &upload, &named).if_match(other.e_tag().unwrap()).send().await.unwrap();
}

#[tokio::test]
async fn of_conditional_writes_that_race_one_wins() {
    let server = server().await;
    let client = once(&server);
    let writers = (0..8).map(|writer| {
        let request = client.put_object().bucket(BUCKET).key("pointer").if_none_match("*");
        request.body(ByteStream::from(pattern(50_000, writer))).send()
    });
    let results = futures::future::join_all(writers).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for result in lost {
        assert_eq!(refusal(result), refused(412, "PreconditionFailed"));
    }
    let etag = won.into_iter().next().unwrap().unwrap().e_tag().unwrap().to_owned();
    let writers = (10..18).map(|writer| {
        let request = client.put_object().bucket(BUCKET).key("pointer").if_match(&etag);
        request.body(ByteStream::from(pattern(50_000, writer))).send()
    });
    let won = futures::future::join_all(writers).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1, "compare-and-swap");
}

#[tokio::test]
async fn completions_that_race_make_one_object() {
    let server = server().await;
    let client = once(&server);
    let upload = create(&client, "k").await;
    let named = [part(&client, "k", &upload, 1, &pattern(100_000, 1)).await];
    let racers = (0..4).map(|_| complete(&client, "k", &upload, &named).send());
    let results = futures::future::join_all(racers).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for result in lost {
        assert_eq!(refusal(result), refused(404, "NoSuchUpload"));
    }
}

#[tokio::test]
async fn reads_are_conditional() {
    let server = server().await;
    let client = once(&server);
    let etag = write(&client, "k", "x").send().await.unwrap().e_tag().unwrap().to_owned();
    let read = || client.get_object().bucket(BUCKET).key("k");
    assert!(read().if_match(&etag).send().await.is_ok());
    assert_eq!(refusal(read().if_match("\"abc\"").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(read().if_none_match(&etag).send().await).0, 304);
    assert!(read().if_none_match("\"abc\"").send().await.is_ok());
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key("k").if_match("\"abc\"").send().await).0, 412);
}

#[tokio::test]
async fn a_deletion_is_conditional() {
    let server = server().await;
    let client = once(&server);
    let etag = write(&client, "k", "x").send().await.unwrap().e_tag().unwrap().to_owned();
    let delete = |etag: &str| client.delete_object().bucket(BUCKET).key("k").if_match(etag).send();
    assert_eq!(refusal(delete("\"abc\"").await), refused(412, "PreconditionFailed"));
    delete(&etag).await.unwrap();
    assert_eq!(refusal(delete(&etag).await), refused(412, "PreconditionFailed"));
}
