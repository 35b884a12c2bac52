//! The values of a command: judged at call time as the service judges them, and brought into the script as the agent does.

use std::collections::BTreeMap;

use super::document::{Definition, Kind, Parameter};

/// The values by the names of their parameters, each a list, as the API has them.
pub(crate) type Values = BTreeMap<String, Vec<String>>;

impl Definition {
    /// The values of every parameter, defaults included; or why the service answers `InvalidParameters`.
    pub(crate) fn bind(&self, given: &Values) -> Result<Values, String> {
        if let Some(unknown) = given.keys().find(|name| !self.parameters.contains_key(*name)) {
            return Err(format!("parameter `{unknown}` is not in the document"));
        }
        let mut values = Values::new();
        for (name, parameter) in &self.parameters {
            let value = match (given.get(name), &parameter.default) {
                (Some(value), _) => {
                    if let Some(why) = parameter.refusal(value) {
                        return Err(format!("the value of parameter `{name}` {why}"));
                    }
                    value
                }
                (None, Some(default)) => default,
                (None, None) => {
                    return Err(format!("parameter `{name}` has no default and was not given"));
                }
            };
            values.insert(name.clone(), value.clone());
        }
        Ok(values)
    }

    /// The script with every `{{ Name }}` replaced by the value's text: whatever the shell makes of it.
    ///
    /// A parameter with `ENV_VAR` is replaced too where the script refers to it like that, which is what makes AWS's
    /// fallback for older agents as open to injection as before.
    pub(crate) fn script(&self, values: &Values) -> String {
        let mut script = String::new();
        for line in &self.step.lines {
            script.push_str(&self.substituted(line, values));
            script.push('\n');
        }
        script
    }

    fn substituted(&self, line: &str, values: &Values) -> String {
        let mut text = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else { break };
            text.push_str(before);
            let whole = before.is_empty() && after.is_empty();
            text.push_str(&self.text_of(name.trim(), values, whole));
            rest = after;
        }
        text.push_str(rest);
        text
    }

    /// A list that is a whole line becomes lines; inside a line it becomes its JSON.
    fn text_of(&self, name: &str, values: &Values, whole_line: bool) -> String {
        let list = self.parameters.get(name).is_some_and(|parameter| parameter.kind == Kind::StringList);
        match values.get(name) {
            Some(items) if list && !whole_line => serde_json::json!(items).to_string(),
            Some(items) => items.join("\n"),
            None => String::new(),
        }
    }

    /// `SSM_<name>` of every parameter with `ENV_VAR`, for an agent that knows it.
    pub(crate) fn environment(&self, values: &Values) -> Vec<(String, String)> {
        let exported = self.parameters.iter().filter(|(_, parameter)| parameter.env_var);
        exported
            .filter_map(|(name, _)| Some((format!("SSM_{name}"), values.get(name)?.first()?.clone())))
            .collect()
    }
}

impl Parameter {
    /// Why the value is refused, if it is.
    pub(crate) fn refusal(&self, value: &[String]) -> Option<String> {
        if self.kind != Kind::StringList && value.len() != 1 {
            return Some(format!("must be one {}, not {} of them", self.kind.name(), value.len()));
        }
        value.iter().find_map(|text| self.refusal_of(text))
    }

    fn refusal_of(&self, text: &str) -> Option<String> {
        let typed = match self.kind {
            Kind::String | Kind::StringList => true,
            Kind::Integer => text.parse::<i64>().is_ok(),
            Kind::Boolean => matches!(text, "true" | "false"),
        };
        if !typed {
            return Some(format!("is no {}", self.kind.name()));
        }
        let length = text.chars().count();
        if self.min_chars.is_some_and(|least| length < least)
            || self.max_chars.is_some_and(|most| length > most)
        {
            return Some(format!("has {length} characters, which is not allowed"));
        }
        if self.allowed_values.as_ref().is_some_and(|allowed| !allowed.iter().any(|one| one == text)) {
            return Some("is not among its allowedValues".to_owned());
        }
        match &self.allowed_pattern {
            Some(pattern) if !pattern.is_match(text) => {
                Some(format!("does not match its allowedPattern {pattern}"))
            }
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn definition(parameters: Value, lines: Value) -> Definition {
        let document = json!({
            "schemaVersion": "2.2",
            "parameters": parameters,
            "mainSteps": [{ "action": "aws:runShellScript", "name": "run", "inputs": { "runCommand": lines } }],
        });
        Definition::parse(&document.to_string()).unwrap()
    }

    type Given<'a> = &'a [(&'a str, &'a [&'a str])];

    fn values(pairs: Given<'_>) -> Values {
        let owned = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        pairs.iter().map(|(name, items)| ((*name).to_owned(), owned(items))).collect()
    }

    #[test]
    fn values_are_judged_as_the_service_judges_them() {
        let definition = definition(
            json!({
                "Word": { "type": "String", "allowedPattern": "^[a-z]{1,3}$" },
                "Count": { "type": "Integer", "default": 3 },
                "Flag": { "type": "Boolean", "default": false },
                "Mode": { "type": "String", "default": "a", "allowedValues": ["a", "b"] },
                "Short": { "type": "String", "default": "", "maxChars": 2 },
            }),
            json!(["true"]),
        );
        let bound = definition.bind(&values(&[("Word", &["abc"]), ("Mode", &["b"])])).unwrap();
        let expected = values(&[
            ("Count", &["3"]),
            ("Flag", &["false"]),
            ("Mode", &["b"]),
            ("Short", &[""]),
            ("Word", &["abc"]),
        ]);
        assert_eq!(bound, expected);
        let refused: [(Given<'_>, &str); 9] = [
            (&[], "`Word` has no default"),
            (&[("Word", &["a"]), ("Extra", &["x"])], "`Extra` is not in the document"),
            (&[("Word", &["abcd"])], "allowedPattern"),
            (&[("Word", &["a\nb"])], "allowedPattern"),
            (&[("Word", &["a", "b"])], "must be one String, not 2"),
            (&[("Word", &[])], "must be one String, not 0"),
            (&[("Word", &["a"]), ("Count", &["many"])], "is no Integer"),
            (&[("Word", &["a"]), ("Flag", &["yes"])], "is no Boolean"),
            (&[("Word", &["a"]), ("Mode", &["c"])], "allowedValues"),
        ];
        for (given, why) in refused {
            let error = definition.bind(&values(given)).unwrap_err();
            assert!(error.contains(why), "{given:?}: {error}");
        }
    }

    #[test]
    fn text_is_substituted_and_an_environment_variable_is_not_needed_for_it() {
        let definition = definition(
            json!({
                "Plain": { "type": "String" },
                "Lines": { "type": "StringList" },
                "Env": { "type": "String", "interpolationType": "ENV_VAR" },
            }),
            json!(["echo '{{Plain}}' {{ Env }}", "{{ Lines }}", "echo {{ Lines }} {{ open"]),
        );
        let values = values(&[("Plain", &["'; id; '"]), ("Lines", &["a", "b"]), ("Env", &["$(id)"])]);
        assert_eq!(
            definition.script(&values),
            "echo ''; id; '' $(id)\na\nb\necho [\"a\",\"b\"] {{ open\n",
            "quotes of the script do not hold a value in"
        );
        assert_eq!(definition.environment(&values), [("SSM_Env".to_owned(), "$(id)".to_owned())]);
    }
}
