//! Intrinsic functions: `States.Format('{}/{}', $.a, $$.Execution.Name)`.
//!
//! There are `Format`, `JsonToString`, `StringToJson`, `Array`, `ArrayGetItem`, `ArrayLength`, `MathAdd`, `JsonMerge` and `UUID`.
//! Any other is refused when the definition is read, and so is a wrong number of arguments, or a format whose `{}` are not
//! as many as its arguments. What only the data can show is `States.IntrinsicFailure`.

use serde_json::Value;

use super::fields::kind;
use super::path::Path;
use super::template::{Evaluation, Scope};

/// A parsed call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    text: String,
    function: Function,
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone, PartialEq)]
enum Argument {
    Literal(Value),
    /// A string with escapes; for `Format` its braces still mean something.
    Text(String),
    Path(Path),
    Call(Call),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Array,
    ArrayGetItem,
    ArrayLength,
    Format,
    JsonMerge,
    JsonToString,
    MathAdd,
    StringToJson,
    Uuid,
}

impl Function {
    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "States.Array" => Self::Array,
            "States.ArrayGetItem" => Self::ArrayGetItem,
            "States.ArrayLength" => Self::ArrayLength,
            "States.Format" => Self::Format,
            "States.JsonMerge" => Self::JsonMerge,
            "States.JsonToString" => Self::JsonToString,
            "States.MathAdd" => Self::MathAdd,
            "States.StringToJson" => Self::StringToJson,
            "States.UUID" => Self::Uuid,
            other => return Err(format!("the function `{other}` is not supported here")),
        })
    }

    /// How many arguments it takes; `None` is any number.
    fn arity(self) -> Option<usize> {
        match self {
            Self::Array | Self::Format => None,
            Self::Uuid => Some(0),
            Self::ArrayLength | Self::JsonToString | Self::StringToJson => Some(1),
            Self::ArrayGetItem | Self::MathAdd => Some(2),
            Self::JsonMerge => Some(3),
        }
    }
}

impl Call {
    /// Whether a text is meant to be a call and not a path.
    pub(super) fn looks_like(text: &str) -> bool {
        text.starts_with("States.")
    }

    /// Parses a call; the error is the rest of a sentence that begins with the field's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refuse = |problem: String| format!("has `{text}`, in which {problem}");
        let mut parser = Parser { text, at: 0 };
        let call = parser.call().map_err(refuse)?;
        parser.space();
        match parser.rest() {
            "" => Ok(call),
            rest => Err(refuse(format!("`{rest}` follows the call"))),
        }
    }

    /// Every path that it reads.
    pub(super) fn paths<'c>(&'c self, found: &mut Vec<&'c Path>) {
        for argument in &self.arguments {
            match argument {
                Argument::Path(path) => found.push(path),
                Argument::Call(call) => call.paths(found),
                Argument::Literal(_) | Argument::Text(_) => {}
            }
        }
    }

    /// Calls it. `field` is where it stands, for the message.
    pub(super) fn evaluate(&self, scope: &mut Scope<'_>, field: &str) -> Result<Value, Evaluation> {
        let mut values = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            values.push(match argument {
                Argument::Literal(value) => value.clone(),
                Argument::Text(text) if self.function == Function::Format => text.as_str().into(),
                Argument::Text(text) => unescape(text).into(),
                Argument::Path(path) => scope.find(path, field)?.clone(),
                Argument::Call(call) => call.evaluate(scope, field)?,
            });
        }
        self.apply(values, scope)
            .map_err(|problem| Evaluation::Intrinsic { call: self.text.clone(), problem })
    }

    fn apply(&self, values: Vec<Value>, scope: &mut Scope<'_>) -> Result<Value, String> {
        match (self.function, values.as_slice()) {
            (Function::Array, _) => Ok(Value::Array(values)),
            (Function::ArrayGetItem, [Value::Array(items), index]) => index
                .as_u64()
                .and_then(|index| items.get(usize::try_from(index).ok()?).cloned())
                .ok_or_else(|| format!("there is no item {index} in an array of {}", items.len())),
            (Function::ArrayLength, [Value::Array(items)]) => Ok(items.len().into()),
            (Function::Format, [Value::String(format), rest @ ..]) => fill(format, rest).map(Value::String),
            (Function::JsonMerge, [Value::Object(under), Value::Object(over), Value::Bool(false)]) => {
                let mut merged = under.clone();
                merged.extend(over.iter().map(|(name, value)| (name.clone(), value.clone())));
                Ok(Value::Object(merged))
            }
            (Function::JsonMerge, [_, _, Value::Bool(true)]) => {
                Err("a deep merge is asked for, and there is only a shallow one".to_owned())
            }
            (Function::JsonToString, [value]) => Ok(value.to_string().into()),
            (Function::MathAdd, [left, right]) => {
                let number = |value: &Value| {
                    value.as_i64().ok_or_else(|| format!("{value} is not a whole number of 64 bits"))
                };
                let sum = number(left)?.checked_add(number(right)?);
                sum.map(Value::from).ok_or_else(|| "the sum does not fit 64 bits".to_owned())
            }
            (Function::StringToJson, [Value::String(text)]) => {
                serde_json::from_str(text).map_err(|error| format!("the string is not JSON: {error}"))
            }
            (Function::Uuid, []) => Ok(scope.uuid().into()),
            (_, values) => {
                let kinds: Vec<_> = values.iter().map(kind).collect();
                Err(format!("the arguments have the wrong types: {}", kinds.join(", ")))
            }
        }
    }
}

