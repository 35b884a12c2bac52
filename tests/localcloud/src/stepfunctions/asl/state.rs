//! A definition, its states, and how they are read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::choice::Branching;
use super::error::{DefinitionError, Place};
use super::fields::{Fields, text, whole};
use super::path::{Path, ReferencePath};
use super::retry::{Catcher, Retrier, catchers, result_path, retriers};
use super::template::{Evaluation, Expression, Scope, Template};
use super::{check, document, timestamp};

/// The most that a task, an execution or a wait may take, in seconds: AWS's bound of `TimeoutSeconds`.
const LONGEST: u64 = 99_999_999;

/// A state machine's definition, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub(in crate::stepfunctions) top: Arc<Sequence>,
    pub(in crate::stepfunctions) timeout_seconds: Option<u64>,
}

/// States that follow each other: those of a machine, of a branch of a Parallel, or of the processor of a Map.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Sequence {
    pub(in crate::stepfunctions) start_at: String,
    pub(in crate::stepfunctions) states: BTreeMap<String, Arc<State>>,
}

/// One state.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct State {
    pub(in crate::stepfunctions) name: String,
    pub(in crate::stepfunctions) input_path: Filter,
    pub(in crate::stepfunctions) output_path: Filter,
    pub(in crate::stepfunctions) parameters: Option<Template>,
    pub(in crate::stepfunctions) result_selector: Option<Template>,
    /// `None` is `null`: the result is not kept.
    pub(in crate::stepfunctions) result_path: Option<ReferencePath>,
    pub(in crate::stepfunctions) retry: Vec<Retrier>,
    pub(in crate::stepfunctions) catch: Vec<Catcher>,
    pub(in crate::stepfunctions) kind: Kind,
}

/// What a state does.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) enum Kind {
    Task(Task),
    Choice(Branching),
    Pass { result: Option<Value>, then: Transition },
    Wait { wait: Wait, then: Transition },
    Parallel(Parallel),
    Map(Map),
    Fail { error: Option<Text>, cause: Option<Text> },
    Succeed,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Task {
    pub(in crate::stepfunctions) resource: Resource,
    pub(in crate::stepfunctions) timeout: Option<Seconds>,
    pub(in crate::stepfunctions) heartbeat: Option<Seconds>,
    pub(in crate::stepfunctions) then: Transition,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Parallel {
    pub(in crate::stepfunctions) branches: Vec<Arc<Sequence>>,
    pub(in crate::stepfunctions) then: Transition,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct Map {
    pub(in crate::stepfunctions) processor: Arc<Sequence>,
    pub(in crate::stepfunctions) items_path: Filter,
    pub(in crate::stepfunctions) item_selector: Option<Template>,
    /// `None` is no limit.
    pub(in crate::stepfunctions) max_concurrency: Option<u64>,
    pub(in crate::stepfunctions) then: Transition,
}

/// `Next` or `End`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stepfunctions) enum Transition {
    Next(String),
    End,
}

/// `InputPath`, `OutputPath` or `ItemsPath`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) enum Filter {
    /// Left out: everything passes.
    Whole,
    /// `null`: an empty object takes the place of everything.
    Nothing,
    /// Only this node passes.
    Path(Path),
}

/// A number of seconds, given or found.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) enum Seconds {
    Given(u64),
    At(Path),
}

/// A text, given or found.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) enum Text {
    Given(String),
    At(TextAt),
}

/// Where a text is found.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) struct TextAt {
    field: &'static str,
    expression: Expression,
}

impl TextAt {
    /// The text, or what is there and is none.
    pub(in crate::stepfunctions) fn find(
        &self,
        scope: &mut Scope<'_>,
    ) -> Result<Result<String, Value>, Evaluation> {
        let found = self.expression.evaluate(scope, self.field)?;
        let Value::String(text) = found else { return Ok(Err(found)) };
        Ok(Ok(text))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::stepfunctions) enum Wait {
    Seconds(Seconds),
    Until(jiff::Timestamp),
    UntilPath(Path),
}

/// What a task calls: `arn:aws:states:::SERVICE:ACTION`, or `…:::aws-sdk:SERVICE:ACTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    arn: String,
    service: String,
    action: String,
    waits_for_token: bool,
}

