//! What boot does next: pure functions of the record, of what this run has seen, and of what is wanted. No I/O, so that a test can cut the power anywhere.
//!
//! The rules that everything here keeps:
//! * With the completion marker there is no way to anything that changes data: only to the address, to serving and to the group that waits.
//! * Without it, Qdrant is published on 127.0.0.1 only, and the marker comes before its address does. So what is removed or overwritten was never served.
//! * Data is the boot's own only if its record says that it has started Qdrant on it. Everything else is for a person to decide about.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use protocol::FailureKind;

use super::{
    Refused,
    image::Image,
    record::{Record, Source, Stage, Step},
};
use crate::{
    error::Error,
    machine::{self, Launch},
    qdrant,
};

/// Where Qdrant is published until its data is ready.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How often a source may fail in a way that can pass, before something else is tried.
const FAILURES: u32 = 3;

/// What is to come of a boot.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The image that is to serve.
    pub image: Image,
    /// The address that it is to serve at.
    pub address: IpAddr,
}

/// What this run of the program has seen or done, which the next one does again.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// There is room.
    pub room: bool,
    /// What was seen to answer.
    pub up: Option<Launch>,
    /// Qdrant was warmed up, or cannot be.
    pub warmed: bool,
    /// The machine has its address.
    pub address: bool,
    /// Qdrant answers at it.
    pub serving: bool,
    /// The group was told, or nobody waits, or it cannot be told.
    pub told: bool,
}

/// The record that a run begins with. `data` says whether Qdrant's directory holds collections, and `at` where that is.
pub fn begin(
    earlier: Option<Record>,
    data: bool,
    adopt: bool,
    new: Record,
    at: &std::path::Path,
) -> Result<Record, Refused> {
    let path = at.to_owned();
    let begun = match earlier {
        Some(record) if record.marker.is_some() => return Ok(after_marker(record, new)),
        Some(record) => Record { runs: record.runs + 1, ..record },
        None => new,
    };
    if adopt {
        if !data {
            return Err(Refused::NothingToAdopt { path });
        }
        let (source, stage) = (Some(Source::Adopted), Stage::Ready);
        return Ok(Record { source, stage, clear: false, held: None, ..begun });
    }
    // Whether a Qdrant of this boot's has ever run.
    let ours = begun.image.is_some() || begun.clear;
    if data && !ours { Err(Refused::OldData { path }) } else { Ok(resume(begun)) }
}

/// A reboot, or the rest of a boot that was interrupted after its marker.
fn after_marker(record: Record, new: Record) -> Record {
    if record.step != Step::Done {
        return Record { runs: record.runs + 1, ..record };
    }
    let Record { marker, source, stage, image, .. } = record;
    Record { marker, source, stage, image, ..new }
}

/// A boot that was interrupted goes on. One that waited for a person is begun anew by that person, as far as it has failed.
fn resume(record: Record) -> Record {
    let waited = record.held.as_ref().is_some_and(super::record::Held::for_a_person);
    let held = None;
    if waited && record.stage == Stage::Missing && !record.rejected.is_empty() {
        let clear = record.clear || record.image.is_some();
        return Record { held, source: None, clear, failures: 0, rejected: Vec::new(), ..record };
    }
    let failures = if waited { 0 } else { record.failures };
    Record { held, failures, ..record }
}

/// The next step.
pub fn next(record: &Record, run: &Run, wanted: &Wanted) -> Result<Step, Refused> {
    if record.marker.is_some() {
        return Ok(match run {
            Run { serving: true, told: true, .. } => Step::Done,
            Run { serving: true, .. } => Step::Lifecycle,
            Run { address: true, .. } => Step::Serve,
            Run { .. } => Step::Address,
        });
    }
    if record.source.is_none() {
        return Ok(Step::Choose);
    }
    if record.clear {
        return Ok(Step::Clear);
    }
    let up = |launch: Launch| run.up.as_ref() == Some(&launch);
    Ok(match record.stage {
        Stage::Missing if !run.room => Step::Room,
        Stage::Missing if up(launch(record, wanted)?) => Step::Restore,
        Stage::Missing => Step::Start,
        Stage::Restored => Step::Move,
        Stage::Ready if !up(launch(record, wanted)?) => Step::Start,
        Stage::Ready if !run.warmed => Step::WarmUp,
        Stage::Ready => Step::Mark,
    })
}

/// What has to run for the data as it is: where, and in which version.
pub fn launch(record: &Record, wanted: &Wanted) -> Result<Launch, Refused> {
    let last = record.image.as_deref().map(Image::new).transpose()?;
    if record.marker.is_some() {
        // What cannot take the data over does not keep it from being served.
        let image = last.filter(|last| !wanted.image.may_follow(last)).unwrap_or(wanted.image.clone());
        return Ok(Launch { image: image.name().to_owned(), address: wanted.address });
    }
    let image = match record.stage {
        Stage::Missing => source_image(record, wanted)?,
        Stage::Restored => match last {
            Some(last) if !wanted.image.may_follow(&last) => {
                return Err(Refused::TooFar { from: last.version(), to: wanted.image.version() });
            }
            Some(_) | None => wanted.image.clone(),
        },
        Stage::Ready => last.unwrap_or(wanted.image.clone()),
    };
    Ok(Launch { image: image.name().to_owned(), address: LOOPBACK })
}

