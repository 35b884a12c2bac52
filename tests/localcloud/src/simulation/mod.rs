//! The workflow hurt at every call, in memory and on a clock that is driven.
//!
//! The shipped state machine runs on the embedded interpreter, the real functions and the real tasks of the worker run over ports whose calls are
//! numbered, and a plan says which of them is struck by what. Nothing here opens a socket, starts a process or a thread, or waits for real: a run is a function of its
//! scenario and its plan, and is done again by both.
//!
//! First every call of the undisturbed run is struck by every effect, one at a time; then pairs are drawn from a seed. After each run, and with
//! every write, the rules of module `invariant` are looked at.

mod explore;
mod fault;
mod invariant;
mod ports;
mod run;
mod work;
mod world;

pub use self::explore::{Exploration, Options, explore, explore_singles, first_violation};
pub use self::fault::{Effect, Plan};
pub use self::invariant::Violation;
pub use self::run::{Mutation, Outcome, Scenario};
