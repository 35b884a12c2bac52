//! The files of the workflow agree with the code that they call, and with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use host_worker::task::Timing;
use localcloud::{
    stepfunctions::asl::Definition,
    workflow::{self, Machine},
};
use protocol::{FailureKind, TaskKind, task::parameter};
use serde_json::Value;

use crate::{read, root};

/// How long SSM may take to deliver a command, in seconds (`functions`).
const DELIVERY: u64 = functions::DELIVERY_TIMEOUT.as_secs();
/// Errors that are no failure kinds, and where they come from.
const FOREIGN: [&str; 29] = [
    // Step Functions.
    "States.ALL",
    "States.DataLimitExceeded",
    "States.HeartbeatTimeout",
    "States.Timeout",
    // Lambda, when it does not get to an answer of ours.
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Sandbox.Timedout",
    // SNS.
    "SNS.InternalErrorException",
    "SNS.KMSThrottlingException",
    "SNS.SdkClientException",
    "SNS.ThrottledException",
    // By the names of the Java SDK: of EC2 and others a model names no error that is waited for, and the service has one for all.
    "AutoScaling.AutoScalingException",
    "AutoScaling.ResourceContentionException",
    "AutoScaling.SdkClientException",
    "CloudWatch.CloudWatchException",
    "CloudWatch.InternalServiceException",
    "CloudWatch.SdkClientException",
    "Ec2.Ec2Exception",
    "Ec2.SdkClientException",
    "Sfn.SdkClientException",
    "Sfn.SfnException",
    "Ssm.InternalServerErrorException",
    "Ssm.SdkClientException",
    "Ssm.SsmException",
];
const TIME_OUTS: [&str; 2] = ["States.HeartbeatTimeout", "States.Timeout"];

/// Every state machine that is deployed, by its file name.
fn machines() -> BTreeMap<String, Value> {
    let dir = fs_err::read_dir(root().join("state-machines")).unwrap();
    let files = dir.map(|entry| entry.unwrap().path());
    let machines: BTreeMap<String, Value> = files
        .filter(|path| path.to_string_lossy().ends_with(".asl.json"))
        .map(|path| {
            let machine = serde_json::from_str(&fs_err::read_to_string(&path).unwrap()).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), machine)
        })
        .collect();
    let deployed: BTreeSet<&str> = Machine::ALL.into_iter().map(Machine::file).collect();
    assert_eq!(machines.keys().map(String::as_str).collect::<BTreeSet<_>>(), deployed);
    machines
}

/// Every state, those that a Map has inside too.
fn states(machine: &Value) -> Vec<(&String, &Value)> {
    let mut found = Vec::new();
    for (name, state) in machine["States"].as_object().unwrap() {
        found.push((name, state));
        if state["ItemProcessor"].is_object() {
            found.extend(states(&state["ItemProcessor"]));
        }
    }
    found
}

/// Where a state may go, for whatever reason.
fn targets(state: &Value) -> Vec<&str> {
    let rules = list(state, "Catch").iter().chain(list(state, "Choices"));
    let next = rules.map(|rule| &rule["Next"]).chain([&state["Next"], &state["Default"]]);
    next.filter_map(Value::as_str).collect()
}

/// The states that can be entered after `from` without passing `gate`.
fn reached<'m>(machine: &'m Value, from: &'m str, gate: &str) -> BTreeSet<&'m str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        if name != gate && reached.insert(name) {
            open.extend(targets(&machine["States"][name]));
        }
    }
    reached
}

fn list<'a>(state: &'a Value, field: &str) -> &'a [Value] {
    state[field].as_array().map_or(&[], Vec::as_slice)
}

fn errors(rule: &Value) -> Vec<&str> {
    rule["ErrorEquals"].as_array().unwrap().iter().map(|error| error.as_str().unwrap()).collect()
}

#[test]
fn errors_that_are_waited_for_exist() {
    for (file, machine) in machines() {
        for (name, state) in states(&machine) {
            for rule in list(state, "Retry").iter().chain(list(state, "Catch")) {
                for error in errors(rule) {
                    let known = error.parse::<FailureKind>().is_ok() || FOREIGN.contains(&error);
                    assert!(known, "{file}: {name} waits for {error}, which nobody raises");
                }
            }
        }
    }
}

