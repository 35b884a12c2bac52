//! `Retry` and `Catch`: which errors they are for, and how long to wait.

use serde_json::Value;

use super::error::{DefinitionError, Place};
use super::fields::{Fields, text, whole};
use super::path::ReferencePath;

/// The errors that the language itself gives names to. A name with this prefix that is none of them is a slip of the pen.
const RESERVED: [&str; 17] = [
    "States.ALL",
    "States.BranchFailed",
    "States.DataLimitExceeded",
    "States.ExceedToleratedFailureThreshold",
    "States.HeartbeatTimeout",
    "States.Http.Socket",
    "States.IntrinsicFailure",
    "States.ItemReaderFailed",
    "States.NoChoiceMatched",
    "States.ParameterPathFailure",
    "States.Permissions",
    "States.QueryEvaluationError",
    "States.ResultPathMatchFailure",
    "States.ResultWriterFailed",
    "States.Runtime",
    "States.TaskFailed",
    "States.Timeout",
];

/// A year, in seconds: the longest that anything may take.
const YEAR: u64 = 31_622_400;

/// One entry of `Retry`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Retrier {
    errors: Vec<String>,
    interval_seconds: u64,
    backoff_rate: f64,
    max_delay_seconds: Option<u64>,
    pub(in crate::stepfunctions) max_attempts: u64,
    pub(in crate::stepfunctions) jitter: Jitter,
}

/// `JitterStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stepfunctions) enum Jitter {
    /// The delay is as computed.
    None,
    /// The delay is drawn between nothing and what was computed.
    Full,
}

/// One entry of `Catch`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Catcher {
    errors: Vec<String>,
    pub(in crate::stepfunctions) next: String,
    /// `None` is `null`: the error is not kept.
    pub(in crate::stepfunctions) result_path: Option<ReferencePath>,
}

impl Retrier {
    pub(in crate::stepfunctions) fn matches(&self, error: Option<&str>) -> bool {
        matches(&self.errors, error)
    }

    /// The delay before the n-th retry (the first is 0), in seconds and before any jitter.
    pub(in crate::stepfunctions) fn delay_seconds(&self, retry: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "bounded by a year in seconds when it was read")]
        let seconds = |whole: u64| whole as f64;
        let exponent = i32::try_from(retry).unwrap_or(i32::MAX);
        let grown = seconds(self.interval_seconds) * self.backoff_rate.powi(exponent);
        grown.min(seconds(self.max_delay_seconds.unwrap_or(YEAR)))
    }
}

impl Catcher {
    pub(in crate::stepfunctions) fn matches(&self, error: Option<&str>) -> bool {
        matches(&self.errors, error)
    }
}

/// Whether a list of `ErrorEquals` is for an error.
///
/// `States.TaskFailed` is for every error but `States.Timeout`, `States.ALL` for every error; neither is for data that is too
/// large. (AWS documents the latter of `States.ALL`; a recording made on AWS shows a task's too large result caught by
/// `States.ALL` all the same. A machine that is right under the documented rule is right under both.)
fn matches(errors: &[String], error: Option<&str>) -> bool {
    errors.iter().any(|listed| match (listed.as_str(), error) {
        ("States.ALL", error) => error != Some("States.DataLimitExceeded"),
        ("States.TaskFailed", error) => !matches!(error, Some("States.Timeout" | "States.DataLimitExceeded")),
        (listed, error) => error == Some(listed),
    })
}

pub(super) fn retriers(place: &Place, value: Option<Value>) -> Result<Vec<Retrier>, DefinitionError> {
    let retriers = list(place, "Retry", value, retrier)?;
    check_order(place, "Retry", retriers.iter().map(|retrier| retrier.errors.as_slice()))?;
    Ok(retriers)
}

pub(super) fn catchers(place: &Place, value: Option<Value>) -> Result<Vec<Catcher>, DefinitionError> {
    let catchers = list(place, "Catch", value, catcher)?;
    check_order(place, "Catch", catchers.iter().map(|catcher| catcher.errors.as_slice()))?;
    Ok(catchers)
}

