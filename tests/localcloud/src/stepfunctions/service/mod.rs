//! The service: what the API does, without HTTP.

mod callbacks;
mod driver;
mod error;
mod limits;
mod pages;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;

pub use self::error::{ApiError, ErrorKind};
pub use self::pages::{ExecutionPage, HistoryPage, Page, StateMachinePage};
pub use self::store::{Execution, StateMachine, Status};

use self::driver::Driver;
use self::store::{Run, Store};
use super::asl::{Definition, DefinitionError};
use super::clock::Clock;
use super::machine::{self, About, Event, Failure, HeartbeatError, HistoryEvent, Supply};
use super::supply::Draws;
use super::tasks::Tasks;

/// How a service is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The account in every ARN.
    pub account: String,
    /// The region in every ARN.
    pub region: String,
    /// Where its time is from, and by how much durations are divided.
    pub clock: Clock,
    /// The error of a heartbeat that stays away.
    pub heartbeat_error: HeartbeatError,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            clock: Clock::wall(),
            heartbeat_error: HeartbeatError::default(),
        }
    }
}

/// The service. Clones are handles of the same one; with the last of them its calls and timers end.
///
/// Whatever starts an execution or moves it on must be called within a tokio runtime, which is the one that it goes on in.
/// Nothing here blocks or needs more than one thread.
#[derive(Clone)]
pub struct StepFunctions {
    driver: Arc<Driver>,
}

/// What `CreateStateMachine` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedStateMachine {
    /// The machine's ARN.
    pub arn: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What `StartExecution` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedExecution {
    /// The execution's ARN.
    pub arn: String,
    /// When it was started.
    pub started_at: Timestamp,
}

impl fmt::Debug for StepFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepFunctions").field("options", &self.driver.options).finish_non_exhaustive()
    }
}

impl StepFunctions {
    /// A service whose tokens and delays nobody can foresee.
    #[must_use]
    pub fn new(options: Options, tasks: Arc<dyn Tasks>) -> Self {
        Self::with_supply(options, tasks, Box::new(Draws::random()))
    }

    /// A service with a chance of the caller's: [`Draws::seeded`] makes a run repeatable.
    #[must_use]
    pub fn with_supply(options: Options, tasks: Arc<dyn Tasks>, supply: Box<dyn Supply + Send>) -> Self {
        Self { driver: Driver::new(options, Store::new(supply), tasks) }
    }

    /// `CreateStateMachine`. The same machine may be created again; another one of the same name may not.
    ///
    /// # Errors
    /// When the name or the definition is refused, or the name is in use.
    pub fn create_state_machine(
        &self,
        name: &str,
        definition: &str,
        role_arn: &str,
    ) -> Result<CreatedStateMachine, ApiError> {
        limits::name(name)?;
        limits::length("roleArn", role_arn, 1, 256)?;
        let parsed = parse(definition)?;
        let arn = self.arn("stateMachine", name);
        self.driver.with_store(|store| {
            if let Some(machine) = store.machines.get(&arn) {
                if machine.definition_text != definition || machine.role_arn != role_arn {
                    return Err(ApiError::state_machine_already_exists(&arn));
                }
                return Ok(CreatedStateMachine { arn, created_at: machine.created_at });
            }
            let created_at = self.driver.options.clock.now();
            let machine = StateMachine {
                arn: arn.clone(),
                name: name.to_owned(),
                role_arn: role_arn.to_owned(),
                definition_text: definition.to_owned(),
                definition: parsed,
                created_at,
                revision: 0,
            };
            store.machines.insert(arn.clone(), machine);
            Ok(CreatedStateMachine { arn, created_at })
        })
    }

