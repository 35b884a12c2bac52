//! The sources of an upload: opened when their turn comes, read by position, and watched for changes.
//!
//! Each byte is read once, so the page cache is told to let go of it: Qdrant has better use for the memory. Holes are not read at all.

use std::{
    collections::HashMap,
    fs::Metadata,
    io,
    num::NonZeroU64,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use fs_err::File;
use rustix::{
    fs::{Advice, SeekFrom, fadvise, seek},
    io::Errno,
};

use crate::{
    error::Error,
    upload::{Content, Source, journal::ContentIdentity},
};

/// All sources, shared by the threads that read them.
#[derive(Debug)]
pub(super) struct Sources {
    sources: Vec<Source>,
    stamps: Vec<Option<Stamp>>,
    open: Mutex<HashMap<usize, Arc<File>>>,
}

/// What identifies a file's content without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Sources {
    /// Looks at every source: files must be regular and have the size that was announced.
    pub(super) fn prepare(sources: Vec<Source>) -> Result<Self, Error> {
        let stamps = sources.iter().map(look_at).collect::<Result<_, _>>()?;
        Ok(Self { sources, stamps, open: Mutex::default() })
    }

    pub(super) fn get(&self, entry: usize) -> &Source {
        &self.sources[entry]
    }

    /// Fills `into` with the bytes of `entry` from `offset` on.
    pub(super) fn read(&self, entry: usize, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        let path = match &self.sources[entry].content {
            Content::Bytes(bytes) => {
                // The sizes were compared when the sources were prepared.
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                into.copy_from_slice(&bytes[start..start + into.len()]);
                return Ok(());
            }
            Content::File(path) => path,
        };
        let file = self.file(entry, path)?;
        if is_hole(&file, offset, into.len() as u64) {
            into.fill(0);
            return Ok(());
        }
        let mut done = 0;
        while done < into.len() {
            let position = offset + done as u64;
            match file.file().read_at(&mut into[done..], position) {
                Ok(0) => return Err(changed(path, format!("it ends at byte {position}"))),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::SourceRead { path: path.clone(), offset: position, source });
                }
            }
        }
        advise(&file, offset, into.len() as u64, Advice::DontNeed);
        Ok(())
    }

    /// What makes the file of `entry` the same for another process, without reading it.
    pub(super) fn file_identity(&self, entry: usize, path: &Path) -> ContentIdentity {
        let stamp = self.stamps[entry];
        ContentIdentity::File {
            path: path.to_owned(),
            inode: stamp.map_or(0, |stamp| stamp.inode),
            modified: stamp.map_or((0, 0), |stamp| stamp.modified),
        }
    }

    /// Closes a source whose bytes have all been read, and makes sure that it did not change in the meantime.
    pub(super) fn finish(&self, entry: usize) -> Result<(), Error> {
        let Content::File(path) = &self.sources[entry].content else { return Ok(()) };
        let file = self.file(entry, path)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry);
        self.compare(entry, path, &file)
    }

    fn file(&self, entry: usize, path: &Path) -> Result<Arc<File>, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&entry) {
            return Ok(Arc::clone(file));
        }
        let file = File::open(path).map_err(|source| Error::SourceOpen { path: path.to_owned(), source })?;
        self.compare(entry, path, &file)?;
        advise(&file, 0, 0, Advice::Sequential);
        let file = Arc::new(file);
        open.insert(entry, Arc::clone(&file));
        Ok(file)
    }

    fn compare(&self, entry: usize, path: &Path, file: &File) -> Result<(), Error> {
        let metadata =
            file.metadata().map_err(|source| Error::SourceOpen { path: path.to_owned(), source })?;
        let (now, then) = (Stamp::of(&metadata), self.stamps[entry]);
        match then {
            Some(then) if then.size != now.size => {
                Err(changed(path, format!("it had {} bytes and has {}", then.size, now.size)))
            }
            Some(then) if (then.device, then.inode) != (now.device, now.inode) => {
                Err(changed(path, "another file has its name".to_owned()))
            }
            Some(then) if then != now => Err(changed(path, "it was written to".to_owned())),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a file has no data in `len` bytes from `offset` on, which are within it. A file system that cannot tell says no.
fn is_hole(file: &File, offset: u64, len: u64) -> bool {
    match seek(file.file(), SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + len,
        // No data from there to the end, which may have come nearer since the file was looked at.
        Err(Errno::NXIO) => file.metadata().is_ok_and(|metadata| metadata.len() >= offset + len),
        Err(_) => false,
    }
}

/// Tells the page cache about a range; to the end of the file for a length of 0. It is free not to listen.
fn advise(file: &File, offset: u64, len: u64, advice: Advice) {
    let _unheard = fadvise(file.file(), offset, NonZeroU64::new(len), advice);
}

fn look_at(source: &Source) -> Result<Option<Stamp>, Error> {
    let announced = source.entry.size;
    match &source.content {
        Content::Bytes(bytes) if bytes.len() as u64 == announced => Ok(None),
        Content::Bytes(bytes) => {
            let what = format!("{} bytes in memory were announced as {announced}", bytes.len());
            Err(changed(Path::new(&source.entry.name), what))
        }
        Content::File(path) => {
            let open = |source| Error::SourceOpen { path: path.clone(), source };
            let metadata = fs_err::metadata(path).map_err(open)?;
            if !metadata.is_file() {
                return Err(changed(path, "it is not a regular file".to_owned()));
            }
            if metadata.len() != announced {
                return Err(changed(path, format!("it had {announced} bytes and has {}", metadata.len())));
            }
            Ok(Some(Stamp::of(&metadata)))
        }
    }
}

fn changed(path: &Path, what: String) -> Error {
    Error::SourceChanged { path: path.to_owned(), what }
}
