//! Scenarios on a driven clock. Histories are compared with what was recorded on AWS for machines of the same shape.

mod callbacks;
mod failures;
mod forks;
mod states;
mod storm;

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
