//! What the SSM document runs: keeps the envelope, starts a process that sees to it, and returns at once.
//!
//! The agent kills what it runs when a command times out or is cancelled, so that nothing which takes longer than a moment may be its child.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use jiff::Timestamp;
use protocol::{Envelope, TokenOrder, task::parameter};
use serde::Serialize;

use super::inbox::{self, Inbox, Offer};
use crate::{error::Error, output::Render};

/// Variables that a started worker is given, by how they begin. None of them holds a secret; those of the SSM agent (`SSM_…`) do.
const PASSED_ON: [&str; 17] = [
    "QDRANT_BACKUP_",
    "RUST_LOG",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_USE_",
    "AWS_CA_BUNDLE",
    "SSL_CERT_",
    // How the agent reaches AWS is how the worker does.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What became of a dispatch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "dispatched")]
pub enum Dispatched {
    /// A process was started that sees to the task.
    Started {
        /// The systemd unit, where there is systemd.
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    /// A newer token is here already: this delivery came late.
    Outdated {
        /// The newest.
        newest: TokenOrder,
    },
}

/// Keeps the envelope and starts a worker for it. `lookup` reads the environment.
pub fn dispatch(
    work_dir: &Path,
    lookup: impl Fn(&str) -> Option<String>,
    now: Timestamp,
    systemd: bool,
) -> Result<Dispatched, Error> {
    let envelope = Envelope::from_parameters(|name| lookup(&parameter::variable(name)))?;
    inbox::forget_old(work_dir, envelope.task, now);
    let inbox = Inbox::of(work_dir, envelope.task, &envelope.execution);
    match inbox.offer(&envelope)? {
        Offer::Outdated { newest } => Ok(Dispatched::Outdated { newest }),
        Offer::Newest(file) => {
            let arguments = [OsString::from("task"), file.into_os_string()];
            let program = std::env::current_exe().map_err(|source| failed("find this program", source))?;
            let unit = if systemd {
                Some(start_unit(&program, &arguments, &envelope)?)
            } else {
                start_process(&program, &arguments, &inbox.log_file(envelope.order))?;
                None
            };
            Ok(Dispatched::Started { unit })
        }
    }
}

/// Starts the worker as a transient unit. It is stopped by SIGTERM, which the worker answers by a callback, and has time for that.
fn start_unit(program: &Path, arguments: &[OsString], envelope: &Envelope) -> Result<String, Error> {
    let unit = format!("qdrant-backup-{}-{}", envelope.task, uuid::Uuid::new_v4().simple());
    let mut command = Command::new("systemd-run");
    command
        .arg(format!("--unit={unit}"))
        .arg(format!("--description=qdrant-backup: {} for {}", envelope.task, envelope.execution))
        .args(["--collect", "--quiet", "--property=KillMode=mixed", "--property=TimeoutStopSec=90"]);
    for name in passed_on() {
        // Without a value systemd-run takes its own, so that none is on a command line.
        command.arg(format!("--setenv={name}"));
    }
    let status = command.arg("--").arg(program).args(arguments).stdin(Stdio::null()).status();
    let status = status.map_err(|source| failed("run systemd-run", source))?;
    if status.success() {
        Ok(unit)
    } else {
        Err(failed("run systemd-run", io::Error::other(format!("it ended with {status}"))))
    }
}

/// Starts the worker as a process in a group of its own, which the agent does not kill with its script.
fn start_process(program: &Path, arguments: &[OsString], log: &Path) -> Result<(), Error> {
    let log = fs_err::OpenOptions::new().create(true).append(true).open(log);
    let log = log.map_err(|source| failed("open its log", source))?.into_parts().0;
    let errors = log.try_clone().map_err(|source| failed("open its log", source))?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
    for name in parameter::ALL {
        command.env_remove(parameter::variable(name));
    }
    command.spawn().map(drop).map_err(|source| failed("run it", source))
}

fn failed(what: &str, source: io::Error) -> Error {
    Error::Local { what: format!("start a worker: {what}"), source }
}

fn passed_on() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| PASSED_ON.iter().any(|begin| name.starts_with(begin))).collect()
}

impl Render for Dispatched {
    fn render(&self) -> String {
        match self {
            Self::Started { unit: Some(unit) } => {
                format!("started as {unit}; `journalctl -u {unit}` shows it")
            }
            Self::Started { unit: None } => "started".to_owned(),
            Self::Outdated { newest } => format!("nothing to do: a newer token is here ({newest})"),
        }
    }
}
