//! Machines, executions, histories and lists.

use aws_sdk_sfn::types::{ExecutionStatus, HistoryEventType, StateMachineType};
use serde_json::json;

use crate::support::{Cloud, ROLE, calls, waits};

#[tokio::test]
async fn a_machine_is_created_described_and_run() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("echo", calls("echo")).await;
    let described = cloud.client.describe_state_machine().state_machine_arn(&machine).send().await.unwrap();
    assert_eq!(described.name, "echo");
    assert_eq!(described.role_arn, ROLE);
    assert_eq!(described.r#type, StateMachineType::Standard);
    assert!(described.definition.contains("lambda:invoke"));

    let started = cloud
        .client
        .start_execution()
        .state_machine_arn(&machine)
        .name("one")
        .input(r#"{"a":1}"#)
        .send()
        .await
        .unwrap();
    let ended = cloud.ended(&started.execution_arn).await;
    assert_eq!(ended.status, ExecutionStatus::Succeeded);
    assert_eq!(ended.output.as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(ended.input.as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(ended.name.as_deref(), Some("one"));
    assert_eq!(ended.start_date, started.start_date);
    assert!(ended.stop_date.unwrap() >= ended.start_date);
}

#[tokio::test]
async fn a_history_has_the_events_and_details_of_aws() {
    let cloud = Cloud::start().await;
    let machine =
        cloud.machine("m", waits("echo", json!({"HeartbeatSeconds": 600, "TimeoutSeconds": 6000}))).await;
    let (arn, token) = cloud.waiting(&machine).await;
    cloud.client.send_task_success().task_token(&token).output("7").send().await.unwrap();
    cloud.ended(&arn).await;

    let pages = cloud.client.get_execution_history().execution_arn(&arn).max_results(3).into_paginator();
    let events: Vec<_> = pages.items().send().collect::<Result<Vec<_>, _>>().await.unwrap();
    let shape: Vec<_> =
        events.iter().map(|event| (event.id, event.previous_event_id, event.r#type.clone())).collect();
    assert_eq!(
        shape,
        [
            (1, 0, HistoryEventType::ExecutionStarted),
            (2, 0, HistoryEventType::TaskStateEntered),
            (3, 2, HistoryEventType::TaskScheduled),
            (4, 3, HistoryEventType::TaskStarted),
            (5, 4, HistoryEventType::TaskSubmitted),
            (6, 5, HistoryEventType::TaskSucceeded),
            (7, 6, HistoryEventType::TaskStateExited),
            (8, 7, HistoryEventType::ExecutionSucceeded),
        ]
    );
    let scheduled = events[2].task_scheduled_event_details.as_ref().unwrap();
    assert_eq!(
        (scheduled.resource_type.as_str(), scheduled.resource.as_str()),
        ("lambda", "invoke.waitForTaskToken")
    );
    assert_eq!((scheduled.heartbeat_in_seconds, scheduled.timeout_in_seconds), (Some(600), Some(6000)));
    assert!(scheduled.parameters.contains(&token), "AWS shows the token here");
    let started = events[0].execution_started_event_details.as_ref().unwrap();
    assert_eq!((started.input.as_deref(), started.role_arn.as_deref()), (Some("{}"), Some(ROLE)));

    let bare = cloud
        .client
        .get_execution_history()
        .execution_arn(&arn)
        .include_execution_data(false)
        .reverse_order(true)
        .send()
        .await
        .unwrap();
    assert_eq!(bare.events[0].id, 8);
    assert_eq!(bare.events[0].execution_succeeded_event_details.as_ref().unwrap().output, None);
    assert!(!format!("{bare:?}").contains(&token));
}

#[tokio::test]
async fn refusals_have_the_types_of_the_model() {
    let cloud = Cloud::start().await;
    let client = &cloud.client;
    let machine = cloud.machine("m", json!({"Type": "Wait", "Seconds": 9999})).await;
    let start =
        |input: &str| client.start_execution().state_machine_arn(&machine).name("n").input(input).send();
    let first = start("{}").await.unwrap();
    assert_eq!(start("{}").await.unwrap().execution_arn, first.execution_arn);
    let error = start("[]").await.unwrap_err().into_service_error();
    assert!(error.is_execution_already_exists(), "{error:?}");
    let error = start("{").await.unwrap_err().into_service_error();
    assert!(error.is_invalid_execution_input(), "{error:?}");

    let error = client
        .create_state_machine()
        .name("bad")
        .role_arn(ROLE)
        .definition(r#"{"StartAt":"A","States":{"A":{"Type":"Pass","Retry":[]}}}"#)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_invalid_definition(), "{error:?}");
    assert!(error.to_string().contains("state `A`"), "{error}");

    let error = client
        .describe_execution()
        .execution_arn(first.execution_arn.replace(":n", ":other"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(error.is_execution_does_not_exist(), "{error:?}");
    let error =
        client.send_task_heartbeat().task_token("fake").send().await.unwrap_err().into_service_error();
    assert!(error.is_invalid_token(), "{error:?}");
    let error = client.create_activity().name("a").send().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("UnknownOperationException"));
}

#[tokio::test]
async fn executions_are_listed_and_stopped() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", json!({"Type": "Wait", "Seconds": 9999})).await;
    let arns = [cloud.run(&machine).await, cloud.run(&machine).await];
    cloud
        .client
        .stop_execution()
        .execution_arn(&arns[0])
        .error("Cancelled")
        .cause("by hand")
        .send()
        .await
        .unwrap();
    let stopped = cloud.ended(&arns[0]).await;
    assert_eq!(stopped.status, ExecutionStatus::Aborted);
    assert_eq!((stopped.error.as_deref(), stopped.cause.as_deref()), (Some("Cancelled"), Some("by hand")));

    let list = |status| {
        cloud.client.list_executions().state_machine_arn(&machine).status_filter(status).max_results(1)
    };
    let running = list(ExecutionStatus::Running).send().await.unwrap();
    assert_eq!(running.executions.iter().map(|e| &e.execution_arn).collect::<Vec<_>>(), [&arns[1]]);
    let all: Vec<_> = cloud
        .client
        .list_executions()
        .state_machine_arn(&machine)
        .max_results(1)
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .unwrap();
    assert_eq!(all.len(), 2);
    let machines = cloud.client.list_state_machines().send().await.unwrap();
    assert_eq!(machines.state_machines[0].state_machine_arn, machine);
}

#[tokio::test]
async fn an_update_is_for_the_executions_to_come() {
    let cloud = Cloud::start().await;
    let machine = cloud.machine("m", calls("echo")).await;
    let definition = r#"{"StartAt":"F","States":{"F":{"Type":"Fail","Error":"E","Cause":"C"}}}"#;
    let update = cloud.client.update_state_machine().state_machine_arn(&machine).definition(definition);
    update.send().await.unwrap();
    let ended = cloud.ended(&cloud.run(&machine).await).await;
    assert_eq!(ended.status, ExecutionStatus::Failed);
    assert_eq!((ended.error.as_deref(), ended.cause.as_deref()), (Some("E"), Some("C")));
}
