//! The names of everything stored: S3 keys and the entries of an archive, made and parsed here and nowhere else.
//!
//! ```text
//! latest_qdrant_backup.manifest.json                                the pointer
//! <prefix>/qdrant_snapshot_<backup id>-<attempt>.tar.zst            an archive, and beside it
//! <prefix>/qdrant_snapshot_<backup id>-<attempt>.tar.zst.sha256       what `sha256sum -c` reads
//! <prefix>/qdrant_snapshot_<backup id>-<attempt>.frames.json.zst      its frame index
//! <prefix>/qdrant_snapshot_<backup id>-<attempt>.golden.json.zst      its golden set
//! <prefix>/qdrant_snapshot_<backup id>-<attempt>.manifest.json        its manifest, as the host hands it over for publication
//! <prefix>/.doctor                                                  what `doctor` tries the store with
//! qdrant/manifests/<backup id>.json                                 the immutable manifest
//! qdrant/proofs/<backup id>/<UTC>.json                              what was proved of it, and when
//! qdrant/indexing/_SUCCESS.json                                     the indexing job's success marker (default)
//! ```

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, BackupId, CollectionName, percent_encode};

/// The key of the authoritative pointer.
pub const POINTER: &str = "latest_qdrant_backup.manifest.json";
/// Where immutable manifests are.
pub const MANIFESTS: &str = "qdrant/manifests/";
/// Where proofs are.
pub const PROOFS: &str = "qdrant/proofs/";
/// The folder of the reports of restore drills.
pub const DRILLS: &str = "qdrant/drills/";
/// Where the indexing job marks success, unless configured otherwise.
pub const DEFAULT_SUCCESS_MARKER: &str = "qdrant/indexing/_SUCCESS.json";
/// The default of [`Prefix`].
pub const DEFAULT_PREFIX: &str = "qdrant/backups";
/// The last entry of every archive: what the archive is.
pub const BACKUP_JSON: &str = "backup.json";

/// A key or prefix breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct InvalidKey {
    what: &'static str,
    text: String,
}

fn invalid(what: &'static str, text: &str) -> InvalidKey {
    InvalidKey { what, text: text.to_owned() }
}

/// The folder of the archives: one or more path components of `[A-Za-z0-9_.-]`, neither `.` nor `..`, without a slash at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

impl Prefix {
    /// The prefix with a slash behind it, for listings.
    pub fn with_slash(&self) -> String {
        format!("{}/", self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Prefix {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.bytes().all(plain);
        let reserved = [MANIFESTS, PROOFS, DRILLS, "qdrant/indexing/"];
        if text.len() > 512
            || !text.split('/').all(component)
            || reserved
                .iter()
                .any(|r| format!("{text}/").starts_with(r) || r.starts_with(&format!("{text}/")))
        {
            let what = "a prefix: path components of [A-Za-z0-9_.-] with single slashes between them, neither inside nor around the folders of manifests, proofs, drills and markers";
            return Err(invalid(what, text));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

/// Where the objects of one bucket are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    prefix: Prefix,
}

impl Layout {
    /// The layout with archives under `prefix`.
    pub fn new(prefix: Prefix) -> Self {
        Self { prefix }
    }

    /// The folder of the archives.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The key of the object by which `doctor` tries what the store can do: where the host may write, and like no archive's.
    pub fn probe(&self) -> String {
        format!("{}/.doctor", self.prefix)
    }

    /// The key of one upload's archive.
    pub fn archive(&self, backup: BackupId, attempt: AttemptId) -> ArchiveKey {
        ArchiveKey { prefix: self.prefix.clone(), backup, attempt }
    }
}

/// The key of an archive, from which those of its side files follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArchiveKey {
    prefix: Prefix,
    backup: BackupId,
    attempt: AttemptId,
}

impl ArchiveKey {
    /// The backup whose archive it is.
    pub fn backup(&self) -> BackupId {
        self.backup
    }

    /// The upload whose archive it is.
    pub fn attempt(&self) -> &AttemptId {
        &self.attempt
    }

    /// The name without the folder, as `qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst`.
    pub fn file_name(&self) -> String {
        format!("{}.tar.zst", self.stem())
    }

    /// The key of the file that `sha256sum -c` reads.
    pub fn sha256(&self) -> String {
        format!("{self}.sha256")
    }

    /// The key of the frame index.
    pub fn frames(&self) -> String {
        format!("{}/{}.frames.json.zst", self.prefix, self.stem())
    }

    /// The key of the golden set.
    pub fn golden(&self) -> String {
        format!("{}/{}.golden.json.zst", self.prefix, self.stem())
    }

    /// The key of the manifest as the host hands it over to whoever may publish.
    pub fn manifest(&self) -> String {
        format!("{}/{}.manifest.json", self.prefix, self.stem())
    }

    /// How the keys of the archive and of everything beside it begin, and no other's.
    pub fn beginning(&self) -> String {
        format!("{}/{}.", self.prefix, self.stem())
    }

    /// The archive that has this key, or beside which the object with this key lies.
    pub fn owning(key: &str) -> Option<Self> {
        let at = key.rfind('/').map_or(0, |slash| slash + 1);
        let (stem, ending) = key[at..].split_once('.')?;
        let endings = ["tar.zst", "tar.zst.sha256", "frames.json.zst", "golden.json.zst", "manifest.json"];
        endings.contains(&ending).then(|| format!("{}{stem}.tar.zst", &key[..at]).parse().ok())?
    }

    fn stem(&self) -> String {
        format!("qdrant_snapshot_{}-{}", self.backup, self.attempt)
    }
}

impl fmt::Display for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.file_name())
    }
}

