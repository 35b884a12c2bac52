//! The embedded Lambda: runs the real bootstraps as child processes that speak the Runtime API.
//!
//! What it guarantees:
//!
//! * one invocation at a time per instance, more instances for more at once, and an instance that is used again;
//! * a function that runs too long is killed (`Sandbox.Timedout`), one that ends by itself has crashed (`Runtime.ExitError`), and
//!   what a function says of its own failure is passed on, all in AWS's words;
//! * whatever a test scripts with [`Lambda::faults`] strikes exactly there;
//! * every line of every instance is kept, and every invocation with its payload and outcome;
//! * no instance outlives the stand-in. The environment of a function is what its options say, and nothing of this process's.
//!
//! Not there: versions and aliases, layers, extensions, retries and destinations of asynchronous invocations, IAM.

mod fault;
mod function;
mod instance;
mod runtime_api;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::sync::oneshot;

pub use self::fault::{Effect, FunctionError};
pub use self::function::{Channel, FunctionOptions, Invocation, LogLine};

use self::fault::CallError;
use self::function::Function;
use crate::background::{Background, Spawner};
use crate::script::Script;

/// How the stand-in is set up.
#[derive(Clone, Debug)]
pub struct LambdaOptions {
    /// The account in ARNs.
    pub account: String,
    /// The region of the functions.
    pub region: String,
    /// The credentials of the functions: key and secret.
    pub credentials: (String, String),
    /// How long one second of a time-out takes, so that a test need not wait for it.
    pub second: Duration,
}

impl Default for LambdaOptions {
    fn default() -> Self {
        Self {
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            credentials: (
                "AKIALOCALCLOUD000000".to_owned(),
                "localcloud/secret/key/for/tests/only/000".to_owned(),
            ),
            second: Duration::from_secs(1),
        }
    }
}

/// A running stand-in. It has a thread of its own, and ends its instances when it is dropped.
#[derive(Debug)]
pub struct Lambda {
    service: Arc<Service>,
    background: Option<Background>,
}

/// What calls and instances share.
#[derive(Debug)]
struct Service {
    options: LambdaOptions,
    functions: Mutex<BTreeMap<String, Arc<Function>>>,
    faults: Script<String, Effect>,
    spawner: Spawner,
}

impl Lambda {
    /// Starts a stand-in without functions.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(options: LambdaOptions) -> anyhow::Result<Self> {
        let background = Background::start("localcloud-lambda")?;
        let service = Service {
            options,
            functions: Mutex::default(),
            faults: Script::default(),
            spawner: background.spawner(),
        };
        Ok(Self { service: Arc::new(service), background: Some(background) })
    }

    /// Makes a function.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn add_function(&self, options: FunctionOptions) -> anyhow::Result<()> {
        let mut functions = self.service.functions();
        let name = options.name.clone();
        ensure!(!functions.contains_key(&name), "there is a function `{name}` already");
        let arn = self.service.arn(&name);
        functions.insert(name, Arc::new(Function::new(options, arn)));
        Ok(())
    }

    /// The ARN of a function of that name.
    #[must_use]
    pub fn arn(&self, function: &str) -> String {
        self.service.arn(function)
    }

    /// Changes how many invocations of a function may run at once: `Some(0)` lets none, `None` any number.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn set_reserved_concurrency(&self, function: &str, most: Option<usize>) -> anyhow::Result<()> {
        self.service.find(function)?.set_reserved_concurrency(most);
        Ok(())
    }

    /// Invokes a function, by its name or ARN, and waits for it. It goes on when nobody waits any more.
    ///
    /// # Errors
    /// The error as Step Functions names it: the function's own, or one of `Sandbox.Timedout`, `Runtime.*`, `Lambda.*`.
    pub async fn invoke(&self, function: &str, payload: Value) -> Result<Value, FunctionError> {
        Service::invoke(&self.service, function, payload).await.map_err(CallError::for_step_functions)
    }

    /// The script of faults, by the function's name.
    #[must_use]
    pub fn faults(&self) -> &Script<String, Effect> {
        &self.service.faults
    }

    /// Every line that the instances of every function have said so far.
    #[must_use]
    pub fn logs(&self) -> Vec<LogLine> {
        let functions: Vec<_> = self.service.functions().values().cloned().collect();
        functions.iter().flat_map(|function| function.logs()).collect()
    }

    /// Every invocation of a function that has ended so far, in the order in which they ended.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn invocations(&self, function: &str) -> anyhow::Result<Vec<Invocation>> {
        Ok(self.service.find(function)?.invocations())
    }

    /// Ends the instances of a function that wait for work, so that its next invocation starts cold.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn retire(&self, function: &str) -> anyhow::Result<()> {
        self.service.find(function)?.retire();
        Ok(())
    }

    /// The API as a router: `POST /2015-03-31/functions/{name or ARN}/invocations`.
    pub fn router(&self) -> axum::Router {
        wire::router(Arc::clone(&self.service))
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        // First nobody may start anything any more. What runs ends with its job, what waits with its function.
        drop(self.background.take());
        self.service.functions().clear();
    }
}

impl Service {
    fn functions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Function>>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arn(&self, function: &str) -> String {
        format!("arn:aws:lambda:{}:{}:function:{function}", self.options.region, self.options.account)
    }

    /// A function by its name or ARN, with or without `:$LATEST`.
    fn find(&self, function: &str) -> Result<Arc<Function>, CallError> {
        let bare = function.strip_suffix(":$LATEST").unwrap_or(function);
        let name = bare.strip_prefix(&self.arn("")).unwrap_or(bare);
        self.functions().get(name).cloned().ok_or_else(|| {
            let arn = if bare.starts_with("arn:") { bare.to_owned() } else { self.arn(name) };
            CallError::NotFound(arn)
        })
    }

    /// Invokes a function as a job of its own, and waits for it.
    async fn invoke(service: &Arc<Self>, function: &str, payload: Value) -> Result<Value, CallError> {
        let function = service.find(function)?;
        let (answer, answered) = oneshot::channel();
        let job = Arc::clone(service).run(function, payload);
        service.spawner.spawn(async move {
            if answer.send(job.await).is_err() {
                tracing::debug!("nobody waited for a function");
            }
        });
        answered.await.unwrap_or_else(|_ended| {
            Err(CallError::Service("the stand-in ended before the function did".to_owned()))
        })
    }

    /// Runs a function as the script of faults says.
    async fn run(self: Arc<Self>, function: Arc<Function>, payload: Value) -> Result<Value, CallError> {
        let effect = self.faults.strike(&function.options.name);
        match effect {
            Some(Effect::Throttle) => return Err(CallError::Throttled),
            Some(Effect::ServiceError) => {
                return Err(CallError::Service("the service failed, as scripted".to_owned()));
            }
            Some(Effect::Fail(error)) => return Err(CallError::Function(error)),
            Some(Effect::RunTwice) => {
                let _first = function.run(&self.options, payload.clone(), false).await;
            }
            Some(Effect::Hang) => return function.run(&self.options, payload, true).await,
            Some(Effect::FailAfter(_) | Effect::LoseReply) | None => {}
        }
        let result = function.run(&self.options, payload, false).await;
        match effect {
            Some(Effect::FailAfter(error)) => Err(CallError::Function(error)),
            Some(Effect::LoseReply) => Err(CallError::ReplyLost),
            Some(
                Effect::Throttle | Effect::ServiceError | Effect::Fail(_) | Effect::RunTwice | Effect::Hang,
            )
            | None => result,
        }
    }
}
