//! Payload templates: `Parameters`, `ResultSelector`, `ItemSelector`. A field whose name ends in `.$` is filled in.

use serde_json::{Map, Value};

use super::intrinsic::Call;
use super::path::Path;

/// What an evaluation sees: a value, the context object, and a source of UUIDs that the caller drives.
pub(in crate::stepfunctions) struct Scope<'a> {
    input: &'a Value,
    context: &'a Value,
    uuid: &'a mut dyn FnMut() -> String,
}

impl<'a> Scope<'a> {
    pub(in crate::stepfunctions) fn new(
        input: &'a Value,
        context: &'a Value,
        uuid: &'a mut dyn FnMut() -> String,
    ) -> Self {
        Self { input, context, uuid }
    }

    /// The node of a path that must be there. `field` is where it stands, for the message.
    pub(super) fn find(&self, path: &Path, field: &str) -> Result<&'a Value, Evaluation> {
        path.find(self.input, self.context).ok_or_else(|| Evaluation::NotFound {
            path: path.to_string(),
            field: field.to_owned(),
            input: self.input.to_string(),
        })
    }

    pub(super) fn uuid(&mut self) -> String {
        (self.uuid)()
    }
}

/// Why an evaluation fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stepfunctions) enum Evaluation {
    /// A path leads nowhere.
    NotFound { path: String, field: String, input: String },
    /// An intrinsic function cannot do it.
    Intrinsic { call: String, problem: String },
}

/// A path or an intrinsic function.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Path(Path),
    Call(Call),
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if Call::looks_like(text) {
            Call::parse(text).map(Self::Call)
        } else {
            Path::parse(text).map(Self::Path)
        }
    }

    pub(super) fn evaluate(&self, scope: &mut Scope<'_>, field: &str) -> Result<Value, Evaluation> {
        match self {
            Self::Path(path) => scope.find(path, field).cloned(),
            Self::Call(call) => call.evaluate(scope, field),
        }
    }

    fn paths<'e>(&'e self, found: &mut Vec<&'e Path>) {
        match self {
            Self::Path(path) => found.push(path),
            Self::Call(call) => call.paths(found),
        }
    }
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Template(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Literal(Value),
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    /// The whole name of the field, with its `.$`, for the message.
    Dynamic(String, Expression),
}

impl Template {
    /// Parses a template; the error is the rest of a sentence that begins with the field's name.
    pub(super) fn parse(value: Value) -> Result<Self, String> {
        node(value).map(Self)
    }

    pub(in crate::stepfunctions) fn fill(&self, scope: &mut Scope<'_>) -> Result<Value, Evaluation> {
        fill(&self.0, scope)
    }

    /// Every path that it reads.
    pub(super) fn paths(&self) -> Vec<&Path> {
        fn collect<'n>(node: &'n Node, found: &mut Vec<&'n Path>) {
            match node {
                Node::Literal(_) => {}
                Node::Object(fields) => fields.iter().for_each(|(_, node)| collect(node, found)),
                Node::Array(items) => items.iter().for_each(|node| collect(node, found)),
                Node::Dynamic(_, expression) => expression.paths(found),
            }
        }
        let mut found = Vec::new();
        collect(&self.0, &mut found);
        found
    }
}

fn node(value: Value) -> Result<Node, String> {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<(String, Node)> = Vec::with_capacity(object.len());
            for (name, value) in object {
                let (name, node) = match name.strip_suffix(".$") {
                    None => (name, node(value)?),
                    Some(plain) => {
                        let Value::String(text) = value else {
                            return Err(format!("has `{name}` with something that is not a string"));
                        };
                        let expression = Expression::parse(&text)
                            .map_err(|problem| format!("has `{name}`, which {problem}"))?;
                        (plain.to_owned(), Node::Dynamic(name, expression))
                    }
                };
                if fields.iter().any(|(other, _)| *other == name) {
                    return Err(format!("has both `{name}` and `{name}.$`"));
                }
                fields.push((name, node));
            }
            Ok(Node::Object(fields))
        }
        Value::Array(items) => items.into_iter().map(node).collect::<Result<_, _>>().map(Node::Array),
        literal @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            Ok(Node::Literal(literal))
        }
    }
}

fn fill(node: &Node, scope: &mut Scope<'_>) -> Result<Value, Evaluation> {
    Ok(match node {
        Node::Literal(value) => value.clone(),
        Node::Object(fields) => {
            let mut object = Map::new();
            for (name, node) in fields {
                object.insert(name.clone(), fill(node, scope)?);
            }
            Value::Object(object)
        }
        Node::Array(items) => {
            Value::Array(items.iter().map(|node| fill(node, scope)).collect::<Result<_, _>>()?)
        }
        Node::Dynamic(field, expression) => expression.evaluate(scope, field)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(template: Value) -> Result<Value, Evaluation> {
        let input = json!({"a": {"b": 1}});
        let context = json!({"Execution": {"Id": "arn"}});
        let mut uuid = String::new;
        Template::parse(template).unwrap().fill(&mut Scope::new(&input, &context, &mut uuid))
    }

    #[test]
    fn a_template_is_filled_in_at_any_depth() {
        let template = json!({"x.$": "$.a", "y": [{"z.$": "$$.Execution.Id"}, "$.a"], "w": {"v.$": "States.Array($.a.b)"}});
        let expected = json!({"x": {"b": 1}, "y": [{"z": "arn"}, "$.a"], "w": {"v": [1]}});
        assert_eq!(filled(template), Ok(expected));
    }

    #[test]
    fn a_path_that_leads_nowhere_names_its_field() {
        let error = filled(json!({"deep": {"x.$": "$.a.c"}})).unwrap_err();
        assert_eq!(
            error,
            Evaluation::NotFound {
                path: "$.a.c".into(),
                field: "x.$".into(),
                input: r#"{"a":{"b":1}}"#.into()
            }
        );
    }

    #[test]
    fn a_template_that_is_none_is_refused() {
        for (template, why) in [
            (json!({"x.$": 1}), "not a string"),
            (json!({"x.$": "a"}), "does not begin with `$`"),
            (json!({"x": 1, "x.$": "$.a"}), "both `x` and `x.$`"),
            (json!({"x.$": "States.Nope()"}), "not supported"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn every_path_is_listed() {
        let template =
            Template::parse(json!({"a": [{"b.$": "$$.Task.Token"}], "c.$": "States.Array($.d)"})).unwrap();
        let paths: Vec<_> = template.paths().into_iter().map(ToString::to_string).collect();
        assert_eq!(paths, ["$$.Task.Token", "$.d"]);
    }
}
