//! Choice rules: comparisons of what a path finds, and `And`, `Or` and `Not` of them.

use std::cmp::Ordering;

use serde_json::Value;

use super::error::{DefinitionError, Place};
use super::fields::{Fields, kind, text};
use super::path::Path;
use super::timestamp;

/// The rules of a Choice state, in order.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Branching {
    rules: Vec<(Rule, String)>,
    default: Option<String>,
}

/// What a Choice state comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stepfunctions) enum Judgement<'a> {
    /// The state to go to.
    Next(&'a str),
    /// No rule holds and there is no default.
    NoneHolds,
    /// A rule reads something that is not there.
    NotFound(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Compare { variable: Path, comparison: Comparison },
}

#[derive(Debug, Clone, PartialEq)]
enum Comparison {
    Relation { domain: Domain, relation: Relation, operand: Operand },
    Matches(String),
    Is(Property, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain {
    Boolean,
    Numeric,
    String,
    Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equals,
    GreaterThan,
    GreaterThanEquals,
    LessThan,
    LessThanEquals,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Path),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Boolean,
    Null,
    Numeric,
    Present,
    String,
    Timestamp,
}

impl Branching {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, DefinitionError> {
        let place = fields.place().clone();
        let Value::Array(items) = fields.need("Choices")? else {
            return Err(place.field("Choices", "must be an array"));
        };
        if items.is_empty() {
            return Err(place.field("Choices", "is empty"));
        }
        let mut rules = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let place = place.inside(format_args!("choice {index}"));
            let mut fields = Fields::of(&place, "Choices", item)?;
            let next = fields.text("Next")?;
            rules.push((Rule::parse(fields)?, next));
        }
        Ok(Self { rules, default: fields.read("Default", text)? })
    }

    /// Where the state can go.
    pub(super) fn targets(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|(_, next)| next.as_str()).chain(self.default.as_deref())
    }

    pub(in crate::stepfunctions) fn decide(&self, input: &Value, context: &Value) -> Judgement<'_> {
        for (rule, next) in &self.rules {
            match rule.holds(input, context) {
                Ok(true) => return Judgement::Next(next),
                Ok(false) => {}
                Err(NotFound(path)) => return Judgement::NotFound(path),
            }
        }
        self.default.as_deref().map_or(Judgement::NoneHolds, Judgement::Next)
    }
}

struct NotFound(String);

impl Rule {
    fn parse(mut fields: Fields<'_>) -> Result<Self, DefinitionError> {
        fields.comment()?;
        let place = fields.place().clone();
        let variable = fields.read("Variable", |value| Path::parse(&text(value)?))?;
        let names = fields.names();
        let [name] = names.as_slice() else {
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(place.rule(format!("a rule has one operator, and not {found}")));
        };
        let Some(operand) = fields.take_named(name) else {
            return Err(place.rule(format!("the operator `{name}` is missing")));
        };
        let rule = match (name.as_str(), variable) {
            ("And", None) => Self::All(Self::several(&place, name, operand)?),
            ("Or", None) => Self::Any(Self::several(&place, name, operand)?),
            ("Not", None) => {
                let place = place.inside("`Not`");
                Self::Not(Box::new(Self::parse(Fields::of(&place, name, operand)?)?))
            }
            (_, None) => {
                return Err(DefinitionError::MissingField { place, field: "Variable".to_owned() });
            }
            (_, Some(variable)) => {
                let comparison =
                    Comparison::parse(name, operand).map_err(|problem| place.field(name, problem))?;
                Self::Compare { variable, comparison }
            }
        };
        fields.finish()?;
        Ok(rule)
    }

    fn several(place: &Place, field: &str, value: Value) -> Result<Vec<Self>, DefinitionError> {
        let Value::Array(items) = value else {
            return Err(place.field(field, "must be an array"));
        };
        if items.is_empty() {
            return Err(place.field(field, "is empty"));
        }
        let rule = |(index, item)| {
            let place = place.inside(format_args!("`{field}` {index}"));
            Self::parse(Fields::of(&place, field, item)?)
        };
        items.into_iter().enumerate().map(rule).collect()
    }

