//! Parallel and Map.

use super::*;

fn branch(name: &str, state: Value) -> Value {
    json!({"StartAt": name, "States": {name: state}})
}

#[test]
fn a_parallel_gathers_what_its_branches_give() {
    let pass = |result: i32| json!({"Type": "Pass", "Result": result, "End": true});
    let state = json!({"Type": "Parallel", "Next": "Z", "ResultPath": "$.all", "Branches": [
        branch("B0", pass(0)), branch("B1", task(json!({"Next": null}))), branch("B2", pass(2)),
    ]});
    let mut state = state;
    let inner = &mut state["Branches"][1]["States"]["B1"];
    inner.as_object_mut().unwrap().remove("Next");
    inner["End"] = json!(true);
    let mut run = Run::new(&machine(state), json!({"in": 1}));
    assert_eq!(run.last_call().parameters, json!({"in": 1}));
    run.returns(json!(1));
    assert_eq!(run.output(), &json!({"in": 1, "all": [0, 1, 2]}));
    let shape = run.shape();
    assert_eq!(shape[1..3], ["2<0 ParallelStateEntered", "3<2 ParallelStateStarted"]);
    assert!(shape.contains(&"13<12 ParallelStateSucceeded".to_owned()), "{shape:#?}");
    assert!(shape.contains(&"14<12 ParallelStateExited".to_owned()), "{shape:#?}");
}

#[test]
fn a_failing_branch_cuts_the_others_short() {
    let state = json!({"Type": "Parallel", "Next": "Z",
    "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Z"}],
    "Branches": [
        branch("Slow", json!({"Type": "Wait", "Seconds": 100, "End": true})),
        branch("Bad", with(callback(json!({"HeartbeatSeconds": 10})), json!({"End": true}))),
    ]});
    let mut state = state;
    state["Branches"][1]["States"]["Bad"].as_object_mut().unwrap().remove("Next");
    let mut run = Run::new(&machine(state), json!({"id": 1}));
    run.returns(json!({}));
    run.step(Event::TokenFailed {
        token: TaskToken::new("token-1"),
        error: Some("Busy".into()),
        cause: None,
    });
    assert_eq!(run.output(), &json!({"id": 1, "error": {"Error": "Busy", "Cause": null}}));
    assert_eq!(
        run.shape()[5..],
        [
            "6<5 TaskScheduled",
            "7<6 TaskStarted",
            "8<7 TaskSubmitted",
            "9<8 TaskFailed",
            "10<9 WaitStateAborted",
            "11<9 TaskStateAborted",
            "12<9 ParallelStateFailed",
            "13<12 ParallelStateExited",
            "14<13 SucceedStateEntered",
            "15<14 SucceedStateExited",
            "16<15 ExecutionSucceeded",
        ]
    );
}

#[test]
fn a_parallel_is_retried_as_a_whole() {
    let state = json!({"Type": "Parallel", "Next": "Z",
        "Retry": [{"ErrorEquals": ["E"], "MaxAttempts": 2}],
        "Branches": [branch("F", json!({"Type": "Fail", "Error": "E", "Cause": "C"}))]});
    let mut run = Run::new(&machine(state), json!({}));
    run.advance(10.0);
    assert_eq!(run.error(), ("E", "C"));
    assert_eq!(
        run.shape(),
        [
            "1<0 ExecutionStarted",
            "2<0 ParallelStateEntered",
            "3<2 ParallelStateStarted",
            "4<3 FailStateEntered",
            "5<4 ParallelStateStarted",
            "6<5 FailStateEntered",
            "7<6 ParallelStateStarted",
            "8<7 FailStateEntered",
            "9<8 ParallelStateFailed",
            "10<9 ExecutionFailed",
        ]
    );
}

#[test]
fn a_map_works_on_every_item_a_few_at_a_time() {
    let state = json!({"Type": "Map", "Next": "Z", "ItemsPath": "$.list", "MaxConcurrency": 1,
        "ItemSelector": {"n.$": "$$.Map.Item.Value", "i.$": "$$.Map.Item.Index", "all.$": "$.list"},
        "ItemProcessor": branch("P", json!({"Type": "Pass", "Parameters": {"got.$": "$.n", "again.$": "$$.Map.Item.Index"}, "End": true}))});
    let run = Run::new(&machine(state), json!({"list": ["a", "b"]}));
    assert_eq!(run.output(), &json!([{"got": "a", "again": 0}, {"got": "b", "again": 1}]));
    assert_eq!(
        run.shape()[1..13],
        [
            "2<0 MapStateEntered",
            "3<2 MapStateStarted",
            "4<3 MapIterationStarted",
            "5<4 PassStateEntered",
            "6<5 PassStateExited",
            "7<6 MapIterationSucceeded",
            "8<6 MapIterationStarted",
            "9<8 PassStateEntered",
            "10<9 PassStateExited",
            "11<10 MapIterationSucceeded",
            "12<11 MapStateSucceeded",
            "13<11 MapStateExited",
        ]
    );
}

#[test]
fn a_map_without_items_gives_an_empty_list_and_one_without_a_list_fails() {
    let state = json!({"Type": "Map", "Next": "Z", "ItemProcessor": branch("P", json!({"Type": "Succeed"}))});
    assert_eq!(Run::new(&machine(state.clone()), json!([])).output(), &json!([]));
    assert_eq!(Run::new(&machine(state), json!({})).error().0, "States.Runtime");
}

#[test]
fn a_failing_item_fails_the_map() {
    let state = json!({"Type": "Map", "Next": "Z", "Catch": [{"ErrorEquals": ["E"], "Next": "Z"}],
        "ItemProcessor": branch("F", json!({"Type": "Fail", "Error": "E", "Cause": "C"}))});
    let run = Run::new(&machine(state), json!([1]));
    assert_eq!(run.output(), &json!({"Error": "E", "Cause": "C"}));
    assert_eq!(
        run.shape()[1..8],
        [
            "2<0 MapStateEntered",
            "3<2 MapStateStarted",
            "4<3 MapIterationStarted",
            "5<4 FailStateEntered",
            "6<5 MapIterationFailed",
            "7<5 MapStateFailed",
            "8<7 MapStateExited",
        ]
    );
}

#[test]
fn nested_branches_are_cut_short_with_their_parent() {
    let wait = |name| branch(name, json!({"Type": "Wait", "Seconds": 100, "End": true}));
    let inner = json!({"Type": "Parallel", "End": true, "Branches": [wait("W1"), wait("W2")]});
    let mut bad = task(json!({"End": true}));
    bad.as_object_mut().unwrap().remove("Next");
    let state =
        json!({"Type": "Parallel", "Next": "Z", "Branches": [branch("Inner", inner), branch("Bad", bad)]});
    let mut run = Run::new(&machine(state), json!({}));
    run.fails("Busy");
    assert_eq!(run.error().0, "Busy");
    let aborted: Vec<_> = run.shape().into_iter().filter(|event| event.contains("Aborted")).collect();
    assert_eq!(aborted.len(), 4, "{aborted:?}");
}
