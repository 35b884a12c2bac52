//! Where snapshots wait for Qdrant to take them: a directory of our own inside Qdrant's snapshots directory, since `file://`
//! recovery reads from nowhere else.
//!
//! In it is one directory per archive, named after it: what a restore that was stopped or killed has left there serves the next one of the
//! same archive. What belongs to another archive is removed when a restore begins.

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use fs_err::os::unix::fs::OpenOptionsExt;
use protocol::BackupId;
use tracing::info;
use transfer::partial_path;

use crate::{config::SnapshotsDir, error::Error};

/// Not `tmp`, which Qdrant deletes at every start, and with a colon, which no collection's name has.
const NAME: &str = "qdrant-backup:restore";
/// How many digits of the hash of an archive's frames are enough to tell it from others of the same id.
const ROOT_DIGITS: usize = 16;

/// The directory of one archive, from `open` to `release` or `keep`.
#[derive(Debug)]
pub(super) struct Stage {
    /// Of all archives.
    base: PathBuf,
    dir: SnapshotsDir,
    owner: (u32, u32),
}

/// A snapshot's place in it.
#[derive(Debug)]
pub(super) struct Staged {
    /// As this host sees it.
    pub(super) host: PathBuf,
    /// As Qdrant is told: a `file://` URL.
    pub(super) location: String,
}

/// The bytes on the disk that an earlier restore has left in the directory, and which this one will use or remove.
pub(super) fn taken(snapshots: &SnapshotsDir) -> u64 {
    bytes_below(&snapshots.host.join(NAME))
}

/// The bytes on the disk that a file takes, or a directory with all that is in it.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let Ok(found) = fs_err::symlink_metadata(path) else { return 0 };
    let inside = || fs_err::read_dir(path).into_iter().flatten().flatten();
    let within: u64 = if found.is_dir() { inside().map(|entry| bytes_below(&entry.path())).sum() } else { 0 };
    within + found.blocks() * 512
}

impl Stage {
    /// Opens the directory of the archive of `backup` whose frame index has this root, with what is left in it, and removes those of others.
    pub(super) fn open(snapshots: &SnapshotsDir, backup: BackupId, frames_root: &str) -> Result<Self, Error> {
        let name = format!("{backup}-{}", frames_root.get(..ROOT_DIGITS).unwrap_or_default());
        let base = snapshots.host.join(NAME);
        let dir = SnapshotsDir { host: base.join(&name), qdrant: snapshots.qdrant.join(NAME).join(&name) };
        let owner = fs_err::metadata(&snapshots.host).map_err(|source| Error::Local {
            what: format!("look at --snapshots-dir `{}`", snapshots.host.display()),
            source,
        })?;
        let stage = Self { base, dir, owner: (owner.uid(), owner.gid()) };
        stage.make(&stage.base)?;
        let entries = fs_err::read_dir(&stage.base).map_err(|source| stage.failed("look into", source))?;
        for entry in entries {
            let path = entry.map_err(|source| stage.failed("look into", source))?.path();
            if path != stage.dir.host {
                remove(&path).map_err(|source| stage.failed("remove a part of", source))?;
                info!(path = %path.display(), "removed what an earlier restore of another backup left");
            }
        }
        stage.make(&stage.dir.host)?;
        Ok(stage)
    }

    /// A place for the snapshot of the manifest's collection number `record`. One that is there is not finished until its content was
    /// compared: whoever wrote it, and whatever has become of it since.
    pub(super) fn file(&self, record: usize) -> Result<Staged, Error> {
        let name = format!("{record}.snapshot");
        let in_qdrant = self.dir.qdrant.join(&name);
        let location = reqwest::Url::from_file_path(&in_qdrant).map_err(|()| Error::BadSetting {
            name: "qdrant-snapshots-path",
            problem: format!("`{}` cannot be written as a file:// URL", in_qdrant.display()),
        })?;
        let host = self.dir.host.join(name);
        absent_is_fine(fs_err::rename(&host, partial_path(&host)))
            .map_err(|source| self.failed("rename a file of", source))?;
        Ok(Staged { host, location: location.into() })
    }

    /// Lets Qdrant's user read the file.
    pub(super) fn hand_over(&self, staged: &Staged) -> Result<(), Error> {
        self.give(&staged.host)
    }

