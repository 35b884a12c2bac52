//! Carries out what a machine wants: makes its calls, keeps its timers, writes its history.
//!
//! Every call and every timer is a task of one `JoinSet`: they end with the service. A panic in a call is kept, and raised again in
//! whoever asks the service for anything from then on: a test that waits for an execution ends there.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use futures::FutureExt as _;
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Options;
use super::store::{Execution, Run, Status, Store};
use crate::stepfunctions::lock;
use crate::stepfunctions::machine::{Effect, Event, Failure, Invocation, Outcome};
use crate::stepfunctions::tasks::{TaskRequest, Tasks, enveloped};

/// How many ends of executions whoever listens may be behind.
const ENDS: usize = 1024;

pub(super) struct Driver {
    pub(super) options: Options,
    tasks: Arc<dyn Tasks>,
    store: Mutex<Store>,
    jobs: Mutex<JoinSet<()>>,
    /// Told after every step.
    changed: watch::Sender<()>,
    /// Told of every execution that ends.
    ended: broadcast::Sender<Execution>,
    /// What the first call that panicked said.
    panicked: OnceLock<String>,
}

impl Driver {
    pub(super) fn new(options: Options, store: Store, tasks: Arc<dyn Tasks>) -> Arc<Self> {
        Arc::new(Self {
            options,
            tasks,
            store: Mutex::new(store),
            jobs: Mutex::default(),
            changed: watch::Sender::new(()),
            ended: broadcast::Sender::new(ENDS),
            panicked: OnceLock::new(),
        })
    }

    /// Works on what is remembered. A panic of a call comes out here.
    pub(super) fn with_store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        if let Some(message) = self.panicked.get() {
            panic!("a task of the embedded Step Functions panicked: {message}");
        }
        work(&mut lock(&self.store))
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn ends(&self) -> broadcast::Receiver<Execution> {
        self.ended.subscribe()
    }

    /// Ends every call and every timer. Executions that run stay as they are.
    pub(super) fn halt(&self) {
        lock(&self.jobs).abort_all();
    }

    /// Tells an execution what has happened, and does what it wants.
    pub(super) fn step(self: &Arc<Self>, store: &mut Store, arn: &str, event: Event) {
        let Store { runs, tokens, supply, .. } = store;
        let Some(run) = runs.get_mut(arn) else { return };
        let now = self.options.clock.now();
        if let Event::TimerFired { timer } = &event {
            run.timers.remove(timer);
        }
        for effect in run.machine.step(now, event, &mut **supply) {
            match effect {
                Effect::Invoke(invocation) => {
                    if let Some(token) = &invocation.token {
                        tokens.insert(token.clone(), arn.to_owned());
                    }
                    self.call(arn, invocation, supply.uuid());
                }
                Effect::StartTimer { timer, after } => {
                    let sleep = tokio::time::sleep(self.options.clock.real(after));
                    let fired = self.later(arn, async move {
                        sleep.await;
                        Event::TimerFired { timer }
                    });
                    run.timers.insert(timer, fired);
                }
                Effect::CancelTimer { timer } => {
                    if let Some(job) = run.timers.remove(&timer) {
                        job.abort();
                    }
                }
                Effect::Record(event) => {
                    tracing::debug!(execution = run.shown.name, ?event);
                    run.history.push(event);
                }
                Effect::Finish(outcome) => {
                    finish(run, now, outcome);
                    // Nobody may be listening.
                    let _heard = self.ended.send(run.shown.clone());
                }
            }
        }
        self.changed.send_replace(());
    }

    fn call(self: &Arc<Self>, arn: &str, invocation: Invocation, request_id: String) {
        let Invocation { attempt, state, resource, parameters, token: _ } = invocation;
        let tasks = Arc::clone(&self.tasks);
        let request =
            TaskRequest { execution_arn: arn.to_owned(), state, resource: resource.clone(), parameters };
        self.later(arn, async move {
            match tasks.call(request).await {
                Ok(answer) => {
                    Event::TaskReturned { attempt, result: enveloped(&resource, answer, &request_id) }
                }
                Err(failed) => Event::TaskFailed { attempt, error: failed.error, cause: failed.cause },
            }
        });
    }

    /// Steps with the event that the future ends in. The job does not keep the service alive.
    fn later(
        self: &Arc<Self>,
        arn: &str,
        event: impl Future<Output = Event> + Send + 'static,
    ) -> AbortHandle {
        let (driver, arn) = (Arc::downgrade(self), arn.to_owned());
        let job = {
            let driver = Weak::clone(&driver);
            async move {
                let event = event.await;
                if let Some(driver) = driver.upgrade() {
                    driver.step(&mut lock(&driver.store), &arn, event);
                }
            }
        };
        let mut jobs = lock(&self.jobs);
        while jobs.try_join_next().is_some() {}
        jobs.spawn(async move {
            if let Err(payload) = AssertUnwindSafe(job).catch_unwind().await
                && let Some(driver) = driver.upgrade()
            {
                driver.panicked.get_or_init(|| message(payload.as_ref()));
                driver.changed.send_replace(());
            }
        })
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)").to_owned()
}

fn finish(run: &mut Run, now: jiff::Timestamp, outcome: Outcome) {
    let (status, output, failure) = match outcome {
        Outcome::Succeeded { output } => (Status::Succeeded, Some(output), Failure::default()),
        Outcome::Failed(failure) => (Status::Failed, None, failure),
        Outcome::TimedOut(failure) => (Status::TimedOut, None, failure),
        Outcome::Aborted(failure) => (Status::Aborted, None, failure),
    };
    run.shown.status = status;
    run.shown.stopped_at = Some(now);
    run.shown.output = output;
    run.shown.failure = failure;
}
