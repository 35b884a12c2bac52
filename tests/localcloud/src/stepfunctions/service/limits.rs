//! The limits that the API's model states, checked before anything else is done.

use std::fmt;

use super::error::ApiError;
use crate::stepfunctions::machine::DATA_LIMIT;

/// The longest definition, in characters.
pub(super) const DEFINITION: usize = 1_048_576;
/// The longest error name.
const ERROR: usize = 256;
/// The longest cause.
const CAUSE: usize = 32_768;
/// The longest task token.
const TOKEN: usize = 2_048;
/// The longest ARN.
const ARN: usize = 256;
/// The longest name.
const NAME: usize = 80;
/// The most entries of a page.
const PAGE: u32 = 1_000;
/// The entries of a page where the caller does not say.
const DEFAULT_PAGE: u32 = 100;

/// A limit that was broken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Longest(usize),
    Shortest(usize),
    Most(u32),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Longest(most) => write!(f, "length less than or equal to {most}"),
            Self::Shortest(least) => write!(f, "length greater than or equal to {least}"),
            Self::Most(most) => write!(f, "value less than or equal to {most}"),
        }
    }
}

pub(super) fn length(field: &str, text: &str, least: usize, most: usize) -> Result<(), ApiError> {
    let length = text.chars().count();
    if length > most {
        Err(ApiError::validation(field, Limit::Longest(most)))
    } else if length < least {
        Err(ApiError::validation(field, Limit::Shortest(least)))
    } else {
        Ok(())
    }
}

pub(super) fn token(token: &str) -> Result<(), ApiError> {
    length("taskToken", token, 1, TOKEN)
}

pub(super) fn failure(error: Option<&str>, cause: Option<&str>) -> Result<(), ApiError> {
    length("error", error.unwrap_or_default(), 0, ERROR)?;
    length("cause", cause.unwrap_or_default(), 0, CAUSE)
}

/// Payloads are measured in bytes.
pub(super) fn payload(field: &str, text: &str) -> Result<(), ApiError> {
    if text.len() > DATA_LIMIT {
        return Err(ApiError::validation(field, Limit::Longest(DATA_LIMIT)));
    }
    Ok(())
}

/// Names of machines and executions.
pub(super) fn name(name: &str) -> Result<(), ApiError> {
    length("name", name, 1, NAME)?;
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "<>{}[]?*\"#%\\^|~`$&,;:/".contains(c);
    if name.contains(forbidden) { Err(ApiError::invalid_name(name)) } else { Ok(()) }
}

pub(super) fn arn(field: &str, arn: &str) -> Result<(), ApiError> {
    length(field, arn, 1, ARN)?;
    if arn.starts_with("arn:aws") { Ok(()) } else { Err(ApiError::invalid_arn(arn)) }
}

/// The size of a page.
pub(super) fn page_size(most: Option<u32>) -> Result<usize, ApiError> {
    let size = match most.unwrap_or_default() {
        0 => DEFAULT_PAGE,
        size if size > PAGE => return Err(ApiError::validation("maxResults", Limit::Most(PAGE))),
        size => size,
    };
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}
