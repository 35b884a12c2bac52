//! The embedded Step Functions: the shipped `.asl.json` files, run as AWS runs them, without an account.
//!
//! * [`asl`] reads a definition and refuses what it would not do exactly as written;
//! * [`machine`] is one execution, without clock, chance or I/O: the place to learn how Step Functions behaves;
//! * [`StepFunctions`] is the service: machines, executions and tokens, on tokio's clock (a paused one too). Tasks go out by the
//!   narrow port [`Tasks`];
//! * [`Front`] is its HTTP side, JSON 1.0 as `aws-sdk-sfn` and `aws stepfunctions` speak it, with scripted [`Faults`].
//!
//! Time can be divided by a factor ([`Clock::divided_by`]): a retry that waits a minute waits a second, and no file is touched.
//! Timestamps stay those of the wall, so that what is derived from them still fits every other clock.
//!
//! Not there: express workflows, activities, `.sync`, distributed maps, versions and aliases, redrive, `TestState`, tags, IAM.

pub mod asl;
mod clock;
mod faults;
pub mod machine;
mod server;
mod service;
mod supply;
mod tasks;

pub use self::clock::Clock;
pub use self::faults::{Effect, Faults, Operation};
pub use self::machine::{Failure, HeartbeatError, HistoryEvent};
pub use self::server::{Front, TARGET_PREFIX};
pub use self::service::{
    ApiError, CreatedStateMachine, ErrorKind, Execution, ExecutionPage, HistoryPage, Options, Page,
    StartedExecution, StateMachine, StateMachinePage, Status, StepFunctions,
};
pub use self::supply::Draws;
pub use self::tasks::{LambdaCall, TaskError, TaskRequest, Tasks};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic in one call must not make every later one fail: what a lock guards is changed whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
