//! What must hold, whatever happens: looked at with every write and at the end of a run.

use std::fmt;

use protocol::{FailureKind, Manifest, key};
use transfer::store::Crc64;

use super::world::{Actor, World};
use crate::stepfunctions::{Execution, Status};

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, in short.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Names a rule of the design.
const POINTER: &str = "the pointer names only complete, checked, immutable archives, and never goes back";
const PUBLISHER: &str = "only the publisher writes manifests and the pointer";
const ONE_ATTEMPT: &str = "a key belongs to one upload";
const ENDS: &str = "every execution ends, with a name that a person can look up";
const NOTIFIED: &str = "a failure is notified";
const QUIET: &str = "no worker goes on when nobody waits for it";

/// A document was written.
pub(super) fn written(world: &World, actor: &Actor, key: &str) {
    let published = key == key::POINTER || key.starts_with(key::MANIFESTS);
    if published && !matches!(actor, Actor::Function { name: "publish-manifest", .. }) {
        world.violated(PUBLISHER, format!("{actor:?} wrote {key}"));
    }
    if key == key::POINTER
        && let Err(what) = pointer(world)
    {
        world.violated(POINTER, what);
    }
}

/// Looks at the pointer as it is now.
fn pointer(world: &World) -> Result<(), String> {
    let documents = world.documents();
    let bytes = documents.bytes(key::POINTER).ok_or("it is gone")?;
    let manifest = Manifest::from_json(&bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    let named = manifest.backup_id;
    let before = world.state().pointers.last().copied();
    if before.is_some_and(|before| before > named) {
        return Err(format!("it went from {before:?} back to {named}"));
    }
    world.state().pointers.push(named);
    let archive = world.archives().object(&manifest.key.to_string());
    let archive = archive.ok_or_else(|| format!("the archive of {named} is not there"))?;
    if archive.len() as u64 != manifest.size_bytes || Crc64::of(&archive).to_string() != manifest.crc64nvme {
        return Err(format!("the archive of {named} is not the one described"));
    }
    let immutable = documents.history(&key::manifest(named));
    let [immutable] = immutable.as_slice() else {
        return Err(format!("the manifest of {named} was written {} times", immutable.len()));
    };
    let immutable = Manifest::from_json(immutable).map_err(|error| format!("its manifest: {error}"))?;
    if (Manifest { previous: None, ..manifest }) != immutable {
        return Err(format!("it says something else than the manifest of {named}"));
    }
    Ok(())
}

/// Looks at the world when everything has come to rest.
pub(super) fn at_the_end(world: &World, executions: &[Execution], workers_left: usize) {
    let (begun, messages) = {
        let state = world.state();
        (state.begun.clone(), state.messages)
    };
    for (index, (key, host)) in begun.iter().enumerate() {
        // The same host may begin again under a key whose first answer was lost: a second upload of it, of which one can be completed.
        if begun[..index].iter().any(|(other, on)| other == key && on != host) {
            world.violated(ONE_ATTEMPT, format!("{key} was begun on two hosts"));
        }
    }
    for execution in executions {
        match execution.status {
            Status::Succeeded => {}
            Status::Failed => {
                let error = execution.failure.error.clone().unwrap_or_default();
                if error.parse::<FailureKind>().is_err() {
                    world.violated(ENDS, format!("it failed with `{error}`"));
                }
                if messages == 0 {
                    world.violated(NOTIFIED, format!("{error} was told to nobody"));
                }
            }
            Status::Running | Status::TimedOut | Status::Aborted => {
                world.violated(ENDS, format!("it is {}", execution.status));
            }
        }
    }
    if workers_left > 0 {
        world.violated(QUIET, format!("{workers_left} processes are left"));
    }
}
