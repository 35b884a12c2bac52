//! The files that a restore writes: under a temporary name until they are whole, with holes where there is nothing but zeros.

use std::{
    ffi::OsString,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt as _};

use crate::{error::Error, frame::is_zero};

/// The size of a block that becomes a hole if it is zero: the block size of the file systems in question, in bytes.
const BLOCK: usize = 4096;

/// Files being written. Dropping it before [`Targets::commit`] removes them all.
#[derive(Debug)]
pub(super) struct Targets {
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Partial,
    Renamed,
    Committed,
}

impl Targets {
    /// Creates a file of the final size for each path, where nothing may be yet. A partial file that a killed run has left is
    /// replaced.
    pub(super) fn create(wanted: impl Iterator<Item = (PathBuf, u64)>) -> Result<Self, Error> {
        let mut targets = Self { targets: Vec::new() };
        for (path, size) in wanted {
            if fs_err::symlink_metadata(&path).is_ok() {
                return Err(Error::TargetExists { path });
            }
            let partial = partial_path(&path);
            let failed = |source| Error::TargetWrite { path: partial.clone(), source };
            match fs_err::remove_file(&partial) {
                Ok(()) => tracing::info!(path = %partial.display(), "removed what an earlier restore left"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
            let file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
            targets.targets.push(Target { path, partial: partial.clone(), file, state: State::Partial });
            let created = targets.targets.last().map(|target| target.file.set_len(size));
            created.transpose().map_err(failed)?;
        }
        Ok(targets)
    }

    /// Writes `bytes` at `offset` of file number `target`, but for blocks of zeros, which are holes already.
    pub(super) fn write(&self, target: usize, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Target { partial, file, .. } = &self.targets[target];
        for (start, run) in data_runs(bytes) {
            file.file()
                .write_all_at(run, offset + start as u64)
                .map_err(|source| Error::TargetWrite { path: partial.clone(), source })?;
        }
        Ok(())
    }

    /// Syncs the files, gives them their names and syncs the directories.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        for Target { partial, file, .. } in &self.targets {
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
        for folder in folders {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| Error::TargetWrite { path: folder.to_owned(), source })?;
        }
        for target in &mut self.targets {
            target.state = State::Committed;
        }
        Ok(())
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        for Target { path, partial, state, .. } in &self.targets {
            let leftover = match state {
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

/// The name of a file while it is written.
fn partial_path(path: &Path) -> PathBuf {
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
        let targets = Targets::create(wanted()).unwrap();
        targets.write(0, 5_000, b"five thousand").unwrap();
        assert!(folder.path().join("a.partial").exists());
        drop(targets);
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);

        // The second file's name is taken while the first is written: neither appears.
        let targets = Targets::create(wanted()).unwrap();
        fs_err::write(&paths[1], "mine").unwrap();
        assert!(matches!(targets.commit(), Err(Error::TargetExists { .. })));
        assert!(!paths[0].exists());
        assert_eq!(fs_err::read(&paths[1]).unwrap(), b"mine");
    }
}
