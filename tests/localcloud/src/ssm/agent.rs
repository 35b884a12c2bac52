//! The agent of a host: takes an order when it is delivered, runs the script as the real one does, and reports.
//!
//! The script runs in a process group of its own, its output goes to files, and a time-out or a cancel kills the group (SIGKILL):
//! nothing in it gets a chance to say goodbye, and what has a session of its own does not notice. Exit code 194 restarts the
//! machine and runs the script again.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use super::command::{Order, State};
use super::document::{Definition, scaled};
use super::fault::Delivery;
use super::host::{Host, Presence};
use super::service::Service;
use crate::process::ProcessGroup;

/// The exit code by which a script asks for a restart of the machine.
const REBOOT: i32 = 194;
/// What the agent reports of a script that it killed: 128 + SIGKILL.
const KILLED: i32 = 137;
/// What the agent sends of each channel, in bytes, and what it ends with when there was more.
const STDOUT_LIMIT: usize = 24_000;
const STDERR_LIMIT: usize = 8_000;
const TRUNCATED: &str = "--output truncated--";

/// An order, and where it goes.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) service: Arc<Service>,
    pub(super) host: Arc<Host>,
    pub(super) definition: Arc<Definition>,
    pub(super) order: Order,
}

/// How a script ended.
#[derive(Debug)]
enum Ended {
    Exited(ExitStatus),
    /// It could not even be started.
    NotStarted(io::Error),
    TimedOut,
    Cancelled,
    /// With the machine.
    Lost,
}

/// What the agent says of an ended script.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) state: State,
    pub(super) response_code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Report {
    fn without_output(state: State) -> Self {
        Self { state, response_code: -1, stdout: String::new(), stderr: String::new() }
    }
}

impl Carrier {
    /// Carries the order to the end of its invocation.
    pub(super) async fn carry(self, fault: Option<Delivery>) {
        let second = self.service.second;
        let not_started_by = Instant::now() + scaled(self.order.timeout_seconds, second);
        let given_up = not_started_by + self.definition.step.timeout(second);
        let delivered = async {
            self.delivery(fault).await;
            self.host.workers.acquire().await
        };
        let worker = tokio::select! {
            biased;
            () = self.order.cancel.cancelled() => return self.report(Report::without_output(State::Cancelled)),
            () = undeliverable(fault) => return self.report(Report::without_output(State::Undeliverable)),
            worker = delivered => worker,
            () = sleep_until(not_started_by) => {
                return self.report(Report::without_output(State::DeliveryTimedOut));
            }
        };
        let first = async {
            match self.run(1).await {
                Some(report) => self.report(report),
                None => {
                    // Nobody is left to report: the service finds out by itself.
                    sleep_until(given_up).await;
                    self.report(Report::without_output(State::DeliveryTimedOut));
                }
            }
        };
        match fault {
            Some(Delivery::TwiceAtOnce) => {
                let ((), _not_reported) = tokio::join!(first, self.run(2));
            }
            Some(Delivery::Twice) => {
                first.await;
                let _not_reported = self.run(2).await;
            }
            Some(
                Delivery::Delay(_)
                | Delivery::Hold
                | Delivery::AfterNewer
                | Delivery::Never
                | Delivery::Undeliverable,
            )
            | None => first.await,
        }
        drop(worker);
    }

    /// Resolves when the order has reached the agent.
    async fn delivery(&self, fault: Option<Delivery>) {
        match fault {
            Some(Delivery::Delay(delay)) => sleep(delay).await,
            Some(Delivery::Hold) => {
                let before = self.service.released();
                self.service.until(|service| service.released() > before).await;
            }
            Some(Delivery::AfterNewer) => {
                let newer =
                    |service: &Service| service.newer_has_ended(&self.order.command_id, self.host.id());
                self.service.until(newer).await;
            }
            Some(Delivery::Never | Delivery::Undeliverable) => std::future::pending().await,
            Some(Delivery::Twice | Delivery::TwiceAtOnce) | None => {}
        }
        self.service.until(|_| self.host.presence() == Presence::Online).await;
    }

    /// Runs the script until it ends without asking for a restart; `None` when the machine was lost.
    async fn run(&self, delivery: u32) -> Option<Report> {
        let mut restart = 0;
        loop {
            let folder = self.folder(delivery, restart);
            let started = self.service.started(&self.order.command_id, self.host.id());
            let ended = self.script(&folder).await;
            let exit_code = if let Ended::Exited(status) = &ended { status.code() } else { None };
            self.service.ran(&self.order.command_id, self.host.id(), started, exit_code);
            if exit_code != Some(REBOOT) {
                return reported(ended, &folder).await;
            }
            self.host.reboot();
            restart += 1;
        }
    }