    /// Removes a file that Qdrant has taken, finished or not.
    pub(super) fn discard(&self, staged: &Staged) -> Result<(), Error> {
        for path in [staged.host.clone(), partial_path(&staged.host)] {
            remove(&path).map_err(|source| self.failed("remove a file of", source))?;
        }
        Ok(())
    }

    /// Removes the directory.
    pub(super) fn release(self) -> Result<(), Error> {
        remove(&self.base).map_err(|source| self.failed("remove", source))
    }

    /// Leaves what is in the directory to the next restore, and no directory with nothing in it.
    pub(super) fn keep(self) {
        // Neither is removed unless it is empty.
        let _not_empty = fs_err::remove_dir(&self.dir.host).and_then(|()| fs_err::remove_dir(&self.base));
    }

    /// Makes a directory, unless it is there. What is there instead of one is removed.
    fn make(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| self.failed("create", source);
        match fs_err::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                fs_err::remove_file(path).map_err(failed)?;
                fs_err::create_dir(path).map_err(failed)?;
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                fs_err::create_dir(path).map_err(failed)?;
            }
            Err(source) => return Err(failed(source)),
        }
        self.give(path)
    }

    /// Qdrant may run as another user than this program; its snapshots directory says which. That user may write there, so what is handed over is
    /// opened without following links: a link put in its place would hand over what it points at.
    fn give(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| self.failed("hand Qdrant's user a part of", source);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits();
        let flags = i32::try_from(flags).unwrap_or(i32::MAX);
        let file = fs_err::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        if (metadata.uid(), metadata.gid()) == self.owner {
            return Ok(());
        }
        let (uid, gid) = self.owner;
        fchown(file.file(), Some(uid), Some(gid)).map_err(failed)
    }

    fn failed(&self, action: &str, source: io::Error) -> Error {
        Error::Local { what: format!("{action} the staging directory `{}`", self.base.display()), source }
    }
}

/// Removes a file, or a directory with what is in it. Links are not followed.
fn remove(path: &Path) -> io::Result<()> {
    match fs_err::symlink_metadata(path) {
        Ok(found) if found.is_dir() => absent_is_fine(fs_err::remove_dir_all(path)),
        Ok(_) => absent_is_fine(fs_err::remove_file(path)),
        Err(error) => absent_is_fine(Err(error)),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn open(snapshots: &SnapshotsDir, backup: &str) -> Stage {
        Stage::open(snapshots, backup.parse().unwrap(), ROOT).unwrap()
    }

    #[test]
    fn what_is_left_serves_the_same_archive_and_goes_with_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = SnapshotsDir { host: dir.path().to_owned(), qdrant: "/in/qdrant".into() };
        assert_eq!(taken(&snapshots), 0);
        let first = open(&snapshots, "20261123T051400Z");
        let [done, half] = [0, 1].map(|record| first.file(record).unwrap());
        assert_eq!(
            done.location,
            "file:///in/qdrant/qdrant-backup:restore/20261123T051400Z-0123456789abcdef/0.snapshot"
        );
        fs_err::write(&done.host, vec![1; 1 << 20]).unwrap();
        fs_err::write(partial_path(&half.host), vec![2; 1 << 20]).unwrap();
        first.keep();
        assert!(taken(&snapshots) >= 2 << 20);

        // What was finished has to be looked at again, under the name of what is not.
        let again = open(&snapshots, "20261123T051400Z");
        let [done, half] = [0, 1].map(|record| again.file(record).unwrap());
        assert!(!done.host.exists());
        assert_eq!(fs_err::read(partial_path(&done.host)).unwrap(), vec![1; 1 << 20]);
        assert_eq!(fs_err::read(partial_path(&half.host)).unwrap(), vec![2; 1 << 20]);
        again.discard(&done).unwrap();
        assert!(!partial_path(&done.host).exists());
        again.discard(&done).unwrap();

        let other = open(&snapshots, "20261123T051401Z");
        assert!(taken(&snapshots) < 1 << 20, "what the other archive left is gone");
        other.keep();
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0, "nothing is kept that is empty");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs_err::write(elsewhere.path().join("mine"), "mine").unwrap();
        let base = dir.path().join(NAME);
        fs_err::os::unix::fs::symlink(elsewhere.path(), &base).unwrap();
        let snapshots = SnapshotsDir { host: dir.path().to_owned(), qdrant: "/in/qdrant".into() };
        open(&snapshots, "20261123T051400Z").release().unwrap();
        assert!(fs_err::symlink_metadata(base).is_err());
        assert!(elsewhere.path().join("mine").exists());
    }
}
