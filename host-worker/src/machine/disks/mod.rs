//! The instance's own NVMe disks as one file system at the workspace, by the machine's own programs.
//!
//! [`decide`] is what is done, [`survey`] what it is decided from. Every step is one call of one program, and after each the machine is looked at again: an
//! interruption anywhere, a power cut included, is gone on from by calling [`Nvme::prepare`] again.

mod decide;
mod survey;

use std::{
    ffi::OsString,
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{
    decide::{LABEL, Step},
    survey::Survey,
};
use super::{
    Error, FileSystem, Prepared, io_error,
    program::{self, ask, run, words},
};

/// How long a program that only looks may take.
const LOOK: Duration = Duration::from_secs(30);
/// How long one that changes something may take. A file system of 11 TB is made in seconds; a mount may have to replay a log.
const CHANGE: Duration = Duration::from_secs(300);
/// Steps from blank disks to a mounted file system are three; a half-made array adds two.
const STEPS: usize = 10;
/// Where our array is.
const ARRAY: &str = "/dev/md/qdrant";
/// Qdrant's user, whatever the image.
pub(super) const OWNER: &str = "1000:1000";
/// No times of access: they would turn reads into writes. Nothing on it is a device or needs another user's rights. No `discard`: deleting a segment would
/// trim gigabytes while searches wait, and `fstrim.timer` does it once a week.
const MOUNT_OPTIONS: &str = "noatime,nodev,nosuid";

/// The disks, or the directory that stands in for them.
#[derive(Clone, Debug)]
pub(super) struct Nvme {
    /// Where they are mounted.
    pub(super) workspace: PathBuf,
    /// The workspace is a directory as it is.
    pub(super) no_disks: bool,
    /// What Qdrant's user owns, below the workspace.
    pub(super) qdrants: Vec<PathBuf>,
    /// What stays root's: locks, journals and the record of the boot.
    pub(super) work_dir: PathBuf,
}

impl Nvme {
    pub(super) async fn prepare(&self) -> Result<Prepared, Error> {
        let prepared = if self.no_disks {
            make_dir(&self.workspace, 0o755)?;
            Prepared { how: FileSystem::Mounted, devices: Vec::new() }
        } else {
            self.mount().await?
        };
        make_dir(&self.work_dir, 0o700)?;
        for dir in &self.qdrants {
            make_dir(dir, 0o750)?;
        }
        if !self.no_disks {
            let mut arguments = words([OWNER, "--"]);
            arguments.extend(self.qdrants.iter().map(OsString::from));
            run("chown", &arguments, LOOK).await?;
        }
        Ok(prepared)
    }

    /// Takes step after step until the file system is mounted.
    async fn mount(&self) -> Result<Prepared, Error> {
        let mut how = FileSystem::Mounted;
        let mut last = None;
        for _ in 0..STEPS {
            let step = decide::next(&self.look().await?, &self.workspace)?;
            match &step {
                Step::Done { devices } => return Ok(Prepared { how, devices: devices.clone() }),
                Step::MakeFileSystem { .. } => how = FileSystem::Made,
                Step::Mount(_) if how == FileSystem::Mounted => how = FileSystem::Found,
                Step::Mount(_)
                | Step::Assemble(_)
                | Step::CreateArray(_)
                | Step::ForgetArray(_)
                | Step::StopArray(_) => {}
            }
            self.take(&step).await?;
            last = Some(step);
        }
        Err(Error::Unsettled { last: last.map(|step| format!("{step:?}")).unwrap_or_default() })
    }

    /// Looks at the machine.
    async fn look(&self) -> Result<Survey, Error> {
        let listed = run("lsblk", &["--json", "--bytes", "--output", survey::LSBLK_COLUMNS], LOOK).await?;
        let mut seen = Survey { blocks: survey::blocks(&listed)?, ..Survey::default() };
        let mut arguments = words(["--json", "--output", survey::FINDMNT_COLUMNS, "--mountpoint"]);
        arguments.push(self.workspace.clone().into());
        let found = ask("findmnt", &arguments, LOOK).await?;
        seen.mounted = match found.status.code() {
            Some(0) => survey::mounted(&found.stdout)?,
            // Nothing is mounted there.
            Some(1) if found.stderr.is_empty() => None,
            Some(_) | None => return Err(program::failed("findmnt", &arguments, found)),
        };
        if seen.mounted.is_none() {
            for device in seen.candidates() {
                let mut arguments = words(["--no-act", "--json", "--"]);
                arguments.push(device.clone().into());
                let signatures = survey::signatures(&run("wipefs", &arguments, LOOK).await?)?;
                if signatures.iter().any(|found| found.kind == "xfs") && is_unfinished(&device)? {
                    seen.unfinished.push(device.clone());
                }
                seen.signatures.insert(device, signatures);
            }
        }
        Ok(seen)
    }

    async fn take(&self, step: &Step) -> Result<(), Error> {
        let (program, arguments) = match step {
            Step::Done { .. } => return Ok(()),
            Step::Mount(device) => {
                make_dir(&self.workspace, 0o755)?;
                let arguments = words(["--types", "xfs", "--options", MOUNT_OPTIONS, "--"]);
                ("mount", with(arguments, [device, &self.workspace]))
            }
            Step::MakeFileSystem { device, over_unfinished } => {
                // Without -f it refuses by itself what is not blank. Without -K it would trim a disk that is blank already.
                let mut arguments = words(["-q", "-K", "-L", LABEL]);
                if *over_unfinished {
                    arguments.push("-f".into());
                }
                ("mkfs.xfs", with(arguments, [device]))
            }
            Step::Assemble(disks) => ("mdadm", with(words(["--assemble", ARRAY]), disks)),
            Step::CreateArray(disks) => {
                let count = format!("--raid-devices={}", disks.len());
                // Any host may start it: its own name changes with its address.
                let arguments = words([
                    "--create",
                    ARRAY,
                    "--level=0",
                    "--metadata=1.2",
                    "--homehost=any",
                    "--name=qdrant",
                    &count,
                ]);
                ("mdadm", with(arguments, disks))
            }
            Step::ForgetArray(disks) => ("mdadm", with(words(["--zero-superblock"]), disks)),
            Step::StopArray(array) => ("mdadm", with(words(["--stop"]), [array])),
        };
        tracing::info!(program, step = ?step, "prepare the disks");
        run(program, &arguments, CHANGE).await.map(drop)
    }
}

fn with<'a>(mut arguments: Vec<OsString>, paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<OsString> {
    arguments.extend(paths.into_iter().map(OsString::from));
    arguments
}

/// Whether the device holds an XFS whose making was interrupted.
fn is_unfinished(device: &Path) -> Result<bool, Error> {
    let failed = |source| io_error(format!("read the first bytes of `{}`", device.display()), source);
    let mut first = Vec::new();
    let file = fs_err::File::open(device).map_err(failed)?;
    file.take(survey::SUPERBLOCK_BEGIN as u64).read_to_end(&mut first).map_err(failed)?;
    Ok(survey::is_unfinished_xfs(&first))
}

/// Makes a directory if it is not there.
fn make_dir(dir: &Path, mode: u32) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.map_err(|source| io_error(format!("make the directory `{}`", dir.display()), source))
}
