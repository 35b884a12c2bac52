//! The root template and its nested stacks: what is handed over is asked for, and what is asked for is handed over.

use std::collections::BTreeSet;

use serde_json::Value;

use super::template::{calls, resources, stack, stacks, template};

const NESTED: &str = "AWS::CloudFormation::Stack";

/// The nested stacks of the root template: logical id, name of the file, resource.
fn nested(root: &Value) -> Vec<(&str, &str, &Value)> {
    resources(root, NESTED)
        .into_iter()
        .map(|(id, resource)| {
            let path = resource["Properties"]["TemplateURL"].as_str().unwrap();
            let name = path.strip_prefix("stacks/").and_then(|file| file.strip_suffix(".yaml"));
            (id, name.unwrap_or_else(|| panic!("{id} is at `{path}`")), resource)
        })
        .collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn every_stack_is_deployed_and_gets_exactly_what_it_asks_for() {
    let root = template("infra/template.yaml");
    let nested = nested(&root);
    let deployed: BTreeSet<String> = nested.iter().map(|(_, name, _)| (*name).to_owned()).collect();
    assert_eq!(deployed, stacks());
    assert_eq!(
        root["Resources"].as_object().unwrap().len(),
        nested.len(),
        "the root has resources of its own"
    );
    for (_, name, resource) in nested {
        let stack = stack(name);
        assert_eq!(keys(&resource["Properties"]["Parameters"]), keys(&stack["Parameters"]), "{name}");
        for (parameter, declared) in stack["Parameters"].as_object().unwrap() {
            // An image's id was looked up in the root, and is one here.
            let kind = if parameter == "ImageId" { "AWS::EC2::Image::Id" } else { "String" };
            assert_eq!(declared["Type"], kind, "{name}: {parameter}");
            assert!(
                keys(declared).is_subset(&BTreeSet::from(["Description", "Type"])),
                "{name}: {parameter}: what it may be is said in the root alone"
            );
        }
        assert!(stack["Description"].is_string(), "{name} says not what it is for");
    }
}

#[test]
fn outputs_that_are_handed_on_exist() {
    let root = template("infra/template.yaml");
    let nested = nested(&root);
    for call in calls(&root, "Fn::GetAtt") {
        let (id, attribute) = (call[0].as_str().unwrap(), call[1].as_str().unwrap());
        let output = attribute.strip_prefix("Outputs.").unwrap_or_else(|| panic!("{id}.{attribute}"));
        let (_, name, _) =
            nested.iter().find(|(stack, ..)| *stack == id).unwrap_or_else(|| panic!("no stack {id}"));
        assert!(keys(&stack(name)["Outputs"]).contains(output), "{name} puts out no {output}");
    }
}

#[test]
fn parameters_of_a_stack_are_used_in_it() {
    for name in stacks() {
        let stack = stack(&name);
        let text =
            serde_json::to_string(&[&stack["Resources"], &stack["Conditions"], &stack["Outputs"]]).unwrap();
        for parameter in keys(&stack["Parameters"]) {
            let used = text.contains(&format!("{{\"Ref\":\"{parameter}\"}}"))
                || text.contains(&format!("${{{parameter}}}"));
            assert!(used, "{name}: {parameter} is used by nothing");
        }
    }
}

/// What holds data, keys to data, or the only way to it is never deleted with a stack or replaced by an update.
#[test]
fn nothing_that_holds_data_goes_with_its_stack() {
    let mut kept = 0;
    for (path, kinds) in [
        ("infra/stacks/storage.yaml", ["AWS::S3::Bucket", "AWS::KMS::Key"]),
        ("infra/artifacts.yaml", ["AWS::S3::Bucket", "AWS::KMS::Key"]),
        ("infra/replica.yaml", ["AWS::S3::Bucket", "AWS::KMS::Key"]),
        ("infra/stacks/secrets.yaml", ["AWS::SecretsManager::Secret", "AWS::S3::Bucket"]),
    ] {
        let template = template(path);
        for kind in kinds {
            for (id, resource) in resources(&template, kind) {
                let (deleted, replaced) = (&resource["DeletionPolicy"], &resource["UpdateReplacePolicy"]);
                assert!(
                    *deleted == "Retain" || *deleted == "RetainExceptOnCreate",
                    "{path}: {id} goes with its stack"
                );
                assert_eq!(*replaced, "Retain", "{path}: {id} goes with an update");
                kept += 1;
            }
        }
    }
    assert!(kept >= 7, "only {kept} were found");
}

/// An update of the stack gives the group a new launch template for its next host, and nothing that would replace the one it has.
#[test]
fn an_update_never_replaces_the_host() {
    let host = stack("host");
    let groups = resources(&host, "AWS::AutoScaling::AutoScalingGroup");
    let [(_, group)] = groups[..] else { panic!("one group, not {}", groups.len()) };
    for attribute in ["UpdatePolicy", "CreationPolicy"] {
        assert!(group.get(attribute).is_none(), "{attribute} may replace the host");
    }
    let properties = &group["Properties"];
    assert_eq!(
        (&properties["MaxSize"], &properties["DesiredCapacity"]),
        (&Value::from("1"), &Value::from("1"))
    );
    assert!(
        properties.get("VPCZoneIdentifier").is_none(),
        "with a network interface of its own a group names its zone alone"
    );
    assert_eq!(
        properties["InstanceMaintenancePolicy"]["MaxHealthyPercentage"], 100,
        "two hosts cannot have one interface"
    );
    let hooks = properties["LifecycleHookSpecificationList"].to_string();
    assert_eq!(
        hooks.matches("\"DefaultResult\":\"CONTINUE\"").count(),
        hooks.matches("LifecycleTransition").count(),
        "{hooks}"
    );
    assert!(
        resources(&host, "AWS::AutoScaling::LifecycleHook").is_empty(),
        "a hook beside the group comes after the first launch"
    );
}
