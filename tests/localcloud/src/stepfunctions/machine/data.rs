//! What happens to data on its way through a state:
//! `InputPath` → `Parameters` → the state's work → `ResultSelector` → `ResultPath` (into the input as it came) → `OutputPath`.

use serde_json::{Map, Value};

use super::DATA_LIMIT;
use super::failure::Trouble;
use crate::stepfunctions::asl::{Filter, Misfit, ReferencePath, Scope, State, Template};

/// Data with its surroundings: the context object, and a source of UUIDs.
pub(super) struct Desk<'a> {
    pub(super) context: &'a Value,
    pub(super) uuid: &'a mut dyn FnMut() -> String,
}

impl Desk<'_> {
    /// The input after `InputPath`, and after `Parameters`.
    pub(super) fn effective(&mut self, state: &State, raw: &Value) -> Result<(Value, Value), Trouble> {
        let input = self.filter(&state.input_path, raw)?;
        let parameters = match &state.parameters {
            Some(template) => self.fill(template, &input)?,
            None => input.clone(),
        };
        within_limit(&parameters)?;
        Ok((input, parameters))
    }

    /// The state's output for its work's result.
    pub(super) fn output(&mut self, state: &State, raw: Value, result: Value) -> Result<Value, Trouble> {
        let result = match &state.result_selector {
            Some(template) => self.fill(template, &result)?,
            None => result,
        };
        let combined = put(state.result_path.as_ref(), raw, result)?;
        self.filter(&state.output_path, &combined)
    }

    pub(super) fn filter(&self, filter: &Filter, value: &Value) -> Result<Value, Trouble> {
        match filter {
            Filter::Whole => Ok(value.clone()),
            Filter::Nothing => Ok(Value::Object(Map::new())),
            Filter::Path(path) => {
                path.find(value, self.context).cloned().ok_or_else(|| Trouble::NoSuchPath(path.to_string()))
            }
        }
    }

    pub(super) fn fill(&mut self, template: &Template, input: &Value) -> Result<Value, Trouble> {
        Ok(template.fill(&mut self.scope(input))?)
    }

    pub(super) fn scope<'s>(&'s mut self, input: &'s Value) -> Scope<'s> {
        Scope::new(input, self.context, &mut *self.uuid)
    }
}

/// Puts a result into the input; without a path the result is not kept.
pub(super) fn put(path: Option<&ReferencePath>, raw: Value, result: Value) -> Result<Value, Trouble> {
    let Some(path) = path else { return Ok(raw) };
    let input = raw.to_string();
    path.put(raw, result).map_err(|Misfit| Trouble::Misfit { path: path.to_string(), input })
}

/// Data is measured as it is stored: as UTF-8 without white space.
pub(super) fn within_limit(value: &Value) -> Result<(), Trouble> {
    if value.to_string().len() > DATA_LIMIT { Err(Trouble::TooLarge) } else { Ok(()) }
}
