//! Handing a task to a host: which host, the command, and a short look at how it fares.
//!
//! The command only starts the worker, so it ends within seconds. Looking at it tells at once what would otherwise only show as a missing heartbeat: an agent
//! that does not answer, a host without the worker, a worker that refuses. Where the look is inconclusive the dispatch counts as done, because the worker may well
//! run: the heartbeat decides then. Sending twice is harmless, for the worker tells tokens apart by their order.

use std::time::Duration;

use protocol::{Envelope, FailureKind, TaskId};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    diagnostic::truncate,
    error::Error,
    hosts::{Command, CommandId, Host, Hosts, HostsError, InstanceId, Invocation, Refusal, Tag},
    redact::redact,
};

/// How long to look at a command.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const STEP: Duration = Duration::from_secs(1);
/// How much of the script's standard error is repeated, in bytes.
const MAX_STDERR: usize = 1024;
/// How much of the worker's message is repeated, in bytes.
const MAX_WORDS: usize = 2048;
/// What a shell answers for a program that is not there.
const NOT_FOUND: i32 = 127;
/// What `infra/ssm/host-task.json` says on an agent that does not know `ENV_VAR`.
const AGENT_TOO_OLD: &str = "SSM agent is too old";

/// A task that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dispatched {
    /// The command.
    pub command_id: CommandId,
    /// The host.
    pub instance_id: InstanceId,
}

/// The one host that carries the tag and is online.
pub(crate) async fn only_host<H: Hosts>(hosts: &H, tag: &Tag) -> Result<InstanceId, Error> {
    let mut known = hosts.tagged(tag).await?;
    // A host that moves from one page to the next while they are read is on both.
    known.sort_by(|a, b| a.id.cmp(&b.id));
    known.dedup_by(|a, b| a.id == b.id);
    let (mut online, others): (Vec<Host>, Vec<Host>) = known.into_iter().partition(Host::is_online);
    match (online.pop(), online.is_empty()) {
        (Some(host), true) => Ok(host.id),
        (Some(host), false) => {
            online.push(host);
            Err(Error::SeveralHosts { tag: tag.clone(), online })
        }
        (None, _) => Err(Error::NoHost { tag: tag.clone(), known: others }),
    }
}

/// Sends the task to the host and looks at the command until it has ended, or for as long as that makes sense.
pub(crate) async fn dispatch<H: Hosts>(
    hosts: &H,
    document: &str,
    host: InstanceId,
    envelope: &Envelope,
) -> Result<Dispatched, Error> {
    let task = envelope.task;
    let token = envelope.token.expose();
    let command = Command {
        document: document.to_owned(),
        host: host.clone(),
        comment: Command::comment(envelope),
        parameters: envelope.parameters().map_err(|source| Error::Envelope { task, source })?,
    };
    let command_id = hosts.send(&command).await.map_err(|error| without(error, token))?;
    tracing::info!(%task, %host, command = %command_id, order = %envelope.order, "the task is sent");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        sleep(STEP).await;
        let invocation = match hosts.look(&command_id, &host).await {
            Ok(Some(invocation)) => invocation,
            // Normal just after a command was sent.
            Ok(None) => continue,
            Err(error) => {
                let error = without(error, token);
                tracing::warn!(command = %command_id, %error, "how the command fares cannot be seen");
                if error.refusal == Refusal::Transient {
                    continue;
                }
                break;
            }
        };
        match Course::of(&invocation.status) {
            Course::Running => {}
            Course::Succeeded => return Ok(Dispatched { command_id, instance_id: host }),
            Course::NotRun => {
                return Err(Error::NotRun { task, host, status: invocation.status });
            }
            Course::Failed => return Err(failure(task, host, &invocation, token)),
        }
    }
    tracing::warn!(%task, %host, command = %command_id, "the command is not known to have ended; the heartbeat will tell");
    Ok(Dispatched { command_id, instance_id: host })
}

/// What a status says about the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Running,
    Succeeded,
    Failed,
    /// It never began, or was killed: what it would have said is unknown.
    NotRun,
}

impl Course {
    /// The details have been spelled with blanks and without.
    fn of(status: &str) -> Self {
        let letters = status.chars().filter(char::is_ascii_alphabetic);
        match letters.map(|c| c.to_ascii_lowercase()).collect::<String>().as_str() {
            "pending" | "inprogress" | "delayed" | "cancelling" => Self::Running,
            "success" => Self::Succeeded,
            "failed" => Self::Failed,
            _ => Self::NotRun,
        }
    }
}

/// Why the script failed, in the worker's own words where it has any.
fn failure(task: TaskId, host: InstanceId, invocation: &Invocation, token: &str) -> Error {
    let stderr = last_lines(&redact(&invocation.stderr, token));
    if let Some(Words { error: kind, message, causes, hint }) = words(&invocation.stdout) {
        let mut message =
            redact(&std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": "), token);
        truncate(&mut message, MAX_WORDS);
        let hint = hint.map(|hint| {
            let mut hint = redact(&hint, token);
            truncate(&mut hint, MAX_WORDS);
            hint
        });
        return Error::TaskRefused { task, host, kind, message, hint, stderr };
    }
    if invocation.stderr.contains(AGENT_TOO_OLD) {
        let why = "its SSM agent is too old";
        return Error::HostUnfit {
            task,
            host,
            why,
            remedy: "update amazon-ssm-agent to 3.3.2746.0 or newer",
            stderr,
        };
    }
    if invocation.exit_code == Some(NOT_FOUND) {
        let why = "`host-worker` is not installed, or not where root finds it";
        return Error::HostUnfit {
            task,
            host,
            why,
            remedy: "install host-worker in /usr/local/bin on the host",
            stderr,
        };
    }
    let status = match invocation.exit_code {
        Some(code) => format!("{}, exit code {code}", invocation.status),
        None => invocation.status.clone(),
    };
    Error::TaskFailed { task, host, status, stderr }
}

/// What `host-worker dispatch --json` prints when it fails.
#[derive(Deserialize)]
struct Words {
    error: FailureKind,
    message: String,
    #[serde(default)]
    causes: Vec<String>,
    #[serde(default)]
    hint: Option<String>,
}

/// The document on the script's standard output, with whatever is around it.
fn words(stdout: &str) -> Option<Words> {
    let documents = stdout.match_indices('{').filter(|(start, _)| {
        let before = stdout.get(..*start).unwrap_or_default();
        before.is_empty() || before.ends_with('\n')
    });
    documents
        .filter_map(|(start, _)| {
            serde_json::Deserializer::from_str(stdout.get(start..)?).into_iter::<Words>().next()?.ok()
        })
        .next_back()
}

/// The end of what a program says, on one line.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" | ");
    if line.len() <= MAX_STDERR {
        return line;
    }
    let start = line.ceil_char_boundary(line.len() - MAX_STDERR);
    format!("…{}", line.get(start..).unwrap_or_default())
}

/// The error of a call that the token was a part of. What AWS refuses it may quote.
fn without(error: HostsError, token: &str) -> HostsError {
    let mut detail = redact(&error.detail, token);
    truncate(&mut detail, MAX_WORDS);
    HostsError { detail, ..error }
}

#[cfg(test)]
mod tests;
