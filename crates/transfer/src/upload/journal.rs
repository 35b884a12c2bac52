//! The journal of an upload: a file beside the sources that lets another process go on after this one was killed.
//!
//! What the store has is the store's to say (`ListParts`). The journal says what makes an upload this upload, its id, and what
//! the bytes of each finished part leave behind: frames, and the states of the hashes. So it may lose its end: what is missing is
//! packed again, found in the store, and not sent. Each line is the start of the BLAKE3 of what follows on it, a space, and a
//! JSON record; the first one that is not whole ends the journal.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{
    Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{
    index::Frame,
    store::Crc64,
    upload::checkpoint::{Boundary, Checkpoint, Resume},
};

/// The version of the records. Another one starts another upload.
const FORMAT: u32 = 1;
/// Hexadecimal digits of BLAKE3 before each record: enough to tell a torn line, and nobody's security.
const CHECK_DIGITS: usize = 16;

/// What makes an upload this one. Everything that the object's bytes depend on is in it, so that two uploads with the same
/// identity make the same object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) key: String,
    pub(super) metadata: Vec<(String, String)>,
    /// The version of this library; and of zstd, whose output may differ between versions.
    pub(super) tool: String,
    pub(super) zstd: u32,
    /// The fixed level; `None` for the automatic choice.
    pub(super) level: Option<i32>,
    pub(super) part_size: u64,
    pub(super) frame_raw_max: u32,
    pub(super) entries: Vec<EntryIdentity>,
}

/// What makes an entry the same without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryIdentity {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) content: ContentIdentity,
    pub(super) expected_sha256: Option<String>,
}

/// What makes content the same without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ContentIdentity {
    /// A file. Its device is left out: disks may be numbered otherwise after a reboot.
    File { path: PathBuf, inode: u64, modified: (i64, i64) },
    /// Bytes in memory, by their BLAKE3.
    Bytes { blake3: String },
}

impl Identity {
    /// The format that is written.
    pub(super) const FORMAT: u32 = FORMAT;

    /// In what `other` is another upload; `None` if it is the same.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        let what = if self.key != other.key {
            format!("it is of `{}`", other.key)
        } else if (self.format, &self.tool, self.zstd) != (other.format, &other.tool, other.zstd) {
            format!("version {} with zstd {} began it", other.tool, other.zstd)
        } else if self.entries != other.entries {
            let changed = self.entries.iter().zip(&other.entries).find(|(ours, theirs)| ours != theirs);
            match changed {
                Some((ours, _)) => format!("the source of `{}` is another one now", ours.name),
                None => "it has other entries".to_owned(),
            }
        } else {
            "it was begun with other options".to_owned()
        };
        Some(what)
    }
}

/// A record, but for the first, which is the [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(super) enum Record {
    /// The store has given the upload this id.
    Upload { upload_id: String },
    /// An entry was read to its end and has the right digest.
    Entry { entry: usize, sha256: String },
    /// A part's bytes are known.
    Part(PartRecord),
    /// All bytes are known; from now on the store may have been asked to make the object.
    Sealed(Sealed),
}

/// The end of a part: a [`Checkpoint`] and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    /// Its number, which is how many parts there are up to its end.
    pub(super) parts: u32,
    /// Bytes of the object up to its end.
    pub(super) size: u64,
    frame: u64,
    skip: u64,
    head: String,
    sha256: String,
    crc64nvme: String,
    entry_sha256: Option<String>,
    /// The part's own CRC-64/NVME.
    part_crc64nvme: String,
    frames: Vec<(u32, u32, String)>,
    /// Milliseconds from the first run's begin to here, without the time between runs.
    pub(super) elapsed_ms: u64,
}

/// The object as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) size: u64,
    pub(super) sha256: String,
    pub(super) crc64nvme: String,
    /// Milliseconds that the upload took, all its runs together.
    pub(super) elapsed_ms: u64,
}

impl Record {
    pub(super) fn entry(entry: usize, digest: &[u8; 32]) -> Self {
        Self::Entry { entry, sha256: hex::encode(digest) }
    }

