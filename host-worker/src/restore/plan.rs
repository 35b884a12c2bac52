//! What a restore would do, decided before anything is done: a pure function of the backup, the wish and what is there.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{CollectionName, Manifest};

use super::earlier::Earlier;
use crate::{error::Error, qdrant::AliasChange};

/// How a restore treats what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Into a Qdrant that has nothing.
    Empty,
    /// Beside live data, under other names.
    Beside { suffix: String, switch_alias: bool },
    /// In place of what has the same names.
    Replace,
}

/// What Qdrant has.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    pub(super) collections: BTreeSet<CollectionName>,
    pub(super) aliases: BTreeMap<String, CollectionName>,
}

/// One collection to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its place in the manifest's collections.
    pub(super) record: usize,
    /// Its place in the archive's entries.
    pub(super) entry: usize,
    /// Its name in the backup.
    pub(super) recorded: CollectionName,
    /// Its name in Qdrant.
    pub(super) name: CollectionName,
    /// What is under that name.
    pub(super) place: Place,
}

/// What is there already under a target's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing.
    Free,
    /// A collection that has to be deleted first.
    Taken,
    /// The collection itself: an earlier run of the same restore has brought it back.
    Done,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    /// In one request, after everything is verified.
    pub(super) aliases: Vec<AliasChange>,
    judges_aliases: bool,
}

pub(super) fn plan(
    manifest: &Manifest,
    wanted: &[CollectionName],
    mode: &Mode,
    present: &Present,
    earlier: &Earlier,
) -> Result<Plan, Error> {
    for name in wanted {
        if !manifest.collections.iter().any(|record| record.name == *name) {
            return Err(Error::NotInBackup { backup: manifest.backup_id, collection: name.clone() });
        }
    }
    let ours = |name: &&CollectionName| earlier.made.contains(*name) || earlier.wrong.contains_key(*name);
    let names: Vec<&str> =
        present.collections.iter().filter(|name| !ours(name)).map(CollectionName::as_str).collect();
    if *mode == Mode::Empty && wanted.is_empty() && !names.is_empty() {
        return Err(Error::InTheWay { what: format!("Qdrant is not empty, it has {}", names.join(", ")) });
    }
    let mut targets = Vec::new();
    for (record, collection) in manifest.collections.iter().enumerate() {
        if !wanted.is_empty() && !wanted.contains(&collection.name) {
            continue;
        }
        // `Manifest::from_json` has made sure that every collection has its entry.
        let Some(entry) = manifest.archive.entries.iter().position(|entry| entry.name == collection.entry)
        else {
            continue;
        };
        let name = target_name(&collection.name, mode)?;
        if let Some(target) = present.aliases.get(name.as_str()) {
            let what = format!(
                "`{name}` is an alias of `{target}`, which a restore under that name would overwrite"
            );
            return Err(Error::InTheWay { what });
        }
        let place = match (present.collections.contains(&name), mode) {
            (false, _) => Place::Free,
            (true, _) if earlier.made.contains(&name) => Place::Done,
            (true, Mode::Replace) => Place::Taken,
            (true, Mode::Empty | Mode::Beside { .. }) => {
                return Err(match earlier.wrong.get(&name) {
                    Some(found) => Error::HalfInTheWay {
                        found: found.clone(),
                        remedy: remedy(manifest, wanted, mode, &name),
                        collection: name,
                    },
                    None => Error::InTheWay { what: format!("collection `{name}` is there already") },
                });
            }
        };
        targets.push(Target { record, entry, recorded: collection.name.clone(), name, place });
    }
    let aliases = alias_changes(manifest, &targets, mode, present)?;
    Ok(Plan { targets, aliases, judges_aliases: !matches!(mode, Mode::Beside { .. }) })
}

/// What to type when half a collection of an earlier run is in the way.
fn remedy(manifest: &Manifest, wanted: &[CollectionName], mode: &Mode, name: &CollectionName) -> String {
    match mode {
        Mode::Empty | Mode::Replace => {
            let chosen: String = wanted.iter().map(|name| format!(" --collection {name}")).collect();
            format!(
                "`host-worker restore --backup {}{chosen} --replace` replaces it and goes on with the rest",
                manifest.backup_id
            )
        }
        Mode::Beside { .. } => format!(
            "delete it (`DELETE /collections/{}`) and run the same command again",
            name.percent_encoded()
        ),
    }
}

