//! A document as the service accepts it: schema 2.2, one `aws:runShellScript` step.
//!
//! It is read strictly. What the stand-in does not carry out as AWS does (other actions, several steps, unknown fields) is refused
//! when the document is made, so that no test passes because something was passed over in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;

/// How long a script may run when the document says nothing, or something out of range.
const DEFAULT_TIMEOUT: u64 = 3600;
/// What the agent takes as a time-out, in seconds. Anything else silently becomes [`DEFAULT_TIMEOUT`].
const TIMEOUTS: std::ops::RangeInclusive<u64> = 5..=172_800;

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum DocumentError {
    /// A pattern that the agent cannot read.
    #[error("the pattern of parameter `{0}` repeats more than a thousand times, which the agent refuses")]
    Repeat(String),
    #[error("the document is no JSON of schema 2.2")]
    Syntax(#[source] serde_json::Error),
    #[error("schema version `{0}` is not 2.2")]
    Schema(String),
    #[error("a document must have one step here, this one has {0}")]
    Steps(usize),
    #[error("the action `{0}` is not aws:runShellScript")]
    Action(String),
    #[error("the precondition of a step must be StringEquals [platformType, Linux]")]
    Precondition,
    #[error("`{0}` is no number of seconds")]
    Timeout(String),
    #[error("the parameter name `{0}` is not of letters, digits and underscores")]
    Name(String),
    #[error("the allowedPattern of parameter `{parameter}` cannot be compiled")]
    Pattern {
        parameter: String,
        #[source]
        source: regex_lite::Error,
    },
    #[error("the default of parameter `{0}` is not of its type or not allowed by it")]
    Default(String),
    #[error("parameter `{0}` is no String, so it cannot have interpolationType ENV_VAR")]
    Interpolation(String),
    #[error("the script refers to `{0}`, which is no parameter")]
    Reference(String),
}

/// A document that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) description: String,
    pub(crate) parameters: BTreeMap<String, Parameter>,
    pub(crate) step: Step,
}

/// The one step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    pub(crate) working_directory: Option<String>,
    /// In the seconds of the document.
    pub(crate) timeout_seconds: u64,
}

impl Step {
    /// How long the script may run when a second of the document takes `second`.
    pub(crate) fn timeout(&self, second: Duration) -> Duration {
        scaled(self.timeout_seconds, second)
    }
}

/// So many seconds, when one takes `second`.
pub(crate) fn scaled(seconds: u64, second: Duration) -> Duration {
    second.saturating_mul(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// A parameter's definition.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) kind: Kind,
    pub(crate) description: Option<String>,
    pub(crate) default: Option<Vec<String>>,
    pub(crate) allowed_values: Option<Vec<String>>,
    pub(crate) allowed_pattern: Option<Regex>,
    pub(crate) min_chars: Option<usize>,
    pub(crate) max_chars: Option<usize>,
    /// The value goes into the environment and not (only) into the text.
    pub(crate) env_var: bool,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    StringList,
    Integer,
    Boolean,
}

impl Kind {
    /// AWS's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::StringList => "StringList",
            Self::Integer => "Integer",
            Self::Boolean => "Boolean",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawDocument {
    schema_version: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: BTreeMap<String, RawParameter>,
    main_steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawParameter {
    #[serde(rename = "type")]
    kind: Kind,
    description: Option<String>,
    default: Option<Value>,
    allowed_values: Option<Vec<String>>,
    allowed_pattern: Option<String>,
    min_chars: Option<usize>,
    max_chars: Option<usize>,
    interpolation_type: Option<RawInterpolation>,
}

#[derive(Deserialize)]
enum RawInterpolation {
    #[serde(rename = "ENV_VAR")]
    EnvVar,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawStep {
    action: String,
    name: String,
    precondition: Option<BTreeMap<String, Vec<String>>>,
    inputs: RawInputs,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawInputs {
    timeout_seconds: Option<Value>,
    run_command: Vec<String>,
    working_directory: Option<String>,
}

impl Definition {
    /// Reads a document.
    pub(crate) fn parse(content: &str) -> Result<Self, DocumentError> {
        let raw: RawDocument = serde_json::from_str(content).map_err(DocumentError::Syntax)?;
        if raw.schema_version != "2.2" {
            return Err(DocumentError::Schema(raw.schema_version));
        }
        let count = raw.main_steps.len();
        let Ok([step]) = <[RawStep; 1]>::try_from(raw.main_steps) else {
            return Err(DocumentError::Steps(count));
        };
        let parameters = raw
            .parameters
            .into_iter()
            .map(|(name, raw)| Ok((name.clone(), parameter(name, raw)?)))
            .collect::<Result<BTreeMap<_, _>, DocumentError>>()?;
        let step = self::step(step)?;
        if let Some(unknown) = references(&step.lines).into_iter().find(|name| !parameters.contains_key(name))
        {
            return Err(DocumentError::Reference(unknown));
        }
        Ok(Self { description: raw.description, parameters, step })
    }
}

/// The largest count in a pattern's braces.
fn largest_repeat(pattern: &str) -> u32 {
    let braces = pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    braces.flat_map(|(counts, _)| counts.split(',')).filter_map(|count| count.parse().ok()).max().unwrap_or(0)
}

fn parameter(name: String, raw: RawParameter) -> Result<Parameter, DocumentError> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(DocumentError::Name(name));
    }
    if raw.interpolation_type.is_some() && raw.kind != Kind::String {
        return Err(DocumentError::Interpolation(name));
    }
    // The agent is written in Go, whose patterns repeat at most a thousand times.
    if raw.allowed_pattern.as_deref().is_some_and(|pattern| largest_repeat(pattern) > 1000) {
        return Err(DocumentError::Repeat(name));
    }
    let pattern = raw.allowed_pattern.as_deref().map(Regex::new).transpose();
    let default = match raw.default {
        None => None,
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Number(number)) => Some(vec![number.to_string()]),
        Some(Value::Bool(truth)) => Some(vec![truth.to_string()]),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>();
            Some(texts.ok_or_else(|| DocumentError::Default(name.clone()))?)
        }
        Some(Value::Null | Value::Object(_)) => return Err(DocumentError::Default(name)),
    };
    let parameter = Parameter {
        kind: raw.kind,
        description: raw.description,
        default,
        allowed_values: raw.allowed_values,
        allowed_pattern: pattern
            .map_err(|source| DocumentError::Pattern { parameter: name.clone(), source })?,
        min_chars: raw.min_chars,
        max_chars: raw.max_chars,
        env_var: raw.interpolation_type.is_some(),
    };
    match &parameter.default {
        Some(default) if parameter.refusal(default).is_some() => Err(DocumentError::Default(name)),
        Some(_) | None => Ok(parameter),
    }
}

fn step(raw: RawStep) -> Result<Step, DocumentError> {
    if raw.action != "aws:runShellScript" {
        return Err(DocumentError::Action(raw.action));
    }
    let linux =
        BTreeMap::from([("StringEquals".to_owned(), vec!["platformType".to_owned(), "Linux".to_owned()])]);
    if raw.precondition.is_some_and(|precondition| precondition != linux) {
        return Err(DocumentError::Precondition);
    }
    let seconds = match raw.inputs.timeout_seconds {
        None => DEFAULT_TIMEOUT,
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let seconds: i128 = text.parse().map_err(|_not_a_number| DocumentError::Timeout(text))?;
            u64::try_from(seconds)
                .ok()
                .filter(|seconds| TIMEOUTS.contains(seconds))
                .unwrap_or(DEFAULT_TIMEOUT)
        }
    };
    Ok(Step {
        name: raw.name,
        lines: raw.inputs.run_command,
        working_directory: raw.inputs.working_directory,
        timeout_seconds: seconds,
    })
}

