//! The journal of an upload: a file beside the sources that lets another process go on after this one was killed.
//!
//! What the store has is the store's to say (`ListParts`). The journal says what makes an upload this upload, its id, and what
//! the bytes of each finished part leave behind: frames, and the states of the hashes. So it may lose its end: what is missing is
//! packed again, found in the store, and not sent. Each line is the start of the BLAKE3 of what follows on it, a space, and a
//! JSON record; the first one that is not whole ends the journal.

mod record;

use std::{
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt};
use serde::{Serialize, de::DeserializeOwned};

pub(super) use self::record::{
    ContentIdentity, EntryIdentity, FRAMES_PER_RECORD, Identity, PartRecord, Record, Sealed, millis,
};
use self::record::{digest, state};
use crate::{index::Frame, upload::checkpoint::Resume};

/// Hexadecimal digits of BLAKE3 before each record: enough to tell a torn line, and nobody's security.
const CHECK_DIGITS: usize = 16;

/// A journal as another process left it.
#[derive(Debug)]
pub(super) struct Journaled {
    pub(super) identity: Identity,
    pub(super) upload_id: Option<String>,
    /// All frames that the parts end behind, and some more if a part is missing.
    frames: Vec<Frame>,
    parts: Vec<Placed<PartRecord>>,
    entries: Vec<Placed<(usize, [u8; 32])>>,
    sealed: Option<Placed<Sealed>>,
    /// Where the records end that come before the first part.
    head: u64,
}

/// A record and where in the file it ends.
#[derive(Debug)]
struct Placed<T> {
    record: T,
    end: u64,
}

impl Journaled {
    /// Reads the journal at `path`; `None` if there is none, or none that says what it is of.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut end = 0;
        let Some(identity) = next_record::<Identity>(&mut reader, &mut end)? else { return Ok(None) };
        let mut journaled = Self {
            identity,
            upload_id: None,
            frames: Vec::new(),
            parts: Vec::new(),
            entries: Vec::new(),
            sealed: None,
            head: end,
        };
        while let Some(record) = next_record::<Record>(&mut reader, &mut end)? {
            if journaled.take(record, end).is_none() {
                break;
            }
        }
        Ok(Some(journaled))
    }

    /// Takes the record that ends at `end`; `None` if it does not follow from those before.
    fn take(&mut self, record: Record, end: u64) -> Option<()> {
        match record {
            Record::Upload { upload_id } => {
                self.upload_id = Some(upload_id);
                self.head = end;
            }
            Record::Entry { entry, sha256 } => {
                self.entries.push(Placed { record: (entry, digest(&sha256)?), end });
            }
            Record::Frames { frames } => {
                for record in frames {
                    self.frames.push(record.frame()?);
                }
            }
            // All frames that end in the parts up to it, and no others, are listed before it.
            Record::Part(record)
                if record.parts as usize == self.parts.len() + 1
                    && record.frame == self.frames.len() as u64 =>
            {
                self.parts.push(Placed { record, end });
            }
            Record::Part(_) => return None,
            Record::Sealed(record) => self.sealed = Some(Placed { record, end }),
        }
        Some(())
    }

    /// The object as it has to be, if all its bytes are known.
    pub(super) fn sealed(&self) -> Option<&Sealed> {
        self.sealed.as_ref().map(|sealed| &sealed.record)
    }

    /// The parts whose bytes are known, from the first one on.
    pub(super) fn parts(&self) -> impl Iterator<Item = &PartRecord> {
        self.parts.iter().map(|part| &part.record)
    }

    /// How long the runs so far took to get behind the first `parts` parts.
    pub(super) fn spent(&self, parts: u32) -> Duration {
        let last = self.parts().take(parts as usize).last();
        Duration::from_millis(last.map_or(0, |part| part.elapsed_ms))
    }

    /// Where to go on behind the first `parts` parts, for an archive of `entries` entries, and how much of the file stays.
    ///
    /// `None` if the records, though whole, do not make sense.
    pub(super) fn resume_behind(&self, parts: usize, entries: usize) -> Option<(Resume, u64)> {
        let mut resume = Resume::from_start(entries);
        let Some(last) = parts.checked_sub(1) else { return Some((resume, self.head)) };
        let Placed { record, end } = self.parts.get(last)?;
        resume.checkpoint = record.checkpoint()?;
        let frames = usize::try_from(resume.checkpoint.frame).ok()?;
        resume.frames = self.frames.get(..frames)?.to_vec();
        resume.entry_sha256 = match &record.entry_sha256 {
            Some(text) => Some(state(text)?),
            None => None,
        };
        for Placed { record: (entry, digest), .. } in self.entries.iter().filter(|entry| entry.end <= *end) {
            *resume.digests.get_mut(*entry)? = Some(*digest);
        }
        // The seal stays with the last part. All else behind the part is written again: frames that are listed already would be
        // listed twice.
        let seal = self.sealed.as_ref().filter(|_| parts == self.parts.len());
        Some((resume, seal.map_or(*end, |seal| seal.end)))
    }
}