    fn holds(&self, input: &Value, context: &Value) -> Result<bool, NotFound> {
        match self {
            Self::All(rules) => {
                for rule in rules {
                    if !rule.holds(input, context)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(rules) => {
                for rule in rules {
                    if rule.holds(input, context)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(rule) => rule.holds(input, context).map(|holds| !holds),
            Self::Compare { variable, comparison } => {
                let found = variable.find(input, context);
                if let Comparison::Is(Property::Present, wanted) = comparison {
                    return Ok(found.is_some() == *wanted);
                }
                let value = found.ok_or_else(|| NotFound(variable.to_string()))?;
                comparison.holds(value, input, context)
            }
        }
    }
}

impl Comparison {
    fn parse(name: &str, operand: Value) -> Result<Self, String> {
        let property = match name {
            "IsBoolean" => Some(Property::Boolean),
            "IsNull" => Some(Property::Null),
            "IsNumeric" => Some(Property::Numeric),
            "IsPresent" => Some(Property::Present),
            "IsString" => Some(Property::String),
            "IsTimestamp" => Some(Property::Timestamp),
            _ => None,
        };
        if let Some(property) = property {
            let Value::Bool(wanted) = operand else {
                return Err(format!("must be a boolean, it is {}", kind(&operand)));
            };
            return Ok(Self::Is(property, wanted));
        }
        if name == "StringMatches" {
            return text(operand).map(Self::Matches);
        }
        let (literal_name, by_path) = match name.strip_suffix("Path") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let (domain, relation) =
            relation(literal_name).ok_or("is no operator of the language (they are case sensitive)")?;
        let operand = if by_path {
            Operand::Path(Path::parse(&text(operand)?)?)
        } else if domain.read(&operand).is_some() {
            Operand::Literal(operand)
        } else {
            return Err(format!("cannot compare with {operand}"));
        };
        Ok(Self::Relation { domain, relation, operand })
    }

    fn holds(&self, value: &Value, input: &Value, context: &Value) -> Result<bool, NotFound> {
        Ok(match self {
            Self::Matches(pattern) => value.as_str().is_some_and(|text| matches(pattern, text)),
            Self::Is(property, wanted) => property.of(value) == *wanted,
            Self::Relation { domain, relation, operand } => {
                let other = match operand {
                    Operand::Literal(literal) => literal,
                    Operand::Path(path) => {
                        path.find(input, context).ok_or_else(|| NotFound(path.to_string()))?
                    }
                };
                // Values of another type are not an error: the comparison does not hold.
                domain.compare(value, other).is_some_and(|ordering| relation.allows(ordering))
            }
        })
    }
}

fn relation(name: &str) -> Option<(Domain, Relation)> {
    let (domain, rest) = [
        ("Boolean", Domain::Boolean),
        ("Numeric", Domain::Numeric),
        ("String", Domain::String),
        ("Timestamp", Domain::Timestamp),
    ]
    .into_iter()
    .find_map(|(prefix, domain)| Some((domain, name.strip_prefix(prefix)?)))?;
    let relation = match rest {
        "Equals" => Relation::Equals,
        "GreaterThan" => Relation::GreaterThan,
        "GreaterThanEquals" => Relation::GreaterThanEquals,
        "LessThan" => Relation::LessThan,
        "LessThanEquals" => Relation::LessThanEquals,
        _ => return None,
    };
    (domain != Domain::Boolean || relation == Relation::Equals).then_some((domain, relation))
}

/// A value as its domain sees it.
#[derive(PartialEq, PartialOrd)]
enum Comparable<'a> {
    Boolean(bool),
    Numeric(f64),
    String(&'a str),
    Timestamp(jiff::Timestamp),
}

impl Domain {
    fn read(self, value: &Value) -> Option<Comparable<'_>> {
        match self {
            Self::Boolean => value.as_bool().map(Comparable::Boolean),
            Self::Numeric => value.as_f64().map(Comparable::Numeric),
            Self::String => value.as_str().map(Comparable::String),
            Self::Timestamp => timestamp::parse(value.as_str()?).map(Comparable::Timestamp),
        }
    }

    fn compare(self, left: &Value, right: &Value) -> Option<Ordering> {
        self.read(left)?.partial_cmp(&self.read(right)?)
    }
}

impl Relation {
    fn allows(self, ordering: Ordering) -> bool {
        match self {
            Self::Equals => ordering.is_eq(),
            Self::GreaterThan => ordering.is_gt(),
            Self::GreaterThanEquals => ordering.is_ge(),
            Self::LessThan => ordering.is_lt(),
            Self::LessThanEquals => ordering.is_le(),
        }
    }
}

impl Property {
    fn of(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::Null => value.is_null(),
            Self::Numeric => value.is_number(),
            Self::Present => true,
            Self::String => value.is_string(),
            Self::Timestamp => value.as_str().is_some_and(|text| timestamp::parse(text).is_some()),
        }
    }
}

/// `StringMatches`: `*` is any text, `\*` an asterisk, `\\` a backslash.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = vec![String::new()];
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        let literal = match char {
            '*' => {
                pieces.push(String::new());
                continue;
            }
            '\\' => chars.next(),
            other => Some(other),
        };
        if let Some(piece) = pieces.last_mut() {
            piece.extend(literal);
        }
    }
    let [first, middle @ .., last] = pieces.as_slice() else {
        return pieces.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for piece in middle {
        let Some(at) = rest.find(piece.as_str()) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn branching(choices: Value) -> Result<Branching, DefinitionError> {
        let state = json!({"Choices": choices, "Default": "Otherwise"});
        Branching::parse(&mut Fields::of(&Place::state("C"), "C", state).unwrap())
    }

    fn holds(mut rule: Value) -> Option<bool> {
        rule["Next"] = json!("Yes");
        let input = json!({
            "n": 5, "f": 5.0, "s": "abc", "t": "2026-01-02T03:04:05Z", "t2": "2026-01-02T04:04:05+01:00",
            "b": true, "z": null, "o": {},
        });
        match branching(json!([rule])).unwrap().decide(&input, &json!({"Execution": {"Name": "abc"}})) {
            Judgement::Next("Yes") => Some(true),
            Judgement::Next(_) | Judgement::NoneHolds => Some(false),
            Judgement::NotFound(_) => None,
        }
    }

    #[test]
    fn rules_hold_as_the_language_says() {
        for (rule, expected) in [
            (json!({"Variable": "$.n", "NumericEquals": 5.0}), Some(true)),
            (json!({"Variable": "$.n", "NumericEqualsPath": "$.f"}), Some(true)),
            (json!({"Variable": "$.n", "NumericLessThan": 5}), Some(false)),
            (json!({"Variable": "$.n", "NumericLessThanEquals": 5}), Some(true)),
            (json!({"Variable": "$.n", "NumericGreaterThan": 4}), Some(true)),
            (json!({"Variable": "$.n", "NumericGreaterThanEquals": 6}), Some(false)),
            (json!({"Variable": "$.s", "NumericEquals": 5}), Some(false)),
            (json!({"Variable": "$.s", "StringEquals": "abc"}), Some(true)),
            (json!({"Variable": "$.s", "StringEqualsPath": "$$.Execution.Name"}), Some(true)),
            (json!({"Variable": "$.s", "StringLessThan": "abz"}), Some(true)),
            (json!({"Variable": "$.s", "StringMatches": "a*c"}), Some(true)),
            (json!({"Variable": "$.s", "StringMatches": "*b"}), Some(false)),
            (json!({"Variable": "$.t", "TimestampEqualsPath": "$.t2"}), Some(true)),
            (json!({"Variable": "$.t", "TimestampLessThan": "2026-01-02T03:04:06Z"}), Some(true)),
            (json!({"Variable": "$.s", "TimestampEquals": "2026-01-02T03:04:06Z"}), Some(false)),
            (json!({"Variable": "$.b", "BooleanEquals": true}), Some(true)),
            (json!({"Variable": "$.z", "IsNull": true}), Some(true)),
            (json!({"Variable": "$.s", "IsNull": false}), Some(true)),
            (json!({"Variable": "$.n", "IsNumeric": true}), Some(true)),
            (json!({"Variable": "$.s", "IsString": true}), Some(true)),
            (json!({"Variable": "$.b", "IsBoolean": false}), Some(false)),
            (json!({"Variable": "$.t", "IsTimestamp": true}), Some(true)),
            (json!({"Variable": "$.s", "IsTimestamp": true}), Some(false)),
            (json!({"Variable": "$.x", "IsPresent": false}), Some(true)),
            (json!({"Variable": "$.z", "IsPresent": true}), Some(true)),
            (json!({"Variable": "$.x", "StringEquals": "a"}), None),
            (json!({"Variable": "$.x", "IsNull": true}), None),
            (json!({"Variable": "$.s", "StringEqualsPath": "$.x"}), None),
            (
                json!({"And": [{"Variable": "$.x", "IsPresent": true}, {"Variable": "$.x", "StringEquals": "a"}]}),
                Some(false),
            ),
            (
                json!({"Or": [{"Variable": "$.b", "BooleanEquals": true}, {"Variable": "$.x", "IsNull": true}]}),
                Some(true),
            ),
            (json!({"Not": {"Variable": "$.b", "BooleanEquals": true}}), Some(false)),
        ] {
            assert_eq!(holds(rule.clone()), expected, "{rule}");
        }
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let rule = |value, next| json!({"Variable": "$.a", "NumericGreaterThan": value, "Next": next});
        let branching = branching(json!([rule(5, "A"), rule(3, "B"), rule(1, "C")])).unwrap();
        for (a, next) in [(9, "A"), (4, "B"), (2, "C"), (0, "Otherwise")] {
            assert_eq!(branching.decide(&json!({"a": a}), &Value::Null), Judgement::Next(next));
        }
    }

    #[test]
    fn patterns_match_the_whole_text() {
        for (pattern, text, expected) in [
            ("log-*.txt", "log-1.txt", true),
            ("log-*.txt", "log-.txt", true),
            ("*", "", true),
            ("a*a", "a", false),
            ("*b*b*", "abcb", true),
            ("*b*b*", "abc", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} for {text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (choices, why) in [
            (json!([]), "is empty"),
            (json!([{"Variable": "$.a", "StringEquals": "x"}]), "`Next` is missing"),
            (json!([{"StringEquals": "x", "Next": "A"}]), "`Variable` is missing"),
            (json!([{"Variable": "$.a", "Next": "A"}]), "one operator, and not none"),
            (json!([{"Variable": "$.a", "StringEquals": "x", "IsNull": true, "Next": "A"}]), "one operator"),
            (json!([{"Variable": "$.a", "Equals": "x", "Next": "A"}]), "no operator"),
            (json!([{"Variable": "$.a", "BooleanLessThan": true, "Next": "A"}]), "no operator"),
            (json!([{"Variable": "$.a", "NumericEquals": "1", "Next": "A"}]), "cannot compare with"),
            (json!([{"Variable": "$.a", "TimestampEquals": "now", "Next": "A"}]), "cannot compare with"),
            (json!([{"Variable": "$.a", "IsNull": 1, "Next": "A"}]), "must be a boolean"),
            (
                json!([{"And": [{"Variable": "$.a", "IsNull": true, "Next": "B"}], "Next": "A"}]),
                "one operator",
            ),
            (json!([{"And": [], "Next": "A"}]), "is empty"),
        ] {
            let error = branching(choices).unwrap_err().to_string();
            assert!(error.contains(why) && error.starts_with("state `C`"), "{error}");
        }
    }
}