impl FromStr for ArchiveKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let error = || invalid("the key of an archive", text);
        let (prefix, file) = text.rsplit_once('/').ok_or_else(error)?;
        let stem = file
            .strip_prefix("qdrant_snapshot_")
            .and_then(|rest| rest.strip_suffix(".tar.zst"))
            .ok_or_else(error)?;
        let (backup, attempt) = stem.split_once('-').ok_or_else(error)?;
        Ok(Self {
            prefix: prefix.parse()?,
            backup: backup.parse().map_err(|_e| error())?,
            attempt: attempt.parse().map_err(|_e| error())?,
        })
    }
}

impl TryFrom<String> for ArchiveKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<ArchiveKey> for String {
    fn from(key: ArchiveKey) -> Self {
        key.to_string()
    }
}

impl JsonSchema for ArchiveKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ArchiveKey".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": r"^([A-Za-z0-9_.-]+/)+qdrant_snapshot_\d{8}T\d{6}Z-[0-9a-f]{8}\.tar\.zst$",
            "description": "the archive's key, relative to the bucket that the manifest was read from",
        })
    }
}

/// The key of a backup's immutable manifest.
pub fn manifest(backup: BackupId) -> String {
    format!("{MANIFESTS}{backup}.json")
}

/// The backup whose immutable manifest has this key; `None` for any other object.
pub fn parse_manifest(key: &str) -> Option<BackupId> {
    key.strip_prefix(MANIFESTS)?.strip_suffix(".json")?.parse().ok()
}

/// The folder of a backup's proofs.
pub fn proofs(backup: BackupId) -> String {
    format!("{PROOFS}{backup}/")
}

/// The key of a proof that was reached at `time`.
pub fn proof(backup: BackupId, time: Timestamp) -> String {
    format!("{PROOFS}{backup}/{}.json", time.strftime("%Y%m%dT%H%M%S%.3fZ"))
}

/// The folder of a drill that began at `time`, with its reports.
pub fn drill(backup: BackupId, time: Timestamp) -> String {
    format!("{DRILLS}{}-{backup}/", time.strftime("%Y%m%dT%H%M%SZ"))
}

/// The backup of a drill whose report for programs has this key; `None` for any other object.
pub fn parse_drill(key: &str) -> Option<BackupId> {
    let folder = key.strip_prefix(DRILLS)?.strip_suffix("/report.json")?;
    let (_began, backup) = folder.split_once('-')?;
    backup.parse().ok()
}

/// The backup that a proof with this key is of; `None` for any other object.
pub fn parse_proof(key: &str) -> Option<BackupId> {
    let (backup, file) = key.strip_prefix(PROOFS)?.split_once('/')?;
    file.strip_suffix(".json")?;
    backup.parse().ok()
}

/// The name of a snapshot inside an archive: `snapshots/<collection, percent-encoded>/<file>.snapshot`.
///
/// The file's name is percent-encoded outside `[A-Za-z0-9_.-]`, and so is a dot at its beginning, which leaves the names that Qdrant gives to snapshots of
/// plainly named collections as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotEntry {
    /// The collection that the snapshot is of.
    pub collection: CollectionName,
    file: String,
}

impl SnapshotEntry {
    /// The entry for the snapshot of `collection` that Qdrant calls `file`.
    pub fn new(collection: CollectionName, file: &str) -> Result<Self, InvalidKey> {
        let encoded = percent_encode(file, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        // Qdrant begins the name with the collection's, which may begin with a dot; no file of an archive is hidden.
        let file = match encoded.strip_prefix('.') {
            Some(rest) => format!("%2E{rest}"),
            None => encoded,
        };
        if !file.ends_with(".snapshot") {
            return Err(invalid("the file name of a snapshot", &file));
        }
        Ok(Self { collection, file })
    }
}

impl fmt::Display for SnapshotEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshots/{}/{}", self.collection.percent_encoded(), self.file)
    }
}

