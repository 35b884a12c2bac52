//! Paths: `$.a.b['c d'][0]` into a state's input, `$$.Execution.Id` into the context object.
//!
//! Only paths that name one node are there. Wildcards, slices, filters and `..` make a list of whatever they find, also of
//! nothing: a machine that needs them decides in a function. They are refused when the definition is read.

use std::fmt;

use serde_json::{Map, Value};

/// A path to one node of the input or of the context object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stepfunctions) struct Path {
    text: String,
    root: Root,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Input,
    Context,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

impl Path {
    /// Parses a path; the error is the rest of a sentence that begins with the field's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refuse = |problem: &str| format!("has the path `{text}`, which {problem}");
        let (root, rest) = match text.strip_prefix("$$") {
            Some(rest) => (Root::Context, rest),
            None => match text.strip_prefix('$') {
                Some(rest) => (Root::Input, rest),
                None => return Err(refuse("does not begin with `$`")),
            },
        };
        let mut steps = Vec::new();
        let mut rest = rest;
        while !rest.is_empty() {
            let (step, after) = step(rest).map_err(refuse)?;
            steps.push(step);
            rest = after;
        }
        Ok(Self { text: text.to_owned(), root, steps })
    }

    /// The node, if it is there.
    pub(in crate::stepfunctions) fn find<'v>(
        &self,
        input: &'v Value,
        context: &'v Value,
    ) -> Option<&'v Value> {
        let root = match self.root {
            Root::Input => input,
            Root::Context => context,
        };
        self.steps.iter().try_fold(root, |node, step| match step {
            Step::Field(name) => node.as_object()?.get(name),
            Step::Item(index) => node.as_array()?.get(*index),
        })
    }

    /// Whether it is the token of the task: `$$.Task.Token`.
    pub(super) fn is_task_token(&self) -> bool {
        let names = |step: &Step, wanted| matches!(step, Step::Field(name) if name == wanted);
        self.root == Root::Context
            && matches!(self.steps.as_slice(), [task, token] if names(task, "Task") && names(token, "Token"))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One step of a path, and what comes after it.
fn step(text: &str) -> Result<(Step, &str), &'static str> {
    if let Some(rest) = text.strip_prefix('.') {
        if rest.starts_with('.') {
            return Err("searches at any depth (`..`): only paths to one node are supported");
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name == "*" {
            return Err("has a wildcard: only paths to one node are supported");
        }
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
            return Err("has a field name that must be written as `['name']`");
        }
        return Ok((Step::Field(name.to_owned()), after));
    }
    let Some(rest) = text.strip_prefix('[') else {
        return Err("has something other than `.name`, `['name']` or `[0]`");
    };
    if let Some(quoted) = rest.strip_prefix('\'') {
        let (name, after) = quoted.split_once("']").ok_or("has a bracket that is not closed")?;
        if name.is_empty() || name.contains(['\'', '\\']) {
            return Err("has a field name with a quote or a backslash, or without a character");
        }
        return Ok((Step::Field(name.to_owned()), after));
    }
    let (index, after) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
    if !index.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a wildcard, slice, filter or negative index: only paths to one node are supported");
    }
    let index = index.parse().map_err(|_error: std::num::ParseIntError| "has an index that is no number")?;
    Ok((Step::Item(index), after))
}

/// A path at which a result is put into a state's input: `ResultPath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stepfunctions) struct ReferencePath(Path);

impl ReferencePath {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let path = Path::parse(text)?;
        match path.root {
            Root::Input => Ok(Self(path)),
            Root::Context => Err(format!("has the path `{text}`, and the context object cannot be written")),
        }
    }

    /// Puts `value` at this place of `target`. Objects that are missing on the way are made; an array is not.
    pub(in crate::stepfunctions) fn put(&self, target: Value, value: Value) -> Result<Value, Misfit> {
        let mut target = target;
        let mut node = &mut target;
        for step in &self.0.steps {
            let next = match (step, node) {
                (Step::Field(name), Value::Object(object)) => {
                    object.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()))
                }
                (Step::Item(index), Value::Array(array)) => array.get_mut(*index).ok_or(Misfit)?,
                (Step::Field(_) | Step::Item(_), _) => return Err(Misfit),
            };
            node = next;
        }
        *node = value;
        Ok(target)
    }
}

impl fmt::Display for ReferencePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The input has something at that place, or before it, into which nothing can be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stepfunctions) struct Misfit;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_finds_one_node() {
        let input = json!({"a": {"b": [10, {"c d": "x", "ünï": null}]}, "e-f": 1});
        let context = json!({"Execution": {"Id": "arn"}});
        for (path, expected) in [
            ("$", Some(input.clone())),
            ("$.a.b[0]", Some(json!(10))),
            ("$.a.b[1]['c d']", Some(json!("x"))),
            ("$['a']['b'][1].ünï", Some(Value::Null)),
            ("$.e-f", Some(json!(1))),
            ("$$.Execution.Id", Some(json!("arn"))),
            ("$$", Some(context.clone())),
            ("$.a.b[2]", None),
            ("$.a.x.y", None),
            ("$.a[0]", None),
            ("$$.Execution.Name", None),
        ] {
            let found = Path::parse(path).unwrap().find(&input, &context).cloned();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_a_path_to_one_node_is_refused() {
        for (path, why) in [
            ("a.b", "does not begin"),
            ("", "does not begin"),
            ("$.", "must be written"),
            ("$.a b", "must be written"),
            ("$..a", "any depth"),
            ("$.*", "wildcard"),
            ("$.a[*]", "wildcard"),
            ("$.a[-1]", "negative"),
            ("$.a[0:2]", "slice"),
            ("$.a[?(@.b)]", "filter"),
            ("$.a['b", "not closed"),
            ("$.a[0", "not closed"),
            ("$.a['']", "without a character"),
            ("$a", "something other"),
            ("$$$.a", "something other"),
        ] {
            let error = Path::parse(path).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn a_result_is_put_where_its_path_says() {
        let input = json!({"a": {"b": 1}, "list": [1, 2]});
        for (path, expected) in [
            ("$", Some(json!("new"))),
            ("$.c", Some(json!({"a": {"b": 1}, "list": [1, 2], "c": "new"}))),
            ("$.a.b", Some(json!({"a": {"b": "new"}, "list": [1, 2]}))),
            ("$.x.y.z", Some(json!({"a": {"b": 1}, "list": [1, 2], "x": {"y": {"z": "new"}}}))),
            ("$.list[1]", Some(json!({"a": {"b": 1}, "list": [1, "new"]}))),
            ("$.list[2]", None),
            ("$.a.b.c", None),
            ("$.list.c", None),
        ] {
            let put = ReferencePath::parse(path).unwrap().put(input.clone(), json!("new"));
            assert_eq!(put.ok(), expected, "{path}");
        }
        assert!(ReferencePath::parse("$$.Task").unwrap_err().contains("cannot be written"));
    }

    #[test]
    fn only_the_token_is_the_token() {
        assert!(Path::parse("$$.Task.Token").unwrap().is_task_token());
        assert!(Path::parse("$$['Task'].Token").unwrap().is_task_token());
        assert!(!Path::parse("$.Task.Token").unwrap().is_task_token());
        assert!(!Path::parse("$$.Task").unwrap().is_task_token());
    }
}
