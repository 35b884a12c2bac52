//! What a journal says, record by record.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{
    Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{index::Frame, store::Crc64, upload::checkpoint::Checkpoint};

/// What makes an upload this one. Everything that the object's bytes depend on is in it, so that two uploads with the same
/// identity make the same object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upload) struct Identity {
    pub(in crate::upload) format: u32,
    pub(in crate::upload) key: String,
    pub(in crate::upload) metadata: Vec<(String, String)>,
    /// The version of this library; and of zstd, whose output may differ between versions.
    pub(in crate::upload) tool: String,
    pub(in crate::upload) zstd: u32,
    /// The fixed level; `None` for the automatic choice.
    pub(in crate::upload) level: Option<i32>,
    pub(in crate::upload) part_size: u64,
    pub(in crate::upload) frame_raw_max: u32,
    pub(in crate::upload) entries: Vec<EntryIdentity>,
}

/// What makes an entry the same without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upload) struct EntryIdentity {
    pub(in crate::upload) name: String,
    pub(in crate::upload) size: u64,
    pub(in crate::upload) content: ContentIdentity,
    pub(in crate::upload) expected_sha256: Option<String>,
}

/// What makes content the same without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::upload) enum ContentIdentity {
    /// A file. Its device is left out: disks may be numbered otherwise after a reboot.
    File { path: PathBuf, inode: u64, modified: (i64, i64) },
    /// Bytes in memory, by their BLAKE3.
    Bytes { blake3: String },
}

impl Identity {
    /// The version of the records. Another one starts another upload.
    pub(in crate::upload) const FORMAT: u32 = 1;

    /// In what `other` is another upload; `None` if it is the same.
    pub(in crate::upload) fn difference(&self, other: &Self) -> Option<String> {
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
pub(in crate::upload) enum Record {
    /// The store has given the upload this id.
    Upload { upload_id: String },
    /// An entry was read to its end and has the right digest.
    Entry { entry: usize, sha256: String },
    /// These frames end in the part that is recorded next; at most [`FRAMES_PER_RECORD`].
    Frames { frames: Vec<FrameRecord> },
    /// A part's bytes are known.
    Part(PartRecord),
    /// All bytes are known; from now on the store may have been asked to make the object.
    Sealed(Sealed),
}

/// The most frames of one record: data that compress well have hundreds of thousands of them in a part.
pub(in crate::upload) const FRAMES_PER_RECORD: usize = 1024;

/// A frame: its raw and its compressed length in bytes, and its BLAKE3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upload) struct FrameRecord(u32, u32, String);

impl FrameRecord {
    pub(super) fn frame(&self) -> Option<Frame> {
        let Self(raw_len, compressed_len, hash) = self;
        Some(Frame { raw_len: *raw_len, compressed_len: *compressed_len, hash: digest(hash)? })
    }
}

/// The end of a part: a [`Checkpoint`] and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upload) struct PartRecord {
    /// Its number, which is how many parts there are up to its end.
    pub(in crate::upload) parts: u32,
    /// Bytes of the object up to its end.
    pub(in crate::upload) size: u64,
    /// The first frame that does not end before it, which is how many do.
    pub(super) frame: u64,
    skip: u64,
    head: String,
    sha256: String,
    crc64nvme: String,
    pub(super) entry_sha256: Option<String>,
    /// The part's own CRC-64/NVME.
    part_crc64nvme: String,
    /// Milliseconds from the first run's begin to here, without the time between runs.
    pub(in crate::upload) elapsed_ms: u64,
}

/// The object as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upload) struct Sealed {
    pub(in crate::upload) size: u64,
    pub(in crate::upload) sha256: String,
    pub(in crate::upload) crc64nvme: String,
    /// Milliseconds that the upload took, all its runs together.
    pub(in crate::upload) elapsed_ms: u64,
}

impl Record {
    pub(in crate::upload) fn entry(entry: usize, digest: &[u8; 32]) -> Self {
        Self::Entry { entry, sha256: hex::encode(digest) }
    }

    /// Frames that end in the next part.
    pub(in crate::upload) fn frames(frames: &[Frame]) -> Self {
        let frame = |frame: &Frame| FrameRecord(frame.raw_len, frame.compressed_len, hex::encode(frame.hash));
        Self::Frames { frames: frames.iter().map(frame).collect() }
    }

    /// The end of a part, with the SHA-256 of the entry that its last frame leaves unfinished, `elapsed` after the upload's begin.
    pub(in crate::upload) fn part(
        checkpoint: &Checkpoint,
        part: Crc64,
        entry: Option<&Sha256>,
        elapsed: Duration,
    ) -> Self {
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
            elapsed_ms: millis(elapsed),
        })
    }
}

impl PartRecord {
    /// The part's own CRC-64/NVME; `None` if it is not written as one.
    pub(in crate::upload) fn part_crc64nvme(&self) -> Option<Crc64> {
        Crc64::parse(&self.part_crc64nvme)
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
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
}

/// Whole milliseconds.
pub(in crate::upload) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A SHA-256 that takes more, from its text form.
pub(super) fn state(text: &str) -> Option<Sha256> {
    let mut bytes = SerializedState::<Sha256>::default();
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Sha256::deserialize(&bytes).ok()
}

pub(super) fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
