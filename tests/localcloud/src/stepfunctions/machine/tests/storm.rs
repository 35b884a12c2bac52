//! Events in any order, early, late and twice: whatever comes, a machine keeps its promises.

use super::*;
use crate::stepfunctions::Draws;

/// Branches that wait for tokens, items that call, waits, retries and catches; everything ends by itself in the end.
fn definition() -> Value {
    let end = |mut state: Value| {
        state.as_object_mut().unwrap().remove("Next");
        state["End"] = json!(true);
        state
    };
    let retry = json!([
        {"ErrorEquals": ["Busy", "States.Timeout"], "IntervalSeconds": 5, "MaxAttempts": 2, "JitterStrategy": "FULL"},
    ]);
    let waiting = callback(json!({"HeartbeatSeconds": 10, "TimeoutSeconds": 100, "Retry": retry}));
    let calling = task(json!({"TimeoutSeconds": 50, "Retry": retry, "Parameters": {"n.$": "$"}}));
    let each = json!({"Type": "Map", "ItemsPath": "$.list", "MaxConcurrency": 2, "End": true,
        "ItemProcessor": {"StartAt": "Call", "States": {"Call": end(calling)}}});
    let both = json!({"Type": "Parallel", "Next": "Z", "ResultPath": "$.both",
    "Retry": [{"ErrorEquals": ["Lost"], "MaxAttempts": 1}],
    "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Clean"}],
    "Branches": [
        {"StartAt": "Token", "States": {"Token": end(waiting)}},
        {"StartAt": "Pause", "States": {"Pause": {"Type": "Wait", "Seconds": 7, "Next": "Each"}, "Each": each}},
    ]});
    json!({"StartAt": "Both", "States": {
        "Both": both,
        "Clean": end(task(json!({"TimeoutSeconds": 20}))),
        "Z": {"Type": "Succeed"},
    }})
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a small number")]
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn pick(draws: &mut Draws, below: usize) -> usize {
    (draws.fraction() * below as f64) as usize
}

/// `Run::step` itself checks that timers and effects are in order.
fn storm(seed: u64) -> Run {
    let mut draws = Draws::seeded(seed);
    let mut draw = |below: usize| pick(&mut draws, below);
    let mut run = Run::new(&definition(), json!({"list": [1, 2, 3]}));
    for _ in 0..200 {
        let attempt = run.calls[draw(run.calls.len())].attempt;
        // One more than there are: a token that never was.
        let token = TaskToken::new(format!("token-{}", 1 + draw(run.numbers.tokens as usize + 1)));
        let error = ["Busy", "Lost", "Other"][draw(3)].to_owned();
        let awaited = run.execution.awaits(&token);
        match draw(12) {
            0..=1 => run.step(Event::TaskReturned { attempt, result: json!(1) }),
            2 => run.step(Event::TaskFailed { attempt, error, cause: String::new() }),
            3 => {
                run.step(Event::TokenSucceeded { token: token.clone(), output: json!(2) });
                assert!(!run.execution.awaits(&token), "an answered token is closed");
            }
            4 => {
                run.step(Event::TokenFailed { token: token.clone(), error: Some(error), cause: None });
                assert!(!run.execution.awaits(&token), "an answered token is closed");
            }
            5..=6 => {
                run.step(Event::Heartbeat { token: token.clone() });
                assert_eq!(run.execution.awaits(&token), awaited, "a heartbeat opens and closes nothing");
            }
            7 if draw(20) == 0 => run.step(Event::Stopped { error: None, cause: None }),
            _ => run.advance([0.5, 2.0, 5.0, 9.0][draw(4)]),
        }
    }
    run.advance(10_000.0);
    run
}

#[test]
fn every_execution_comes_to_one_end_with_one_history() {
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..1_000 {
        let run = storm(seed);
        let outcome = run.outcome.as_ref().unwrap_or_else(|| panic!("seed {seed}: {:#?}", run.history));
        for (index, event) in run.history.iter().enumerate() {
            assert_eq!(event.id, index as u64 + 1, "seed {seed}");
            assert!(event.previous < event.id, "seed {seed}: {event:?}");
        }
        let ending = |event: &&HistoryEvent| {
            let name = event.type_name();
            name.starts_with("Execution") && name != "ExecutionStarted"
        };
        assert_eq!(run.history.iter().filter(ending).count(), 1, "seed {seed}");
        let end = match outcome {
            Outcome::Succeeded { .. } => "succeeded",
            Outcome::Failed(_) => "failed",
            Outcome::TimedOut(_) => "timed out",
            Outcome::Aborted(_) => "aborted",
        };
        *ends.entry(end.to_owned()).or_default() += 1;
    }
    for end in ["succeeded", "failed", "aborted"] {
        assert!(
            ends.get(end).is_some_and(|times| *times > 20),
            "the storm does not reach everything: {ends:?}"
        );
    }
}
