//! What `lsblk`, `wipefs` and `findmnt` print, as values.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::machine::Error;

/// The model of an instance's own NVMe disks. EBS volumes are `Amazon Elastic Block Store`.
const INSTANCE_STORAGE: &str = "Amazon EC2 NVMe Instance Storage";

/// The columns of `lsblk` that [`blocks`] reads.
pub(super) const LSBLK_COLUMNS: &str = "PATH,TYPE,MODEL,SIZE,MAJ:MIN,MOUNTPOINTS";
/// The columns of `findmnt` that [`mounted`] reads.
pub(super) const FINDMNT_COLUMNS: &str = "SOURCE,FSTYPE,MAJ:MIN";

/// Everything that a decision is made from.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) blocks: Vec<Block>,
    /// What is mounted at the workspace.
    pub(super) mounted: Option<Mounted>,
    /// What was found on the devices that [`Survey::candidates`] names.
    pub(super) signatures: BTreeMap<PathBuf, Vec<Signature>>,
    /// Devices with an XFS whose making was interrupted.
    pub(super) unfinished: Vec<PathBuf>,
}

/// A block device and what is made of it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Block {
    pub(super) path: PathBuf,
    #[serde(rename = "type")]
    pub(super) kind: String,
    model: Option<String>,
    /// Bytes; 0 for an array that does not run.
    pub(super) size: u64,
    #[serde(rename = "maj:min")]
    pub(super) number: String,
    mountpoints: Vec<Option<PathBuf>>,
    #[serde(default)]
    pub(super) children: Vec<Block>,
}

/// What is mounted somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Mounted {
    pub(super) source: String,
    pub(super) fstype: String,
    #[serde(rename = "maj:min")]
    pub(super) number: String,
}

/// The trace of a file system, a partition table, an array or the like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Signature {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) label: Option<String>,
    pub(super) uuid: Option<String>,
}

impl Block {
    /// Whether it is one of the instance's own disks: nothing else is ever written to, the root disk least of all.
    fn is_instance_disk(&self) -> bool {
        self.kind == "disk" && self.model.as_deref().is_some_and(|model| model.trim() == INSTANCE_STORAGE)
    }

    /// An array, running or not. Only a running one has a type that says its level.
    pub(super) fn is_array(&self) -> bool {
        self.kind == "md" || self.kind.starts_with("raid")
    }

    /// Whether it can be read from.
    pub(super) fn runs(&self) -> bool {
        self.size > 0
    }

    /// Where it is mounted, if anywhere.
    pub(super) fn mountpoint(&self) -> Option<&Path> {
        self.mountpoints.iter().flatten().next().map(PathBuf::as_path)
    }

    /// In words, as `/dev/nvme0n1 (Amazon Elastic Block Store)`.
    fn describe(&self) -> String {
        let what = self.model.as_deref().map_or(self.kind.as_str(), str::trim);
        format!("{} ({what})", self.path.display())
    }
}

impl Signature {
    /// In words, as `ext4 "home"`.
    pub(super) fn describe(&self) -> String {
        match &self.label {
            Some(label) => format!("{} `{label}`", self.kind),
            None => self.kind.clone(),
        }
    }
}

impl Survey {
    /// The instance's own disks.
    pub(super) fn disks(&self) -> Vec<&Block> {
        self.blocks.iter().filter(|block| block.is_instance_disk()).collect()
    }

    /// The running array that every one of these disks is in.
    pub(super) fn array_over<'a>(&self, disks: &[&'a Block]) -> Option<&'a Block> {
        let (first, others) = disks.split_first()?;
        first.children.iter().filter(|child| child.is_array() && child.runs()).find(|array| {
            others.iter().all(|disk| disk.children.iter().any(|child| child.number == array.number))
        })
    }

    /// The devices whose signatures decide: the disks, and the array over them.
    pub(super) fn candidates(&self) -> Vec<PathBuf> {
        let disks = self.disks();
        let array = self.array_over(&disks);
        disks.into_iter().chain(array).map(|block| block.path.clone()).collect()
    }

    /// The disks of the machine in words.
    pub(super) fn describe_disks(&self) -> String {
        let disks: Vec<_> =
            self.blocks.iter().filter(|block| block.kind == "disk").map(Block::describe).collect();
        if disks.is_empty() { "no disk at all".to_owned() } else { disks.join(", ") }
    }

    pub(super) fn signatures_of(&self, device: &Path) -> &[Signature] {
        self.signatures.get(device).map_or(&[], Vec::as_slice)
    }
}

