//! The files that a restore writes: under a temporary name until they are whole, with holes where there is nothing but zeros.

use std::{
    ffi::OsString,
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt as _};
use protocol::FailureKind;
use rustix::{
    fs::{FallocateFlags, OFlags, SeekFrom},
    io::Errno,
};

use crate::{
    download::{Durability, Leftovers},
    error::Error,
    frame::is_zero,
};

/// The size of a block that becomes a hole if it is zero: the block size of the file systems in question, in bytes.
const BLOCK: usize = 4096;

/// Who may read a snapshot before it is handed over: its owner.
const MODE: u32 = 0o600;

/// Files being written. Dropping it before [`Targets::commit`] does with them what [`Leftovers`] says of a dropped restore.
#[derive(Debug)]
pub(super) struct Targets {
    targets: Vec<Target>,
    leftovers: Leftovers,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    /// Held while the file is written: the kernel lets one thread at a time write a file anyway, and the others spin.
    writing: Mutex<()>,
    content: Content,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A hole from the beginning to the end.
    Nothing,
    /// Whatever an earlier restore, or anybody, has left.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Partial,
    Renamed,
    Committed,
}

impl Targets {
    /// Opens a file of the final size for each path, where nothing may be yet.
    pub(super) fn open(
        wanted: impl Iterator<Item = (PathBuf, u64)>,
        leftovers: Leftovers,
    ) -> Result<Self, Error> {
        let mut targets = Self { targets: Vec::new(), leftovers };
        for (path, size) in wanted {
            if fs_err::symlink_metadata(&path).is_ok() {
                targets.leftovers = Leftovers::Discard;
                return Err(Error::TargetExists { path });
            }
            let partial = partial_path(&path);
            let failed = |source| Error::TargetWrite { path: partial.clone(), source };
            let (file, content) = open_partial(&partial, leftovers).map_err(failed)?;
            targets.targets.push(Target {
                path,
                partial: partial.clone(),
                file,
                writing: Mutex::default(),
                content,
                state: State::Partial,
            });
            let opened = targets.targets.last().map(|target| target.file.set_len(size));
            opened.transpose().map_err(failed)?;
        }
        Ok(targets)
    }

    /// Whether file number `target` may hold bytes of an earlier restore.
    pub(super) fn is_leftover(&self, target: usize) -> bool {
        self.targets[target].content == Content::Unknown
    }

    /// Whether `len` bytes at `offset` of file number `target` are known to be zero without reading them. Holes are; a file system
    /// that cannot say where it has holes says that it has none.
    pub(super) fn is_hole(&self, target: usize, offset: u64, len: usize) -> bool {
        match rustix::fs::seek(self.targets[target].file.file(), SeekFrom::Data(offset)) {
            Ok(data) => data >= offset + len as u64,
            // No data from there to the end.
            Err(Errno::NXIO) => true,
            Err(_) => false,
        }
    }

    /// Reads all of `into` from `offset` of file number `target`.
    pub(super) fn read(&self, target: usize, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        let Target { partial, file, .. } = &self.targets[target];
        file.file().read_exact_at(into, offset).map_err(|source| Error::LeftoverRead {
            path: partial.clone(),
            offset,
            source,
        })
    }

    /// Writes `bytes` at `offset` of file number `target`. Blocks of zeros become holes, whatever was there.
    pub(super) fn write(&self, target: usize, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Target { partial, file, writing, content, .. } = &self.targets[target];
        let failed = |source| Error::TargetWrite { path: partial.clone(), source };
        let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
        if *content == Content::Unknown && !self.is_hole(target, offset, bytes.len()) {
            match punch(file, offset, bytes.len()) {
                Ok(()) => {}
                // No holes on this file system: zeros are written like all else.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return file.file().write_all_at(bytes, offset).map_err(failed);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        for (start, run) in data_runs(bytes) {
            file.file().write_all_at(run, offset + start as u64).map_err(failed)?;
        }
        Ok(())
    }

    /// Ends a restore that failed: keeps what the next one goes on from, or removes it. A file with nothing in it is of no use.
    pub(super) fn fail(mut self, kind: FailureKind) {
        if self.leftovers.stay_after(kind) {
            self.targets.retain(|target| !target.has_data());
        }
        self.leftovers = Leftovers::Discard;
    }

    /// Gives the files their names, and syncs them and the directories if they have to outlive a loss of power. If that fails, neither is left.
    pub(super) fn commit(mut self, durability: Durability) -> Result<(), Error> {
        self.leftovers = Leftovers::Discard;
        let synced = durability == Durability::Synced;
        for Target { partial, file, .. } in self.targets.iter().filter(|_| synced) {
            file.sync_all().map_err(|source| Error::TargetWrite { path: partial.clone(), source })?;
        }
        for Target { path, partial, state, .. } in &mut self.targets {
            if fs_err::symlink_metadata(&*path).is_ok() {
                return Err(Error::TargetExists { path: path.clone() });
            }
            fs_err::rename(&*partial, &*path)
                .map_err(|source| Error::TargetWrite { path: path.clone(), source })?;
            *state = State::Renamed;
        }
        let mut folders: Vec<&Path> = self.targets.iter().map(|target| folder_of(&target.path)).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders.into_iter().filter(|_| synced) {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| Error::TargetWrite { path: folder.to_owned(), source })?;
        }
        for target in &mut self.targets {
            target.state = State::Committed;
        }
        Ok(())
    }
}

