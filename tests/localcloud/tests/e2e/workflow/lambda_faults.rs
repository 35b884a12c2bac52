//! Lambda fails, loses answers, is throttled or runs twice.

use std::{collections::BTreeSet, time::Duration};

use functions::Function;
use localcloud::{
    lambda::{Effect, FunctionError},
    qdrant::{Trickle, Via},
    s3::{self, Operation},
    workflow::WorkflowOptions,
};
use serde_json::json;

use super::harness::Flow;
use crate::harness::{Fixture, until};

/// How long an upload takes to begin, so that its worker is still there when the state is retried.
const SLOW: Duration = Duration::from_secs(5);

const QUIESCE: &str = "quiesce-check";
const TRIGGER: &str = "trigger-snapshot";
const PUBLISH: &str = "publish-manifest";

fn service() -> FunctionError {
    FunctionError::new("Lambda.ServiceException", "the service failed, as scripted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_fail_before_they_do_anything_are_invoked_again() {
    let flow = Flow::eager().await;
    let faults = flow.workflow.lambda.faults();
    // The first of each state: the second is the retry.
    faults.on(QUIESCE).inject(Effect::Fail(FunctionError::new("Runtime.ExitError", "signal: killed")));
    faults.on(QUIESCE).nth(3).inject(Effect::Throttle);
    faults.on(TRIGGER).inject(Effect::ServiceError);
    faults.on(PUBLISH).inject(Effect::Fail(FunctionError::new("Lambda.Unknown", "no answer")));
    let execution = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(
        flow.errors(&execution.arn),
        ["Runtime.ExitError", "Lambda.TooManyRequestsException", "Lambda.ServiceException", "Lambda.Unknown"]
    );
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(flow.workflow.ssm.commands().len(), 2);
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&execution)));
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_whose_answer_is_lost_are_invoked_again_and_the_worker_takes_the_newer_token() {
    let flow = Flow::eager().await;
    let faults = flow.workflow.lambda.faults();
    faults.on(QUIESCE).inject(Effect::FailAfter(service()));
    faults.on(QUIESCE).nth(3).inject(Effect::LoseReply);
    faults.on(TRIGGER).inject(Effect::LoseReply);
    faults.on(PUBLISH).inject(Effect::FailAfter(service()));
    // The worker is still at it when the retry comes: writes go on until then, and the upload is slow to begin.
    let writer = flow.fixture.stand_in().start_writer(Trickle {
        collection: "notes".to_owned(),
        every: Duration::from_millis(50),
        batch: 1,
        first_id: 1_000_000,
        via: Via::Rest,
    });
    flow.fixture.cloud.s3.faults().on(Operation::CreateMultipartUpload).inject(s3::Effect::Stall(SLOW));
    let execution = flow.start(json!({}));
    let ssm = &flow.workflow.ssm;
    until(|| ssm.commands().len() == 2 && ssm.commands()[1].invocations[0].state.is_final()).await;
    writer.stop().await;
    let execution = flow.ended(&execution).await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(faults.unfired(), [""; 0]);
    let output = execution.output.as_ref().unwrap();
    assert_eq!(output["published"]["outcome"], "already-published", "it counts as success");
    assert_eq!(output["published"]["publication"]["pointer_moved"], false);
    assert_eq!(output["stored"]["resumed"], false);
    let backup = flow.backup_of(&execution);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&backup));
    assert_eq!(flow.published().await, [backup]);
    let archives = flow.fixture.keys().await.iter().filter(|key| key.ends_with(".tar.zst")).count();
    assert_eq!(archives, 1, "the work was done once");
    let commands = flow.workflow.ssm.commands();
    let tokens: BTreeSet<_> = commands.iter().map(|command| &command.parameters["TaskToken"]).collect();
    assert_eq!((commands.len(), tokens.len()), (4, 4), "each retry has a token of its own");
    let adopted = flow.logs().matches("a newer token is taken over").count();
    assert_eq!(adopted, 2, "both tasks went on");
    assert_eq!(
        flow.errors(&execution.arn),
        [
            "Lambda.ServiceException",
            "Lambda.SdkClientException",
            "Lambda.SdkClientException",
            "Lambda.ServiceException"
        ]
    );
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_run_twice_come_to_the_same() {
    let flow = Flow::eager().await;
    let faults = flow.workflow.lambda.faults();
    faults.on(QUIESCE).times(2).inject(Effect::RunTwice);
    faults.on(TRIGGER).inject(Effect::RunTwice);
    faults.on(PUBLISH).inject(Effect::RunTwice);
    let execution = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(flow.errors(&execution.arn), [""; 0]);
    assert_eq!(execution.output.as_ref().unwrap()["published"]["outcome"], "already-published");
    assert_eq!(flow.workflow.lambda.invocations(PUBLISH).unwrap().len(), 2);
    let backup = flow.backup_of(&execution);
    assert_eq!(flow.fixture.pointer().await.as_ref(), Some(&backup));
    assert_eq!(flow.published().await, [backup]);
    let archives = flow.fixture.keys().await.iter().filter(|key| key.ends_with(".tar.zst")).count();
    assert_eq!(archives, 1);
    flow.assert_put_away().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_runs_into_its_time_out_is_invoked_again() {
    let options = WorkflowOptions { eager: true, function_timeout: 5, ..WorkflowOptions::default() };
    let flow = Flow::around(Fixture::small().await, &options);
    let faults = flow.workflow.lambda.faults();
    faults.on(PUBLISH).inject(Effect::Hang);
    let execution = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&execution), "BackedUp");
    assert_eq!(faults.unfired(), [""; 0]);
    assert_eq!(execution.output.as_ref().unwrap()["published"]["outcome"], "already-published");
    assert_eq!(flow.errors(&execution.arn), ["Sandbox.Timedout"]);
    assert_eq!(flow.fixture.pointer().await, Some(flow.backup_of(&execution)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_throttled_for_ever_fails_the_execution_by_name() {
    for (function, left) in [(Function::QuiesceCheck, false), (Function::PublishManifest, true)] {
        let flow = Flow::eager().await;
        flow.workflow.lambda.set_reserved_concurrency(function.name(), Some(0)).unwrap();
        let execution = flow.run(json!({})).await;
        flow.has_failed(&execution, "Lambda.TooManyRequestsException", &["rate exceeded"]);
        assert_eq!(flow.errors(&execution.arn), ["Lambda.TooManyRequestsException"; 7]);
        assert_eq!(flow.fixture.pointer().await, None);
        assert_eq!(flow.published().await, [""; 0]);
        let archives = flow.fixture.keys().await.iter().filter(|key| key.ends_with(".tar.zst")).count();
        assert_eq!(archives, usize::from(left), "what is stored and not published stays");
        flow.assert_put_away().await;
        if left {
            // It is not lost: a new execution makes a backup of its own.
            flow.workflow.lambda.set_reserved_concurrency(function.name(), None).unwrap();
            assert_eq!(flow.succeeds(json!({})).await, "BackedUp");
            assert_eq!(flow.published().await.len(), 1);
        }
    }
}
