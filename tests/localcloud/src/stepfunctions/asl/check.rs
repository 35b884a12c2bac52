//! What must be true between the states of a definition.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{DefinitionError, Place};
use super::state::{Definition, Kind, Seconds, Sequence, State, Task, Transition};

/// The longest definition that AWS takes, in bytes, is looked at by the service; here only its meaning is.
pub(super) fn check(definition: &Definition) -> Result<(), DefinitionError> {
    let mut homes = BTreeMap::new();
    check_sequence(&definition.top, &Place::top(), &mut homes)
}

fn check_sequence<'d>(
    sequence: &'d Sequence,
    home: &Place,
    homes: &mut BTreeMap<&'d str, Place>,
) -> Result<(), DefinitionError> {
    for (name, state) in &sequence.states {
        if let Some(other) = homes.insert(name, home.clone()) {
            return Err(
                Place::state(name).rule(format!("its name is in use twice: in {other} and in {home}"))
            );
        }
        check_state(state)?;
        for (index, child) in state.children().enumerate() {
            check_sequence(child, &Place::state(name).inside(format_args!("branch {index}")), homes)?;
        }
    }
    check_targets(sequence, home)?;
    check_reachable(sequence)?;
    let ends = |state: &State| {
        matches!(state.kind, Kind::Fail { .. } | Kind::Succeed)
            || state.then().is_some_and(|then| *then == Transition::End)
    };
    if sequence.states.values().any(|state| ends(state)) {
        Ok(())
    } else {
        Err(home.rule("none of its states is an end: a `Succeed`, a `Fail`, or one with `End`"))
    }
}

fn check_targets(sequence: &Sequence, home: &Place) -> Result<(), DefinitionError> {
    if !sequence.states.contains_key(&sequence.start_at) {
        let problem = format!("is `{}`, and there is no such state", sequence.start_at);
        return Err(home.field("StartAt", problem));
    }
    for (name, state) in &sequence.states {
        for target in targets(state) {
            if !sequence.states.contains_key(target) {
                return Err(Place::state(name).rule(format!("it goes to `{target}`, which is not beside it")));
            }
        }
    }
    Ok(())
}

fn check_reachable(sequence: &Sequence) -> Result<(), DefinitionError> {
    let mut reached = BTreeSet::new();
    let mut open = vec![sequence.start_at.as_str()];
    while let Some(name) = open.pop() {
        if let Some(state) = sequence.states.get(name)
            && reached.insert(name)
        {
            open.extend(targets(state));
        }
    }
    match sequence.states.keys().find(|name| !reached.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Place::state(name).rule("no way leads to it")),
    }
}

fn targets(state: &State) -> Vec<&str> {
    let mut targets: Vec<&str> = state.catch.iter().map(|catcher| catcher.next.as_str()).collect();
    if let Some(Transition::Next(next)) = state.then() {
        targets.push(next);
    }
    if let Kind::Choice(branching) = &state.kind {
        targets.extend(branching.targets());
    }
    targets
}

