//! What a restore has asked of Qdrant, on the disk before it is asked: a run that is killed leaves it for the next, which goes on from
//! there. What was downloaded needs no journal; it is judged by its content.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use protocol::{BackupId, CollectionName, Manifest};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{backup::write_durably, cli::RestoreArgs, error::Error};

const FILE: &str = "restore.json";

/// The journal of the restore that runs. It is on the disk from [`Journal::begin`] until [`Journal::end`].
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    choice: Choice,
    asked: BTreeMap<CollectionName, Asked>,
}

/// What a person chose to restore, and where to: the same choice goes on, another begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    /// Which Qdrant. It holds no secret: an address with a password is refused.
    qdrant_url: String,
    backup_id: BackupId,
    frames_root: String,
    /// Empty for all.
    collections: BTreeSet<CollectionName>,
    suffix: Option<String>,
    replace: bool,
}

/// What was asked for one collection, by its name in Qdrant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) step: Step,
    /// Whether it takes the place of one that was there before.
    pub(super) replaces: bool,
}

/// How far a collection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// The one in its place was to be deleted.
    Delete,
    /// It was to be recovered. Qdrant goes on with that when nobody waits for it.
    Recover,
    /// Qdrant said that it was recovered.
    Recovered,
}

impl Choice {
    pub(super) fn new(qdrant_url: String, args: &RestoreArgs, manifest: &Manifest) -> Self {
        Self {
            qdrant_url,
            backup_id: manifest.backup_id,
            frames_root: manifest.archive.frames_root.clone(),
            collections: args.collections.iter().cloned().collect(),
            suffix: args.suffix.clone(),
            replace: args.replace,
        }
    }

    /// Whether this is the choice `earlier`, or that with `--replace` typed in addition.
    fn goes_on_from(&self, earlier: &Self) -> bool {
        let replace = earlier.replace || self.replace;
        *self == Self { replace, ..earlier.clone() }
    }
}

impl Journal {
    /// Reads what an earlier run of the same choice has asked for. What a run of another choice has left is no concern of this one.
    pub(super) fn open(work_dir: &Path, choice: Choice) -> Result<Self, Error> {
        let path = work_dir.join(FILE);
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(local(&path, "read", source)),
        };
        let earlier = bytes.and_then(|bytes| match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if choice.goes_on_from(&record.choice) => Some(record.asked),
            Ok(record) => {
                info!(backup = %record.choice.backup_id, "an earlier restore of another choice was not ended; this one begins anew");
                None
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "the journal of an earlier restore cannot be read; this one begins anew");
                None
            }
        });
        Ok(Self { path, record: Record { choice, asked: earlier.unwrap_or_default() } })
    }

    /// What was asked for the collection of this name, by this run or the one before.
    pub(super) fn asked(&self, name: &CollectionName) -> Option<Asked> {
        self.record.asked.get(name).copied()
    }

    /// The collections that Qdrant was asked to recover, and has not said to be done with.
    pub(super) fn recovering(&self) -> impl Iterator<Item = &CollectionName> {
        let asked = self.record.asked.iter();
        asked.filter(|(_, asked)| asked.step == Step::Recover).map(|(name, _)| name)
    }

    /// Puts the journal on the disk.
    pub(super) fn begin(&self) -> Result<(), Error> {
        self.save()
    }

    /// Notes what Qdrant is about to be asked, or has done.
    pub(super) fn note(&mut self, name: &CollectionName, asked: Asked) -> Result<(), Error> {
        self.record.asked.insert(name.clone(), asked);
        self.save()
    }

    /// Removes the journal: nothing is left to go on from. If that fails, the next run of the same choice finds what is there as it is
    /// recorded, or refuses to touch it.
    pub(super) fn end(self) {
        if let Err(error) = fs_err::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "the journal of the restore stays behind");
        }
    }

    fn save(&self) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(&self.record)
            .map_err(|source| local(&self.path, "write", source.into()))?;
        write_durably(&self.path, &bytes)
    }
}

fn local(path: &Path, action: &str, source: io::Error) -> Error {
    Error::Local { what: format!("{action} `{}`", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(change: impl FnOnce(&mut Choice)) -> Choice {
        let mut choice = Choice {
            qdrant_url: "http://127.0.0.1:6333".to_owned(),
            backup_id: "20261123T051400Z".parse().unwrap(),
            frames_root: "ab".repeat(32),
            collections: BTreeSet::new(),
            suffix: None,
            replace: false,
        };
        change(&mut choice);
        choice
    }

    fn docs() -> CollectionName {
        "docs".parse().unwrap()
    }

    #[test]
    fn the_same_choice_goes_on_and_every_other_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let recover = Asked { step: Step::Recover, replaces: false };
        let asked = |choice| Journal::open(dir.path(), choice).unwrap().asked(&docs());
        let mut first = Journal::open(dir.path(), choice(|_| ())).unwrap();
        assert_eq!(first.asked(&docs()), None);
        first.begin().unwrap();
        first.note(&docs(), recover).unwrap();
        assert_eq!(asked(choice(|_| ())), Some(recover));
        assert_eq!(
            asked(choice(|choice| choice.replace = true)),
            Some(recover),
            "what was half may be replaced"
        );
        let others: [fn(&mut Choice); 4] = [
            |choice| choice.backup_id = "20261123T051401Z".parse().unwrap(),
            |choice| choice.frames_root = "cd".repeat(32),
            |choice| choice.collections = BTreeSet::from([docs()]),
            |choice| choice.suffix = Some("-copy".to_owned()),
        ];
        for other in others {
            assert_eq!(asked(choice(other)), None);
        }
        // A look changes nothing; only a run that begins takes the journal's place.
        assert_eq!(asked(choice(|_| ())), Some(recover));
        Journal::open(dir.path(), choice(|choice| choice.replace = true)).unwrap().begin().unwrap();
        assert_eq!(asked(choice(|_| ())), None, "what was replaced is not taken for a restore into nothing");

        Journal::open(dir.path(), choice(|_| ())).unwrap().end();
        assert_eq!(asked(choice(|choice| choice.replace = true)), None);
        fs_err::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(asked(choice(|_| ())), None, "a journal that cannot be read is no obstacle");
    }
}
