//! The disks of a machine, as a file that the stand-ins of its programs read and write. It outlives them, and a power cut.

use std::{
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The model of an instance's own NVMe disks.
pub(crate) const INSTANCE_STORAGE: &str = "Amazon EC2 NVMe Instance Storage";
/// The model of an EBS volume.
pub(crate) const EBS: &str = "Amazon Elastic Block Store";

/// What is on the machine, and what was done to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) disks: Vec<Disk>,
    /// The array that runs, or that only some disks were found for.
    pub(crate) array: Option<Array>,
    pub(crate) mounts: Vec<MountedAt>,
    /// Every call so far, with the program's name.
    pub(crate) calls: Vec<Vec<String>>,
    /// When the power is cut.
    pub(crate) cut: Option<Cut>,
    /// Programs that fail, and what they say.
    pub(crate) failures: Vec<(String, String)>,
}

/// A disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// `nvme1n1`.
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) size: u64,
    pub(crate) content: Content,
}

/// An array of disks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Array {
    pub(crate) uuid: String,
    pub(crate) members: Vec<String>,
    pub(crate) runs: bool,
}

/// What a device holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Content {
    #[default]
    Blank,
    FileSystem(FileSystem),
    /// A part of an array, which holds `inside` once all of its members are there: the first one says it.
    Member {
        uuid: String,
        label: String,
        count: usize,
        inside: Box<Content>,
    },
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSystem {
    pub(crate) kind: String,
    pub(crate) label: Option<String>,
    pub(crate) uuid: String,
    /// Its making was not interrupted.
    pub(crate) finished: bool,
}

/// A mount, which dies with the power.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountedAt {
    /// The name of the device.
    pub(crate) device: String,
    pub(crate) target: PathBuf,
}

/// Cuts the power at a call: the program's caller is killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cut {
    pub(crate) at: At,
    pub(crate) moment: Moment,
}

/// At which call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum At {
    /// Counted from 0 over all that are made.
    Number(usize),
    /// That begins so.
    Words(String),
}

/// When in a call the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// Nothing is done yet.
    Before,
    /// Half of it is done, where it has halves.
    Within,
    /// All of it is done, and nobody has heard.
    After,
}

/// The file of a [`Model`], locked while it is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) model: Model,
    /// The directory of the file, of the devices and of what the file systems hold.
    pub(crate) dir: PathBuf,
    file: fs::File,
}

impl Held {
    /// Waits until nobody else holds the model below `dir`.
    pub(crate) fn take(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("disks.json");
        let mut file =
            fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        flock(file.file(), FlockOperation::LockExclusive).context("lock the model of the disks")?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let model = if text.is_empty() {
            Model::default()
        } else {
            serde_json::from_str(&text).context("read the model of the disks")?
        };
        Ok(Self { model, dir: dir.to_owned(), file })
    }

    /// Writes the model and lets go of it.
    pub(crate) fn save(mut self) -> anyhow::Result<()> {
        for disk in &self.model.disks {
            self.write_device(&disk.name, &disk.content)?;
        }
        if let Some(array) = self.model.array.clone() {
            let content = self.model.inside(&array).cloned().unwrap_or_default();
            self.write_device(ARRAY_NAME, &content)?;
        }
        let text = serde_json::to_vec_pretty(&self.model)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        self.file.write_all(&text)?;
        Ok(())
    }

    /// The path of a device.
    pub(crate) fn device(&self, name: &str) -> PathBuf {
        self.dir.join("dev").join(name)
    }

    /// What is in a file system.
    pub(crate) fn files(&self, uuid: &str) -> PathBuf {
        self.dir.join("file-systems").join(uuid)
    }

    /// The first bytes of a device, as who reads them must find them.
    fn write_device(&self, name: &str, content: &Content) -> anyhow::Result<()> {
        let mut first = vec![0_u8; 4096];
        if let Content::FileSystem(system) = content
            && system.kind == "xfs"
        {
            first[..4].copy_from_slice(b"XFSB");
            first[126] = u8::from(!system.finished);
        }
        let path = self.device(name);
        fs::create_dir_all(self.dir.join("dev"))?;
        fs::write(path, first)?;
        Ok(())
    }
}

/// What the kernel calls the array.
pub(crate) const ARRAY_NAME: &str = "md127";

impl Model {
    /// The disk of this name.
    pub(crate) fn disk(&self, name: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.name == name)
    }

    pub(crate) fn disk_mut(&mut self, name: &str) -> Option<&mut Disk> {
        self.disks.iter_mut().find(|disk| disk.name == name)
    }

    /// What an array holds.
    fn inside(&self, array: &Array) -> Option<&Content> {
        let first = array.members.first().and_then(|name| self.disk(name))?;
        match &first.content {
            Content::Member { inside, .. } if array.runs => Some(inside),
            Content::Member { .. } | Content::Blank | Content::FileSystem(_) => None,
        }
    }

    /// What a device holds; `None` when there is no such device.
    pub(crate) fn content(&self, name: &str) -> Option<&Content> {
        if name == ARRAY_NAME {
            return self.array.as_ref().and_then(|array| self.inside(array));
        }
        self.disk(name).map(|disk| &disk.content)
    }

    /// Puts something on a device.
    pub(crate) fn put(&mut self, name: &str, content: Content) {
        if name == ARRAY_NAME {
            let first = self.array.as_ref().and_then(|array| array.members.first()).cloned();
            if let Some(disk) = first.and_then(|first| self.disk_mut(&first))
                && let Content::Member { inside, .. } = &mut disk.content
            {
                **inside = content;
            }
        } else if let Some(disk) = self.disk_mut(name) {
            disk.content = content;
        }
    }

    /// Major and minor number of a device.
    pub(crate) fn number(&self, name: &str) -> String {
        if name == ARRAY_NAME {
            return "9:127".to_owned();
        }
        let at = self.disks.iter().position(|disk| disk.name == name).unwrap_or_default();
        format!("259:{at}")
    }
}
