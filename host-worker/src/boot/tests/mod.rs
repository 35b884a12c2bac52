//! The sequence over a modelled host, on a clock that is driven.

#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, and their helpers are tests, too"
)]

mod cuts;
mod faults;
mod model;
