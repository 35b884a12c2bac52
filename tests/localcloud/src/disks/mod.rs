//! The disks of an instance, and stand-ins of the programs that prepare them: `lsblk`, `wipefs`, `findmnt`, `mkfs.xfs`, `mdadm`, `mount` and `chown`.
//!
//! They need no root. A device is a small file, what a file system holds is a directory, and a mount is a symbolic link to it, so that what is
//! written to the workspace is there again after a reboot and gone on another instance. What they claim:
//!
//! * they know the arguments that the worker gives them, and refuse others;
//! * `mkfs.xfs` without `-f` and `mdadm --create` refuse what is not blank; `mount` refuses what is no finished file system;
//! * the power can be cut before, within and after every call ([`Disks::cut_power`]): the worker dies, half of the work may be done.

mod model;
mod print;
pub(crate) mod programs;

use std::path::{Path, PathBuf};

use fs_err as fs;

use self::model::{At, Content, Cut, Disk, EBS, FileSystem, Held, INSTANCE_STORAGE, Model};
pub use self::{
    model::Moment,
    programs::{NAMES as PROGRAMS, VARIABLE},
};

/// Gigabytes are 10⁹ bytes where disks are sold.
const GIGABYTE: u64 = 1_000_000_000;

/// The disks of an instance.
#[derive(Clone, Debug)]
pub struct Disks {
    dir: PathBuf,
}

impl Disks {
    /// Disks as of a new instance: one of EBS with the system, and so many blank ones of its own.
    pub fn new(dir: &Path, instance_disks: usize) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let disks = Self { dir: dir.to_owned() };
        disks.renew(instance_disks)?;
        Ok(disks)
    }

    /// Where they are kept: what the variable [`VARIABLE`] says to the programs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Other disks, as of another instance: blank, and nothing mounted. Calls and faults are forgotten.
    pub fn renew(&self, instance_disks: usize) -> anyhow::Result<()> {
        self.unmount_all()?;
        let root = FileSystem {
            kind: "xfs".to_owned(),
            label: Some("/".to_owned()),
            uuid: "root".to_owned(),
            finished: true,
        };
        let disk = |number: usize| Disk {
            name: format!("nvme{number}n1"),
            model: if number == 0 { EBS } else { INSTANCE_STORAGE }.to_owned(),
            size: if number == 0 { 8 * GIGABYTE } else { 950 * GIGABYTE },
            content: if number == 0 { Content::FileSystem(root.clone()) } else { Content::Blank },
        };
        self.change(|model| {
            *model = Model { disks: (0..=instance_disks).map(disk).collect(), ..Model::default() }
        })
    }

    /// The power goes and comes back: what is mounted is not, an array does not run. `found_by_udev` starts again what is whole, as a host does that
    /// has `mdadm`'s rules, and holds on to what is not.
    pub fn reboot(&self, found_by_udev: bool) -> anyhow::Result<()> {
        self.unmount_all()?;
        self.change(|model| {
            model.array = None;
            if found_by_udev {
                programs::udev(model);
            }
        })
    }

    /// Puts a foreign file system on a disk (`nvme1n1`).
    pub fn put_foreign(&self, disk: &str, kind: &str, label: Option<&str>) -> anyhow::Result<()> {
        let system = FileSystem {
            kind: kind.to_owned(),
            label: label.map(str::to_owned),
            uuid: uuid::Uuid::new_v4().to_string(),
            finished: true,
        };
        self.change(|model| model.put(disk, Content::FileSystem(system)))
    }

    /// Mounts the root disk there, as somebody does by mistake.
    pub fn mount_root_at(&self, target: &Path) -> anyhow::Result<()> {
        let mut held = Held::take(&self.dir)?;
        programs::mount_files(&mut held, "nvme0n1", "root", target)?;
        held.save()
    }

    /// Cuts the power at a call of one of the programs, counted from 0 over those that are still to come.
    pub fn cut_power(&self, call: usize, moment: Moment) -> anyhow::Result<()> {
        self.change(|model| model.cut = Some(Cut { at: At::Number(model.calls.len() + call), moment }))
    }

    /// Cuts the power at the next call that begins with these words.
    pub fn cut_power_at(&self, words: &str, moment: Moment) -> anyhow::Result<()> {
        self.change(|model| model.cut = Some(Cut { at: At::Words(words.to_owned()), moment }))
    }

    /// Lets a program fail from here on, with these words.
    pub fn fail(&self, program: &str, words: &str) -> anyhow::Result<()> {
        self.change(|model| model.failures.push((program.to_owned(), words.to_owned())))
    }

    /// Every call of a program so far, as one line.
    pub fn calls(&self) -> anyhow::Result<Vec<String>> {
        Ok(Held::take(&self.dir)?.model.calls.iter().map(|call| call.join(" ")).collect())
    }

    /// The path of a device, as `lsblk` names it.
    pub fn device(&self, name: &str) -> PathBuf {
        self.dir.join("dev").join(name)
    }

    fn change(&self, change: impl FnOnce(&mut Model)) -> anyhow::Result<()> {
        let mut held = Held::take(&self.dir)?;
        change(&mut held.model);
        held.save()
    }

    fn unmount_all(&self) -> anyhow::Result<()> {
        let mut held = Held::take(&self.dir)?;
        for mount in std::mem::take(&mut held.model.mounts) {
            fs::remove_file(&mount.target)?;
            fs::rename(programs::covered(&mount.target), &mount.target)?;
        }
        held.save()
    }
}