impl FromStr for SnapshotEntry {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let error = || invalid("the name of a snapshot in an archive", text);
        let (collection, file) =
            text.strip_prefix("snapshots/").and_then(|rest| rest.split_once('/')).ok_or_else(error)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'%');
        if !file.bytes().all(plain) || file.starts_with('.') || !file.ends_with(".snapshot") {
            return Err(error());
        }
        let collection = CollectionName::from_percent_encoded(collection).map_err(|_e| error())?;
        Ok(Self { collection, file: file.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ArchiveKey {
        let layout = Layout::new(DEFAULT_PREFIX.parse().unwrap());
        layout.archive("20261123T051400Z".parse().unwrap(), AttemptId::from_bits(0x0bad_cafe))
    }

    #[test]
    fn keys_are_as_the_design_says_and_parse_back() {
        let text = "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst";
        assert_eq!(key().to_string(), text);
        assert_eq!(text.parse(), Ok(key()));
        assert_eq!(key().sha256(), format!("{text}.sha256"));
        assert_eq!(
            key().frames(),
            "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.frames.json.zst"
        );
        assert_eq!(
            key().golden(),
            "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.golden.json.zst"
        );
        let backup = key().backup();
        assert_eq!(manifest(backup), "qdrant/manifests/20261123T051400Z.json");
        assert_eq!(parse_manifest(&manifest(backup)), Some(backup));
        let proof = proof(backup, "2026-12-01T00:00:00.5Z".parse().unwrap());
        assert_eq!(proof, "qdrant/proofs/20261123T051400Z/20261201T000000.500Z.json");
        assert_eq!(parse_proof(&proof), Some(backup));
    }

    #[test]
    fn side_files_and_strangers_are_not_archives() {
        for text in [
            "qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst",
            "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst.sha256",
            "qdrant/backups/qdrant_snapshot_20261123T051400Z.tar.zst",
            "qdrant/backups/../qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst",
            "qdrant/manifests/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst",
        ] {
            assert!(text.parse::<ArchiveKey>().is_err(), "{text}");
        }
        assert_eq!(parse_manifest("qdrant/manifests/latest.json"), None);
        assert_eq!(parse_manifest(POINTER), None);
    }

    #[test]
    fn whatever_lies_beside_an_archive_is_known_by_its_key() {
        let archive: ArchiveKey = "a.b/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst".parse().unwrap();
        for key in
            [archive.to_string(), archive.sha256(), archive.frames(), archive.golden(), archive.manifest()]
        {
            assert_eq!(ArchiveKey::owning(&key), Some(archive.clone()), "{key}");
            assert!(key.starts_with(&archive.beginning()), "{key}");
        }
        for key in
            ["a.b/.doctor", "a.b/qdrant_snapshot_20261123T051400Z-0badcafe.txt", "a.b/x.tar.zst", "", "."]
        {
            assert_eq!(ArchiveKey::owning(key), None, "{key}");
        }
    }

    #[test]
    fn a_drill_has_a_folder_of_its_own() {
        let backup = "20261123T051400Z".parse().unwrap();
        let folder = drill(backup, "2026-12-01T03:00:00Z".parse().unwrap());
        assert_eq!(folder, "qdrant/drills/20261201T030000Z-20261123T051400Z/");
        assert_eq!(parse_drill(&format!("{folder}report.json")), Some(backup));
        for other in ["report.html", "x/report.json", ""] {
            assert_eq!(parse_drill(&format!("{folder}{other}")), None, "{other}");
        }
    }

    #[test]
    fn prefixes_are_checked() {
        for good in ["qdrant/backups", "a", "team-1/qdrant.prod"] {
            assert_eq!(good.parse::<Prefix>().unwrap().with_slash(), format!("{good}/"));
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b", "a b", "qdrant/manifests", "qdrant/proofs/x"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_keep_ordinary_names_and_tame_odd_ones() {
        let entry =
            |name: &str, file: &str| SnapshotEntry::new(name.parse().unwrap(), file).unwrap().to_string();
        assert_eq!(
            entry("docs", "docs-7-2026-11-23-05-14-00.snapshot"),
            "snapshots/docs/docs-7-2026-11-23-05-14-00.snapshot"
        );
        assert_eq!(entry("..", "x ü.snapshot"), "snapshots/%2E%2E/x%20%C3%BC.snapshot");
        let hidden = entry(".a", ".a-7.snapshot");
        assert_eq!(hidden, "snapshots/%2Ea/%2Ea-7.snapshot");
        assert_eq!(hidden.parse::<SnapshotEntry>().unwrap().to_string(), hidden);
        for text in [
            "snapshots/../x.snapshot",
            "snapshots/a/../../x.snapshot",
            "snapshots/a/.snapshot",
            "snapshots/a/x.tar",
            "/snapshots/a/x.snapshot",
            "backup.json",
        ] {
            assert!(text.parse::<SnapshotEntry>().is_err(), "{text}");
        }
    }
}
