//! The operations. A request with a field that is not carried out is refused, not passed over.

mod commands;
mod documents;
mod instances;
mod send;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::call::Operation;
use super::service::Service;
use super::wire::ApiError;

type Result = std::result::Result<Value, ApiError>;

/// Carries a call out.
pub(super) fn call(service: &Arc<Service>, operation: Operation, body: Value) -> Result {
    match operation {
        Operation::SendCommand => send::send_command(service, parse(body)?),
        Operation::GetCommandInvocation => commands::get_invocation(service, &parse(body)?),
        Operation::ListCommandInvocations => commands::list_invocations(service, parse(body)?),
        Operation::ListCommands => commands::list(service, parse(body)?),
        Operation::CancelCommand => commands::cancel(service, &parse(body)?),
        Operation::DescribeInstanceInformation => instances::describe(service, parse(body)?),
        Operation::CreateDocument => documents::create(service, &parse(body)?),
        Operation::DescribeDocument => documents::describe(service, &parse(body)?),
        Operation::GetDocument => documents::get(service, &parse(body)?),
    }
}

fn parse<T: DeserializeOwned>(body: Value) -> std::result::Result<T, ApiError> {
    serde_json::from_value(body).map_err(|error| {
        ApiError::new("ValidationException", format!("the stand-in does not take this request: {error}"))
    })
}

/// A time as this protocol writes it: seconds, and milliseconds as a fraction.
fn epoch(time: Timestamp) -> Value {
    json!(SignedDuration::from_millis(time.as_millisecond()).as_secs_f64())
}

/// One page of `items` from where `token` says, and the token of the next page.
fn page<T>(
    items: Vec<T>,
    token: Option<&str>,
    most: usize,
) -> std::result::Result<(Vec<T>, Option<String>), ApiError> {
    let start: usize = match token {
        None => 0,
        Some(token) => token
            .parse()
            .map_err(|_not_ours| ApiError::new("InvalidNextToken", "The specified token isn't valid."))?,
    };
    let end = start.saturating_add(most);
    let next = (end < items.len()).then(|| end.to_string());
    Ok((items.into_iter().skip(start).take(most).collect(), next))
}

/// The most items of a page, which must be in `allowed`.
fn page_size(
    asked: Option<i64>,
    default: usize,
    allowed: std::ops::RangeInclusive<i64>,
) -> std::result::Result<usize, ApiError> {
    match asked {
        None => Ok(default),
        Some(most) if allowed.contains(&most) => Ok(usize::try_from(most).unwrap_or(default)),
        Some(most) => Err(ApiError::new(
            "ValidationException",
            format!("MaxResults {most} is not within {} and {}", allowed.start(), allowed.end()),
        )),
    }
}
