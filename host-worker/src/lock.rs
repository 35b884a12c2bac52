//! One backup or restore at a time per host.

use std::{
    fs::TryLockError,
    io::{Read, Seek, Write},
    path::Path,
};

use crate::error::Error;

/// Held while a backup or restore runs. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct HostLock {
    _file: fs_err::File,
}

impl HostLock {
    /// Takes the lock of `work_dir` for `purpose`, or says who holds it.
    pub fn acquire(work_dir: &Path, purpose: &str) -> Result<Self, Error> {
        let lock_file = |source| Error::LockFile { source };
        fs_err::create_dir_all(work_dir).map_err(lock_file)?;
        let path = work_dir.join("lock");
        let mut options = fs_err::OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(lock_file)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy to the reader of the message, not needed for the refusal.
                let _unreadable = file.read_to_string(&mut holder);
                return Err(Error::Locked { path, holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(lock_file(source)),
        }
        file.file().set_len(0).map_err(lock_file)?;
        file.rewind().map_err(lock_file)?;
        writeln!(file, "{purpose} (process {})", std::process::id()).map_err(lock_file)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = HostLock::acquire(dir.path(), "backup").unwrap();
        let refused = HostLock::acquire(dir.path(), "restore").unwrap_err();
        assert_eq!(refused.kind(), protocol::FailureKind::Busy);
        assert!(refused.to_string().contains("backup (process"), "{refused}");
        drop(first);
        HostLock::acquire(dir.path(), "restore").unwrap();
    }
}
