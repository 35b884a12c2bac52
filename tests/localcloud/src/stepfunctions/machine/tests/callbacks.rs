//! Tokens, heartbeats and time-outs.

use super::*;

#[test]
fn a_callback_waits_for_its_token() {
    let mut run = Run::new(&machine(callback(json!({}))), json!({}));
    assert_eq!(run.last_call().parameters["token"], "token-1");
    run.returns(json!({"StatusCode": 200}));
    assert_eq!(run.outcome, None);
    assert!(run.awaits("token-1"));
    run.succeed("token-1", json!({"done": true}));
    assert_eq!(run.output(), &json!({"done": true}));
    assert!(!run.awaits("token-1"));
    assert_eq!(
        run.shape()[2..7],
        [
            "3<2 TaskScheduled",
            "4<3 TaskStarted",
            "5<4 TaskSubmitted",
            "6<5 TaskSucceeded",
            "7<6 TaskStateExited",
        ]
    );
}

#[test]
fn a_failing_call_fails_a_callback_at_once() {
    let retry = json!({"Retry": [{"ErrorEquals": ["HostUnreachable"]}], "HeartbeatSeconds": 60});
    let mut run = Run::new(&machine(callback(retry)), json!({}));
    run.fails("HostUnreachable");
    assert!(!run.awaits("token-1"), "the attempt is over");
    run.advance(1.0);
    assert_eq!(run.calls.len(), 2);
    run.fails("Other");
    assert_eq!(run.error(), ("Other", "why"));
}

#[test]
fn every_attempt_has_a_token_of_its_own() {
    let retry = json!({"Retry": [{"ErrorEquals": ["Busy"], "IntervalSeconds": 10}]});
    let mut run = Run::new(&machine(callback(retry)), json!({}));
    run.returns(json!({}));
    run.step(Event::TokenFailed {
        token: TaskToken::new("token-1"),
        error: Some("Busy".into()),
        cause: None,
    });
    assert!(!run.awaits("token-1"));
    run.advance(10.0);
    assert_eq!(run.last_call().parameters["token"], "token-2");
    run.succeed("token-1", json!("stale"));
    assert_eq!(run.outcome, None, "the old token is dead");
    run.returns(json!({}));
    run.succeed("token-2", json!("fresh"));
    assert_eq!(run.output(), &json!("fresh"));
}

#[test]
fn the_heartbeats_clock_starts_when_the_call_has_returned() {
    let mut run =
        Run::new(&machine(callback(json!({"HeartbeatSeconds": 10, "TimeoutSeconds": 100}))), json!({}));
    run.advance(50.0);
    assert_eq!(run.outcome, None, "the call is still under way");
    run.beat("token-1");
    run.returns(json!({}));
    run.advance(9.0);
    run.beat("token-1");
    run.advance(9.0);
    assert_eq!(run.outcome, None);
    run.advance(1.0);
    assert_eq!(run.error(), ("States.Timeout", ""));
    assert_eq!(run.now, Timestamp::from_second(START + 69).unwrap());
    assert_eq!(run.shape()[4..], ["5<4 TaskSubmitted", "6<5 TaskTimedOut", "7<6 ExecutionFailed"]);
    let details = run.history[5].to_json();
    assert_eq!(
        details["taskTimedOutEventDetails"],
        json!({"error": "States.Timeout", "resource": "invoke.waitForTaskToken", "resourceType": "lambda"})
    );
}

#[test]
fn heartbeats_do_not_move_the_time_out() {
    let mut run =
        Run::new(&machine(callback(json!({"HeartbeatSeconds": 10, "TimeoutSeconds": 25}))), json!({}));
    run.returns(json!({}));
    for _ in 0..4 {
        run.advance(6.0);
        run.beat("token-1");
    }
    assert_eq!(run.outcome, None);
    run.advance(1.0);
    assert_eq!(run.error().0, "States.Timeout");
}

