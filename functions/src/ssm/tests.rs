//! What is made of the answers of Systems Manager, told by canned ones, and what it is asked.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use aws_sdk_ssm::config::{
    BehaviorVersion, Credentials, HttpClient, Region, RuntimeComponents, SharedHttpClient,
    http::{HttpRequest, HttpResponse},
    retry::RetryConfig,
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use super::*;
use crate::tests::{HOST_TAG, TOKEN, host, tag};

/// Answers with a status each; status 0 is a broken connection. What is asked is kept.
#[derive(Clone, Debug, Default)]
struct Canned {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        self.asked.lock().unwrap().push((target, body));
        let (status, answer) = self.answers.lock().unwrap().pop_front().expect("no answer was given");
        if status == 0 {
            return HttpConnectorFuture::ready(Err(ConnectorError::io("connection reset".into())));
        }
        let answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(answer.to_string()));
        HttpConnectorFuture::ready(Ok(answer))
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl Canned {
    fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A client that gets these answers, in this order, and makes each call once.
fn client(answers: impl IntoIterator<Item = (u16, Value)>) -> (Client, Canned) {
    let canned = Canned { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Canned::default() };
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(SharedHttpClient::new(canned.clone()))
        .build();
    (Client::from_conf(config), canned)
}

fn refused(code: &str) -> Value {
    json!({"__type": code, "message": format!("the service says {code}")})
}

fn command() -> Command {
    Command {
        document: "qdrant-host-task".to_owned(),
        host: host(1),
        comment: "backup-20261123T051400Z of nightly-1".to_owned(),
        parameters: BTreeMap::from([("Task", "backup".to_owned()), ("TaskToken", TOKEN.to_owned())]),
    }
}

#[tokio::test]
async fn all_pages_of_the_tagged_hosts_are_read() {
    let page = |n: u32, ping: &str, next: Option<&str>| json!({"InstanceInformationList": [{"InstanceId": host(n), "PingStatus": ping}], "NextToken": next});
    let (client, canned) =
        client([(200, page(1, "Online", Some("n1"))), (200, page(2, "ConnectionLost", None))]);
    let hosts = client.tagged(&tag(HOST_TAG)).await.unwrap();
    let expected = [(1, "Online", true), (2, "ConnectionLost", false)];
    for (found, (n, ping, online)) in hosts.iter().zip(expected) {
        assert_eq!(*found, Host { id: host(n), ping: ping.to_owned() });
        assert_eq!(found.is_online(), online);
    }
    assert_eq!(hosts.len(), 2);
    let asked = canned.asked();
    assert_eq!(asked[0].0, "AmazonSSM.DescribeInstanceInformation");
    assert_eq!(asked[0].1, json!({"Filters": [{"Key": "tag:Role", "Values": ["qdrant"]}], "MaxResults": 50}));
    assert_eq!(asked[1].1["NextToken"], "n1");
}

#[tokio::test]
async fn a_command_is_sent_to_one_host_with_one_value_for_each_parameter() {
    let (client, canned) = client([(200, json!({"Command": {"CommandId": "c-1"}})), (200, json!({}))]);
    assert_eq!(client.send(&command()).await.unwrap(), CommandId::from("c-1".to_owned()));
    let asked = canned.asked();
    assert_eq!(asked[0].0, "AmazonSSM.SendCommand");
    assert_eq!(
        asked[0].1,
        json!({
            "DocumentName": "qdrant-host-task", "DocumentVersion": "$DEFAULT", "InstanceIds": [host(1)],
            "TimeoutSeconds": 600, "Comment": "backup-20261123T051400Z of nightly-1",
            "Parameters": {"Task": ["backup"], "TaskToken": [TOKEN]},
        })
    );
    let error = client.send(&command()).await.unwrap_err();
    assert_eq!((error.refusal, error.detail.as_str()), (Refusal::Other, "the answer has no CommandId"));
}

#[tokio::test]
async fn a_look_prefers_the_details_and_knows_that_nothing_ran_yet() {
    let (client, canned) = client([
        (400, refused("InvocationDoesNotExist")),
        (200, json!({"Status": "Pending", "StatusDetails": "Pending", "ResponseCode": -1})),
        (200, json!({"Status": "Failed", "StatusDetails": "Undeliverable", "ResponseCode": -1})),
        (
            200,
            json!({"Status": "Success", "ResponseCode": 0, "StandardOutputContent": "out", "StandardErrorContent": "err"}),
        ),
        (500, refused("InternalServerError")),
    ]);
    let id = CommandId::from("c-1".to_owned());
    assert_eq!(client.look(&id, &host(1)).await.unwrap(), None);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let Invocation { status, exit_code, stdout, stderr } =
            client.look(&id, &host(1)).await.unwrap().unwrap();
        seen.push((status, exit_code, stdout + &stderr));
    }
    let row = |status: &str, code, said: &str| (status.to_owned(), code, said.to_owned());
    assert_eq!(
        seen,
        [row("Pending", None, ""), row("Undeliverable", None, ""), row("Success", Some(0), "outerr")]
    );
    assert_eq!(client.look(&id, &host(1)).await.unwrap_err().refusal, Refusal::Transient);
    assert_eq!(canned.asked()[0].1, json!({"CommandId": "c-1", "InstanceId": host(1)}));
}

#[tokio::test]
async fn a_refusal_says_what_the_service_said() {
    for (status, code, expected) in [
        (400, "InvalidInstanceId", Refusal::Host),
        (400, "AccessDeniedException", Refusal::Access),
        (400, "InvalidDocument", Refusal::Document),
        (400, "InvalidParameters", Refusal::Parameters),
        (400, "ThrottlingException", Refusal::Transient),
        (503, "ServiceUnavailable", Refusal::Transient),
        (400, "ValidationException", Refusal::Other),
    ] {
        let (client, _) = client([(status, refused(code))]);
        let error = client.send(&command()).await.unwrap_err();
        assert_eq!(error.refusal, expected, "{error}");
        assert_eq!(error.to_string(), format!("ssm:SendCommand fails: {code}: the service says {code}"));
    }
    let (client, _) = client([(0, json!(null))]);
    let error = client.tagged(&tag(HOST_TAG)).await.unwrap_err();
    assert_eq!(error.refusal, Refusal::Transient);
    assert!(error.to_string().contains("connection reset"), "{error}");
}

#[test]
fn every_answer_of_systems_manager_has_a_meaning() {
    for (code, status, expected) in [
        (Some("InvalidDocumentVersion"), Some(400), Refusal::Document),
        (Some("InternalServerError"), Some(500), Refusal::Transient),
        (None, Some(429), Refusal::Transient),
        (None, Some(503), Refusal::Transient),
        (None, None, Refusal::Transient),
        (None, Some(404), Refusal::Other),
    ] {
        assert_eq!(classify(code, status), expected, "{code:?} {status:?}");
    }
}
