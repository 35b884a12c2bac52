//! Scenarios on a driven clock. Histories are compared with what was recorded on AWS for machines of the same shape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

const START: i64 = 1_800_000_000;

/// An execution with its surroundings: a clock that moves when told, timers, and everything that came out.
struct Run {
    execution: Execution,
    now: Timestamp,
    timers: BTreeMap<TimerId, Timestamp>,
    calls: Vec<Invocation>,
    history: Vec<HistoryEvent>,
    outcome: Option<Outcome>,
    numbers: Numbers,
}

#[derive(Default)]
struct Numbers {
    tokens: u32,
    fraction: f64,
}

impl Supply for Numbers {
    fn token(&mut self) -> TaskToken {
        self.tokens += 1;
        TaskToken::new(format!("token-{}", self.tokens))
    }

    fn fraction(&mut self) -> f64 {
        self.fraction
    }

    fn uuid(&mut self) -> String {
        "u-u-i-d".to_owned()
    }
}

impl Run {
    fn new(definition: &Value, input: Value) -> Self {
        Self::with(definition, input, HeartbeatError::Timeout)
    }

    fn with(definition: &Value, input: Value, heartbeat_error: HeartbeatError) -> Self {
        let definition = Definition::parse(&definition.to_string()).unwrap();
        let about = About {
            execution_arn: "arn:e".into(),
            execution_name: "e".into(),
            state_machine_arn: "arn:m".into(),
            state_machine_name: "m".into(),
            role_arn: "arn:r".into(),
            region: "us-east-1".into(),
        };
        let mut run = Self {
            execution: Execution::new(about, Arc::new(definition), input, heartbeat_error),
            now: Timestamp::from_second(START).unwrap(),
            timers: BTreeMap::new(),
            calls: Vec::new(),
            history: Vec::new(),
            outcome: None,
            numbers: Numbers { tokens: 0, fraction: 0.5 },
        };
        run.step(Event::Started);
        run
    }

    fn step(&mut self, event: Event) {
        for effect in self.execution.step(self.now, event, &mut self.numbers) {
            assert!(self.outcome.is_none(), "{effect:?} after the end");
            match effect {
                Effect::Invoke(call) => self.calls.push(call),
                Effect::StartTimer { timer, after } => {
                    assert!(self.timers.insert(timer, self.now + after).is_none());
                }
                Effect::CancelTimer { timer } => {
                    assert!(self.timers.remove(&timer).is_some(), "{timer:?} does not run");
                }
                Effect::Record(event) => self.history.push(event),
                Effect::Finish(outcome) => self.outcome = Some(outcome),
            }
        }
        if self.outcome.is_some() {
            assert!(self.timers.is_empty(), "timers that nobody waits for: {:?}", self.timers);
        }
    }

    /// Lets time go by, and fires what is due on the way.
    fn advance(&mut self, seconds: f64) {
        let until = self.now + Duration::from_secs_f64(seconds);
        while let Some((&timer, &due)) = self.timers.iter().min_by_key(|(_, due)| **due)
            && due <= until
        {
            self.now = due;
            self.timers.remove(&timer);
            self.step(Event::TimerFired { timer });
        }
        self.now = until;
    }

    fn last_call(&self) -> &Invocation {
        self.calls.last().unwrap()
    }

    fn returns(&mut self, result: Value) {
        let attempt = self.last_call().attempt;
        self.step(Event::TaskReturned { attempt, result });
    }

    fn fails(&mut self, error: &str) {
        let attempt = self.last_call().attempt;
        self.step(Event::TaskFailed { attempt, error: error.into(), cause: "why".into() });
    }

    fn succeed(&mut self, token: &str, output: Value) {
        self.step(Event::TokenSucceeded { token: TaskToken::new(token), output });
    }

    fn beat(&mut self, token: &str) {
        self.step(Event::Heartbeat { token: TaskToken::new(token) });
    }

    fn awaits(&self, token: &str) -> bool {
        self.execution.awaits(&TaskToken::new(token))
    }

    fn output(&self) -> &Value {
        match &self.outcome {
            Some(Outcome::Succeeded { output }) => output,
            other => panic!("{other:?}\n{:#?}", self.history),
        }
    }

    fn error(&self) -> (&str, &str) {
        match &self.outcome {
            Some(Outcome::Failed(failure)) => {
                (failure.error.as_deref().unwrap_or(""), failure.cause.as_deref().unwrap_or(""))
            }
            other => panic!("{other:?}\n{:#?}", self.history),
        }
    }

    /// `id<previous Type` of every event.
    fn shape(&self) -> Vec<String> {
        self.history
            .iter()
            .map(|event| format!("{}<{} {}", event.id, event.previous, event.type_name()))
            .collect()
    }
}

fn machine(a: Value) -> Value {
    json!({"StartAt": "A", "States": {"A": a, "Z": {"Type": "Succeed"}}})
}

fn task(extra: Value) -> Value {
    with(json!({"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "Z"}), extra)
}

fn callback(extra: Value) -> Value {
    with(
        json!({
            "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken", "Next": "Z",
            "Parameters": {"token.$": "$$.Task.Token", "retry.$": "$$.State.RetryCount", "entered.$": "$$.State.EnteredTime"},
        }),
        extra,
    )
}

fn with(mut state: Value, extra: Value) -> Value {
    state.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    state
}

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
