//! The stack of the workflow deploys the machines, functions and documents that are here, with what each of them needs.

use std::collections::{BTreeMap, BTreeSet};

use functions::Function;
use localcloud::autoscaling::AutoScaling;
use regex_lite::Regex;
use serde_json::Value;

use super::template::{resources, stack};
use crate::{docs::section, read, root, runbook::rows};

const MACHINE: &str = "AWS::StepFunctions::StateMachine";
const FUNCTION: &str = "AWS::Lambda::Function";
const DOCUMENT: &str = "AWS::SSM::Document";
const SCHEDULE: &str = "AWS::Scheduler::Schedule";
const RULE: &str = "AWS::Events::Rule";

/// The machines of the stack by their files, which are below `state-machines/`.
fn machines(stack: &Value) -> BTreeMap<String, &Value> {
    let file = |resource: &Value| {
        let path = resource["Properties"]["DefinitionS3Location"].as_str().unwrap();
        path.strip_prefix("../../state-machines/").unwrap_or_else(|| panic!("`{path}`")).to_owned()
    };
    resources(stack, MACHINE)
        .into_iter()
        .map(|(_, resource)| (file(resource), &resource["Properties"]))
        .collect()
}

#[test]
fn every_machine_is_deployed_with_exactly_its_substitutions() {
    let stack = stack("workflow");
    let machines = machines(&stack);
    let files = fs_err::read_dir(root().join("state-machines")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let files: BTreeSet<String> = names.filter(|name| name.ends_with(".asl.json")).collect();
    assert_eq!(machines.keys().cloned().collect::<BTreeSet<_>>(), files);
    let placeholder = Regex::new(r"\$\{([A-Za-z]+)\}").unwrap();
    for (file, properties) in machines {
        let text = read(&format!("state-machines/{file}"));
        let wanted: BTreeSet<&str> =
            placeholder.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
        let given: BTreeSet<&str> =
            properties["DefinitionSubstitutions"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(given, wanted, "{file}");
        let name = file.trim_end_matches(".asl.json");
        assert_eq!(properties["StateMachineName"]["Fn::Sub"], format!("${{Name}}-{name}"), "{file}");
        assert_eq!(
            properties["StateMachineType"], "STANDARD",
            "{file}: a task token needs a standard machine"
        );
    }
}

/// The functions of the stack by their names.
fn deployed_functions(stack: &Value) -> BTreeMap<&'static str, &Value> {
    let named = |function: Function| {
        let name = format!("${{Name}}-{}", function.name());
        let found = resources(stack, FUNCTION)
            .into_iter()
            .find(|(_, resource)| resource["Properties"]["FunctionName"]["Fn::Sub"] == name);
        (function.name(), &found.unwrap_or_else(|| panic!("{name} is not deployed")).1["Properties"])
    };
    let all: BTreeMap<_, _> = Function::ALL.into_iter().map(named).collect();
    assert_eq!(all.len(), resources(stack, FUNCTION).len(), "there are functions without a program");
    all
}

#[test]
fn functions_have_the_settings_that_they_need_and_no_unknown_one() {
    let page = read("docs/operations/settings.md");
    let lambdas = section(&page, "## The Lambdas");
    let known: BTreeSet<&str> =
        lambdas.split('`').filter(|code| code.starts_with("QDRANT_BACKUP_")).collect();
    let needs: Vec<Vec<String>> = rows(lambdas).into_iter().filter(|row| row.len() == 2).collect();
    let stack = stack("workflow");
    for (name, properties) in deployed_functions(&stack) {
        let given: BTreeSet<&str> =
            properties["Environment"]["Variables"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(given.is_subset(&known), "{name}: {given:?}");
        let row = needs
            .iter()
            .find(|row| row[0].contains(&format!("`{name}`")))
            .unwrap_or_else(|| panic!("{name} has no row"));
        for (words, variables) in [
            ("bucket", &["QDRANT_BACKUP_BUCKET"][..]),
            ("document", &["QDRANT_BACKUP_DOCUMENT"]),
            ("the host's tag", &["QDRANT_BACKUP_HOST_TAG"]),
            ("both tags", &["QDRANT_BACKUP_HOST_TAG", "QDRANT_BACKUP_STAGING_TAG"]),
        ] {
            for variable in variables.iter().filter(|_| row[1].contains(words)) {
                assert!(given.contains(variable), "{name} needs {variable}");
            }
        }
        // Parts of one installation that do not agree on these look past each other.
        for variable in ["QDRANT_BACKUP_PREFIX", "QDRANT_BACKUP_METRICS_NAMESPACE"] {
            assert!(given.contains(variable), "{name} has no {variable}");
        }
        assert_eq!(properties["Architectures"], serde_json::json!(["arm64"]), "{name}");
        assert_eq!(
            (&properties["Runtime"], &properties["Handler"]),
            (&"provided.al2023".into(), &"bootstrap".into()),
            "{name}"
        );
        assert_eq!(properties["Code"], format!("../../target/lambda/{name}/bootstrap.zip"), "{name}");
    }
    let publisher = &deployed_functions(&stack)["publish-manifest"]["Environment"]["Variables"];
    assert!(
        publisher.get("QDRANT_BACKUP_KMS_KEY").is_some(),
        "nobody looks whether archives are encrypted with the right key"
    );
}

/// A function that is still at work when its state gives it up does its work twice.
#[test]
fn functions_give_up_before_their_states_do() {
    let stack = stack("workflow");
    let functions = deployed_functions(&stack);
    let mut compared = 0;
    for (file, properties) in machines(&stack) {
        let machine: Value = serde_json::from_str(&read(&format!("state-machines/{file}"))).unwrap();
        for (state, task) in machine["States"].as_object().unwrap() {
            let called = task["Parameters"]["FunctionName"]
                .as_str()
                .and_then(|name| name.strip_prefix("${")?.strip_suffix('}'));
            let Some(called) = called else { continue };
            let id = properties["DefinitionSubstitutions"][called]["Fn::GetAtt"][0].as_str().unwrap();
            let name = stack["Resources"][id]["Properties"]["FunctionName"]["Fn::Sub"]
                .as_str()
                .unwrap()
                .trim_start_matches("${Name}-");
            let (gives_up, given_up) =
                (functions[name]["Timeout"].as_u64().unwrap(), task["TimeoutSeconds"].as_u64().unwrap());
            assert!(
                gives_up < given_up,
                "{file}, {state}: {name} works for {gives_up} s and is waited for {given_up} s"
            );
            compared += 1;
        }
    }
    assert!(compared >= 6, "only {compared} states call a function");
}

#[test]
fn documents_are_the_files_that_the_tests_run() {
    let stack = stack("workflow");
    let mut included = BTreeSet::new();
    for (id, resource) in resources(&stack, DOCUMENT) {
        let properties = &resource["Properties"];
        let location = properties["Content"]["Fn::Transform"]["Parameters"]["Location"].as_str().unwrap();
        let file = location.strip_prefix("../ssm/").unwrap_or_else(|| panic!("{id} is at {location}"));
        let document: Value = serde_json::from_str(&read(&format!("infra/ssm/{file}"))).unwrap();
        assert_eq!(document["schemaVersion"], "2.2", "{file}");
        for (name, parameter) in document["parameters"].as_object().unwrap() {
            let pattern = parameter["allowedPattern"].as_str().unwrap_or_default();
            assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{file}: {name} takes anything");
            assert_eq!(parameter["interpolationType"], "ENV_VAR", "{file}: {name} becomes part of a script");
        }
        let script = document["mainSteps"].to_string();
        assert!(!script.contains("{{"), "{file} interpolates");
        // A document with a name of its own cannot be replaced.
        assert_eq!(properties["UpdateMethod"], "NewVersion", "{id}");
        included.insert(file.to_owned());
    }
    let files = fs_err::read_dir(root().join("infra/ssm")).unwrap();
    assert_eq!(
        included,
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
    );
}

/// Whatever starts an execution gives it an input that its first function understands, and keeps what it could not deliver.
#[test]
fn what_starts_executions_says_what_they_take() {
    let stack = stack("workflow");
    let mut inputs = BTreeSet::new();
    let rules = resources(&stack, RULE).into_iter().flat_map(|(id, rule)| {
        rule["Properties"]["Targets"].as_array().unwrap().iter().map(move |target| (id, target))
    });
    let schedules =
        resources(&stack, SCHEDULE).into_iter().map(|(id, schedule)| (id, &schedule["Properties"]["Target"]));
    for (id, target) in rules.chain(schedules) {
        assert!(target["DeadLetterConfig"]["Arn"].is_object(), "{id}: what cannot be delivered is lost");
        assert!(target["RetryPolicy"]["MaximumEventAgeInSeconds"].is_number(), "{id} has no limit");
        if let (Some(machine), Some(input)) = (target["Arn"]["Ref"].as_str(), target["Input"].as_str()) {
            inputs.insert((machine.to_owned(), serde_json::from_str::<Value>(input).unwrap().to_string()));
        }
    }
    for (machine, input) in [
        ("BackupMachine", r#"{"trigger":"marker"}"#),
        ("BackupMachine", r#"{"trigger":"schedule"}"#),
        ("DrillMachine", "{}"),
        ("TerminateStagingMachine", "{}"),
        ("WatchMachine", "{}"),
    ] {
        assert!(
            inputs.remove(&(machine.to_owned(), input.to_owned())),
            "nothing starts {machine} with {input}"
        );
    }
    assert!(inputs.is_empty(), "nobody has thought of {inputs:?}");
    let hook =
        &stack["Resources"]["OnTermination"]["Properties"]["EventPattern"]["detail"]["LifecycleHookName"];
    assert_eq!(*hook, serde_json::json!([AutoScaling::LAST_HOOK]), "the embedded group has another hook");
}
