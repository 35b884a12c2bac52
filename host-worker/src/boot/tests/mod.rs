//! The sequence over a modelled host, on a clock that is driven.

mod choosing;
mod cuts;
mod faults;
mod model;
