//! Which backup a drill restores. Later states are given the answer, so that a retry never asks the pointer anew.

use catalog::{Catalog, Entry, Listing, ObjectStore, PointerState, Selector};
use jiff::{SignedDuration, Timestamp};
use protocol::{BackupId, ExecutionName, Manifest, ProofLevel};
use serde::Serialize;

use crate::{
    error::Error,
    event::{Choose, DrillInput, DrillMode},
};

/// By how much a backup that nobody has ever read back is likelier to be drawn than one of the same age that somebody has.
const NEVER_PROVED: f64 = 4.0;

/// Answer to `choose`, which later states pass on as `drill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// The backup that is restored.
    pub backup_id: BackupId,
    /// The version of its archive, where the bucket has versions: its manifest pins it.
    pub version_id: Option<String>,
    /// Why this one, for a person.
    pub reason: String,
    /// By which EC2 knows that two launches are the same one.
    pub client_token: String,
}

pub(super) async fn choose<S: ObjectStore>(
    catalog: &Catalog<S>,
    event: Choose,
    now: Timestamp,
) -> Result<Chosen, Error> {
    let Choose { input: DrillInput { mode, backup_id }, execution, started_at } = event;
    let (selector, reason) = match (backup_id, mode) {
        (Some(backup), _) => (Selector::Id(backup), "asked for by its id".to_owned()),
        (None, DrillMode::Newest) => (Selector::Newest, "the pointer names it".to_owned()),
        (None, DrillMode::Random) => drawn(catalog, &execution, now).await?,
    };
    // What is gone or differs is known before a host is paid for.
    let manifest = catalog.find(selector).await?;
    tracing::info!(%execution, backup = %manifest.backup_id, reason, "the drill's backup is chosen");
    Ok(Chosen {
        backup_id: manifest.backup_id,
        version_id: manifest.version_id,
        reason,
        client_token: client_token(&execution, started_at),
    })
}

/// The same for every attempt of an execution, and of no other: a name may be used again after 90 days. EC2 takes 64 characters, and a name may have 80.
fn client_token(execution: &ExecutionName, started_at: Timestamp) -> String {
    let digest = Manifest::digest(format!("{execution} {started_at}").as_bytes());
    format!("drill-{}", digest.get(..32).unwrap_or(&digest))
}

/// A backup that the pointer does not name, whole and readable; the longer nobody has read it back, the likelier.
async fn drawn<S: ObjectStore>(
    catalog: &Catalog<S>,
    execution: &ExecutionName,
    now: Timestamp,
) -> Result<(Selector, String), Error> {
    let Listing { pointer, entries, .. } = catalog.list().await?;
    // What is newer than the published one was held back, or taken back, for a reason.
    let is_older = |entry: &&Entry| match pointer {
        PointerState::Names(published) => entry.backup_id < published,
        PointerState::Absent | PointerState::Unreadable(_) => true,
    };
    let lots = entries.iter().filter(is_older).filter(|entry| is_candidate(entry)).map(|entry| {
        let unproved = Unproved::of(entry, now);
        (lot(execution, entry.backup_id, unproved.weight()), entry.backup_id, unproved)
    });
    let best = lots.max_by(|(one, ..), (other, ..)| one.total_cmp(other));
    Ok(match best {
        Some((_, backup, unproved)) => {
            (Selector::Id(backup), format!("drawn by lot among the older ones; {unproved}"))
        }
        None => (Selector::Newest, "there is no older one to draw, and the pointer names it".to_owned()),
    })
}

fn is_candidate(entry: &Entry) -> bool {
    match &entry.manifest {
        Ok(manifest) => !entry.is_pointer && !manifest.partial,
        Err(error) => {
            tracing::warn!(backup = %entry.backup_id, %error, "the manifest cannot be used; not drawn");
            false
        }
    }
}

/// How long nobody has read a backup back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unproved {
    ever: bool,
    age: SignedDuration,
}

impl Unproved {
    fn of(entry: &Entry, now: Timestamp) -> Self {
        // Below that level nobody has read the bytes.
        let proved = entry.proved.as_ref().filter(|proved| proved.level >= ProofLevel::ReRead);
        let since = proved.map_or(entry.stored_at, |proved| proved.at);
        Self { ever: proved.is_some(), age: now.duration_since(since) }
    }

    /// In days, and never nothing: every backup may be drawn.
    fn weight(self) -> f64 {
        let days = self.age.as_secs_f64().max(0.0) / 86_400.0 + 1.0;
        if self.ever { days } else { days * NEVER_PROVED }
    }
}

impl std::fmt::Display for Unproved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let days = self.age.as_hours() / 24;
        if self.ever {
            write!(f, "last proved {days} days ago")
        } else {
            write!(f, "stored {days} days ago and never proved")
        }
    }
}

/// What a backup draws: the greatest lot wins, with a chance in proportion to the weight (Efraimidis and Spirakis 2006). It is a function of the execution's
/// name and the backup, so that asking again draws the same, whatever comes or goes beside it.
fn lot(execution: &ExecutionName, backup: BackupId, weight: f64) -> f64 {
    let digest = Manifest::digest(format!("{execution} {backup}").as_bytes());
    // 52 bits are what an f64 holds beside its sign and exponent; none of the two ends, whose logarithm is no lot.
    let bits = digest.get(..13).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "52 bits are held exactly")]
    let uniform = (bits as f64 + 0.5) / (1_u64 << 52) as f64;
    uniform.ln() / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: i64) -> BackupId {
        BackupId::from_time(Timestamp::from_second(1_795_000_000 + n).unwrap()).unwrap()
    }

    #[test]
    fn lots_are_drawn_by_weight_and_the_same_again() {
        let weights = [(id(0), 1.0), (id(1), 2.0), (id(2), 5.0)];
        let winner = |n: u32| {
            let execution: ExecutionName = format!("drill-{n}").parse().unwrap();
            let lots = weights.map(|(backup, weight)| (lot(&execution, backup, weight), backup));
            lots.into_iter().max_by(|(one, _), (other, _)| one.total_cmp(other)).unwrap().1
        };
        let mut won = [0, 0, 0];
        for n in 0..4000 {
            let index = weights.iter().position(|(backup, _)| *backup == winner(n)).unwrap();
            won[index] += 1;
            assert_eq!(winner(n), weights[index].0);
        }
        // 500, 1000 and 2500 of 4000 are expected, with a deviation of at most 32: five of them are no chance.
        for (won, expected) in won.into_iter().zip([500_i32, 1000, 2500]) {
            assert!((won - expected).abs() < 160, "{won} instead of {expected}");
        }
    }

    #[test]
    fn an_instance_is_launched_once_for_an_execution_and_anew_for_another() {
        let (name, other) = ("a".repeat(80).parse().unwrap(), "b".parse().unwrap());
        let started_at: Timestamp = "2026-11-28T11:00:00.123Z".parse().unwrap();
        let token = client_token(&name, started_at);
        assert_eq!(token, client_token(&name, started_at));
        assert!(token.len() <= 64 && token.is_ascii(), "{token}");
        assert_ne!(token, client_token(&other, started_at));
        assert_ne!(token, client_token(&name, started_at + SignedDuration::from_secs(1)));
    }
}
