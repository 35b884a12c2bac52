//! A function: its options, its instances that wait for work, and what is remembered of its invocations.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::LambdaOptions;
use super::fault::{CallError, FunctionError};
use super::instance::{Ended, Instance};

/// How a function is set up.
#[derive(Clone, Debug)]
pub struct FunctionOptions {
    /// Its name.
    pub name: String,
    /// The program that is its bootstrap.
    pub program: PathBuf,
    /// The program's arguments.
    pub args: Vec<OsString>,
    /// Its environment. What Lambda itself sets is added.
    pub env: BTreeMap<String, String>,
    /// In seconds.
    pub timeout: u64,
    /// In MB. It is only told to the function.
    pub memory: u32,
    /// `_HANDLER`.
    pub handler: String,
    /// How many invocations may run at once.
    pub reserved_concurrency: Option<usize>,
}

impl FunctionOptions {
    /// A function with Lambda's own defaults: 3 seconds, 128 MB.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: 3,
            memory: 128,
            handler: "bootstrap".to_owned(),
            reserved_concurrency: None,
        }
    }
}

/// One line that an instance has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The function.
    pub function: String,
    /// Which of its instances, counted from 1.
    pub instance: u64,
    /// Where it was said.
    pub channel: Channel,
    /// The line.
    pub text: String,
}

/// Where a line was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Channel {
    Stdout,
    Stderr,
}

/// One invocation that has ended.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its id.
    pub request_id: String,
    /// Which instance ran it, counted from 1.
    pub instance: u64,
    /// What the function was given.
    pub payload: Value,
    /// What it answered, or how it failed.
    pub outcome: Result<Value, FunctionError>,
    /// How long the instance took to start, if this invocation had to wait for that.
    pub cold_start: Option<Duration>,
    /// How long it took after that.
    pub duration: Duration,
}

/// A function and its instances.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) options: FunctionOptions,
    pub(super) arn: String,
    pool: Mutex<Pool>,
    logs: Arc<Mutex<Vec<LogLine>>>,
    invocations: Mutex<Vec<Invocation>>,
}

#[derive(Debug)]
struct Pool {
    idle: Vec<Instance>,
    running: usize,
    started: u64,
    reserved_concurrency: Option<usize>,
}

/// Counts an invocation as running while it lives.
struct Running<'a>(&'a Function);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.pool().running -= 1;
    }
}

impl Function {
    pub(super) fn new(options: FunctionOptions, arn: String) -> Self {
        let reserved_concurrency = options.reserved_concurrency;
        Self {
            options,
            arn,
            pool: Mutex::new(Pool { idle: Vec::new(), running: 0, started: 0, reserved_concurrency }),
            logs: Arc::default(),
            invocations: Mutex::default(),
        }
    }

    pub(super) fn set_reserved_concurrency(&self, most: Option<usize>) {
        self.pool().reserved_concurrency = most;
    }

    pub(super) fn retire(&self) {
        let idle = std::mem::take(&mut self.pool().idle);
        drop(idle);
    }

    pub(super) fn logs(&self) -> Vec<LogLine> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn invocations(&self) -> Vec<Invocation> {
        self.invocations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs the function once, on an instance that is there or on a new one. `hang` withholds its answer.
    pub(super) async fn run(
        &self,
        lambda: &LambdaOptions,
        payload: Value,
        hang: bool,
    ) -> Result<Value, CallError> {
        let (idle, number) = {
            let mut pool = self.pool();
            if pool.reserved_concurrency.is_some_and(|most| pool.running >= most) {
                return Err(CallError::Throttled);
            }
            pool.running += 1;
            let idle = std::iter::from_fn(|| pool.idle.pop()).find_map(Instance::if_alive);
            if idle.is_none() {
                pool.started += 1;
            }
            (idle, pool.started)
        };
        let running = Running(self);
        let request_id = uuid::Uuid::new_v4().to_string();
        let begun = Instant::now();
        let (mut instance, cold_start, ready) = match idle {
            Some(instance) => (instance, None, Ok(())),
            None => {
                let mut instance = match Instance::start(self, lambda, number, Arc::clone(&self.logs)) {
                    Ok(instance) => instance,
                    Err(error) => {
                        let message =
                            format!("RequestId: {request_id} Error: Couldn't start the bootstrap: {error:#}");
                        let error = FunctionError::new("Runtime.InvalidEntrypoint", message);
                        return Err(CallError::Function(error));
                    }
                };
                let ready = instance.ready().await;
                (instance, Some(begun.elapsed()), ready)
            }
        };
        let started = Instant::now();
        let ended = match ready {
            Ok(()) => instance.invoke(&request_id, &self.arn, &payload, self.timeout(lambda), hang).await,
            Err(ended) => ended,
        };
        let (outcome, reusable) = self.outcome(&request_id, ended);
        let invocation = Invocation {
            request_id,
            instance: instance.number,
            payload,
            outcome: outcome.clone(),
            cold_start,
            duration: started.elapsed(),
        };
        self.invocations.lock().unwrap_or_else(PoisonError::into_inner).push(invocation);
        if reusable {
            self.pool().idle.push(instance);
        } else {
            instance.end().await;
        }
        drop(running);
        outcome.map_err(CallError::Function)
    }

    fn timeout(&self, lambda: &LambdaOptions) -> Duration {
        lambda.second.saturating_mul(u32::try_from(self.options.timeout).unwrap_or(u32::MAX))
    }

    /// What is reported, and whether the instance can go on.
    fn outcome(&self, request_id: &str, ended: Ended) -> (Result<Value, FunctionError>, bool) {
        let failed = |error_type: &str, what: String| {
            let message = format!("RequestId: {request_id} Error: {what}");
            (Err(FunctionError::new(error_type, message)), false)
        };
        match ended {
            Ended::Answered(value) => (Ok(value), true),
            Ended::Failed(error) => (Err(error), true),
            Ended::InitFailed(error) => (Err(error), false),
            Ended::TimedOut => {
                let seconds = self.options.timeout;
                failed("Sandbox.Timedout", format!("Task timed out after {seconds}.00 seconds"))
            }
            Ended::InitTimedOut => failed("Sandbox.Timedout", "Init timed out".to_owned()),
            Ended::Exited(how) => failed("Runtime.ExitError", how),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