fn retrier(fields: &mut Fields<'_>) -> Result<Retrier, DefinitionError> {
    let errors = errors(fields)?;
    let interval_seconds = fields.read("IntervalSeconds", |value| whole(&value, 1, YEAR))?.unwrap_or(1);
    let max_attempts = fields.read("MaxAttempts", |value| whole(&value, 0, 99_999_999))?.unwrap_or(3);
    let backoff_rate = fields
        .read("BackoffRate", |value| match value.as_f64() {
            Some(rate) if rate >= 1.0 => Ok(rate),
            _ => Err(format!("must be a number of at least 1.0, it is {value}")),
        })?
        .unwrap_or(2.0);
    let max_delay_seconds = fields.read("MaxDelaySeconds", |value| {
        let most = whole(&value, 1, YEAR)?;
        if most <= interval_seconds {
            return Err(format!("is {most}, and must be above `IntervalSeconds`, {interval_seconds}"));
        }
        Ok(most)
    })?;
    let jitter = fields
        .read("JitterStrategy", |value| match value.as_str() {
            Some("NONE") => Ok(Jitter::None),
            Some("FULL") => Ok(Jitter::Full),
            _ => Err(format!("must be `FULL` or `NONE`, it is {value}")),
        })?
        .unwrap_or(Jitter::None);
    Ok(Retrier { errors, interval_seconds, backoff_rate, max_delay_seconds, max_attempts, jitter })
}

fn catcher(fields: &mut Fields<'_>) -> Result<Catcher, DefinitionError> {
    let errors = errors(fields)?;
    let next = fields.text("Next")?;
    let result_path = result_path(fields)?;
    Ok(Catcher { errors, next, result_path })
}

/// `ResultPath`: left out it is `$`, and `null` means that the result is not kept.
pub(super) fn result_path(fields: &mut Fields<'_>) -> Result<Option<ReferencePath>, DefinitionError> {
    let given = fields.read("ResultPath", |value| {
        if value.is_null() {
            return Ok(None);
        }
        ReferencePath::parse(&text(value)?).map(Some)
    })?;
    match given {
        Some(path) => Ok(path),
        None => {
            ReferencePath::parse("$").map(Some).map_err(|problem| fields.place().field("ResultPath", problem))
        }
    }
}

fn list<T>(
    place: &Place,
    field: &str,
    value: Option<Value>,
    read: impl Fn(&mut Fields<'_>) -> Result<T, DefinitionError>,
) -> Result<Vec<T>, DefinitionError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let Value::Array(items) = value else {
        return Err(place.field(field, "must be an array"));
    };
    let entry = |(index, item): (usize, Value)| {
        let place = place.inside(format_args!("`{field}` {index}"));
        let mut fields = Fields::of(&place, field, item)?;
        fields.comment()?;
        let read = read(&mut fields)?;
        fields.finish()?;
        Ok(read)
    };
    items.into_iter().enumerate().map(entry).collect()
}

fn errors(fields: &mut Fields<'_>) -> Result<Vec<String>, DefinitionError> {
    let value = fields.need("ErrorEquals")?;
    let refuse = |problem: String| fields.place().field("ErrorEquals", problem);
    let Value::Array(items) = value else {
        return Err(refuse("must be an array".to_owned()));
    };
    let errors = items.into_iter().map(text).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
    if errors.is_empty() {
        return Err(refuse("is empty".to_owned()));
    }
    let unknown = |error: &&String| error.starts_with("States.") && !RESERVED.contains(&error.as_str());
    if let Some(error) = errors.iter().find(unknown) {
        return Err(refuse(format!("names `{error}`, and there is no such error of the language")));
    }
    if errors.iter().any(|error| error == "States.ALL") && errors.len() > 1 {
        return Err(refuse("must name `States.ALL` alone".to_owned()));
    }
    Ok(errors)
}