/// Fills the `{}` of a format in turn.
fn fill(format: &str, values: &[Value]) -> Result<String, String> {
    let mut filled = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => filled.extend(chars.next()),
            '{' => {
                chars.next();
                match values.next() {
                    Some(Value::String(text)) => filled.push_str(text),
                    Some(Value::Null) => filled.push_str("null"),
                    Some(Value::Bool(value)) => filled.push_str(&value.to_string()),
                    Some(Value::Number(value)) => filled.push_str(&value.to_string()),
                    Some(value @ (Value::Array(_) | Value::Object(_))) => {
                        return Err(format!("{} cannot be put into a text", kind(value)));
                    }
                    None => return Err("there are more `{}` than arguments".to_owned()),
                }
            }
            other => filled.push(other),
        }
    }
    Ok(filled)
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    plain
}

/// The number of `{}` of a format, or what is wrong with its braces.
fn placeholders(format: &str) -> Result<usize, String> {
    let mut count = 0;
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '{' if chars.next() == Some('}') => count += 1,
            '{' | '}' => return Err("a brace of the format is neither `{}` nor escaped as `\\{`".to_owned()),
            _ => {}
        }
    }
    Ok(count)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn eat(&mut self, char: char) -> bool {
        self.space();
        let there = self.rest().starts_with(char);
        if there {
            self.at += char.len_utf8();
        }
        there
    }

    fn call(&mut self) -> Result<Call, String> {
        let start = self.at;
        let name = self.rest().split('(').next().unwrap_or_default();
        let function = Function::named(name.trim_end())?;
        self.at += name.len();
        if !self.eat('(') {
            return Err(format!("`(` is missing after `{name}`"));
        }
        let mut arguments = Vec::new();
        if !self.eat(')') {
            loop {
                arguments.push(self.argument()?);
                if self.eat(')') {
                    break;
                }
                if !self.eat(',') {
                    return Err(format!("`,` or `)` is missing before `{}`", self.rest()));
                }
            }
        }
        if let Some(arity) = function.arity()
            && arity != arguments.len()
        {
            return Err(format!("`{name}` has {} arguments instead of {arity}", arguments.len()));
        }
        if function == Function::Format {
            let Some(Argument::Text(format)) = arguments.first() else {
                return Err("the first argument of `States.Format` is not a text in quotes".to_owned());
            };
            let (places, given) = (placeholders(format)?, arguments.len() - 1);
            if places != given {
                return Err(format!("the format has {places} places for {given} arguments"));
            }
        }
        Ok(Call { text: self.text[start..self.at].to_owned(), function, arguments })
    }

    fn argument(&mut self) -> Result<Argument, String> {
        self.space();
        let rest = self.rest();
        if rest.starts_with('\'') {
            return self.quoted().map(Argument::Text);
        }
        if rest.starts_with('$') {
            return self.path();
        }
        if Call::looks_like(rest) {
            return self.call().map(Argument::Call);
        }
        let end = rest.find([',', ')']).unwrap_or(rest.len());
        let word = rest[..end].trim_end();
        let literal = serde_json::from_str(word)
            .ok()
            .filter(|value| matches!(value, Value::Null | Value::Bool(_) | Value::Number(_)))
            .ok_or_else(|| format!("`{word}` is no argument"))?;
        self.at += end;
        Ok(Argument::Literal(literal))
    }

    fn quoted(&mut self) -> Result<String, String> {
        let body = &self.rest()[1..];
        let mut escaped = false;
        for (at, char) in body.char_indices() {
            match char {
                _ if escaped && !matches!(char, '\'' | '{' | '}' | '\\') => {
                    return Err(format!(
                        "`\\{char}` is no escape; there are `\\'`, `\\{{`, `\\}}` and `\\\\`"
                    ));
                }
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => {
                    self.at += at + 2;
                    return Ok(body[..at].to_owned());
                }
                _ => {}
            }
        }
        Err("a text is not closed".to_owned())
    }

    fn path(&mut self) -> Result<Argument, String> {
        let rest = self.rest();
        let mut in_name = false;
        let end = rest
            .char_indices()
            .find(|(_, char)| {
                in_name ^= *char == '\'';
                !in_name && matches!(char, ',' | ')' | ' ')
            })
            .map_or(rest.len(), |(at, _)| at);
        let path = Path::parse(&rest[..end]).map_err(|problem| format!("an argument {problem}"))?;
        self.at += end;
        Ok(Argument::Path(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evaluate(text: &str) -> Result<Value, String> {
        let input =
            json!({"a": 1, "s": "x", "list": [1, 2], "o": {"k": 1}, "p": {"k": 2, "l": 3}, "a,b": "c"});
        let context = json!({"Execution": {"Name": "run"}});
        let mut uuid = || "00000000-0000-4000-8000-000000000001".to_owned();
        let mut scope = Scope::new(&input, &context, &mut uuid);
        let call = Call::parse(text)?;
        call.evaluate(&mut scope, "x.$").map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn functions_give_what_the_language_says() {
        for (text, expected) in [
            ("States.Format('{} and {}', $.s, $$.Execution.Name)", json!("x and run")),
            ("States.Format('no places')", json!("no places")),
            (r"States.Format('it\'s \{\} {}', 1)", json!("it's {} 1")),
            ("States.Format('{}{}{}', null, true, 0.5)", json!("nulltrue0.5")),
            ("States.Format('{}', $['a,b'])", json!("c")),
            ("States.Format( 'a {}' , States.Format('b {}', $.a) )", json!("a b 1")),
            ("States.JsonToString($.o)", json!(r#"{"k":1}"#)),
            (r#"States.StringToJson('{"a":[1]}')"#, json!({"a": [1]})),
            ("States.Array()", json!([])),
            ("States.Array(1, 'a', $.o, null)", json!([1, "a", {"k": 1}, null])),
            (r"States.Array('\{\}')", json!(["{}"])),
            ("States.ArrayGetItem($.list, 1)", json!(2)),
            ("States.ArrayLength($.list)", json!(2)),
            ("States.MathAdd($.a, -3)", json!(-2)),
            ("States.JsonMerge($.o, $.p, false)", json!({"k": 2, "l": 3})),
            ("States.UUID()", json!("00000000-0000-4000-8000-000000000001")),
        ] {
            assert_eq!(evaluate(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_only_the_data_can_show_fails_when_it_is_called() {
        for (text, why) in [
            ("States.Format('{}', $.o)", "cannot be put into a text"),
            ("States.ArrayGetItem($.list, 2)", "no item 2"),
            ("States.ArrayGetItem($.list, -1)", "no item -1"),
            ("States.ArrayLength($.o)", "wrong types: an object"),
            ("States.MathAdd($.a, 0.5)", "not a whole number"),
            ("States.MathAdd(9223372036854775807, 1)", "does not fit"),
            ("States.StringToJson($.s)", "not JSON"),
            ("States.JsonMerge($.o, $.p, true)", "deep merge"),
            ("States.JsonToString($.nothing)", "NotFound"),
        ] {
            let error = evaluate(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_call_is_refused_before_it_runs() {
        for (text, why) in [
            ("States.Hash($.a, 'MD5')", "`States.Hash` is not supported"),
            ("States.Format('{}')", "1 places for 0 arguments"),
            ("States.Format('{x}', 1)", "a brace"),
            ("States.Format($.s, 1)", "not a text in quotes"),
            ("States.UUID(1)", "1 arguments instead of 0"),
            ("States.MathAdd(1)", "1 arguments instead of 2"),
            ("States.Array(1", "is missing"),
            ("States.Array(1 2)", "no argument"),
            ("States.Array('a)", "not closed"),
            (r"States.Array('\n')", "no escape"),
            ("States.Array($..a)", "any depth"),
            ("States.Array(\"a\")", "no argument"),
            ("States.UUID() x", "follows"),
            ("States.UUID", "is missing"),
        ] {
            let error = Call::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