#[test]
fn only_what_may_pass_by_itself_is_tried_again() {
    for (file, machine) in machines() {
        for (name, state) in states(&machine) {
            for rule in list(state, "Retry") {
                // Many may be told to come again by a service, and spread out. A host has one caller, and needs the whole delay.
                let of_host =
                    errors(rule).iter().any(|error| ["HostUnreachable", "States.Timeout"].contains(error))
                        && state["HeartbeatSeconds"].is_number();
                let jitter = if of_host { "NONE" } else { "FULL" };
                assert_eq!(rule["JitterStrategy"], jitter, "{file}: {name}");
                assert!(rule["MaxAttempts"].as_u64().is_some(), "{file}: {name} has the default of attempts");
                for error in errors(rule) {
                    assert!(!["States.ALL", "States.TaskFailed"].contains(&error), "{file}: {name}: {error}");
                    if let Ok(kind) = error.parse::<FailureKind>() {
                        assert!(kind.is_transient(), "{file}: {name} tries again after {kind}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_task_of_the_worker_is_tried_again_whatever_transient_it_fails_with() {
    let machines = machines();
    for (file, name) in
        [("backup.asl.json", "TriggerSnapshot"), ("restore-drill.asl.json", "RestoreAndVerify")]
    {
        let state = &machines[file]["States"][name];
        let retried: BTreeSet<&str> = list(state, "Retry").iter().flat_map(errors).collect();
        for kind in FailureKind::ALL.into_iter().filter(|kind| kind.is_transient()) {
            let comes_back = list(state, "Catch").iter().any(|rule| {
                kind == FailureKind::Busy && errors(rule) == ["Busy"] && rule["Next"] == "WaitForHost"
            });
            assert!(
                comes_back || retried.contains(kind.name()),
                "{name}: {kind} is transient, and not tried again"
            );
        }
    }
}

#[test]
fn a_callback_has_a_heartbeat_below_its_time_out_and_both_names_of_each() {
    let mut callbacks = 0;
    for (file, machine) in machines() {
        for (name, state) in states(&machine) {
            if state["Type"] != "Task" {
                continue;
            }
            let timeout = state["TimeoutSeconds"].as_u64();
            let timeout = timeout.unwrap_or_else(|| panic!("{file}: {name} waits for ever"));
            if !state["Resource"].as_str().unwrap().ends_with(".waitForTaskToken") {
                continue;
            }
            callbacks += 1;
            let heartbeat = state["HeartbeatSeconds"].as_u64().unwrap();
            assert!(heartbeat < timeout, "{file}: {name}");
            // One lost reply, and one more, must not cost the attempt.
            let beat = Timing::STANDARD.heartbeat;
            assert!(beat * 3 < Duration::from_secs(heartbeat), "{file}: {name} expects a beat too soon");
            for rules in ["Retry", "Catch"] {
                let named = list(state, rules).iter().any(|rule| errors(rule) == TIME_OUTS);
                assert!(named, "{file}: {name}: {rules} does not name both time-outs");
            }
            // A worker that lost its token waits for the next one for as long as that can take to come.
            let retry = list(state, "Retry").iter().find(|rule| errors(rule) == TIME_OUTS).unwrap();
            let delay = Duration::from_secs(retry["MaxDelaySeconds"].as_u64().unwrap() + DELIVERY);
            assert!(Timing::STANDARD.grace > delay, "{file}: {name}: {delay:?}");
        }
    }
    assert_eq!(callbacks, 3);
}

#[test]
fn what_a_state_makes_of_a_failure_is_a_kind() {
    for (file, machine) in machines() {
        for (name, state) in states(&machine) {
            let Some(error) = state["Parameters"]["Error"].as_str() else { continue };
            assert!(error.parse::<FailureKind>().is_ok(), "{file}: {name} calls it {error}");
        }
    }
}

#[test]
fn a_failure_is_notified_and_keeps_its_name() {
    for (file, machine) in machines() {
        let failed = &machine["States"]["Failed"];
        assert_eq!(failed["ErrorPath"], "$.failure.Error", "{file}");
        for (name, state) in states(&machine) {
            if !["Task", "Map"].contains(&state["Type"].as_str().unwrap()) || !state["End"].is_null() {
                continue;
            }
            let catchers = list(state, "Catch");
            let last = catchers.last().unwrap_or_else(|| panic!("{file}: {name} catches nothing"));
            assert_eq!(errors(last), ["States.ALL"], "{file}: {name}");
            for catcher in catchers {
                let path = catcher["ResultPath"].as_str();
                assert!(path.is_some_and(|path| path.len() > 2), "{file}: {name} forgets what it knows");
            }
            if name.starts_with("Notify") || name == "CountFailure" {
                // A topic or a count that is refused changes nothing.
                assert_eq!(last["Next"], state["Next"], "{file}: {name}");
                continue;
            }
            let large = catchers.iter().any(|rule| errors(rule) == ["States.DataLimitExceeded"]);
            assert!(large, "{file}: {name}: States.ALL does not catch States.DataLimitExceeded");
            // The watch tells by numbers that stay away: `what_the_watch_cannot_see_is_an_alarm`.
            if file == Machine::Watch.file() {
                continue;
            }
            // Whatever is put aside as the failure is told before the end.
            for catcher in catchers.iter().filter(|rule| rule["ResultPath"] == "$.failure") {
                let silent = reached(&machine, catcher["Next"].as_str().unwrap(), "NotifyFailure");
                // Only after a notification of its own may a drill end without that one.
                let ends = silent.contains("Failed") && !silent.contains("NotifyLeft");
                assert!(!ends, "{file}: {name} fails and nobody is told: {silent:?}");
            }
        }
    }
}

#[test]
fn a_failure_that_is_notified_is_counted_first_where_alarms_look_at_kinds() {
    let machines = machines();
    for file in [Machine::Backup.file(), Machine::RestoreDrill.file()] {
        let machine = &machines[file];
        for (name, state) in states(machine) {
            if targets(state).contains(&"NotifyFailure") {
                assert_eq!(name, "CountFailure", "{file}: {name} notifies what it has not counted");
            }
        }
        let datum = &machine["States"]["CountFailure"]["Parameters"]["MetricData"][0];
        assert_eq!(
            datum["Dimensions"],
            serde_json::json!([{"Name": "FailureKind", "Value.$": "$.failure.Error"}])
        );
    }
}

#[test]
fn what_the_watch_cannot_see_is_an_alarm() {
    let watch = &machines()[Machine::Watch.file()];
    // Every way to success passes the publication, and every failure misses it.
    assert!(!reached(watch, "Begin", "Publish").contains("Succeeded"));
    let failed = reached(watch, watch["States"]["Publish"]["Catch"][0]["Next"].as_str().unwrap(), "Publish");
    assert!(failed.contains("Failed") && !failed.contains("Succeeded"), "{failed:?}");
    let stack = read("infra/stacks/observability.yaml");
    let alarm = stack.split("\n\n").find(|part| part.contains("MetricName: UnprotectedSeconds")).unwrap();
    assert!(alarm.contains("TreatMissingData: breaching"), "{alarm}");
}

#[test]
fn a_host_that_is_to_go_is_let_go_whatever_happens() {
    let machine = &machines()[Machine::BeforeTermination.file()];
    // Without an action that could be completed nothing is held up.
    let mut around = reached(machine, "ReadEvent", "CompleteAction");
    around.retain(|state| ["Succeeded", "Failed", "NotifyFailure"].contains(state));
    assert!(around.is_empty(), "an end is reached and the action is not completed: {around:?}");
    assert_eq!(machine["States"]["CompleteAction"]["Parameters"]["LifecycleActionResult"], "CONTINUE");
}

#[test]
fn every_way_from_the_launch_passes_the_termination() {
    let drill = &machines()["restore-drill.asl.json"];
    let ends = ["Succeeded", "Failed"];
    let around = reached(drill, "LaunchStaging", "IsLaunched");
    assert!(
        !ends.iter().any(|end| around.contains(end)),
        "a drill ends without a look at its host: {around:?}"
    );
    let gate = &drill["States"]["IsLaunched"];
    assert_eq!(
        gate["Choices"][0],
        serde_json::json!({"Variable": "$.staging.instance_id", "IsPresent": true, "Next": "TerminateStaging"})
    );
    // From there on an end is reached only by what EC2 shows, or by a notification that it is not known.
    let unseen = reached(drill, "TerminateStaging", "DescribeTermination");
    assert!(!ends.iter().any(|end| unseen.contains(end)), "{unseen:?}");
    let mut refused = targets(&drill["States"]["DescribeTermination"]);
    refused.retain(|next| *next != "IsTerminated");
    assert!(refused.iter().all(|next| *next == "NotifyLeft"), "{refused:?}");
}

#[test]
fn what_is_launched_is_found_again_and_no_drill_is_as_old_as_the_sweep_wants() {
    let machines = machines();
    let (drill, left) = (&machines["restore-drill.asl.json"], &machines["terminate-staging.asl.json"]);
    let launch = &drill["States"]["LaunchStaging"]["Parameters"];
    assert_eq!((&launch["MinCount"], &launch["MaxCount"]), (&1.into(), &1.into()));
    for specification in list(launch, "TagSpecifications") {
        let tags = list(specification, "Tags");
        let tag = |key: &str| tags.iter().find(|tag| tag["Key"] == key);
        assert_eq!(tag("${StagingTagKey}").unwrap()["Value"], "${StagingTagValue}");
        // The event of an execution's end has its ARN.
        assert_eq!(tag("qdrant-backup:execution").unwrap()["Value.$"], "$$.Execution.Id");
    }
    for (search, by) in [
        (
            "OfExecution",
            serde_json::json!({"Name": "tag:qdrant-backup:execution", "Values.$": "States.Array($.detail.executionArn)"}),
        ),
        ("OfAge", serde_json::json!({"Name": "tag-key", "Values": ["qdrant-backup:execution"]})),
        ("OfADay", serde_json::json!({"Name": "tag-key", "Values": ["qdrant-backup:execution"]})),
    ] {
        let filters = list(&left["States"][search]["Parameters"], "filters");
        assert!(filters.contains(&by), "{search}: {filters:?}");
        assert!(
            filters.iter().any(|filter| filter["Name"] == "tag:${StagingTagKey}"),
            "{search} takes other hosts"
        );
    }
    let restore = &drill["States"]["RestoreAndVerify"];
    let again = list(restore, "Retry").iter().find(|rule| errors(rule) == TIME_OUTS).unwrap();
    let longest = restore["TimeoutSeconds"].as_u64().unwrap() * (1 + again["MaxAttempts"].as_u64().unwrap());
    let age = left["States"]["OfADay"]["Parameters"]["seconds"].as_u64().unwrap();
    assert!(longest + 3600 * 4 < age, "a drill may take {longest} s, and is swept after {age}");
    let stuck = functions::STUCK_AFTER.as_secs();
    assert!(u64::try_from(stuck).unwrap() >= age, "a drill is called stuck before it is swept");
}

#[test]
fn every_substitution_is_supplied_and_the_definitions_are_what_they_say() {
    for machine in Machine::ALL {
        let filled = workflow::definition(machine, |function| function.name().to_owned()).unwrap();
        let parsed = Definition::parse(&filled);
        assert!(parsed.is_ok(), "{}: {:?}", machine.file(), parsed.err().map(|error| error.to_string()));
    }
}

#[test]
fn the_table_names_every_state() {
    let table = read("state-machines/README.md");
    for (file, machine) in machines() {
        assert!(table.contains(&format!("## `{file}`")), "{file}");
        for (name, state) in states(&machine) {
            let row = table.contains(&format!("\n| {name} |"));
            assert!(
                row || (state["Type"] != "Task" && table.contains(name.as_str())),
                "{name} is not in the table"
            );
        }
    }
}

#[test]
fn the_files_hold_no_arn_and_no_account() {
    for (file, machine) in machines() {
        let text = machine.to_string();
        let arns = text.matches("arn:aws:").count();
        assert_eq!(arns, text.matches("arn:aws:states:::").count(), "{file} names an ARN");
    }
}

#[test]
fn the_document_takes_what_the_protocol_sends() {
    let document: Value = serde_json::from_str(&read("infra/ssm/host-task.json")).unwrap();
    let parameters = document["parameters"].as_object().unwrap();
    let names: BTreeSet<&str> = parameters.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(parameter::ALL));
    for (name, stated) in parameters {
        let pattern = stated["allowedPattern"].as_str().unwrap();
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{name}: {pattern} is not anchored");
        assert_eq!(stated["interpolationType"], "ENV_VAR", "{name} is interpolated into the script");
        // The agent is written in Go, whose patterns repeat at most a thousand times: it would refuse every command.
        let counts =
            pattern.split(|c: char| !c.is_ascii_digit()).filter_map(|count| count.parse::<u32>().ok());
        assert!(counts.max().unwrap_or(0) <= 1000, "{name}: {pattern}");
        assert_ne!(stated["default"], "", "{name}: an empty value may not arrive");
    }
    let kinds: Vec<&str> = TaskKind::ALL.into_iter().map(TaskKind::name).collect();
    assert_eq!(parameters["Task"]["allowedPattern"], format!("^({})$", kinds.join("|")));
}

#[test]
fn the_document_runs_only_fixed_verbs_and_refuses_an_old_agent() {
    let text = read("infra/ssm/host-task.json");
    assert!(!text.contains("{{"), "a value is interpolated");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schemaVersion"], "2.2");
    let [step] = document["mainSteps"].as_array().unwrap().as_slice() else { panic!("there is one step") };
    let script: Vec<&str> =
        step["inputs"]["runCommand"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let code: Vec<&str> = script.into_iter().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(code[0], "set -eu");
    assert!(code[1].starts_with(": \"${SSM_TaskToken:?"), "{}", code[1]);
    assert_eq!(code[2..], ["exec host-worker dispatch --json"]);
    // Out of these bounds the agent silently takes an hour; above the delivery's it could not be told from a lost one.
    let timeout: u64 = step["inputs"]["timeoutSeconds"].as_str().unwrap().parse().unwrap();
    assert!((5..=DELIVERY).contains(&timeout), "{timeout}");
}