fn check_order<'a>(
    place: &Place,
    field: &str,
    lists: impl ExactSizeIterator<Item = &'a [String]>,
) -> Result<(), DefinitionError> {
    let last = lists.len().saturating_sub(1);
    for (index, errors) in lists.enumerate() {
        if index < last && errors.iter().any(|error| error == "States.ALL") {
            return Err(place.field(field, "must have `States.ALL` in its last entry"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list_of(errors: &[&str]) -> Vec<String> {
        errors.iter().map(|error| (*error).to_owned()).collect()
    }

    #[test]
    fn errors_match_as_aws_says() {
        for (listed, error, expected) in [
            ("Busy", Some("Busy"), true),
            ("Busy", Some("busy"), false),
            ("Busy", None, false),
            ("States.TaskFailed", Some("Busy"), true),
            ("States.TaskFailed", None, true),
            ("States.TaskFailed", Some("Lambda.Unknown"), true),
            ("States.TaskFailed", Some("States.Timeout"), false),
            ("States.TaskFailed", Some("States.HeartbeatTimeout"), true),
            ("States.TaskFailed", Some("States.DataLimitExceeded"), false),
            ("States.Timeout", Some("States.Timeout"), true),
            ("States.Timeout", Some("States.HeartbeatTimeout"), false),
            ("States.HeartbeatTimeout", Some("States.Timeout"), false),
            ("States.ALL", Some("Busy"), true),
            ("States.ALL", None, true),
            ("States.ALL", Some("States.Timeout"), true),
            ("States.ALL", Some("States.DataLimitExceeded"), false),
            ("States.DataLimitExceeded", Some("States.DataLimitExceeded"), true),
        ] {
            assert_eq!(matches(&list_of(&[listed]), error), expected, "{listed} for {error:?}");
        }
    }

    #[test]
    fn delays_grow_up_to_their_bound() {
        let delays = |retry: Value| {
            let retriers = retriers(&Place::state("A"), Some(json!([retry]))).unwrap();
            (0..5).map(|n| retriers[0].delay_seconds(n)).collect::<Vec<_>>()
        };
        let retry = json!({"ErrorEquals": ["Busy"]});
        assert_eq!(delays(retry), [1.0, 2.0, 4.0, 8.0, 16.0]);
        let retry = json!({"ErrorEquals": ["Busy"], "IntervalSeconds": 10, "BackoffRate": 1.5, "MaxDelaySeconds": 30});
        assert_eq!(delays(retry), [10.0, 15.0, 22.5, 30.0, 30.0]);
        let retry = json!({"ErrorEquals": ["Busy"], "IntervalSeconds": 3, "BackoffRate": 1});
        assert_eq!(delays(retry), [3.0; 5]);
    }

    #[test]
    fn a_delay_has_an_end() {
        let retry = json!([{"ErrorEquals": ["Busy"], "BackoffRate": 10}]);
        let retriers = retriers(&Place::state("A"), Some(retry)).unwrap();
        assert!(retriers[0].delay_seconds(u64::MAX) <= 31_622_400.0);
    }

    #[test]
    fn what_is_no_retry_is_refused() {
        for (retry, why) in [
            (json!({}), "must be an array"),
            (json!([{}]), "`ErrorEquals` is missing"),
            (json!([{"ErrorEquals": []}]), "is empty"),
            (json!([{"ErrorEquals": ["States.Timeouts"]}]), "no such error"),
            (json!([{"ErrorEquals": ["States.ALL", "Busy"]}]), "alone"),
            (json!([{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["Busy"]}]), "last entry"),
            (json!([{"ErrorEquals": ["Busy"], "IntervalSeconds": 0}]), "from 1 to"),
            (json!([{"ErrorEquals": ["Busy"], "BackoffRate": 0.5}]), "at least 1.0"),
            (json!([{"ErrorEquals": ["Busy"], "IntervalSeconds": 9, "MaxDelaySeconds": 9}]), "above"),
            (json!([{"ErrorEquals": ["Busy"], "JitterStrategy": "SOME"}]), "`FULL` or `NONE`"),
            (json!([{"ErrorEquals": ["Busy"], "Interval": 1}]), "unknown field `Interval`"),
        ] {
            let error = retriers(&Place::state("A"), Some(retry)).unwrap_err().to_string();
            assert!(error.contains(why) && error.starts_with("state `A`"), "{error}");
        }
    }
}