    /// `UpdateStateMachine`: executions that run keep the definition they were started with. Answers when it was.
    ///
    /// # Errors
    /// When there is no such machine, nothing to change, or a definition that is refused.
    pub fn update_state_machine(
        &self,
        arn: &str,
        definition: Option<&str>,
        role_arn: Option<&str>,
    ) -> Result<Timestamp, ApiError> {
        limits::arn("stateMachineArn", arn)?;
        if definition.is_none() && role_arn.is_none() {
            let message = "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be specified";
            return Err(ApiError::missing_parameter(message));
        }
        let parsed = definition.map(|text| parse(text).map(|parsed| (text, parsed))).transpose()?;
        self.driver.with_store(|store| {
            let machine =
                store.machines.get_mut(arn).ok_or_else(|| ApiError::state_machine_does_not_exist(arn))?;
            if let Some((text, parsed)) = parsed {
                machine.definition_text = text.to_owned();
                machine.definition = parsed;
            }
            if let Some(role_arn) = role_arn {
                machine.role_arn = role_arn.to_owned();
            }
            machine.revision += 1;
            Ok(self.driver.options.clock.now())
        })
    }

    /// `DescribeStateMachine`.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn describe_state_machine(&self, arn: &str) -> Result<StateMachine, ApiError> {
        limits::arn("stateMachineArn", arn)?;
        self.driver.with_store(|store| {
            store.machines.get(arn).cloned().ok_or_else(|| ApiError::state_machine_does_not_exist(arn))
        })
    }

    /// `StartExecution`. Without a name one is drawn, without an input it is `{}`.
    ///
    /// The name makes it idempotent: while an execution runs, the same name and input are answered with that execution. Any other
    /// use of a name that is taken is refused, and a name stays taken after its execution has ended.
    ///
    /// # Errors
    /// When there is no such machine, the name or the input is refused, or the name is taken.
    pub fn start_execution(
        &self,
        state_machine_arn: &str,
        name: Option<&str>,
        input: Option<&str>,
    ) -> Result<StartedExecution, ApiError> {
        limits::arn("stateMachineArn", state_machine_arn)?;
        name.map(limits::name).transpose()?;
        let text = input.unwrap_or("{}");
        limits::payload("input", text)?;
        let input: Value = serde_json::from_str(text).map_err(ApiError::invalid_execution_input)?;
        self.driver.with_store(|store| {
            let machine = store
                .machines
                .get(state_machine_arn)
                .ok_or_else(|| ApiError::state_machine_does_not_exist(state_machine_arn))?;
            let name = name.map_or_else(|| store.supply.uuid(), str::to_owned);
            let arn = self.arn("execution", &format!("{}:{name}", machine.name));
            if let Some(Run { shown, .. }) = store.runs.get(&arn) {
                if shown.status == Status::Running && shown.input == text {
                    return Ok(StartedExecution { arn, started_at: shown.started_at });
                }
                return Err(ApiError::execution_already_exists(&arn));
            }
            let started_at = self.driver.options.clock.now();
            let about = About {
                execution_arn: arn.clone(),
                execution_name: name.clone(),
                state_machine_arn: machine.arn.clone(),
                state_machine_name: machine.name.clone(),
                role_arn: machine.role_arn.clone(),
                region: self.driver.options.region.clone(),
            };
            let definition = Arc::clone(&machine.definition);
            let heartbeat_error = self.driver.options.heartbeat_error;
            let run = Run {
                shown: Execution {
                    arn: arn.clone(),
                    name,
                    state_machine_arn: machine.arn.clone(),
                    status: Status::Running,
                    input: text.to_owned(),
                    started_at,
                    stopped_at: None,
                    output: None,
                    failure: Failure::default(),
                },
                history: Vec::new(),
                machine: machine::Execution::new(about, definition, input, heartbeat_error),
                timers: HashMap::new(),
            };
            store.runs.insert(arn.clone(), run);
            store.started.push(arn.clone());
            self.driver.step(store, &arn, Event::Started);
            Ok(StartedExecution { arn, started_at })
        })
    }

    /// `StopExecution`. Answers when it was; one that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such execution, or error or cause are too long.
    pub fn stop_execution(
        &self,
        arn: &str,
        error: Option<&str>,
        cause: Option<&str>,
    ) -> Result<Timestamp, ApiError> {
        limits::arn("executionArn", arn)?;
        limits::failure(error, cause)?;
        let event = Event::Stopped { error: error.map(str::to_owned), cause: cause.map(str::to_owned) };
        self.driver.with_store(|store| {
            self.driver.step(store, arn, event);
            let run = store.runs.get(arn).ok_or_else(|| ApiError::execution_does_not_exist(arn))?;
            Ok(run.shown.stopped_at.unwrap_or_else(|| self.driver.options.clock.now()))
        })
    }

    /// `DescribeExecution`.
    ///
    /// # Errors
    /// When there is no such execution.
    pub fn describe_execution(&self, arn: &str) -> Result<Execution, ApiError> {
        limits::arn("executionArn", arn)?;
        self.driver.with_store(|store| {
            let run = store.runs.get(arn).ok_or_else(|| ApiError::execution_does_not_exist(arn))?;
            Ok(run.shown.clone())
        })
    }

    /// The whole history of an execution.
    ///
    /// # Errors
    /// When there is no such execution.
    pub fn history(&self, arn: &str) -> Result<Vec<HistoryEvent>, ApiError> {
        limits::arn("executionArn", arn)?;
        self.driver.with_store(|store| {
            let run = store.runs.get(arn).ok_or_else(|| ApiError::execution_does_not_exist(arn))?;
            Ok(run.history.clone())
        })
    }

    /// Waits until an execution has ended.
    ///
    /// # Errors
    /// When there is no such execution.
    pub async fn ended(&self, arn: &str) -> Result<Execution, ApiError> {
        self.until(arn, |execution, _| (execution.status != Status::Running).then(|| execution.clone())).await
    }

    /// Waits until `look` sees in an execution what it looks for; it looks again after every step of any execution.
    ///
    /// # Errors
    /// When there is no such execution.
    pub async fn until<T>(
        &self,
        arn: &str,
        mut look: impl FnMut(&Execution, &[HistoryEvent]) -> Option<T>,
    ) -> Result<T, ApiError> {
        let mut changes = self.driver.changes();
        loop {
            let seen = self.driver.with_store(|store| {
                let run = store.runs.get(arn).ok_or_else(|| ApiError::execution_does_not_exist(arn))?;
                Ok(look(&run.shown, &run.history))
            })?;
            if let Some(seen) = seen {
                return Ok(seen);
            }
            // The sender is in the driver, which is in `self`.
            if changes.changed().await.is_err() {
                return Err(ApiError::execution_does_not_exist(arn));
            }
        }
    }

    /// Every execution that ends from here on, as it is then: what `Step Functions Execution Status Change` tells.
    #[must_use]
    pub fn ended_executions(&self) -> broadcast::Receiver<Execution> {
        self.driver.ends()
    }

    /// Ends every call and every timer, as a power cut would: what runs stays where it is. For an owner whose tasks hold a handle of
    /// this service, which would otherwise keep each other alive.
    pub fn halt(&self) {
        self.driver.halt();
    }

    fn arn(&self, kind: &str, name: &str) -> String {
        let Options { account, region, .. } = &self.driver.options;
        format!("arn:aws:states:{region}:{account}:{kind}:{name}")
    }
}

fn parse(definition: &str) -> Result<Arc<Definition>, ApiError> {
    limits::length("definition", definition, 1, limits::DEFINITION)?;
    Definition::parse(definition).map(Arc::new).map_err(|error| match &error {
        DefinitionError::Json(source) => ApiError::invalid_definition(format_args!("{error}: {source}")),
        DefinitionError::UnknownField { .. }
        | DefinitionError::MissingField { .. }
        | DefinitionError::Field { .. }
        | DefinitionError::Rule { .. } => ApiError::invalid_definition(error),
    })
}
