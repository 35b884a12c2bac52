//! Amazon States Language, read strictly: what is not understood is refused and never ignored.
//!
//! AWS and every other reader of this language let a misspelt field pass, so that a `HeartbeatSecond` is found when the first host
//! dies. [`Definition::parse`] knows each field of each type of state, and refuses with the name of the state and of the field. What it
//! accepts is complete: every target exists, every state can be reached, every task that waits for a token passes one on,
//! every heartbeat is shorter than its time-out, every path and intrinsic function has been parsed.
//!
//! The dialect is the JSONPath one, without variables (`Assign`) and without JSONata. Distributed maps, activities, `.sync`
//! integrations and functions named by their own ARN are not there, and are refused by name.

mod check;
mod choice;
mod document;
mod error;
mod fields;
mod intrinsic;
mod path;
mod read;
mod resource;
mod retry;
mod state;
mod substitute;
mod template;
mod timestamp;

pub use self::error::DefinitionError;
pub use self::resource::Resource;
pub use self::state::Definition;
pub use self::substitute::{SubstitutionError, substitute};

pub(in crate::stepfunctions) use self::choice::{Branching, Judgement};
pub(in crate::stepfunctions) use self::path::{Misfit, Path, ReferencePath};
pub(in crate::stepfunctions) use self::retry::Jitter;
pub(in crate::stepfunctions) use self::state::{
    Filter, Kind, Map, Parallel, Seconds, Sequence, State, Task, Text, Transition, Wait,
};
pub(in crate::stepfunctions) use self::template::{Evaluation, Scope, Template};
pub(in crate::stepfunctions) use self::timestamp::parse as parse_timestamp;
