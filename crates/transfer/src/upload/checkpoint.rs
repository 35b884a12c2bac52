//! The place between two parts from which the rest of an object can be made, without the bytes before it.

use sha2::{Digest, Sha256};

use crate::{index::Frame, store::Crc64};

/// A place between two parts of the object.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// Parts before it.
    pub(super) parts: u32,
    /// Bytes of the object before it.
    pub(super) size: u64,
    /// The first frame that is not wholly before it; the number of frames stands for the seek table.
    pub(super) frame: u64,
    /// How many bytes of that frame, or of the seek table, are before it.
    pub(super) skip: u64,
    /// CRC-64/NVME of these bytes: who packs the frame again has to get the same.
    pub(super) head: Crc64,
    /// SHA-256 of the bytes before it, ready to take more.
    pub(super) sha256: Sha256,
    /// CRC-64/NVME of the bytes before it.
    pub(super) crc64nvme: Crc64,
}

impl Checkpoint {
    /// The place before the first part.
    pub(super) fn start() -> Self {
        let nothing = Crc64::of(&[]);
        Self {
            parts: 0,
            size: 0,
            frame: 0,
            skip: 0,
            head: nothing,
            sha256: Sha256::new(),
            crc64nvme: nothing,
        }
    }
}

/// The end of a part, and the frames that ended since the part before.
#[derive(Clone, Debug)]
pub(super) struct Boundary {
    pub(super) checkpoint: Checkpoint,
    pub(super) frames: Vec<Frame>,
}

/// All that has to be known to go on from a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    pub(super) checkpoint: Checkpoint,
    /// Every frame that is wholly before it.
    pub(super) frames: Vec<Frame>,
    /// SHA-256 of the entry that `checkpoint.frame` holds data of, up to that frame; `None` where the frame starts an entry or holds none.
    pub(super) entry_sha256: Option<Sha256>,
    /// SHA-256 of the entries that ended before `checkpoint.frame`.
    pub(super) digests: Vec<Option<[u8; 32]>>,
}

impl Resume {
    /// Everything is still to be done, for an archive of `entries` entries.
    pub(super) fn from_start(entries: usize) -> Self {
        Self {
            checkpoint: Checkpoint::start(),
            frames: Vec::new(),
            entry_sha256: None,
            digests: vec![None; entries],
        }
    }
}