/// The next record of this type; `None` at the end, or at what is not whole. `end` is moved behind it.
fn next_record<T: DeserializeOwned>(reader: &mut impl BufRead, end: &mut u64) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    let length = line.len() as u64;
    if line.pop() != Some(b'\n') || line.get(CHECK_DIGITS) != Some(&b' ') {
        return Ok(None);
    }
    let (check, json) = (&line[..CHECK_DIGITS], &line[CHECK_DIGITS + 1..]);
    if check != check_of(json).as_bytes() {
        return Ok(None);
    }
    let record = serde_json::from_slice(json).ok();
    if record.is_some() {
        *end += length;
    }
    Ok(record)
}

fn check_of(json: &[u8]) -> String {
    blake3::hash(json).to_hex()[..CHECK_DIGITS].to_owned()
}

/// A journal that is being written.
///
/// It must not be what a backup fails for: when it cannot be written, that is said once, and the upload goes on without it.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    /// Begins a journal at `path`, in place of what is there. `None` if it cannot be written: then there is nothing that another process
    /// could go on with.
    pub(super) fn create(path: &Path, identity: &Identity) -> Option<Self> {
        let begin = || {
            let mut options = OpenOptions::new();
            // Hash states hold a few bytes of the data.
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(file)
        };
        let mut journal = Self::opened(path, begin());
        journal.write(identity, true);
        journal.file.is_some().then_some(journal)
    }

    /// Goes on with the journal at `path`, whose first `keep` bytes are right. What is torn behind them goes.
    pub(super) fn reopen(path: &Path, keep: u64) -> Self {
        let reopen = || {
            let file = OpenOptions::new().append(true).open(path)?;
            file.set_len(keep)?;
            Ok(file)
        };
        Self::opened(path, reopen())
    }

    fn opened(path: &Path, file: io::Result<File>) -> Self {
        let file = file
            .inspect_err(|error| tracing::warn!(%error, "the upload goes on, but cannot be resumed"))
            .ok();
        Self { path: path.to_owned(), file }
    }

    /// Adds a record, which the next process will see unless the host loses power.
    pub(super) fn append(&mut self, record: &Record) {
        self.write(record, false);
    }

    /// Adds a record that outlives a loss of power.
    pub(super) fn append_durably(&mut self, record: &Record) {
        self.write(record, true);
    }

    /// Removes the file: there is nothing to go on with.
    pub(super) fn remove(self) {
        remove(&self.path);
    }

    fn write(&mut self, record: &impl Serialize, durably: bool) {
        let Some(file) = &mut self.file else { return };
        let mut write = || {
            let json = serde_json::to_vec(record)?;
            let line = [check_of(&json).as_bytes(), b" ", &json, b"\n"].concat();
            file.write_all(&line)?;
            if durably { file.sync_data() } else { Ok(()) }
        };
        if let Err(error) = write() {
            tracing::warn!(%error, path = %self.path.display(), "the journal cannot be written: the upload goes on from here without it");
            self.file = None;
        }
    }
}

/// Removes a journal. One that stays is found out about by whoever reads it.
pub(super) fn remove(path: &Path) {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the journal of an upload that has ended stays");
        }
        Ok(()) | Err(_) => {}
    }
}
