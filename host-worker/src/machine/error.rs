//! What the machine can fail with.

use std::{error::Error as StdError, io, path::PathBuf, process::ExitStatus, time::Duration};

use protocol::FailureKind;

use super::Launch;

/// Why the machine did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // Programs and files.
    /// A program of the machine's could not be run.
    #[error("cannot run `{program}`")]
    NotRun {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program of the machine's failed.
    #[error("`{program} {arguments}` ended with {status}: {stderr}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its arguments, which hold no secret.
        arguments: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said, on one line.
        stderr: String,
    },
    /// A program of the machine's hangs.
    #[error("`{program} {arguments}` has not ended after {limit:?}, and was killed")]
    TimedOut {
        /// The program.
        program: &'static str,
        /// Its arguments, which hold no secret.
        arguments: String,
        /// Its time.
        limit: Duration,
    },
    /// A program of the machine's says what nobody understands.
    #[error("what `{program}` prints cannot be read")]
    Unreadable {
        /// The program.
        program: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A file or a directory cannot be used.
    #[error("{what}")]
    Local {
        /// Which, and what was done with it.
        what: String,
        /// Why.
        source: io::Error,
    },

    // Disks.
    /// The instance has no disks of its own.
    #[error("this machine has no NVMe instance storage: it has {seen}")]
    NoDisks {
        /// The disks that it has.
        seen: String,
    },
    /// A disk holds something that is not ours.
    #[error("`{}` is not blank, and holds nothing of ours: {found}", device.display())]
    Foreign {
        /// The disk.
        device: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A disk is used elsewhere.
    #[error("`{}` is mounted at `{}`", device.display(), at.display())]
    MountedElsewhere {
        /// The disk.
        device: PathBuf,
        /// Where.
        at: PathBuf,
    },
    /// Something else is mounted where the disks belong.
    #[error("`{source_name}` ({fstype}) is mounted at `{}`, where the file system of {wanted} belongs", workspace.display())]
    WrongMount {
        /// Where.
        workspace: PathBuf,
        /// What is mounted.
        source_name: String,
        /// The kind of its file system.
        fstype: String,
        /// What should be.
        wanted: String,
    },
    /// Something undoes what is done.
    #[error("the disks do not stay as they are made; the last step was {last}")]
    Unsettled {
        /// The last step.
        last: String,
    },

    // Qdrant's container.
    /// The image is not on this host.
    #[error("the image `{image}` is not on this host")]
    NoImage {
        /// The image.
        image: String,
    },
    /// The container's environment file cannot be given to it.
    #[error("the environment file `{}` cannot be given to Qdrant: {problem}", path.display())]
    EnvironmentFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without what it says.
        problem: String,
    },
    /// The container did not come to run.
    #[error("Qdrant (`{}`, on {}) did not start: {said}", launch.image, launch.address)]
    NotStarted {
        /// What was to run.
        launch: Launch,
        /// What was said, on one line.
        said: String,
    },

    // Auto Scaling.
    /// A call to Auto Scaling failed.
    #[error("{call} for hook `{hook}` of Auto Scaling group `{group}` failed")]
    Lifecycle {
        /// The call.
        call: &'static str,
        /// The group.
        group: String,
        /// The hook.
        hook: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Nobody says which instance this is.
    #[error("ask the instance metadata service which instance this is")]
    NoInstanceId {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
}

pub(super) fn io_error(what: String, source: io::Error) -> Error {
    Error::Local { what, source }
}

impl Error {
    /// What kind of failure it is, for programs.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotRun { .. }
            | Self::NoDisks { .. }
            | Self::Foreign { .. }
            | Self::MountedElsewhere { .. }
            | Self::WrongMount { .. }
            | Self::NoImage { .. }
            | Self::EnvironmentFile { .. }
            | Self::NoInstanceId { .. } => FailureKind::ConfigInvalid,
            Self::NotStarted { .. } => FailureKind::QdrantUnavailable,
            Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Unreadable { .. }
            | Self::Local { .. }
            | Self::Unsettled { .. }
            | Self::Lifecycle { .. } => FailureKind::Internal,
        }
    }

    /// What to do about it, where there is something to say that the message does not.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRun { program, source } if source.kind() == io::ErrorKind::NotFound => {
                let package = package_of(program);
                Some(format!("`{program}` must be on the path: install {package}"))
            }
            Self::NoDisks { .. } => Some(
                "choose an instance type with NVMe instance storage, as c8gd; where a directory is to stand in for it, write `no-disks = true` into `[boot]`"
                    .to_owned(),
            ),
            Self::Foreign { device, .. } => Some(format!(
                "nothing was written to it; look at it with `wipefs --no-act {0}`, and if nothing on it is needed, stop what uses it and erase it with `wipefs --all {0}`",
                device.display()
            )),
            Self::MountedElsewhere { at, .. } => Some(format!(
                "the workspace needs it: `umount {}`, and take that out of /etc/fstab and of the units",
                at.display()
            )),
            Self::WrongMount { workspace, .. } => Some(format!(
                "stop what uses it, `umount {}`, and take that out of /etc/fstab and of the units",
                workspace.display()
            )),
            Self::Unsettled { .. } => Some("`lsblk` and `journalctl --boot` show what else works on the disks".to_owned()),
            Self::NoImage { image } => Some(format!(
                "hosts pull nothing by themselves: `docker load --input ARCHIVE`, or `docker pull {image}` where a registry can be reached"
            )),
            Self::NotStarted { launch, .. } => Some(format!(
                "is something else at the port (`ss --listening --tcp --processes`), and is {} this machine's?",
                launch.address
            )),
            Self::Lifecycle { .. } => Some(
                "the host's role needs autoscaling:RecordLifecycleActionHeartbeat and CompleteLifecycleAction on its group, and DescribeAutoScalingInstances"
                    .to_owned(),
            ),
            Self::NoInstanceId { .. } => Some(
                "the instance needs its metadata service (IMDSv2); elsewhere write `instance-id` into `[boot.lifecycle]`".to_owned(),
            ),
            Self::NotRun { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Unreadable { .. }
            | Self::Local { .. }
            | Self::EnvironmentFile { .. } => None,
        }
    }
}

/// The package that a program is from, on Amazon Linux.
fn package_of(program: &str) -> &'static str {
    match program {
        "docker" => "docker",
        "mdadm" => "mdadm",
        "mkfs.xfs" => "xfsprogs",
        "chown" => "coreutils",
        "systemctl" | "systemd-run" | "journalctl" => "systemd",
        _ => "util-linux",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let missing = |program| Error::NotRun { program, source: io::ErrorKind::NotFound.into() };
        assert_eq!(
            missing("mkfs.xfs").hint().as_deref(),
            Some("`mkfs.xfs` must be on the path: install xfsprogs")
        );
        assert_eq!(
            missing("lsblk").hint().as_deref(),
            Some("`lsblk` must be on the path: install util-linux")
        );
        assert!(
            Error::NotRun { program: "mount", source: io::ErrorKind::PermissionDenied.into() }
                .hint()
                .is_none()
        );
    }
}
