//! One execution environment: a process, and the Runtime API on a port of its own that it asks for work.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::LambdaOptions;
use super::fault::FunctionError;
use super::function::{Channel, Function, LogLine};
use super::runtime_api::{self, Event, Work};
use crate::process::ProcessGroup;
use crate::serve;

/// How long an instance has to ask for its first work. Starting a process takes this machine's time, however long a
/// second of a time-out is.
const INIT: Duration = Duration::from_secs(10);
/// How long the last lines of an ended process are waited for. A process that it left behind may hold the pipe open.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A process that waits for work or does some.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) number: u64,
    child: Child,
    group: ProcessGroup,
    work: mpsc::UnboundedSender<Work>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Its API, which ends with it.
    _api: JoinSet<()>,
    /// The readers of its output.
    readers: JoinSet<()>,
}

/// How an invocation ended.
#[derive(Debug)]
pub(super) enum Ended {
    Answered(Value),
    Failed(FunctionError),
    InitFailed(FunctionError),
    TimedOut,
    InitTimedOut,
    /// The process ended, in AWS's words.
    Exited(String),
}

impl Instance {
    /// Starts the process.
    pub(super) fn start(
        function: &Function,
        lambda: &LambdaOptions,
        number: u64,
        logs: Arc<Mutex<Vec<LogLine>>>,
    ) -> anyhow::Result<Self> {
        let (listener, address) = serve::listen(0)?;
        let (work, queue) = mpsc::unbounded_channel();
        let (told, events) = mpsc::unbounded_channel();
        let mut api = JoinSet::new();
        api.spawn(serve::serve(listener, runtime_api::router(queue, told)));

        let mut command = command(function, lambda, number);
        command.env("AWS_LAMBDA_RUNTIME_API", address.to_string());
        let program = function.options.program.display();
        let mut child = command.spawn().with_context(|| format!("start `{program}`"))?;
        let group = ProcessGroup::of(&child);
        let mut readers = JoinSet::new();
        let keep = |channel| {
            let (name, logs) = (function.options.name.clone(), Arc::clone(&logs));
            move |text| {
                let line = LogLine { function: name.clone(), instance: number, channel, text };
                logs.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        };
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(read_lines(stdout, keep(Channel::Stdout)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(read_lines(stderr, keep(Channel::Stderr)));
        }
        Ok(Self { number, child, group, work, events, _api: api, readers })
    }

    /// The instance, unless its process has ended while it waited.
    pub(super) fn if_alive(mut self) -> Option<Self> {
        match self.child.try_wait() {
            Ok(None) => Some(self),
            Ok(Some(_)) | Err(_) => {
                self.group.release();
                None
            }
        }
    }

    /// Waits until it asks for its first work.
    pub(super) async fn ready(&mut self) -> Result<(), Ended> {
        let deadline = Instant::now() + INIT;
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => match event {
                Event::Next => Ok(()),
                Event::InitFailed(error) | Event::Failed(_, error) => Err(Ended::InitFailed(error)),
                Event::Answered(..) => Err(Ended::Exited("it answered before it was asked".to_owned())),
            },
            status = self.child.wait() => Err(exited(status)),
            () = sleep_until(deadline) => Err(Ended::InitTimedOut),
        }
    }

    /// Lets it do some work. `hang` takes no notice of its answer.
    pub(super) async fn invoke(
        &mut self,
        request_id: &str,
        arn: &str,
        payload: &Value,
        limit: Duration,
        hang: bool,
    ) -> Ended {
        let deadline = Instant::now() + limit;
        let deadline_ms = SystemTime::now()
            .checked_add(limit)
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_millis());
        let work = Work {
            request_id: request_id.to_owned(),
            arn: arn.to_owned(),
            deadline_ms,
            payload: payload.to_string(),
        };
        if self.work.send(work).is_err() {
            return Ended::Exited("Runtime API is gone".to_owned());
        }
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => match event {
                    Event::Answered(id, value) if id == request_id && !hang => return Ended::Answered(value),
                    Event::Failed(id, error) if id == request_id && !hang => return Ended::Failed(error),
                    Event::InitFailed(error) => return Ended::InitFailed(error),
                    // It has asked for the work, or what it says is not of interest.
                    Event::Next | Event::Answered(..) | Event::Failed(..) => {}
                },
                status = self.child.wait() => return exited(status),
                () = sleep_until(deadline) => return Ended::TimedOut,
            }
        }
    }

    /// Kills it if it still runs, and waits for its last lines.
    pub(super) async fn end(mut self) {
        self.group.kill();
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "wait for an ended function");
        }
        self.group.release();
        let last_lines = async { while self.readers.join_next().await.is_some() {} };
        if timeout(LAST_LINES, last_lines).await.is_err() {
            tracing::debug!("somebody holds the output of an ended function open");
        }
    }
}

fn command(function: &Function, lambda: &LambdaOptions, number: u64) -> Command {
    let options = &function.options;
    let (access_key, secret_key) = &lambda.credentials;
    let mut command = Command::new(&options.program);
    command
        .args(&options.args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TZ", ":UTC")
        .env("AWS_ACCESS_KEY_ID", access_key)
        .env("AWS_SECRET_ACCESS_KEY", secret_key)
        .envs(&options.env)
        .env("AWS_REGION", &lambda.region)
        .env("AWS_DEFAULT_REGION", &lambda.region)
        .env("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023")
        .env("AWS_LAMBDA_FUNCTION_NAME", &options.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", options.memory.to_string())
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", options.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("[$LATEST]{number:032x}"))
        .env("_HANDLER", &options.handler)
        .env("LAMBDA_TASK_ROOT", options.program.parent().unwrap_or_else(|| Path::new("/")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

async fn read_lines(output: impl AsyncRead + Unpin, keep: impl Fn(String)) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.read_until(b'\n', &mut line).await {
            Ok(0) => return,
            Ok(_) => keep(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned()),
            Err(error) => {
                tracing::warn!(%error, "read the output of a function");
                return;
            }
        }
    }
}

fn exited(status: std::io::Result<ExitStatus>) -> Ended {
    Ended::Exited(match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(0), _)) => "Runtime exited without providing a reason".to_owned(),
        Ok((Some(code), _)) => format!("Runtime exited with error: exit status {code}"),
        Ok((None, Some(9))) => "Runtime exited with error: signal: killed".to_owned(),
        Ok((None, signal)) => format!("Runtime exited with error: signal: {}", signal.unwrap_or_default()),
        Err(error) => format!("Runtime exited, and nobody knows how: {error}"),
    })
}
