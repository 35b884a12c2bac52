//! What a restore would do, decided before anything is done: a pure function of the backup, the wish and what is there.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{CollectionName, Manifest};

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
    /// Whether a collection of that name has to be deleted first.
    pub(super) replaces: bool,
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
) -> Result<Plan, Error> {
    for name in wanted {
        if !manifest.collections.iter().any(|record| record.name == *name) {
            return Err(Error::NotInBackup { backup: manifest.backup_id, collection: name.clone() });
        }
    }
    if *mode == Mode::Empty && wanted.is_empty() && !present.collections.is_empty() {
        let names: Vec<&str> = present.collections.iter().map(CollectionName::as_str).collect();
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
        let replaces = present.collections.contains(&name);
        if replaces && *mode != Mode::Replace {
            return Err(Error::InTheWay { what: format!("collection `{name}` is there already") });
        }
        targets.push(Target { record, entry, recorded: collection.name.clone(), name, replaces });
    }
    let aliases = alias_changes(manifest, &targets, mode, present)?;
    Ok(Plan { targets, aliases, judges_aliases: !matches!(mode, Mode::Beside { .. }) })
}

fn target_name(recorded: &CollectionName, mode: &Mode) -> Result<CollectionName, Error> {
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