/// Reads `lsblk --json --bytes --output LSBLK_COLUMNS`.
pub(super) fn blocks(printed: &str) -> Result<Vec<Block>, Error> {
    #[derive(Deserialize)]
    struct Listing {
        blockdevices: Vec<Block>,
    }
    parsed::<Listing>("lsblk", printed).map(|listing| listing.blockdevices)
}

/// Reads `findmnt --json --mountpoint DIR --output FINDMNT_COLUMNS`. Of several file systems on top of each other the last is the one that is seen.
pub(super) fn mounted(printed: &str) -> Result<Option<Mounted>, Error> {
    #[derive(Deserialize)]
    struct Listing {
        filesystems: Vec<Mounted>,
    }
    if printed.trim().is_empty() {
        return Ok(None);
    }
    parsed::<Listing>("findmnt", printed).map(|mut listing| listing.filesystems.pop())
}

/// Reads `wipefs --no-act --json DEVICE`.
pub(super) fn signatures(printed: &str) -> Result<Vec<Signature>, Error> {
    #[derive(Deserialize)]
    struct Listing {
        signatures: Vec<Signature>,
    }
    if printed.trim().is_empty() {
        return Ok(Vec::new());
    }
    parsed::<Listing>("wipefs", printed).map(|listing| listing.signatures)
}

fn parsed<T: for<'a> Deserialize<'a>>(program: &'static str, printed: &str) -> Result<T, Error> {
    serde_json::from_str(printed).map_err(|source| Error::Unreadable { program, source })
}

/// Whether the first bytes of a device are those of an XFS whose making was interrupted: `mkfs.xfs` sets `sb_inprogress` first and clears it last.
pub(super) fn is_unfinished_xfs(first: &[u8]) -> bool {
    const IN_PROGRESS: usize = 126;
    first.starts_with(b"XFSB") && first.get(IN_PROGRESS) == Some(&1)
}

/// How many bytes of a device [`is_unfinished_xfs`] looks at.
pub(super) const SUPERBLOCK_BEGIN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// As printed by util-linux 2.38 for a blank file and for one with an ext4.
    #[test]
    fn what_wipefs_prints_is_read() {
        assert_eq!(signatures("{\n   \"signatures\": [\n\n   ]\n}\n").unwrap(), []);
        assert_eq!(signatures("").unwrap(), []);
        let printed = r#"{ "signatures": [ { "device": "a", "offset": "0x438", "type": "ext4", "uuid": "c4bf", "label": null } ] }"#;
        let ext4 = Signature { kind: "ext4".to_owned(), label: None, uuid: Some("c4bf".to_owned()) };
        assert_eq!(signatures(printed).unwrap(), [ext4]);
        assert!(signatures("wipefs: oops").unwrap_err().to_string().contains("wipefs"));
    }

    #[test]
    fn of_two_file_systems_the_upper_one_is_seen() {
        assert_eq!(mounted("").unwrap(), None);
        let printed = r#"{ "filesystems": [
            { "source": "/dev/nvme1n1", "fstype": "xfs", "maj:min": "259:3" },
            { "source": "tmpfs", "fstype": "tmpfs", "maj:min": "0:40" } ] }"#;
        assert_eq!(mounted(printed).unwrap().unwrap().source, "tmpfs");
    }

    #[test]
    fn an_interrupted_mkfs_is_told_from_a_finished_one() {
        let mut first = [0; SUPERBLOCK_BEGIN];
        assert!(!is_unfinished_xfs(&first));
        first[..4].copy_from_slice(b"XFSB");
        assert!(!is_unfinished_xfs(&first));
        first[126] = 1;
        assert!(is_unfinished_xfs(&first));
        assert!(!is_unfinished_xfs(b"XFSB"));
    }
}
