//! The stacks of the workflow and of its alarms agree with the machines, the functions and the names that are published.

use std::collections::{BTreeMap, BTreeSet};

use functions::Function;
use localcloud::{autoscaling::AutoScaling, workflow::Machine};

use crate::{read, root};

/// The resources of a stack: their names, and their text without comments.
fn resources(path: &str) -> BTreeMap<String, String> {
    let text = read(path);
    let body = text.split("\nResources:\n").nth(1).unwrap().split("\nOutputs:\n").next().unwrap();
    let mut found = BTreeMap::new();
    let mut current = None;
    for line in body.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some(name) = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'))
            && !name.starts_with(' ')
        {
            current = Some(name.to_owned());
        }
        if let Some(name) = &current {
            let text: &mut String = found.entry(name.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    assert!(!found.is_empty(), "{path} has no resources");
    found
}

fn workflow() -> BTreeMap<String, String> {
    resources("infra/stacks/workflow.yaml")
}

/// The keys of a block of a resource that is indented by `indent`, below the line that ends with `head`.
fn keys<'t>(text: &'t str, head: &str, indent: usize) -> BTreeSet<&'t str> {
    let block = text.split(head).nth(1).unwrap_or_else(|| panic!("no {head} in {text}"));
    let lines = block.lines().skip(1).take_while(|line| line.len() - line.trim_start().len() >= indent);
    lines.filter_map(|line| line[indent..].split_once(':')).map(|(key, _)| key).collect()
}

/// The `${…}` of a definition.
fn substitutions(definition: &str) -> BTreeSet<&str> {
    definition.split("${").skip(1).map(|after| after.split('}').next().unwrap()).collect()
}

#[test]
fn every_machine_is_deployed_with_exactly_its_substitutions() {
    let stack = workflow();
    for machine in Machine::ALL {
        let uri = format!("DefinitionS3Location: ../../state-machines/{}\n", machine.file());
        let deployed: Vec<&String> = stack.values().filter(|text| text.contains(&uri)).collect();
        let [text] = deployed.as_slice() else {
            panic!("{} is deployed {} times", machine.file(), deployed.len())
        };
        let definition = read(&format!("state-machines/{}", machine.file()));
        assert_eq!(
            keys(text, "DefinitionSubstitutions:", 8),
            substitutions(&definition),
            "{}",
            machine.file()
        );
    }
}

#[test]
fn every_function_is_deployed_with_the_settings_that_it_needs() {
    let stack = workflow();
    for function in Function::ALL {
        let code = format!("Code: ../../target/lambda/{function}/bootstrap.zip\n");
        let deployed: Vec<&String> = stack.values().filter(|text| text.contains(&code)).collect();
        let [text] = deployed.as_slice() else { panic!("{function} is deployed {} times", deployed.len()) };
        let mut needed = vec!["BUCKET", "PREFIX", "METRICS_NAMESPACE"];
        needed.extend(match function {
            Function::QuiesceCheck => &["SUCCESS_MARKER", "DOCUMENT", "HOST_TAG"][..],
            Function::TriggerSnapshot => &["DOCUMENT", "HOST_TAG"],
            Function::PublishManifest => &["KMS_KEY"],
            Function::VerifyRestore => &["DOCUMENT", "HOST_TAG", "STAGING_TAG"],
        });
        let needed: BTreeSet<String> =
            needed.into_iter().map(|name| format!("QDRANT_BACKUP_{name}")).collect();
        let set: BTreeSet<String> = keys(text, "Variables:", 10).into_iter().map(str::to_owned).collect();
        assert_eq!(set, needed, "{function}");
        assert!(text.contains(&format!("FunctionName: !Sub ${{Name}}-{function}\n")));
        assert!(text.contains("Runtime: provided.al2023\n") && text.contains("Architectures: [arm64]\n"));
    }
}

#[test]
fn what_is_delivered_somewhere_has_somewhere_to_go_when_it_cannot_be() {
    let mut targets = 0;
    for (name, text) in workflow() {
        if !text.contains("Type: AWS::Events::Rule\n") && !text.contains("Type: AWS::Scheduler::Schedule\n") {
            continue;
        }
        targets += 1;
        for needed in
            ["RetryPolicy: {MaximumEventAgeInSeconds: ", "DeadLetterConfig: {Arn: !GetAtt Undelivered.Arn}"]
        {
            assert_eq!(text.matches(needed).count(), 1, "{name}: {needed}");
        }
    }
    assert_eq!(targets, 9);
}