fn check_state(state: &State) -> Result<(), DefinitionError> {
    let Kind::Task(Task { resource, timeout, heartbeat, .. }) = &state.kind else { return Ok(()) };
    let place = Place::state(&state.name);
    if let (Some(Seconds::Given(heartbeat)), Some(Seconds::Given(timeout))) = (heartbeat, timeout)
        && heartbeat >= timeout
    {
        let problem = format!("is {heartbeat}, and must be below `TimeoutSeconds`, {timeout}");
        return Err(place.field("HeartbeatSeconds", problem));
    }
    let passes_token =
        state.parameters.iter().flat_map(|parameters| parameters.paths()).any(|path| path.is_task_token());
    match (resource.waits_for_token(), passes_token) {
        (true, false) => {
            Err(place.rule("it waits for a token, and its `Parameters` do not pass `$$.Task.Token` on"))
        }
        (false, true) => Err(place.rule("it passes `$$.Task.Token` on, and does not wait for a token")),
        (false, false) if heartbeat.is_some() => {
            Err(place.rule("it has a heartbeat, and does not wait for a token: nobody could send one"))
        }
        (true, true) | (false, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Definition;
    use serde_json::{Value, json};

    fn refusal(definition: &Value) -> String {
        let error = Definition::parse(&definition.to_string()).unwrap_err();
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    /// A machine of the state `A` and of the end `Z`.
    fn machine(a: Value) -> Value {
        json!({"StartAt": "A", "States": {"A": a, "Z": {"Type": "Succeed"}}})
    }

    fn task(extra: Value) -> Value {
        let mut task = json!({"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "Z"});
        task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        machine(task)
    }

    fn waiting(extra: Value) -> Value {
        let mut given = json!({
            "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
            "Parameters": {"Payload": {"token.$": "$$.Task.Token"}},
        });
        given.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        task(given)
    }

    #[test]
    fn a_definition_with_every_field_is_accepted() {
        let definition = json!({
            "Comment": "everything", "Version": "1.0", "QueryLanguage": "JSONPath", "TimeoutSeconds": 3600, "StartAt": "Task",
            "States": {
                "Task": {
                    "Type": "Task", "Comment": "c", "Resource": "arn:aws-cn:states:::aws-sdk:ssm:sendCommand.waitForTaskToken",
                    "InputPath": "$.a", "OutputPath": null, "Parameters": {"T.$": "States.Format('{}', $$.Task.Token)"},
                    "ResultSelector": {"x.$": "$.y"}, "ResultPath": "$.r", "TimeoutSeconds": 10, "HeartbeatSeconds": 9,
                    "Retry": [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "MaxAttempts": 2, "BackoffRate": 1.5,
                        "MaxDelaySeconds": 60, "JitterStrategy": "FULL", "Comment": "c"}],
                    "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": null, "Next": "Wait", "Comment": "c"}],
                    "Next": "Wait"
                },
                "Wait": {"Type": "Wait", "SecondsPath": "$.s", "Next": "Choice"},
                "Choice": {"Type": "Choice", "Choices": [{"Variable": "$.a", "IsPresent": true, "Next": "Both"}], "Default": "Each"},
                "Both": {
                    "Type": "Parallel", "Parameters": {}, "Next": "Each",
                    "Branches": [{"Comment": "c", "StartAt": "P1", "States": {"P1": {"Type": "Pass", "Result": 1, "Parameters": {}, "End": true}}}]
                },
                "Each": {
                    "Type": "Map", "ItemsPath": "$.list", "ItemSelector": {"i.$": "$$.Map.Item.Value"}, "MaxConcurrency": 2, "Next": "Fail",
                    "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "P2", "States": {"P2": {"Type": "Succeed"}}}
                },
                "Fail": {"Type": "Fail", "ErrorPath": "$.Error", "CausePath": "States.JsonToString($.Cause)"},
            }
        });
        let parsed = Definition::parse(&definition.to_string()).unwrap();
        assert_eq!(parsed.state_names(), ["Both", "P1", "Choice", "Each", "P2", "Fail", "Task", "Wait"]);
    }

    #[test]
    fn what_would_not_be_done_as_written_is_refused_by_name() {
        for (definition, why) in [
            (json!([]), "must be an object"),
            (json!({"States": {}}), "state machine: field `StartAt` is missing"),
            (json!({"StartAt": "A", "States": {}}), "`States` is empty"),
            (json!({"StartAt": "A"}), "state machine: field `States` is missing"),
            (json!({"StartAt": "B", "States": {"A": {"Type": "Succeed"}}}), "`StartAt` is `B`"),
            (machine(json!({"Type": "Pass", "Next": "Z", "Foo": 1})), "state `A`: unknown field `Foo`"),
            (machine(json!({"Type": "Pass"})), "state `A`: it has neither `Next` nor `End`"),
            (machine(json!({"Type": "Pass", "Next": "Z", "End": true})), "state `A`: it has both"),
            (machine(json!({"Type": "Pass", "Next": "Y"})), "state `A`: it goes to `Y`"),
            (machine(json!({"Type": "Pass", "End": true})), "state `Z`: no way leads to it"),
            (machine(json!({"Type": "pass", "End": true})), "state `A`: field `Type` is `pass`"),
            (machine(json!({"Next": "Z"})), "state `A`: field `Type` is missing"),
            (machine(json!({"Type": "Succeed", "Next": "Z"})), "state `A`: unknown field `Next`"),
            (machine(json!({"Type": "Pass", "Next": "Z", "Assign": {}})), "unknown field `Assign`"),
            (machine(json!({"Type": "Pass", "Next": "Z", "QueryLanguage": "JSONata"})), "must be `JSONPath`"),
            (machine(json!({"Type": "Pass", "Next": "Z", "Retry": []})), "unknown field `Retry`"),
            (
                machine(json!({"Type": "Pass", "Next": "Z", "InputPath": "a"})),
                "field `InputPath` has the path `a`",
            ),
            (
                machine(json!({"Type": "Pass", "Next": "Z", "Parameters": {"a.$": "$..a"}})),
                "`Parameters` has `a.$`",
            ),
            (machine(json!({"Type": "Wait", "Next": "Z"})), "state `A`: it waits by one of"),
            (
                machine(json!({"Type": "Wait", "Seconds": 1, "SecondsPath": "$.s", "Next": "Z"})),
                "it waits by one of",
            ),
            (machine(json!({"Type": "Wait", "Timestamp": "soon", "Next": "Z"})), "no RFC 3339 timestamp"),
            (
                machine(json!({"Type": "Fail", "Error": "E", "ErrorPath": "$.e"})),
                "both `Error` and `ErrorPath`",
            ),
            (machine(json!({"Type": "Parallel", "Branches": [], "Next": "Z"})), "`Branches` is empty"),
            (
                machine(
                    json!({"Type": "Parallel", "Next": "Z", "Branches": [{"StartAt": "B", "States": {"B": {"Type": "Pass", "Next": "Z"}}}]}),
                ),
                "state `B`: it goes to `Z`, which is not beside it",
            ),
            (
                machine(
                    json!({"Type": "Parallel", "Next": "Z", "Branches": [{"StartAt": "Z", "States": {"Z": {"Type": "Succeed"}}}]}),
                ),
                "state `Z`: its name is in use twice",
            ),
            (
                machine(
                    json!({"Type": "Map", "Next": "Z", "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED"}, "StartAt": "P", "States": {"P": {"Type": "Succeed"}}}}),
                ),
                "state `A`, item processor: field `Mode` must be `INLINE`",
            ),
            (
                json!({"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}}),
                "none of its states is an end",
            ),
            (task(json!({"HeartbeatSecond": 1})), "state `A`: unknown field `HeartbeatSecond`"),
            (task(json!({"HeartbeatSeconds": 1})), "nobody could send one"),
            (task(json!({"TimeoutSeconds": 0})), "`TimeoutSeconds` must be a whole number from 1"),
            (task(json!({"TimeoutSeconds": 1, "TimeoutSecondsPath": "$.t"})), "both `TimeoutSeconds` and"),
            (task(json!({"Resource": "arn:aws:lambda:us-east-1:1:function:f"})), "not a service integration"),
            (task(json!({"Resource": "arn:aws:states:::ecs:runTask.sync"})), "pattern other than"),
            (task(json!({"Resource": "arn:aws:states:::lambda"})), "names no action"),
            (task(json!({"Parameters": {"t.$": "$$.Task.Token"}})), "does not wait for a token"),
            (task(json!({"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Q"}]})), "it goes to `Q`"),
            (waiting(json!({"Parameters": {}})), "do not pass `$$.Task.Token` on"),
            (
                waiting(json!({"HeartbeatSeconds": 10, "TimeoutSeconds": 10})),
                "state `A`: field `HeartbeatSeconds` is 10, and must be below `TimeoutSeconds`, 10",
            ),
        ] {
            let refusal = refusal(&definition);
            assert!(refusal.contains(why), "{definition}\n{refusal}\n{why}");
        }
    }

    #[test]
    fn a_state_that_is_there_twice_is_refused() {
        let text = r#"{"StartAt": "A", "States": {"A": {"Type": "Succeed"}, "A": {"Type": "Succeed"}}}"#;
        let error = Definition::parse(text).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("twice"));
    }
}
