//! The fields of one object, taken one by one: what has not been taken when the object ends is unknown, and refused.

use serde_json::{Map, Value};

use super::error::{DefinitionError, Place};

/// The fields of an object that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    place: Place,
    rest: Map<String, Value>,
    asked: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// Opens an object. `field` is where it is, for the message.
    pub(super) fn of(place: &Place, field: &str, value: Value) -> Result<Self, DefinitionError> {
        let Value::Object(rest) = value else {
            return Err(place.field(field, format!("must be an object, it is {}", kind(&value))));
        };
        Ok(Self { place: place.clone(), rest, asked: Vec::new() })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Any value of a field that may be left out.
    pub(super) fn take(&mut self, field: &'a str) -> Option<Value> {
        self.asked.push(field);
        self.rest.remove(field)
    }

    /// Any value of a field that must be there.
    pub(super) fn need(&mut self, field: &'a str) -> Result<Value, DefinitionError> {
        self.take(field).ok_or_else(|| DefinitionError::MissingField {
            place: self.place.clone(),
            field: field.to_owned(),
        })
    }

    /// A field that may be left out, read by `read`, whose error is the rest of the sentence.
    pub(super) fn read<T>(
        &mut self,
        field: &'a str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Result<Option<T>, DefinitionError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        read(value).map(Some).map_err(|problem| self.place.field(field, problem))
    }

    /// A string that must be there.
    pub(super) fn text(&mut self, field: &'a str) -> Result<String, DefinitionError> {
        let value = self.need(field)?;
        text(value).map_err(|problem| self.place.field(field, problem))
    }

    /// Puts up with a comment: it is for people.
    pub(super) fn comment(&mut self) -> Result<(), DefinitionError> {
        self.read("Comment", text).map(drop)
    }

    /// The names of the fields that are left, for objects in which the name of a field means something.
    pub(super) fn names(&self) -> Vec<String> {
        self.rest.keys().cloned().collect()
    }

    /// Takes a field whose name was found by [`names`](Self::names).
    pub(super) fn take_named(&mut self, field: &str) -> Option<Value> {
        self.rest.remove(field)
    }

    /// Ends the object: refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), DefinitionError> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(field) => Err(DefinitionError::UnknownField {
                place: self.place,
                field: field.clone(),
                known: self.asked.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

/// A string.
pub(super) fn text(value: Value) -> Result<String, String> {
    let Value::String(text) = value else {
        return Err(format!("must be a string, it is {}", kind(&value)));
    };
    Ok(text)
}

/// A whole number within bounds.
pub(super) fn whole(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    match value.as_u64() {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {least} to {most}, it is {value}")),
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