/// The image that a source is restored with.
fn source_image(record: &Record, wanted: &Wanted) -> Result<Image, Refused> {
    match &record.source {
        Some(Source::Backup { qdrant, .. }) => wanted.image.at(*qdrant),
        Some(Source::LocalSnapshots { .. } | Source::Nothing | Source::Adopted) | None => {
            Ok(wanted.image.clone())
        }
    }
}

/// How far the data is when it was restored and verified: ready, if the version that did it is the one that is to serve.
pub fn restored(record: &Record, wanted: &Wanted) -> Stage {
    match source_image(record, wanted) {
        Ok(image) if image == wanted.image => Stage::Ready,
        Ok(_) | Err(_) => Stage::Restored,
    }
}

/// The record with the completion marker.
pub fn marked(record: &Record, completed_at: Timestamp) -> Record {
    let marker = super::record::Marker { completed_at, boot_id: record.boot_id.clone() };
    Record { marker: Some(marker), ..record.clone() }
}

/// What a failed step leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The same again, later.
    LookAgain,
    /// The same source again, from nothing.
    Anew,
    /// The next source, if there is one.
    Reject,
    /// Nothing, until a person does something.
    Person,
}

/// Whether a failure counts against the source: Qdrant could not be made to hold it. That the bucket is out of reach, or the disk too small, says nothing of it.
pub fn counts(step: Step, error: &Error) -> bool {
    let kind = innermost(error).kind();
    step == Step::Restore
        && !matches!(kind, FailureKind::StoreUnavailable | FailureKind::DownloadFailed | FailureKind::LowDisk)
}

/// Judges a step's failure. `failures` says how often the source has failed in a way that may pass, this time included; `half`, whether half a restore of this
/// boot's own is on the disk.
pub fn after(step: Step, error: &Error, failures: u32, half: bool) -> After {
    if step == Step::Restore {
        return after_restore(innermost(error), failures);
    }
    // One that runs and is silent loads; one that ends again and again may be killed by what it has to load. One that cannot be started at all, as where
    // somebody else has its port, says nothing of the data.
    if step == Step::Start && matches!(error, Error::Boot(Refused::Ends { .. })) && half {
        return After::Anew;
    }
    // The bucket is only read. When it has said all, it is for a person to say what else there is.
    if step == Step::Choose && !matches!(error, Error::Boot(_)) {
        return After::LookAgain;
    }
    // An image may be loaded meanwhile.
    let may_come = matches!(error, Error::Machine(machine::Error::NoImage { .. }));
    let for_a_person = matches!(
        error.kind(),
        FailureKind::ConfigInvalid
            | FailureKind::VerificationFailed
            | FailureKind::QdrantUnsupported
            | FailureKind::QdrantUnauthorized
            | FailureKind::Suspicious
    ) || matches!(error, Error::Boot(Refused::NothingLeft { .. }));
    // Looking costs nothing otherwise, and whatever is missing may come: a disk, a route, a permission, a backup, an address.
    if for_a_person && !may_come { After::Person } else { After::LookAgain }
}

fn after_restore(error: &Error, failures: u32) -> After {
    let spent = failures >= FAILURES;
    let kind = error.kind();
    let unusable = matches!(
        kind,
        FailureKind::VerificationFailed
            | FailureKind::ChecksumMismatch
            | FailureKind::ArchiveCorrupt
            | FailureKind::ManifestMissing
            | FailureKind::ManifestInvalid
            | FailureKind::RestoreFailed
            | FailureKind::CollectionUnsupported
    );
    // What may pass, and does not for ever.
    let until_spent = |after| if spent { After::Person } else { after };
    if matches!(error, Error::HalfInTheWay { .. }) {
        if spent { After::Reject } else { After::Anew }
    } else if matches!(error, Error::InTheWay { .. } | Error::Boot(Refused::NotEmpty { .. })) {
        // Collections that this boot has not asked for.
        After::Person
    } else if matches!(error, Error::Qdrant(qdrant::Error::QueueNotEmpty { .. })) {
        until_spent(After::LookAgain)
    } else if unusable || (kind == FailureKind::QdrantUnavailable && spent) {
        // Or it went away again and again, as it does when a collection kills it.
        After::Reject
    } else if kind.is_transient() || kind == FailureKind::LowDisk {
        // Room may be made.
        After::LookAgain
    } else {
        After::Person
    }
}

/// Why a restore failed that could not undo everything.
fn innermost(error: &Error) -> &Error {
    if let Error::NotUndone { source, .. } = error { innermost(source) } else { error }
}
