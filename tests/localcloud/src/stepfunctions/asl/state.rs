//! A definition and its states, as they have been read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::choice::Branching;
use super::path::{Path, ReferencePath};
use super::resource::Resource;
use super::retry::{Catcher, Retrier};
use super::template::{Evaluation, Expression, Scope, Template};

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
    pub(super) field: &'static str,
    pub(super) expression: Expression,
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

impl Definition {
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