    /// Where script and output of one run lie. That of the first is named as the agent names it.
    fn folder(&self, delivery: u32, restart: u64) -> PathBuf {
        let step = &self.definition.step.name;
        let name = match (delivery, restart) {
            (1, 0) => step.clone(),
            (delivery, restart) => format!("{step}.{delivery}.{restart}"),
        };
        self.host.options.orchestration.join(&self.order.command_id).join(name)
    }

    /// Runs the script once.
    async fn script(&self, folder: &Path) -> Ended {
        let mut child = match self.command(folder).and_then(|mut command| command.spawn()) {
            Ok(child) => child,
            Err(error) => return Ended::NotStarted(error),
        };
        // Whatever happens to this future, the group does not outlive it.
        let mut group = ProcessGroup::of(&child);
        let ended = tokio::select! {
            biased;
            () = self.host.gone.cancelled() => Ended::Lost,
            status = child.wait() => {
                group.release();
                return match status {
                    Ok(status) => Ended::Exited(status),
                    Err(error) => Ended::NotStarted(error),
                };
            }
            () = self.order.cancel.cancelled() => Ended::Cancelled,
            () = sleep(self.definition.step.timeout(self.service.second)) => Ended::TimedOut,
        };
        group.kill();
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "wait for a killed script");
        }
        group.release();
        ended
    }

    fn command(&self, folder: &Path) -> io::Result<Command> {
        fs_err::create_dir_all(folder)?;
        let text = self.definition.script(&self.order.values);
        let path = folder.join("_script.sh");
        fs_err::write(&path, &text)?;
        // The real agent executes the file, so its first line names its interpreter. The same from here, because a file that was
        // just written cannot be executed while any other thread forks.
        let (program, argument) = interpreter(&text).unwrap_or(("/bin/sh", None));
        let mut command = Command::new(program);
        command.args(argument).arg(&path);
        command
            .env_clear()
            .envs(self.host.environment())
            .env("AWS_SSM_INSTANCE_ID", self.host.id())
            .env("AWS_SSM_REGION_NAME", &self.service.region)
            .current_dir(self.definition.step.working_directory.as_ref().map_or(folder, Path::new))
            .stdin(Stdio::null())
            .stdout(fs_err::File::create(folder.join("stdout"))?.into_file())
            .stderr(fs_err::File::create(folder.join("stderr"))?.into_file())
            .process_group(0);
        if self.host.knows_env_var {
            command.envs(self.definition.environment(&self.order.values));
        }
        Ok(command)
    }

    fn report(&self, report: Report) {
        self.service.report(&self.order.command_id, self.host.id(), report);
    }
}

async fn undeliverable(fault: Option<Delivery>) {
    if fault != Some(Delivery::Undeliverable) {
        std::future::pending().await
    }
}

/// Program and argument of a `#!` line, as the kernel takes it apart.
fn interpreter(script: &str) -> Option<(&str, Option<&str>)> {
    let line = script.lines().next()?.strip_prefix("#!")?.trim();
    match line.split_once([' ', '\t']) {
        Some((program, argument)) => Some((program, Some(argument.trim()))),
        None => Some((line, None)).filter(|(program, _)| !program.is_empty()),
    }
}

/// What the agent says; `None` when there is none any more.
async fn reported(ended: Ended, folder: &Path) -> Option<Report> {
    let (state, response_code, remark) = match ended {
        Ended::Lost => return None,
        Ended::TimedOut => (State::ExecutionTimedOut, KILLED, None),
        Ended::Cancelled => (State::Cancelled, KILLED, None),
        Ended::NotStarted(error) => (State::Failed, 1, Some(format!("failed to run commands: {error}"))),
        Ended::Exited(status) if status.success() => (State::Success, 0, None),
        Ended::Exited(status) => {
            let how = match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
            };
            (State::Failed, status.code().unwrap_or(-1), Some(format!("failed to run commands: {how}")))
        }
    };
    let stdout = head(&folder.join("stdout"), STDOUT_LIMIT, None).await;
    let stderr = head(&folder.join("stderr"), STDERR_LIMIT, remark).await;
    Some(Report { state, response_code, stdout, stderr })
}

/// The beginning of an output, with the agent's own remark at its end.
async fn head(path: &Path, limit: usize, remark: Option<String>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs_err::tokio::File::open(path).await {
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        if let Err(error) = file.take(most).read_to_end(&mut bytes).await {
            tracing::warn!(%error, "read the output of a script");
        }
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if let Some(remark) = remark {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&remark);
    }
    if text.len() > limit {
        let mut end = limit - TRUNCATED.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(TRUNCATED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter() {
        let cases = [
            ("#!/bin/sh\ntrue", Some(("/bin/sh", None))),
            ("#! /usr/bin/env bash -x\ntrue", Some(("/usr/bin/env", Some("bash -x")))),
            ("true", None),
            ("#!\ntrue", None),
            ("", None),
        ];
        for (script, expected) in cases {
            assert_eq!(interpreter(script), expected, "{script}");
        }
    }
}
