//! What is to be done next about the disks: a pure function of what is seen on the machine.
//!
//! After each step the machine is looked at again, so that it does not matter where an earlier run was interrupted. What is on a disk and not known as
//! ours is never written over: that is an error, which says what is there.

use std::path::PathBuf;

use super::survey::{Block, Signature, Survey};
use crate::machine::Error;

/// The label of our file system, and the name of our array.
pub(super) const LABEL: &str = "qdrant";

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: the file system of these disks is mounted at the workspace.
    Done {
        /// The disks.
        devices: Vec<PathBuf>,
    },
    /// Mount this device at the workspace.
    Mount(PathBuf),
    /// Make a file system on this device.
    MakeFileSystem {
        /// The device.
        device: PathBuf,
        /// It has one whose making was interrupted.
        over_unfinished: bool,
    },
    /// Start the array that these disks hold.
    Assemble(Vec<PathBuf>),
    /// Make an array of these disks.
    CreateArray(Vec<PathBuf>),
    /// Let go of these disks: an array was begun on them, and not on the others.
    ForgetArray(Vec<PathBuf>),
    /// Stop this array, which cannot run: it holds disks that are needed.
    StopArray(PathBuf),
}

/// Decides.
pub(super) fn next(seen: &Survey, workspace: &std::path::Path) -> Result<Step, Error> {
    let disks = seen.disks();
    if let Some(mounted) = &seen.mounted {
        let ours = match disks.as_slice() {
            [disk] => Some(*disk),
            several => seen.array_over(several),
        };
        return if ours.is_some_and(|ours| ours.number == mounted.number) && mounted.fstype == "xfs" {
            Ok(Step::Done { devices: paths(&disks) })
        } else {
            Err(Error::WrongMount {
                workspace: workspace.to_owned(),
                source_name: mounted.source.clone(),
                fstype: mounted.fstype.clone(),
                wanted: if disks.is_empty() { "no instance disk".to_owned() } else { names(&disks) },
            })
        };
    }
    for disk in &disks {
        refuse_use(disk)?;
    }
    match disks.as_slice() {
        [] => Err(Error::NoDisks { seen: seen.describe_disks() }),
        [disk] => file_system(disk, seen),
        several => striped(several, seen),
    }
}

/// Refuses a disk that somebody else uses: one that is mounted, or that has partitions or volumes.
fn refuse_use(disk: &Block) -> Result<(), Error> {
    for block in std::iter::once(disk).chain(&disk.children) {
        if let Some(at) = block.mountpoint() {
            return Err(Error::MountedElsewhere { device: block.path.clone(), at: at.to_owned() });
        }
    }
    match disk.children.iter().find(|child| !child.is_array()) {
        Some(child) => Err(Error::Foreign {
            device: disk.path.clone(),
            found: format!("`{}` ({})", child.path.display(), child.kind),
        }),
        None => Ok(()),
    }
}

/// What a device that is to hold the file system needs.
fn file_system(device: &Block, seen: &Survey) -> Result<Step, Error> {
    let path = device.path.clone();
    match seen.signatures_of(&path) {
        [] => Ok(Step::MakeFileSystem { device: path, over_unfinished: false }),
        [one] if one.kind == "xfs" && one.label.as_deref() == Some(LABEL) => {
            if seen.unfinished.contains(&path) {
                Ok(Step::MakeFileSystem { device: path, over_unfinished: true })
            } else {
                Ok(Step::Mount(path))
            }
        }
        others => Err(foreign(device, others)),
    }
}

/// What several disks need.
fn striped(disks: &[&Block], seen: &Survey) -> Result<Step, Error> {
    let (mut blank, mut members, mut array_ids) = (Vec::new(), Vec::new(), Vec::new());
    for disk in disks {
        match seen.signatures_of(&disk.path) {
            [] => blank.push(*disk),
            [one] if is_ours(one) => {
                members.push(*disk);
                array_ids.push(&one.uuid);
            }
            others => return Err(foreign(disk, others)),
        }
    }
    array_ids.sort();
    array_ids.dedup();
    if let Some(array) = seen.array_over(disks) {
        return file_system(array, seen);
    }
    if let Some(array) = members.iter().flat_map(|disk| &disk.children).next() {
        // As udev leaves it when it found only some of the disks. A running one that has only some of them is somebody's.
        return if array.runs() {
            Err(Error::Foreign {
                device: array.path.clone(),
                found: "an array of only some of the disks".to_owned(),
            })
        } else {
            Ok(Step::StopArray(array.path.clone()))
        };
    }
    match (blank.is_empty(), members.is_empty()) {
        (_, true) => Ok(Step::CreateArray(paths(disks))),
        (true, false) if array_ids.len() == 1 => Ok(Step::Assemble(paths(disks))),
        (true, false) => Err(Error::Foreign {
            device: members[0].path.clone(),
            found: format!("members of {} arrays on {}", array_ids.len(), names(&members)),
        }),
        // An array without one of its disks has never run, and can hold nothing: its making was interrupted.
        (false, false) => Ok(Step::ForgetArray(paths(&members))),
    }
}

/// Whether this is the trace of our array. `mdadm` puts a home host before its name.
fn is_ours(signature: &Signature) -> bool {
    let name = signature.label.as_deref().map(|label| label.rsplit_once(':').map_or(label, |(_, name)| name));
    signature.kind == "linux_raid_member" && name == Some(LABEL)
}

fn foreign(device: &Block, found: &[Signature]) -> Error {
    let found: Vec<_> = found.iter().map(Signature::describe).collect();
    Error::Foreign { device: device.path.clone(), found: found.join(", ") }
}

fn paths(disks: &[&Block]) -> Vec<PathBuf> {
    disks.iter().map(|disk| disk.path.clone()).collect()
}

fn names(disks: &[&Block]) -> String {
    let names: Vec<_> = disks.iter().map(|disk| disk.path.display().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