/// The names in `{{ }}`.
fn references(lines: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in lines {
        let mut rest = line.as_str();
        while let Some((_, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else { break };
            names.insert(name.trim().to_owned());
            rest = after;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(change: impl FnOnce(&mut Value)) -> Result<Definition, DocumentError> {
        let mut document = json!({
            "schemaVersion": "2.2",
            "parameters": { "Word": { "type": "String", "allowedPattern": "^[a-z]*$", "default": "x" } },
            "mainSteps": [{
                "action": "aws:runShellScript",
                "name": "say",
                "precondition": { "StringEquals": ["platformType", "Linux"] },
                "inputs": { "runCommand": ["echo {{ Word }}"] },
            }],
        });
        change(&mut document);
        Definition::parse(&document.to_string())
    }

    fn timeout(value: Value) -> u64 {
        document(|d| d["mainSteps"][0]["inputs"]["timeoutSeconds"] = value).unwrap().step.timeout_seconds
    }

    #[test]
    fn a_time_out_out_of_range_silently_becomes_an_hour() {
        let cases = [
            (json!("60"), 60),
            (json!(5), 5),
            (json!("4"), 3600),
            (json!("0"), 3600),
            (json!("-1"), 3600),
            (json!(172_800), 172_800),
            (json!("172801"), 3600),
        ];
        for (given, expected) in cases {
            assert_eq!(timeout(given.clone()), expected, "{given}");
        }
        assert_eq!(document(|_| {}).unwrap().step.timeout_seconds, 3600);
    }

    #[test]
    fn what_is_not_carried_out_is_refused() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 12] = [
            ("Schema", |d| d["schemaVersion"] = json!("0.3")),
            ("Syntax", |d| d["mainSteps"][0]["onFailure"] = json!("exit")),
            ("Syntax", |d| d["mainSteps"][0]["inputs"]["runcommand"] = json!([])),
            ("Syntax", |d| d["parameters"]["Word"]["interpolationtype"] = json!("ENV_VAR")),
            ("Syntax", |d| d["parameters"]["Word"]["interpolationType"] = json!("env_var")),
            ("Syntax", |d| d["mainSteps"][0]["interpolationType"] = json!("ENV_VAR")),
            ("Steps", |d| d["mainSteps"] = json!([])),
            ("Action", |d| d["mainSteps"][0]["action"] = json!("aws:runPowerShellScript")),
            ("Precondition", |d| {
                d["mainSteps"][0]["precondition"] = json!({ "StringEquals": ["platformType", "Windows"] });
            }),
            ("Pattern", |d| d["parameters"]["Word"]["allowedPattern"] = json!("^[a-z*$")),
            ("Default", |d| d["parameters"]["Word"]["default"] = json!("UPPER")),
            ("Reference", |d| d["mainSteps"][0]["inputs"]["runCommand"] = json!(["echo {{ Wort }}"])),
        ];
        for (expected, change) in cases {
            let error = document(change).unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{expected}: {error:?}");
        }
    }
}
