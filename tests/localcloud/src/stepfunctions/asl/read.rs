//! How a definition is read, field by field.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::choice::Branching;
use super::error::{DefinitionError, Place};
use super::fields::{Fields, text, whole};
use super::path::{Path, ReferencePath};
use super::resource::Resource;
use super::retry::{catchers, result_path, retriers};
use super::state::{
    Definition, Filter, Kind, Map, Parallel, Seconds, Sequence, State, Task, Text, TextAt, Transition, Wait,
};
use super::template::{Expression, Template};
use super::{check, document, timestamp};

/// The most that a task, an execution or a wait may take, in seconds: AWS's bound of `TimeoutSeconds`.
const LONGEST: u64 = 99_999_999;

impl Definition {
    /// Reads and checks a definition.
    ///
    /// # Errors
    /// When there is anything in it that would not be done exactly as it is written.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        let document = document::parse(text).map_err(DefinitionError::Json)?;
        let place = Place::top();
        let mut fields = Fields::of(&place, "", document)?;
        fields.comment()?;
        fields.read("Version", |version| match version.as_str() {
            Some("1.0") => Ok(()),
            _ => Err(format!("must be `1.0`, it is {version}")),
        })?;
        query_language(&mut fields)?;
        let timeout_seconds = fields.read("TimeoutSeconds", |value| whole(&value, 1, LONGEST))?;
        let top = sequence(&mut fields)?;
        fields.finish()?;
        let definition = Self { top: Arc::new(top), timeout_seconds };
        check::check(&definition)?;
        Ok(definition)
    }
}

fn query_language(fields: &mut Fields<'_>) -> Result<(), DefinitionError> {
    let read = |language: Value| match language.as_str() {
        Some("JSONPath") => Ok(()),
        _ => Err(format!("must be `JSONPath`, it is {language}")),
    };
    fields.read("QueryLanguage", read).map(drop)
}

fn sequence(fields: &mut Fields<'_>) -> Result<Sequence, DefinitionError> {
    let place = fields.place().clone();
    let start_at = fields.text("StartAt")?;
    let Value::Object(entries) = fields.need("States")? else {
        return Err(place.field("States", "must be an object"));
    };
    if entries.is_empty() {
        return Err(place.field("States", "is empty"));
    }
    let mut states = BTreeMap::new();
    for (name, value) in entries {
        let state = state(&name, value)?;
        states.insert(name, Arc::new(state));
    }
    Ok(Sequence { start_at, states })
}

fn state(name: &str, value: Value) -> Result<State, DefinitionError> {
    let place = Place::state(name);
    if name.is_empty() || name.chars().count() > 80 {
        return Err(place.rule("a state's name has 1 to 80 characters"));
    }
    let mut fields = Fields::of(&place, name, value)?;
    fields.comment()?;
    query_language(&mut fields)?;
    let type_name = fields.text("Type")?;
    let mut state = State {
        name: name.to_owned(),
        input_path: Filter::Whole,
        output_path: Filter::Whole,
        parameters: None,
        result_selector: None,
        result_path: ReferencePath::parse("$").ok(),
        retry: Vec::new(),
        catch: Vec::new(),
        kind: Kind::Succeed,
    };
    if type_name != "Fail" {
        state.input_path = filter(&mut fields, "InputPath")?;
        state.output_path = filter(&mut fields, "OutputPath")?;
    }
    if matches!(type_name.as_str(), "Task" | "Pass" | "Parallel") {
        state.parameters = fields.read("Parameters", Template::parse)?;
    }
    if matches!(type_name.as_str(), "Task" | "Pass" | "Parallel" | "Map") {
        state.result_path = result_path(&mut fields)?;
    }
    if matches!(type_name.as_str(), "Task" | "Parallel" | "Map") {
        state.result_selector = fields.read("ResultSelector", Template::parse)?;
        state.retry = retriers(&place, fields.take("Retry"))?;
        state.catch = catchers(&place, fields.take("Catch"))?;
    }
    state.kind = match type_name.as_str() {
        "Task" => Kind::Task(task(&mut fields)?),
        "Choice" => Kind::Choice(Branching::parse(&mut fields)?),
        "Pass" => Kind::Pass { result: fields.take("Result"), then: transition(&mut fields)? },
        "Wait" => Kind::Wait { wait: wait(&mut fields)?, then: transition(&mut fields)? },
        "Parallel" => Kind::Parallel(parallel(&mut fields)?),
        "Map" => Kind::Map(map(&mut fields)?),
        "Fail" => Kind::Fail {
            error: either_text(&mut fields, "Error", "ErrorPath")?,
            cause: either_text(&mut fields, "Cause", "CausePath")?,
        },
        "Succeed" => Kind::Succeed,
        other => return Err(place.field("Type", format!("is `{other}`, and there is no such type"))),
    };
    fields.finish()?;
    Ok(state)
}

fn task(fields: &mut Fields<'_>) -> Result<Task, DefinitionError> {
    let place = fields.place().clone();
    let resource =
        Resource::parse(&fields.text("Resource")?).map_err(|problem| place.field("Resource", problem))?;
    let timeout = seconds(fields, "TimeoutSeconds", "TimeoutSecondsPath")?;
    let heartbeat = seconds(fields, "HeartbeatSeconds", "HeartbeatSecondsPath")?;
    Ok(Task { resource, timeout, heartbeat, then: transition(fields)? })
}

