//! What goes wrong, as scripted.

use localcloud::ssm::{Delivery, Effect, Operation, Outcome, Presence, State};

use super::*;

/// A document that notes its runs, in order.
fn noting(bench: &Bench, name: &str) {
    bench.document(name, 60, &[&format!("echo {name} >> $OUT/runs")]);
}

#[tokio::test]
async fn a_command_is_delivered_twice() {
    let bench = Bench::new();
    noting(&bench, "a");
    bench.ssm.faults().on_delivery().inject(Delivery::Twice);
    let id = bench.send("a").await;
    let ended = bench.reached(&id, |it| it.runs.len() == 2 && it.runs[1].exit_code == Some(0)).await;
    assert_eq!(ended.state, State::Success);
    assert_eq!(bench.written("runs").await, "a\na\n");
    assert_eq!(bench.ssm.faults().unfired(), [""; 0]);
}

#[tokio::test]
async fn a_command_is_delivered_twice_at_once() {
    let bench = Bench::new();
    bench.document(
        "meets",
        60,
        // Each waits for the other: one after the other they would not end.
        &["echo > $OUT/$$; while [ $(ls $OUT | wc -l) -lt 2 ]; do sleep 0.01; done"],
    );
    bench.ssm.faults().on_delivery_to(HOST).inject(Delivery::TwiceAtOnce);
    let id = bench.send("meets").await;
    let both =
        bench.reached(&id, |it| it.runs.iter().filter(|run| run.exit_code == Some(0)).count() == 2).await;
    assert_eq!(both.runs.len(), 2);
}

#[tokio::test]
async fn a_held_command_waits_until_it_is_released() {
    let bench = Bench::new();
    noting(&bench, "a");
    bench.ssm.faults().on_delivery().inject(Delivery::Hold);
    let (held, other) = (bench.send("a").await, bench.send("a").await);
    assert_eq!(bench.ended(&other).await.state, State::Success);
    assert_eq!(bench.ssm.invocation(&held, HOST).unwrap().state, State::Pending);
    bench.ssm.release();
    assert_eq!(bench.ended(&held).await.state, State::Success);
}

#[tokio::test]
async fn an_older_command_arrives_after_a_newer_one() {
    let bench = Bench::new();
    noting(&bench, "older");
    noting(&bench, "newer");
    bench.ssm.faults().on_delivery().inject(Delivery::AfterNewer);
    let older = bench.send("older").await;
    bench.send("newer").await;
    bench.ended(&older).await;
    assert_eq!(bench.written("runs").await, "newer\nolder\n");
}

#[tokio::test]
async fn what_does_not_arrive_times_out_or_is_undeliverable() {
    let bench = Bench::quick();
    noting(&bench, "a");
    bench.ssm.faults().on_delivery().inject(Delivery::Never);
    bench.ssm.faults().on_delivery().nth(2).inject(Delivery::Undeliverable);
    let send =
        || bench.client().send_command().document_name("a").instance_ids(HOST).timeout_seconds(30).send();
    let never = send().await.unwrap().command.unwrap().command_id.unwrap();
    let undeliverable = bench.send("a").await;
    let ended = bench.ended(&never).await;
    assert_eq!((ended.state, ended.response_code), (State::DeliveryTimedOut, -1));
    assert_eq!((ended.state.status(), ended.state.details()), ("TimedOut", "DeliveryTimedOut"));
    let ended = bench.ended(&undeliverable).await;
    assert_eq!((ended.state.status(), ended.state.details()), ("Failed", "Undeliverable"));
    bench.ssm.set_presence(HOST, Presence::ConnectionLost).unwrap();
    let lost = send().await.unwrap().command.unwrap().command_id.unwrap();
    assert_eq!(bench.ended(&lost).await.state, State::DeliveryTimedOut);
    assert!(!bench.out(HOST).join("runs").exists());
}

#[tokio::test]
async fn a_delayed_command_arrives_in_time_all_the_same() {
    let bench = Bench::new();
    noting(&bench, "a");
    bench.ssm.faults().on_delivery().inject(Delivery::Delay(Duration::from_millis(50)));
    let ended = bench.ended(&bench.send("a").await).await;
    assert_eq!(ended.state, State::Success);
    let command = &bench.ssm.commands()[0];
    let waited = ended.started.unwrap().duration_since(command.requested);
    assert!(waited.as_millis() >= 50, "{waited:?}");
}

#[tokio::test]
async fn calls_are_refused_as_often_as_said_and_a_retrying_client_gets_over_it() {
    let bench = Bench::new();
    noting(&bench, "a");
    bench.ssm.faults().on(Operation::SendCommand).times(2).inject(Effect::Throttle);
    let retry = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
    let client = aws_sdk_ssm::Client::from_conf(bench.config().retry_config(retry).build());
    let send = || client.send_command().document_name("a").instance_ids(HOST).send();
    send().await.unwrap();
    assert_eq!((bench.ssm.count(Operation::SendCommand), bench.ssm.commands().len()), (3, 1));
    bench.ssm.faults().on(Operation::SendCommand).inject(Effect::AccessDenied);
    assert_eq!(code(send().await), "AccessDeniedException");
    bench.ssm.faults().on(Operation::SendCommand).inject(Effect::InternalError);
    send().await.unwrap();
}

#[tokio::test]
async fn a_lost_reply_makes_a_retrying_client_send_twice() {
    let bench = Bench::new();
    noting(&bench, "a");
    bench.ssm.faults().on(Operation::SendCommand).inject(Effect::LoseReply);
    let retry = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
    let client = aws_sdk_ssm::Client::from_conf(bench.config().retry_config(retry).build());
    client.send_command().document_name("a").instance_ids(HOST).send().await.unwrap();
    let outcomes: Vec<_> = bench.ssm.calls().into_iter().map(|call| call.outcome).collect();
    assert_eq!(outcomes, [Outcome::ReplyLost, Outcome::Answered]);
    for command in bench.ssm.commands() {
        assert_eq!(bench.ended(&command.id).await.state, State::Success);
    }
    assert_eq!(bench.written("runs").await, "a\na\n");
}

#[tokio::test]
async fn a_lost_host_takes_every_process_with_it_and_is_given_up_in_the_end() {
    let bench = Bench::quick();
    bench.document(
        "stays",
        300,
        &[
            "setsid sh -c 'echo $$ > $OUT/detached; exec sleep 1000' &",
            "while [ ! -s $OUT/detached ]; do sleep 0.01; done; exec sleep 1000",
        ],
    );
    let send = bench.client().send_command().document_name("stays").instance_ids(HOST).timeout_seconds(30);
    let id = send.send().await.unwrap().command.unwrap().command_id.unwrap();
    let detached = bench.written("detached").await;
    let mut own = std::process::Command::new("sleep");
    let mut own = own.arg("1000").envs(bench.ssm.environment(HOST).unwrap()).spawn().unwrap();
    assert!(bench.ssm.lose_host(HOST).unwrap() >= 2);
    died(&detached).await;
    assert!(!own.wait().unwrap().success(), "what the owner started on the host is lost with it");
    let ended = bench.ended(&id).await;
    assert_eq!(ended.state, State::DeliveryTimedOut, "nobody is left to say how it ended");
    assert_eq!(ended.runs[0].exit_code, None);
    bench.ssm.remove_host(HOST).unwrap();
    bench.ssm.add_host(bench.host("i-new")).unwrap();
    let hosts = bench.client().describe_instance_information().send().await.unwrap();
    assert_eq!(hosts.instance_information_list().len(), 1);
}