/// The name that a collection gets in Qdrant.
pub(super) fn target_name(recorded: &CollectionName, mode: &Mode) -> Result<CollectionName, Error> {
    match mode {
        Mode::Empty | Mode::Replace => Ok(recorded.clone()),
        Mode::Beside { suffix, .. } if suffix.is_empty() => Err(Error::BadSetting {
            name: "as",
            problem: "an empty suffix would restore over live data".to_owned(),
        }),
        Mode::Beside { suffix, .. } => format!("{recorded}{suffix}")
            .parse()
            .map_err(|source| Error::Setting { name: "as", source: Box::new(source) }),
    }
}

fn alias_changes(
    manifest: &Manifest,
    targets: &[Target],
    mode: &Mode,
    present: &Present,
) -> Result<Vec<AliasChange>, Error> {
    let new_names: BTreeMap<&CollectionName, &CollectionName> =
        targets.iter().map(|target| (&target.recorded, &target.name)).collect();
    let wanted: Vec<(&String, &CollectionName)> = match mode {
        Mode::Beside { switch_alias: false, .. } => Vec::new(),
        Mode::Empty | Mode::Replace => manifest.aliases.iter().collect(),
        // Readers know the alias of today, which may be younger than the backup.
        Mode::Beside { switch_alias: true, .. } => manifest.aliases.iter().chain(&present.aliases).collect(),
    };
    let mut planned = BTreeMap::new();
    for (alias, recorded) in wanted {
        let Some(&name) = new_names.get(recorded) else { continue };
        if present.collections.iter().any(|collection| collection.as_str() == alias) {
            return Err(Error::InTheWay {
                what: format!("`{alias}`, an alias in the backup, is a collection here"),
            });
        }
        match present.aliases.get(alias) {
            // Somebody reads other data by this alias today. Moving it is `--switch-alias`, and must be typed.
            Some(today) if !matches!(mode, Mode::Beside { .. }) && today != name => {
                let what = format!(
                    "the alias `{alias}`, which is on `{recorded}` in the backup, is on `{today}` here"
                );
                return Err(Error::InTheWay { what });
            }
            Some(_) | None => planned.insert(alias, name),
        };
    }
    let mut changes = Vec::new();
    for (alias, name) in planned {
        if present.aliases.contains_key(alias) {
            changes.push(AliasChange::Delete { alias: alias.clone() });
        }
        changes.push(AliasChange::Create { alias: alias.clone(), collection: name.clone() });
    }
    if changes.is_empty() && matches!(mode, Mode::Beside { switch_alias: true, .. }) {
        return Err(Error::Request {
            problem:
                "there is no alias to switch: neither the backup nor Qdrant has one for these collections"
                    .to_owned(),
            hint: "restore without --switch-alias, and let readers use an alias from now on".to_owned(),
        });
    }
    Ok(changes)
}

impl Plan {
    /// Alias to collection, as they are to be.
    pub(super) fn alias_targets(&self) -> BTreeMap<String, CollectionName> {
        let created = self.aliases.iter().filter_map(|change| match change {
            AliasChange::Create { alias, collection } => Some((alias.clone(), collection.clone())),
            AliasChange::Delete { .. } => None,
        });
        created.collect()
    }

    /// Whether the backup's aliases are all set, so that they can be judged: not beside live data, whose aliases are another matter.
    pub(super) fn judges_aliases(&self) -> bool {
        self.judges_aliases
    }

    /// Fails unless every alias of the plan points where it should.
    pub(super) fn require_aliases(&self, actual: &BTreeMap<String, CollectionName>) -> Result<(), Error> {
        for (alias, collection) in self.alias_targets() {
            if actual.get(&alias) != Some(&collection) {
                return Err(Error::AliasNotSet { alias, collection });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
