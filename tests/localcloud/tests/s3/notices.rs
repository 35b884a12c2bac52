//! S3 tells of new objects.

use aws_sdk_s3::types::Delete;
use localcloud::s3::{Effect, ObjectCreated, Operation, Reason};

use super::multipart::{complete, create, part};
use super::*;

#[tokio::test]
async fn every_object_that_came_to_be_is_told_of_and_nothing_else() {
    let server = server().await;
    let client = once(&server);
    let mut told = server.object_created();
    let version = put(&client, "a", pattern(10, 1)).await;
    let again = client.put_object().bucket(BUCKET).key("a").if_none_match("*").send().await;
    assert_eq!(refusal(again), refused(412, "PreconditionFailed"));
    server.faults().on(Operation::PutObject).inject(Effect::InternalError);
    assert!(client.put_object().bucket(BUCKET).key("b").send().await.is_err());
    server.faults().on(Operation::PutObject).inject(Effect::LoseReply);
    assert!(client.put_object().bucket(BUCKET).key("c").send().await.is_err());
    let upload = create(&client, "d").await;
    let sent = part(&client, "d", &upload, 1, &pattern(2000, 1)).await;
    let done = complete(&client, "d", &upload, &[sent]).send().await.unwrap();
    let gone = aws_sdk_s3::types::ObjectIdentifier::builder().key("a").build().unwrap();
    let gone = Delete::builder().objects(gone).build().unwrap();
    client.delete_objects().bucket(BUCKET).delete(gone).send().await.unwrap();

    let first = ObjectCreated {
        bucket: BUCKET.to_owned(),
        key: "a".to_owned(),
        size: 10,
        etag: md5_etag(&pattern(10, 1)).trim_matches('"').to_owned(),
        version,
        reason: Reason::PutObject,
    };
    assert_eq!(told.try_recv().unwrap(), first);
    assert_eq!(told.try_recv().unwrap().key, "c", "a lost reply is no lost object");
    let last = told.try_recv().unwrap();
    assert_eq!((last.key.as_str(), last.size, last.reason), ("d", 2000, Reason::CompleteMultipartUpload));
    assert_eq!(Some(format!("\"{}\"", last.etag).as_str()), done.e_tag());
    assert!(told.try_recv().is_err());
}