impl Resource {
    fn parse(arn: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("is `{arn}`, which {why}");
        let unsupported = || refuse("is not a service integration: only `arn:aws:states:::…` is supported");
        let rest = arn
            .strip_prefix("arn:")
            .and_then(|rest| rest.split_once(":states:::"))
            .filter(|(partition, _)| partition.starts_with("aws") && !partition.contains(':'))
            .map(|(_, rest)| rest)
            .ok_or_else(unsupported)?;
        let (target, pattern) = rest.split_once('.').unwrap_or((rest, ""));
        let waits_for_token = match pattern {
            "" => false,
            "waitForTaskToken" => true,
            _ => return Err(refuse("ends in a pattern other than `.waitForTaskToken`")),
        };
        let (service, action) = target.rsplit_once(':').ok_or_else(|| refuse("names no action"))?;
        let plain = service.strip_prefix("aws-sdk:").unwrap_or(service);
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        if !word(plain) || !word(action) {
            return Err(refuse("names no service and action"));
        }
        Ok(Self {
            arn: arn.to_owned(),
            service: service.to_owned(),
            action: action.to_owned(),
            waits_for_token,
        })
    }

    /// As it stands in the definition.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// `lambda`, `sns`, `aws-sdk:ec2`: the history's `resourceType`.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// `invoke`, `publish`, `runInstances`.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// Whether the task ends by its token and not by its answer.
    #[must_use]
    pub fn waits_for_token(&self) -> bool {
        self.waits_for_token
    }

    /// The history's `resource`: the action with its pattern.
    pub(in crate::stepfunctions) fn history_name(&self) -> String {
        let pattern = if self.waits_for_token { ".waitForTaskToken" } else { "" };
        format!("{}{pattern}", self.action)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)
    }
}

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

    /// The names of all states, those of branches and processors too.
    #[must_use]
    pub fn state_names(&self) -> Vec<&str> {
        fn collect<'d>(sequence: &'d Sequence, names: &mut Vec<&'d str>) {
            for (name, state) in &sequence.states {
                names.push(name);
                state.children().for_each(|child| collect(child, names));
            }
        }
        let mut names = Vec::new();
        collect(&self.top, &mut names);
        names
    }
}

impl State {
    /// The sequences inside the state.
    pub(super) fn children(&self) -> impl Iterator<Item = &Arc<Sequence>> {
        let children = match &self.kind {
            Kind::Parallel(parallel) => parallel.branches.as_slice(),
            Kind::Map(map) => std::slice::from_ref(&map.processor),
            Kind::Task(_)
            | Kind::Choice(_)
            | Kind::Pass { .. }
            | Kind::Wait { .. }
            | Kind::Fail { .. }
            | Kind::Succeed => &[],
        };
        children.iter()
    }

    /// Where the state goes when all is well, other than by choice.
    pub(in crate::stepfunctions) fn then(&self) -> Option<&Transition> {
        match &self.kind {
            Kind::Task(Task { then, .. })
            | Kind::Pass { then, .. }
            | Kind::Wait { then, .. }
            | Kind::Parallel(Parallel { then, .. })
            | Kind::Map(Map { then, .. }) => Some(then),
            Kind::Choice(_) | Kind::Fail { .. } | Kind::Succeed => None,
        }
    }

    /// The type's name as it begins the names of its events.
    pub(in crate::stepfunctions) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Task(_) => "Task",
            Kind::Choice(_) => "Choice",
            Kind::Pass { .. } => "Pass",
            Kind::Wait { .. } => "Wait",
            Kind::Parallel(_) => "Parallel",
            Kind::Map(_) => "Map",
            Kind::Fail { .. } => "Fail",
            Kind::Succeed => "Succeed",
        }
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
