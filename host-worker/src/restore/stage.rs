//! Where snapshots wait for Qdrant to take them: a directory of our own inside Qdrant's snapshots directory, since `file://`
//! recovery reads from nowhere else.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use fs_err::os::unix::fs::OpenOptionsExt;

use crate::{config::SnapshotsDir, error::Error};

/// Not `tmp`, which Qdrant deletes at every start, and with a colon, which no collection's name has.
const NAME: &str = "qdrant-backup:restore";

/// The directory, from `create` to `release`.
#[derive(Debug)]
pub(super) struct Stage {
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

impl Stage {
    /// Makes the directory anew: what a killed restore left in it serves nobody.
    pub(super) fn create(snapshots: &SnapshotsDir) -> Result<Self, Error> {
        let dir = SnapshotsDir { host: snapshots.host.join(NAME), qdrant: snapshots.qdrant.join(NAME) };
        let owner = fs_err::metadata(&snapshots.host).map_err(|source| Error::Local {
            what: format!("look at --snapshots-dir `{}`", snapshots.host.display()),
            source,
        })?;
        let stage = Self { dir, owner: (owner.uid(), owner.gid()) };
        stage.remove()?;
        let failed = |source| stage.failed("create", source);
        fs_err::create_dir(&stage.dir.host).map_err(failed)?;
        stage.give(&stage.dir.host)?;
        Ok(stage)
    }

    /// A place for the snapshot of the manifest's collection number `record`.
    pub(super) fn file(&self, record: usize) -> Result<Staged, Error> {
        let name = format!("{record}.snapshot");
        let in_qdrant = self.dir.qdrant.join(&name);
        let location = reqwest::Url::from_file_path(&in_qdrant).map_err(|()| Error::BadSetting {
            name: "qdrant-snapshots-path",
            problem: format!("`{}` cannot be written as a file:// URL", in_qdrant.display()),
        })?;
        Ok(Staged { host: self.dir.host.join(name), location: location.into() })
    }

    /// Lets Qdrant's user read the file.
    pub(super) fn hand_over(&self, staged: &Staged) -> Result<(), Error> {
        self.give(&staged.host)
    }

    /// Removes a file that Qdrant has taken.
    pub(super) fn discard(&self, staged: &Staged) -> Result<(), Error> {
        fs_err::remove_file(&staged.host).map_err(|source| self.failed("remove a file of", source))
    }

    /// Removes the directory.
    pub(super) fn release(self) -> Result<(), Error> {
        self.remove()
    }

    fn remove(&self) -> Result<(), Error> {
        match fs_err::remove_dir_all(&self.dir.host) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(self.failed("remove", source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
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

    fn failed(&self, action: &str, source: std::io::Error) -> Error {
        Error::Local { what: format!("{action} the staging directory `{}`", self.dir.host.display()), source }
    }
}
