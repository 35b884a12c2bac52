//! What the types of state do.

use super::*;

#[test]
fn a_task_ends_with_its_calls_answer() {
    let mut run = Run::new(
        &machine(task(json!({
            "InputPath": "$.in", "Parameters": {"x.$": "$.x", "id.$": "$$.Execution.Id"},
            "ResultSelector": {"payload.$": "$.Payload"}, "ResultPath": "$.got", "OutputPath": "$.got"
        }))),
        json!({"in": {"x": 7}}),
    );
    assert_eq!(run.last_call().parameters, json!({"x": 7, "id": "arn:e"}));
    assert_eq!(run.last_call().token, None);
    run.returns(json!({"Payload": [1], "StatusCode": 200}));
    assert_eq!(run.output(), &json!({"payload": [1]}));
    assert_eq!(
        run.shape(),
        [
            "1<0 ExecutionStarted",
            "2<0 TaskStateEntered",
            "3<2 TaskScheduled",
            "4<3 TaskStarted",
            "5<4 TaskSucceeded",
            "6<5 TaskStateExited",
            "7<6 SucceedStateEntered",
            "8<7 SucceedStateExited",
            "9<8 ExecutionSucceeded",
        ]
    );
}

#[test]
fn a_result_path_keeps_the_input_as_it_came() {
    for (path, expected) in [
        (json!("$"), json!("r")),
        (json!("$.b.c"), json!({"a": {"x": 1}, "b": {"c": "r"}})),
        (Value::Null, json!({"a": {"x": 1}})),
    ] {
        let mut run =
            Run::new(&machine(task(json!({"InputPath": "$.a", "ResultPath": path}))), json!({"a": {"x": 1}}));
        assert_eq!(run.last_call().parameters, json!({"x": 1}));
        run.returns(json!("r"));
        assert_eq!(run.output(), &expected);
    }
}

#[test]
fn waits_end_at_their_time() {
    for (wait, seconds) in [
        (json!({"Seconds": 90}), 90.0),
        (json!({"SecondsPath": "$.s"}), 30.0),
        (json!({"Timestamp": "2027-01-15T08:01:00Z"}), 60.0),
        (json!({"TimestampPath": "$.t"}), 10.0),
        (json!({"Timestamp": "2020-01-01T00:00:00Z"}), 0.0),
    ] {
        let state = with(json!({"Type": "Wait", "Next": "Z"}), wait);
        let mut run = Run::new(&machine(state), json!({"s": 30, "t": "2027-01-15T09:00:10+01:00"}));
        if seconds > 0.0 {
            run.advance(seconds - 0.1);
        }
        assert_eq!(run.outcome, None, "{seconds}");
        run.advance(0.1);
        assert_eq!(run.output()["s"], 30);
    }
}

#[test]
fn a_wait_may_be_the_end() {
    let wait = json!({"Type": "Wait", "Seconds": 5, "End": true, "OutputPath": "$.kept"});
    let mut run = Run::new(&json!({"StartAt": "W", "States": {"W": wait}}), json!({"kept": 1}));
    run.advance(5.0);
    assert_eq!(run.output(), &json!(1));
}

#[test]
fn a_choice_goes_where_its_rules_say() {
    let choice =
        json!({"Type": "Choice", "Choices": [{"Variable": "$.go", "StringEquals": "on", "Next": "Z"}]});
    assert_eq!(Run::new(&machine(choice.clone()), json!({"go": "on"})).output(), &json!({"go": "on"}));
    assert_eq!(Run::new(&machine(choice.clone()), json!({"go": "off"})).error().0, "States.NoChoiceMatched");
    let run = Run::new(&machine(choice), json!({}));
    assert_eq!(run.error().0, "States.Runtime");
    assert!(run.error().1.contains("'$.go'"), "{}", run.error().1);
}

#[test]
fn a_fail_state_says_what_it_was_told() {
    let fail = |fail: Value| {
        let definition = json!({"StartAt": "F", "States": {"F": with(json!({"Type": "Fail"}), fail)}});
        Run::new(&definition, json!({"e": {"Error": "Busy", "Cause": "why"}}))
    };
    assert_eq!(fail(json!({"Error": "E", "Cause": "C"})).error(), ("E", "C"));
    assert_eq!(fail(json!({})).error(), ("", ""));
    let dynamic = json!({"ErrorPath": "$.e.Error", "CausePath": "States.Format('it was {}', $.e.Cause)"});
    let run = fail(dynamic);
    assert_eq!(run.error(), ("Busy", "it was why"));
    assert_eq!(run.shape(), ["1<0 ExecutionStarted", "2<0 FailStateEntered", "3<2 ExecutionFailed"]);
    assert_eq!(fail(json!({"ErrorPath": "$.x"})).error().0, "States.Runtime");
    assert_eq!(fail(json!({"ErrorPath": "$.e"})).error().0, "States.Runtime");
}

#[test]
fn stopping_ends_everything_at_once() {
    let mut run =
        Run::new(&machine(callback(json!({"HeartbeatSeconds": 10, "TimeoutSeconds": 20}))), json!({}));
    run.returns(json!({}));
    run.step(Event::Stopped { error: Some("E".into()), cause: None });
    assert!(matches!(&run.outcome, Some(Outcome::Aborted(failure)) if failure.error.as_deref() == Some("E")));
    assert_eq!(run.shape()[5..], ["6<0 ExecutionAborted"]);
    assert!(!run.awaits("token-1"));
    run.succeed("token-1", json!(1));
    assert_eq!(run.history.len(), 6);
}

#[test]
fn the_machines_own_time_out_is_not_caught() {
    let mut definition = machine(task(json!({"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Z"}]})));
    definition["TimeoutSeconds"] = json!(60);
    let mut run = Run::new(&definition, json!({}));
    run.advance(60.0);
    assert!(matches!(run.outcome, Some(Outcome::TimedOut(_))));
    assert_eq!(run.history.last().unwrap().type_name(), "ExecutionTimedOut");
}

#[test]
fn a_loop_ends_at_the_historys_limit() {
    let definition = json!({"StartAt": "A", "States": {
        "A": {"Type": "Choice", "Choices": [{"Variable": "$.stop", "IsPresent": true, "Next": "Z"}], "Default": "B"},
        "B": {"Type": "Pass", "Next": "A"}, "Z": {"Type": "Succeed"},
    }});
    let run = Run::new(&definition, json!({}));
    assert!(run.error().1.contains("maximum number of history events"), "{:?}", run.error());
    assert!(run.history.len() <= usize::try_from(HISTORY_LIMIT).unwrap());
}