#[test]
fn executions_are_started_with_inputs_that_are_understood() {
    let stack = workflow();
    let input = |resource: &str| {
        let text = &stack[resource];
        text.split("Input: '").nth(1).map(|after| after.split('\'').next().unwrap().to_owned())
    };
    for (resource, expected) in [
        ("OnSuccessMarker", Some(r#"{"trigger":"marker"}"#)),
        ("BackupBySchedule", Some(r#"{"trigger":"schedule"}"#)),
        ("DrillBySchedule", Some("{}")),
        ("SweepBySchedule", Some("{}")),
        ("WatchBySchedule", Some("{}")),
        // These are given the event itself.
        ("OnTermination", None),
        ("OnDrillEndedBadly", None),
    ] {
        assert_eq!(input(resource).as_deref(), expected, "{resource}");
        assert!(!stack[resource].contains("InputTransformer"), "{resource}");
    }
    let hook = format!("LifecycleHookName: [{}]", AutoScaling::LAST_HOOK);
    assert!(stack["OnTermination"].contains(&hook), "the embedded group has another hook");
}

#[test]
fn alarms_look_at_numbers_that_somebody_publishes() {
    let documented: BTreeSet<String> = read("docs/operations/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    // Of the host, by `host-worker health`.
    let of_host = ["QdrantReady", "DiskUsedPercent", "HostHeld", "HostDegraded", "BootingSeconds"];
    let mut seen = 0;
    for (name, text) in resources("infra/stacks/observability.yaml") {
        if !text.contains("Type: AWS::CloudWatch::Alarm\n") {
            continue;
        }
        assert_eq!(text.matches("TreatMissingData: ").count(), 1, "{name} does not say what silence means");
        assert!(
            text.contains("AlarmActions: [!Ref Topic]\n") && text.contains("OKActions: [!Ref Topic]\n"),
            "{name}"
        );
        if text.contains("Namespace: AWS/") {
            continue;
        }
        let named = |line: &str| {
            line.split("MetricName: ").nth(1).map(|rest| rest.split(',').next().unwrap().to_owned())
        };
        for metric in text.lines().filter_map(named) {
            seen += 1;
            assert!(
                documented.contains(&metric) || of_host.contains(&metric.as_str()),
                "{name} looks at {metric}, which nobody publishes"
            );
        }
        for kind in
            text.split("{Name: FailureKind, Value: ").skip(1).map(|rest| rest.split('}').next().unwrap())
        {
            assert!(kind.parse::<protocol::FailureKind>().is_ok(), "{name}: {kind}");
        }
    }
    assert!(seen >= 14, "{seen}");
}

#[test]
fn what_says_that_data_is_not_safe_is_made_of_alarms_that_there_are() {
    let alarms = resources("infra/stacks/observability.yaml");
    let composite = &alarms["DataIsNotSafe"];
    let parts: BTreeSet<&str> =
        composite.split("ALARM(\"${").skip(1).map(|after| after.split('}').next().unwrap()).collect();
    assert_eq!(
        parts,
        BTreeSet::from([
            "ChecksumMismatch",
            "DrillFailed",
            "DrillOverdue",
            "HostDegraded",
            "ManifestNotUpdated"
        ])
    );
    assert!(parts.iter().all(|part| alarms[*part].contains("Type: AWS::CloudWatch::Alarm\n")));
    let page = read("docs/operations/metrics.md");
    for text in alarms.values().filter(|text| text.contains("Type: AWS::CloudWatch::Alarm\n")) {
        let name = text.split("AlarmName: !Sub ${Name}-").nth(1).unwrap().lines().next().unwrap();
        assert!(page.contains(&format!("`{name}`")), "docs/operations/metrics.md does not name {name}");
        assert!(
            alarms["Dashboard"].contains(&format!("\"${{Alarm}}-{name}\"")),
            "the dashboard does not show {name}"
        );
    }
    assert!(root().join("docs/operations/boot-and-drills.md").is_file(), "alarms send people there");
}
