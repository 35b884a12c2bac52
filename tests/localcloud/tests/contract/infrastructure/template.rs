//! CloudFormation templates as plain JSON: what YAML writes short (`!Ref X`) is spelled out (`{"Ref": "X"}`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{read, root};

/// The folder of the nested stacks.
const STACKS: &str = "infra/stacks/";

/// A template by its path from the root of the repository.
pub(super) fn template(path: &str) -> Value {
    let document = serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    spelled_out(document)
}

/// A nested stack by its name.
pub(super) fn stack(name: &str) -> Value {
    template(&format!("{STACKS}{name}.yaml"))
}

/// The names of all nested stacks that there are.
pub(super) fn stacks() -> BTreeSet<String> {
    let files = fs_err::read_dir(root().join(STACKS)).unwrap();
    files
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .filter_map(|file| file.strip_suffix(".yaml").map(str::to_owned))
        .collect()
}

fn spelled_out(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(bool) => bool.into(),
        Yaml::Number(number) => serde_json::to_value(number).unwrap(),
        Yaml::String(text) => text.into(),
        Yaml::Sequence(items) => items.into_iter().map(spelled_out).collect(),
        Yaml::Mapping(fields) => {
            let text = |key: serde_yaml_ng::Value| {
                key.as_str()
                    .map_or_else(|| serde_yaml_ng::to_string(&key).unwrap().trim().to_owned(), str::to_owned)
            };
            Value::Object(
                fields.into_iter().map(|(key, value)| (text(key), spelled_out(value))).collect::<Map<_, _>>(),
            )
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let value = spelled_out(tagged.value);
            match tag.trim_start_matches('!') {
                name @ ("Ref" | "Condition") => json!({ name: value }),
                "GetAtt" => {
                    let parts = value.as_str().and_then(|text| text.split_once('.'));
                    let (resource, attribute) =
                        parts.unwrap_or_else(|| panic!("`!GetAtt {value}` names no attribute"));
                    json!({ "Fn::GetAtt": [resource, attribute] })
                }
                name => json!({ format!("Fn::{name}"): value }),
            }
        }
    }
}

/// Every value of an object with this one key, wherever it is: `Ref`, `Fn::GetAtt`.
pub(super) fn calls<'a>(value: &'a Value, function: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    if let Some(fields) = value.as_object() {
        found.extend(fields.get(function).filter(|_| fields.len() == 1));
        found.extend(fields.values().flat_map(|value| calls(value, function)));
    } else if let Some(items) = value.as_array() {
        found.extend(items.iter().flat_map(|value| calls(value, function)));
    }
    found
}

/// The resources of a type, by their logical ids.
pub(super) fn resources<'a>(template: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let resources = template["Resources"].as_object().unwrap();
    resources
        .iter()
        .filter(|(_, resource)| resource["Type"] == kind)
        .map(|(id, resource)| (id.as_str(), resource))
        .collect()
}