    /// The end of a part, with the SHA-256 of the entry that its last frame leaves unfinished, `elapsed` after the upload's begin.
    pub(super) fn part(boundary: &Boundary, part: Crc64, entry: Option<&Sha256>, elapsed: Duration) -> Self {
        let Boundary { checkpoint, frames } = boundary;
        let frame = |frame: &Frame| (frame.raw_len, frame.compressed_len, hex::encode(frame.hash));
        Self::Part(PartRecord {
            parts: checkpoint.parts,
            size: checkpoint.size,
            frame: checkpoint.frame,
            skip: checkpoint.skip,
            head: checkpoint.head.to_string(),
            sha256: hex::encode(checkpoint.sha256.serialize()),
            crc64nvme: checkpoint.crc64nvme.to_string(),
            entry_sha256: entry.map(|state| hex::encode(state.serialize())),
            part_crc64nvme: part.to_string(),
            frames: frames.iter().map(frame).collect(),
            elapsed_ms: millis(elapsed),
        })
    }
}

impl PartRecord {
    /// The part's own CRC-64/NVME; `None` if it is not written as one.
    pub(super) fn part_crc64nvme(&self) -> Option<Crc64> {
        Crc64::parse(&self.part_crc64nvme)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Checkpoint {
            parts: self.parts,
            size: self.size,
            frame: self.frame,
            skip: self.skip,
            head: Crc64::parse(&self.head)?,
            sha256: state(&self.sha256)?,
            crc64nvme: Crc64::parse(&self.crc64nvme)?,
        })
    }

    fn frames(&self) -> Option<Vec<Frame>> {
        let frame = |(raw_len, compressed_len, hash): &(u32, u32, String)| {
            Some(Frame { raw_len: *raw_len, compressed_len: *compressed_len, hash: digest(hash)? })
        };
        self.frames.iter().map(frame).collect()
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn state(text: &str) -> Option<Sha256> {
    let mut bytes = SerializedState::<Sha256>::default();
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Sha256::deserialize(&bytes).ok()
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// A journal as another process left it.
#[derive(Debug)]
pub(super) struct Journaled {
    pub(super) identity: Identity,
    pub(super) upload_id: Option<String>,
    parts: Vec<Placed<PartRecord>>,
    entries: Vec<Placed<(usize, [u8; 32])>>,
    pub(super) sealed: Option<Sealed>,
    /// Where the records end that come before the first part.
    head: u64,
    /// Where the last record ends.
    tail: u64,
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
            parts: Vec::new(),
            entries: Vec::new(),
            sealed: None,
            head: end,
            tail: end,
        };
        while let Some(record) = next_record::<Record>(&mut reader, &mut end)? {
            if journaled.take(record, end).is_none() {
                break;
            }
            journaled.tail = end;
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
            Record::Part(record) if record.parts as usize == self.parts.len() + 1 => {
                self.parts.push(Placed { record, end });
            }
            Record::Part(_) => return None,
            Record::Sealed(sealed) => self.sealed = Some(sealed),
        }
        Some(())
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
        for part in &self.parts[..parts] {
            resume.frames.extend(part.record.frames()?);
        }
        let Placed { record, end } = self.parts.get(last)?;
        resume.checkpoint = record.checkpoint()?;
        if resume.frames.len() as u64 != resume.checkpoint.frame {
            return None;
        }
        resume.entry_sha256 = match &record.entry_sha256 {
            Some(text) => Some(state(text)?),
            None => None,
        };
        for Placed { record: (entry, digest), .. } in self.entries.iter().filter(|entry| entry.end <= *end) {
            *resume.digests.get_mut(*entry)? = Some(*digest);
        }
        // The seal, behind the last part, stays with all of them.
        let keep = if parts == self.parts.len() { self.tail } else { *end };
        Some((resume, keep))
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
    /// Begins a journal at `path`, in place of what is there.
    pub(super) fn create(path: &Path, identity: &Identity) -> Self {
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
        journal
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
