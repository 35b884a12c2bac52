//! Retry and Catch.

use super::*;

#[test]
fn a_failure_that_nobody_catches_fails_the_execution() {
    let mut run = Run::new(&machine(task(json!({}))), json!({}));
    run.fails("Busy");
    assert_eq!(run.error(), ("Busy", "why"));
    assert_eq!(run.shape()[4..], ["5<4 TaskFailed", "6<5 ExecutionFailed"]);
}

#[test]
fn a_catch_gets_the_error_beside_the_input() {
    let catch = json!({"Catch": [
        {"ErrorEquals": ["Other"], "Next": "Z"},
        {"ErrorEquals": ["Busy"], "ResultPath": "$.error", "Next": "Z"},
    ], "OutputPath": "$.nothing"});
    let mut run = Run::new(&machine(task(catch)), json!({"id": 1}));
    run.fails("Busy");
    assert_eq!(run.output(), &json!({"id": 1, "error": {"Error": "Busy", "Cause": "why"}}));
    assert_eq!(run.shape()[4..7], ["5<4 TaskFailed", "6<5 TaskStateExited", "7<6 SucceedStateEntered"]);
}

#[test]
fn the_entered_time_stays_and_the_retry_count_counts() {
    let retry = json!({"Retry": [
        {"ErrorEquals": ["Busy"], "IntervalSeconds": 10, "MaxAttempts": 1},
        {"ErrorEquals": ["Gone"], "IntervalSeconds": 1},
    ]});
    let mut run = Run::new(&machine(callback(retry)), json!({}));
    for error in ["Busy", "Gone"] {
        run.fails(error);
        run.advance(10.0);
    }
    let seen: Vec<_> = run.calls.iter().map(|call| call.parameters["retry"].clone()).collect();
    assert_eq!(seen, [json!(0), json!(1), json!(2)]);
    assert!(run.calls.iter().all(|call| call.parameters["entered"] == "2027-01-15T08:00:00.000Z"));
}

#[test]
fn retries_wait_longer_and_longer_and_come_to_an_end() {
    let retry = json!({"Retry": [{"ErrorEquals": ["Busy"], "IntervalSeconds": 10, "MaxAttempts": 3, "BackoffRate": 2, "MaxDelaySeconds": 30}]});
    let mut run = Run::new(&machine(task(retry)), json!({}));
    for delay in [10.0, 20.0, 30.0] {
        let before = run.calls.len();
        run.fails("Busy");
        run.advance(delay - 0.5);
        assert_eq!(run.calls.len(), before, "too early for {delay}");
        run.advance(0.5);
        assert_eq!(run.calls.len(), before + 1, "at {delay}");
    }
    run.fails("Busy");
    assert_eq!(run.error().0, "Busy");
    assert_eq!(run.shape()[4..7], ["5<4 TaskFailed", "6<5 TaskScheduled", "7<6 TaskStarted"]);
}

#[test]
fn jitter_draws_a_part_of_the_delay() {
    let retry =
        json!({"Retry": [{"ErrorEquals": ["Busy"], "IntervalSeconds": 10, "JitterStrategy": "FULL"}]});
    let mut run = Run::new(&machine(task(retry)), json!({}));
    run.fails("Busy");
    run.advance(4.9);
    assert_eq!(run.calls.len(), 1);
    run.advance(0.1);
    assert_eq!(run.calls.len(), 2);
}

#[test]
fn a_new_visit_has_its_retries_anew() {
    let definition = json!({"StartAt": "A", "States": {
        "A": task(json!({
            "Retry": [{"ErrorEquals": ["Busy"], "MaxAttempts": 1}],
            "Catch": [{"ErrorEquals": ["Busy"], "Next": "Back"}],
        })),
        "Back": {"Type": "Pass", "Next": "A"},
        "Z": {"Type": "Succeed"},
    }});
    let mut run = Run::new(&definition, json!({}));
    for calls in 1..=4 {
        assert_eq!(run.calls.len(), calls);
        run.fails("Busy");
        run.advance(1.0);
    }
    assert_eq!(run.calls.len(), 5);
}

#[test]
fn a_path_that_leads_nowhere_is_caught_by_nothing() {
    let state = task(json!({
        "Parameters": {"x.$": "$.y"},
        "Retry": [{"ErrorEquals": ["States.ALL"]}],
        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Z"}],
    }));
    let run = Run::new(&machine(state), json!({"a": 1}));
    assert_eq!(
        run.error(),
        (
            "States.Runtime",
            "An error occurred while executing the state 'A' (entered at the event id #2). The JSONPath '$.y' \
             specified for the field 'x.$' could not be found in the input '{\"a\":1}'"
        )
    );
    assert_eq!(run.shape()[1..], ["2<0 TaskStateEntered", "3<2 ExecutionFailed"]);
}

#[test]
fn too_much_data_is_caught_by_its_own_name_only() {
    let large = json!("x".repeat(DATA_LIMIT));
    for (name, caught) in
        [("States.ALL", false), ("States.TaskFailed", false), ("States.DataLimitExceeded", true)]
    {
        let catch = json!({"Catch": [{"ErrorEquals": [name], "Next": "Z"}]});
        let mut run = Run::new(&machine(task(catch)), json!({}));
        run.returns(large.clone());
        let error = if caught { run.output()["Error"].as_str().unwrap() } else { run.error().0 };
        assert_eq!(error, "States.DataLimitExceeded", "{name}");
    }
    let mut run = Run::new(&machine(task(json!({"ResultPath": "$.r"}))), json!({"a": 1}));
    run.returns(json!("x".repeat(DATA_LIMIT - 3)));
    assert_eq!(run.error().0, "States.DataLimitExceeded", "each part fits, both together do not");
}
