//! The embedded Step Functions, asked by the real client over HTTP.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod api;
mod callbacks;
mod support;
