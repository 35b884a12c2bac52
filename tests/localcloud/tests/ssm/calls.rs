//! The calls of the API, and the document that is deployed.

use std::collections::HashMap;

use aws_sdk_ssm::types::{
    CommandInvocationStatus, CommandStatus, DocumentFormat, DocumentType, InstanceInformationStringFilter,
    PingStatus, Target,
};
use localcloud::ssm::{HostOptions, Operation, Outcome, Presence, State};

use super::*;

const TASK: &str = "qdrant-host-task";

/// Parameters that the deployed document accepts.
fn task() -> HashMap<String, Vec<String>> {
    [
        ("Task", "backup"),
        ("BackupId", "20261123T051400Z"),
        ("Execution", "nightly-1"),
        ("EnteredAt", "2026-11-23T05:14:00.123Z"),
        ("TaskToken", "AQCEAAAAKgAAAAMAAAAA+/=_.-"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
    .collect()
}

fn deployed() -> Bench {
    let bench = Bench::new();
    bench.ssm.create_document_from(TASK, &host_task()).unwrap();
    bench.program("host-worker", "#!/bin/sh\necho \"$@\" >&2\nenv | grep ^SSM_ | sort\n");
    bench
}

#[tokio::test]
async fn the_deployed_document_hands_its_values_to_the_worker_as_variables() {
    let bench = deployed();
    let client = bench.client();
    let sent = client
        .send_command()
        .document_name(TASK)
        .instance_ids(HOST)
        .timeout_seconds(60)
        .comment("nightly")
        .set_parameters(Some(task()))
        .send()
        .await
        .unwrap()
        .command
        .unwrap();
    assert_eq!(sent.status(), Some(&CommandStatus::Pending));
    let id = sent.command_id().unwrap();
    bench.ended(id).await;

    let get = || client.get_command_invocation().command_id(id).instance_id(HOST).send();
    assert_eq!(code(get().await), "InvocationDoesNotExist", "the first call comes too early");
    let invocation = get().await.unwrap();
    assert_eq!(invocation.status(), Some(&CommandInvocationStatus::Success));
    assert_eq!(invocation.status_details(), Some("Success"));
    assert_eq!(invocation.response_code(), 0);
    assert_eq!(invocation.plugin_name(), Some("dispatch"));
    assert_eq!(invocation.standard_error_content(), Some("dispatch --json\n"));
    assert_eq!(
        invocation.standard_output_content().unwrap(),
        "SSM_BackupId=20261123T051400Z\nSSM_Collections=*\nSSM_EnteredAt=2026-11-23T05:14:00.123Z\n\
         SSM_Execution=nightly-1\nSSM_RetryCount=0\nSSM_Task=backup\nSSM_TaskToken=AQCEAAAAKgAAAAMAAAAA+/=_.-\n"
    );

    let commands = client.list_commands().command_id(id).send().await.unwrap();
    let command = &commands.commands()[0];
    assert_eq!(command.status(), Some(&CommandStatus::Success));
    assert_eq!(command.comment(), Some("nightly"));
    assert_eq!(command.parameters(), Some(&task()), "everybody who may list commands reads the token");
    let expires = command.expires_after().unwrap().secs() - command.requested_date_time().unwrap().secs();
    assert!((119..=121).contains(&expires), "60 s for the delivery and 60 s for the script, not {expires}");

    let listed = client.list_command_invocations().command_id(id).details(true).send().await.unwrap();
    let plugin = &listed.command_invocations()[0].command_plugins()[0];
    assert_eq!((plugin.name(), plugin.response_code()), (Some("dispatch"), 0));
}

#[tokio::test]
async fn an_agent_that_does_not_know_env_var_sets_nothing_and_the_deployed_document_refuses() {
    let bench = deployed();
    let old = HostOptions { agent_version: "3.3.2745.9".to_owned(), ..bench.host("i-old") };
    bench.ssm.add_host(old).unwrap();
    let send = bench.client().send_command().document_name(TASK).instance_ids("i-old");
    let sent = send.set_parameters(Some(task())).send().await.unwrap().command.unwrap();
    let wanted = |invocation: &Invocation| invocation.state.is_final();
    let ended = bench.ssm.wait_for(sent.command_id().unwrap(), "i-old", BOUND, wanted).await.unwrap();
    assert_eq!(ended.state, State::Failed);
    assert!(ended.stderr.contains("this host's SSM agent is too old"), "{}", ended.stderr);
    assert!(ended.stderr.contains("failed to run commands: exit status"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "the worker was not called");
}

#[tokio::test]
async fn parameters_are_judged_when_the_command_is_sent() {
    let bench = deployed();
    let client = bench.client();
    let cases: [(&str, &str, Option<&[&str]>); 9] = [
        ("unknown", "Extra", Some(&["x"])),
        ("missing", "TaskToken", None),
        ("not a task", "Task", Some(&["restore"])),
        ("an injection", "Execution", Some(&["x;id"])),
        ("a substitution", "Execution", Some(&["$(id)"])),
        ("a second line", "BackupId", Some(&["20261123T051400Z\nid"])),
        ("a line end", "BackupId", Some(&["20261123T051400Z\n"])),
        ("two values", "RetryCount", Some(&["0", "1"])),
        (
            "too long",
            "Execution",
            Some(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
        ),
    ];
    for (what, name, value) in cases {
        let mut parameters = task();
        match value {
            Some(values) => {
                parameters.insert(name.to_owned(), values.iter().map(|&value| value.to_owned()).collect())
            }
            None => parameters.remove(name),
        };
        let send = client.send_command().document_name(TASK).instance_ids(HOST);
        let refused = send.set_parameters(Some(parameters)).send().await;
        assert_eq!(code(refused), "InvalidParameters", "{what}");
    }
    assert!(bench.ssm.commands().is_empty(), "a refused call sends nothing");
    let calls = bench.ssm.take_calls();
    assert!(
        calls.iter().all(|call| call.outcome == Outcome::Refused("InvalidParameters".to_owned())),
        "{calls:?}"
    );
    assert_eq!(calls.len(), cases.len());
}

#[tokio::test]
async fn an_unknown_document_or_host_is_refused() {
    let bench = deployed();
    bench.document("noop", 60, &["true"]);
    let client = bench.client();
    let send = |document: &str, host: &str| client.send_command().document_name(document).instance_ids(host);
    assert_eq!(code(send("other", HOST).send().await), "InvalidDocument");
    assert_eq!(code(send("noop", "i-none").send().await), "InvalidInstanceId");
    assert_eq!(code(send("noop", HOST).document_version("7").send().await), "InvalidDocumentVersion");
    assert_eq!(code(send("noop", HOST).timeout_seconds(29).send().await), "ValidationException");
    assert_eq!(code(send("noop", HOST).document_hash("00").send().await), "InvalidDocument");
    assert_eq!(
        code(send("noop", HOST).output_s3_bucket_name("bucket").send().await),
        "ValidationException",
        "what is not carried out is not passed over"
    );
    assert_eq!(code(client.send_command().document_name("noop").send().await), "ValidationException");
    bench.ssm.set_presence(HOST, Presence::Offline).unwrap();
    assert_eq!(code(send("noop", HOST).send().await), "InvalidInstanceId");
    bench.ssm.set_presence(HOST, Presence::Online).unwrap();
    let arn = "arn:aws:ssm:us-east-1:000000000000:document/noop";
    let sent = send(arn, HOST).send().await.unwrap().command.unwrap();
    assert_eq!(sent.document_name(), Some("noop"));
}

#[tokio::test]
async fn a_tag_takes_the_hosts_that_have_it() {
    let bench = Bench::new();
    bench.document("noop", 60, &["true"]);
    for id in ["i-a", "i-b"] {
        bench.ssm.add_host(bench.host(id).tag("Role", "qdrant")).unwrap();
    }
    let client = bench.client();
    let target = |value: &str| Target::builder().key("tag:Role").values(value).build();
    let send = |value: &str| client.send_command().document_name("noop").targets(target(value)).send();
    let id = send("qdrant").await.unwrap().command.unwrap().command_id.unwrap();
    for host in ["i-a", "i-b"] {
        let ended = bench.ssm.wait_for(&id, host, BOUND, |invocation| invocation.state.is_final()).await;
        assert_eq!(ended.unwrap().state, State::Success);
    }
    let nobody = send("other").await.unwrap().command.unwrap();
    assert_eq!(nobody.status_details(), Some("NoInstancesInTag"));
}

#[tokio::test]
async fn hosts_are_filtered_and_paged() {
    let bench = Bench::with(SsmOptions { page_size: 5, ..SsmOptions::default() });
    for number in 0..11 {
        let role = if number < 9 { "other" } else { "qdrant" };
        bench.ssm.add_host(bench.host(&format!("i-{number:02}")).tag("Role", role)).unwrap();
    }
    bench.ssm.set_presence("i-09", Presence::ConnectionLost).unwrap();
    let client = bench.client();
    let filter = |key: &str, value: &str| {
        InstanceInformationStringFilter::builder().key(key).values(value).build().unwrap()
    };
    let first = client.describe_instance_information().filters(filter("tag:Role", "qdrant"));
    let first = first.send().await.unwrap();
    assert!(first.instance_information_list().is_empty(), "none of the first five hosts passes");
    assert!(first.next_token().is_some(), "an empty page need not be the last");

    let all = |filters: Vec<InstanceInformationStringFilter>| {
        let client = client.clone();
        async move {
            let pages = client.describe_instance_information().set_filters(Some(filters)).into_paginator();
            let found: Vec<_> = pages.items().send().try_collect().await.unwrap();
            found.iter().map(|host| host.instance_id().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(all(vec![]).await.len(), 12);
    assert_eq!(all(vec![filter("tag:Role", "qdrant")]).await, ["i-09", "i-10"]);
    assert_eq!(all(vec![filter("tag:Role", "qdrant"), filter("PingStatus", "Online")]).await, ["i-10"]);
    assert_eq!(all(vec![filter("InstanceIds", HOST)]).await, [HOST]);
    let lost = client.describe_instance_information().filters(filter("InstanceIds", "i-09"));
    let mut lost = lost.max_results(50).send().await.unwrap();
    while lost.instance_information_list().is_empty() {
        let next = client.describe_instance_information().filters(filter("InstanceIds", "i-09"));
        lost = next.next_token(lost.next_token().unwrap()).send().await.unwrap();
    }
    assert_eq!(lost.instance_information_list()[0].ping_status(), Some(&PingStatus::ConnectionLost));
    let unknown = client.describe_instance_information().filters(filter("Colour", "blue")).send().await;
    assert_eq!(code(unknown), "InvalidFilterKey");
}

#[tokio::test]
async fn documents_are_made_and_read_over_the_api() {
    let bench = Bench::new();
    let client = bench.client();
    let content = fs_err::read_to_string(host_task()).unwrap();
    let create = |name: &str, content: &str| {
        let call = client.create_document().name(name).content(content);
        call.document_type(DocumentType::Command).document_format(DocumentFormat::Json).send()
    };
    create("task", &content).await.unwrap();
    assert_eq!(code(create("task", &content).await), "DocumentAlreadyExists");
    let odd = content.replace("allowedPattern", "allowedpattern");
    assert_eq!(code(create("odd", &odd).await), "InvalidDocumentContent");
    let described = client.describe_document().name("task").send().await.unwrap().document.unwrap();
    assert_eq!(described.parameters().len(), 7);
    assert_eq!(client.get_document().name("task").send().await.unwrap().content(), Some(content.as_str()));
    assert_eq!(code(client.get_document().name("none").send().await), "InvalidDocument");
    let hash = described.hash().unwrap();
    bench.document("noop", 60, &["true"]);
    let sent =
        client.send_command().document_name("noop").instance_ids(HOST).document_hash(hash).send().await;
    assert_eq!(code(sent), "InvalidDocument", "the hash of another document");
    assert_eq!(bench.ssm.count(Operation::CreateDocument), 3);
}

#[tokio::test]
async fn commands_are_listed_newest_first_and_page_by_page() {
    let bench = Bench::with(SsmOptions { unseen_calls: 0, ..SsmOptions::default() });
    bench.document("noop", 60, &["true"]);
    bench.ssm.add_host(bench.host("i-other")).unwrap();
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.insert(0, bench.send("noop").await);
    }
    let client = bench.client();
    let elsewhere = client.send_command().document_name("noop").instance_ids("i-other").send().await.unwrap();
    let pages = client.list_commands().instance_id(HOST).into_paginator().page_size(2);
    let listed: Vec<_> = pages.items().send().try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|it| it.command_id().unwrap()).collect::<Vec<_>>(), sent);
    let pages = client.list_command_invocations().into_paginator().page_size(3);
    let listed: Vec<_> = pages.items().send().try_collect().await.unwrap();
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[0].command_id(), elsewhere.command().unwrap().command_id());
    assert_eq!(code(client.list_commands().command_id("none").send().await), "InvalidCommandId");
    assert_eq!(code(client.list_commands().max_results(51).send().await), "ValidationException");
    let stranger = client.cancel_command().command_id(&sent[0]).instance_ids("i-other").send().await;
    assert_eq!(code(stranger), "InvalidInstanceId");
}