#[test]
fn a_missing_heartbeat_can_have_either_name() {
    for (mode, caught) in [
        (HeartbeatError::Timeout, ["States.Timeout", "States.HeartbeatTimeout"]),
        (HeartbeatError::HeartbeatTimeout, ["States.HeartbeatTimeout", "States.Timeout"]),
    ] {
        for (name, expected) in [(caught[0], true), (caught[1], false)] {
            let state = callback(json!({
                "HeartbeatSeconds": 5, "Catch": [{"ErrorEquals": [name], "ResultPath": "$.e", "Next": "Z"}]
            }));
            let mut run = Run::with(&machine(state), json!({}), mode);
            run.returns(json!({}));
            run.advance(5.0);
            if expected {
                assert_eq!(run.output(), &json!({"e": {"Error": name, "Cause": ""}}));
            } else {
                assert_eq!(run.error().0, caught[0]);
            }
        }
    }
}

#[test]
fn a_call_that_never_returns_times_out_and_its_return_is_ignored() {
    let retry = json!({"TimeoutSeconds": 5, "Retry": [{"ErrorEquals": ["States.Timeout"]}]});
    let mut run = Run::new(&machine(task(retry)), json!({}));
    run.advance(5.0);
    assert_eq!(run.shape()[4..], ["5<4 TaskTimedOut"]);
    let late = run.last_call().attempt;
    run.advance(1.0);
    run.step(Event::TaskReturned { attempt: late, result: json!("late") });
    assert_eq!(run.outcome, None);
    run.returns(json!("in time"));
    assert_eq!(run.output(), &json!("in time"));
}

#[test]
fn an_answer_before_the_call_has_returned_is_kept() {
    for call_ends in [true, false] {
        let mut run = Run::new(&machine(callback(json!({"TimeoutSeconds": 60}))), json!({}));
        run.succeed("token-1", json!("early"));
        assert!(!run.awaits("token-1"), "it has been answered");
        assert_eq!(run.outcome, None);
        run.succeed("token-1", json!("second"));
        if call_ends {
            run.returns(json!({}));
        } else {
            run.fails("Late");
        }
        assert_eq!(run.output(), &json!("early"));
    }
    let mut run = Run::new(&machine(callback(json!({"TimeoutSeconds": 60}))), json!({}));
    run.succeed("token-1", json!("early"));
    run.advance(60.0);
    assert_eq!(run.output(), &json!("early"), "the call never came back");
}

#[test]
fn a_failure_without_error_and_cause_is_null_to_a_catch() {
    let catch = json!({"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Z"}]});
    let mut run = Run::new(&machine(callback(catch)), json!({}));
    run.returns(json!({}));
    run.step(Event::TokenFailed { token: TaskToken::new("token-1"), error: None, cause: None });
    assert_eq!(run.output(), &json!({"Error": null, "Cause": null}));
    let failed = run.history[5].to_json();
    assert_eq!(
        failed["taskFailedEventDetails"],
        json!({"resource": "invoke.waitForTaskToken", "resourceType": "lambda"})
    );
}

#[test]
fn time_outs_can_be_found_in_the_input() {
    let state = callback(json!({"HeartbeatSecondsPath": "$.h", "TimeoutSecondsPath": "$.t"}));
    let mut run = Run::new(&machine(state.clone()), json!({"h": 5, "t": 600}));
    let scheduled = run.history[2].to_json();
    assert_eq!(scheduled["taskScheduledEventDetails"]["heartbeatInSeconds"], 5);
    assert_eq!(scheduled["taskScheduledEventDetails"]["timeoutInSeconds"], 600);
    run.returns(json!({}));
    run.advance(5.0);
    assert_eq!(run.error().0, "States.Timeout");
    for input in
        [json!({"h": 5}), json!({"h": 0, "t": 9}), json!({"h": "5", "t": 9}), json!({"h": 9, "t": 9})]
    {
        assert_eq!(Run::new(&machine(state.clone()), input).error().0, "States.Runtime");
    }
}

#[test]
fn nothing_prints_a_token() {
    let run = Run::new(&machine(callback(json!({}))), json!({}));
    let printed =
        format!("{:?} {:?} {:?} {:?}", run.execution, run.history, run.calls, TaskToken::new("token-1"));
    assert!(!printed.contains("token-1"), "{printed}");
    let scheduled = run.history[2].to_json();
    let parameters = scheduled["taskScheduledEventDetails"]["parameters"].as_str().unwrap();
    assert!(parameters.contains("token-1"), "AWS shows it in the history");
}