fn wait(fields: &mut Fields<'_>) -> Result<Wait, DefinitionError> {
    let place = fields.place().clone();
    let seconds = fields.read("Seconds", |value| whole(&value, 0, LONGEST))?;
    let seconds_path = path(fields, "SecondsPath")?;
    let until = fields.read("Timestamp", |value| {
        let written = text(value)?;
        timestamp::parse(&written).ok_or_else(|| format!("is `{written}`, which is no RFC 3339 timestamp"))
    })?;
    let until_path = path(fields, "TimestampPath")?;
    match (seconds, seconds_path, until, until_path) {
        (Some(seconds), None, None, None) => Ok(Wait::Seconds(Seconds::Given(seconds))),
        (None, Some(path), None, None) => Ok(Wait::Seconds(Seconds::At(path))),
        (None, None, Some(until), None) => Ok(Wait::Until(until)),
        (None, None, None, Some(path)) => Ok(Wait::UntilPath(path)),
        _ => Err(place.rule("it waits by one of `Seconds`, `SecondsPath`, `Timestamp` and `TimestampPath`")),
    }
}

fn parallel(fields: &mut Fields<'_>) -> Result<Parallel, DefinitionError> {
    let place = fields.place().clone();
    let Value::Array(items) = fields.need("Branches")? else {
        return Err(place.field("Branches", "must be an array"));
    };
    if items.is_empty() {
        return Err(place.field("Branches", "is empty"));
    }
    let mut branches = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let place = place.inside(format_args!("branch {index}"));
        let mut fields = Fields::of(&place, "Branches", item)?;
        fields.comment()?;
        branches.push(Arc::new(sequence(&mut fields)?));
        fields.finish()?;
    }
    Ok(Parallel { branches, then: transition(fields)? })
}

fn map(fields: &mut Fields<'_>) -> Result<Map, DefinitionError> {
    let place = fields.place().inside("item processor");
    let mut inner = Fields::of(&place, "ItemProcessor", fields.need("ItemProcessor")?)?;
    inner.comment()?;
    if let Some(config) = inner.take("ProcessorConfig") {
        let mut config = Fields::of(&place, "ProcessorConfig", config)?;
        config.read("Mode", |mode| match mode.as_str() {
            Some("INLINE") => Ok(()),
            _ => Err(format!("must be `INLINE`, it is {mode}")),
        })?;
        config.finish()?;
    }
    let processor = Arc::new(sequence(&mut inner)?);
    inner.finish()?;
    let max_concurrency =
        fields.read("MaxConcurrency", |value| whole(&value, 0, LONGEST))?.filter(|most| *most > 0);
    Ok(Map {
        processor,
        items_path: filter(fields, "ItemsPath")?,
        item_selector: fields.read("ItemSelector", Template::parse)?,
        max_concurrency,
        then: transition(fields)?,
    })
}

fn transition(fields: &mut Fields<'_>) -> Result<Transition, DefinitionError> {
    let next = fields.read("Next", text)?;
    let end = fields.read("End", |value| match value.as_bool() {
        Some(true) => Ok(()),
        Some(false) | None => Err(format!("must be `true`, it is {value}")),
    })?;
    match (next, end) {
        (Some(next), None) => Ok(Transition::Next(next)),
        (None, Some(())) => Ok(Transition::End),
        (None, None) => Err(fields.place().rule("it has neither `Next` nor `End`")),
        (Some(_), Some(())) => Err(fields.place().rule("it has both `Next` and `End`")),
    }
}

fn filter(fields: &mut Fields<'_>, field: &'static str) -> Result<Filter, DefinitionError> {
    let read = |value: Value| {
        if value.is_null() {
            return Ok(Filter::Nothing);
        }
        Path::parse(&text(value)?).map(Filter::Path)
    };
    Ok(fields.read(field, read)?.unwrap_or(Filter::Whole))
}

fn path(fields: &mut Fields<'_>, field: &'static str) -> Result<Option<Path>, DefinitionError> {
    fields.read(field, |value| Path::parse(&text(value)?))
}

fn seconds(
    fields: &mut Fields<'_>,
    given: &'static str,
    found: &'static str,
) -> Result<Option<Seconds>, DefinitionError> {
    let seconds = fields.read(given, |value| whole(&value, 1, LONGEST))?;
    match (seconds, path(fields, found)?) {
        (Some(_), Some(_)) => Err(fields.place().rule(format!("it has both `{given}` and `{found}`"))),
        (Some(seconds), None) => Ok(Some(Seconds::Given(seconds))),
        (None, path) => Ok(path.map(Seconds::At)),
    }
}

fn either_text(
    fields: &mut Fields<'_>,
    given: &'static str,
    found: &'static str,
) -> Result<Option<Text>, DefinitionError> {
    let literal = fields.read(given, text)?;
    let expression = fields.read(found, |value| Expression::parse(&text(value)?))?;
    match (literal, expression) {
        (Some(_), Some(_)) => Err(fields.place().rule(format!("it has both `{given}` and `{found}`"))),
        (Some(text), None) => Ok(Some(Text::Given(text))),
        (None, expression) => Ok(expression.map(|expression| Text::At(TextAt { field: found, expression }))),
    }
}