impl Target {
    fn has_data(&self) -> bool {
        !matches!(rustix::fs::seek(self.file.file(), SeekFrom::Data(0)), Err(Errno::NXIO))
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        for Target { path, partial, state, .. } in &self.targets {
            let leftover = match state {
                State::Partial if self.leftovers == Leftovers::Resume => continue,
                State::Partial => partial,
                State::Renamed => path,
                State::Committed => continue,
            };
            if let Err(error) = fs_err::remove_file(leftover) {
                tracing::warn!(%error, "a file of the failed restore stays behind");
            }
        }
    }
}

/// Opens the file for what is not finished yet: the one that an earlier restore left, where that is wanted and it is a plain file that
/// has no other name; a new one otherwise.
fn open_partial(partial: &Path, leftovers: Leftovers) -> io::Result<(File, Content)> {
    match fs_err::symlink_metadata(partial) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if leftovers == Leftovers::Resume && found.is_file() && found.nlink() == 1 => {
            // Between the look and the opening it may have become a link, or a pipe on which opening would wait.
            let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(i32::MAX);
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(partial)?;
            let found = file.metadata()?;
            if found.is_file() && found.nlink() == 1 {
                if found.mode() & 0o777 != MODE {
                    file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
                }
                tracing::info!(path = %partial.display(), "going on from what an earlier restore left");
                return Ok((file, Content::Unknown));
            }
            fs_err::remove_file(partial)?;
        }
        Ok(_) => {
            fs_err::remove_file(partial)?;
            tracing::info!(path = %partial.display(), "removed what an earlier restore left");
        }
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(partial)?;
    Ok((file, Content::Nothing))
}

/// Makes a range of a file a hole.
fn punch(file: &File, offset: u64, len: usize) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file.file(), flags, offset, len as u64)
}

/// The name of a file while it is written.
pub fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The runs of blocks that are not all zero, each with where it starts.
fn data_runs(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let block = |start: usize| &bytes[start..bytes.len().min(start + BLOCK)];
        while next < bytes.len() && is_zero(block(next)) {
            next += BLOCK;
        }
        if next >= bytes.len() {
            return None;
        }
        let start = next;
        while next < bytes.len() && !is_zero(block(next)) {
            next += BLOCK;
        }
        Some((start, &bytes[start..next.min(bytes.len())]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_out_blocks_of_zeros_only() {
        let mut bytes = vec![0; 5 * BLOCK + 10];
        assert_eq!(data_runs(&bytes).count(), 0);
        bytes[BLOCK] = 1;
        bytes[3 * BLOCK - 1] = 1;
        bytes[5 * BLOCK + 9] = 1;
        let runs: Vec<_> = data_runs(&bytes).map(|(start, run)| (start, run.len())).collect();
        assert_eq!(runs, [(BLOCK, 2 * BLOCK), (5 * BLOCK, 10)]);
    }

    #[test]
    fn files_that_are_not_committed_vanish() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let wanted = || paths.iter().cloned().map(|path| (path, 10_000));
        let targets = Targets::open(wanted(), Leftovers::Discard).unwrap();
        targets.write(0, 5_000, b"five thousand").unwrap();
        assert!(folder.path().join("a.partial").exists());
        drop(targets);
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);

        // The second file's name is taken while the first is written: neither appears.
        let targets = Targets::open(wanted(), Leftovers::Discard).unwrap();
        fs_err::write(&paths[1], "mine").unwrap();
        assert!(matches!(targets.commit(Durability::Synced), Err(Error::TargetExists { .. })));
        assert!(!paths[0].exists());
        assert_eq!(fs_err::read(&paths[1]).unwrap(), b"mine");
    }
}
