//! The embedded EventBridge: starts executions when objects come to be, when other executions end, and when it is time. It keeps no time itself: a schedule
//! looks at the clock only when a test (or a demo) says what time it is.
//!
//! A rule's target is a state machine behind [`StartExecution`]; its input is constant, or the event. Like AWS's it delivers at least once: a test
//! scripts which delivery comes twice.
//!
//! Not there: patterns other than bucket and key, input transformers, cron, retries of a target that fails, dead letters.

mod sns;
mod status;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

pub use self::sns::{Message, Sns, SnsEffect, SnsError};
pub use self::status::ExecutionRule;

use crate::background::{Background, Spawner};
use crate::s3::ObjectCreated;
use crate::script::Script;
use crate::stepfunctions::Execution;

/// In a schedule's input: when it was due.
const SCHEDULED_TIME: &str = "<aws.scheduler.scheduled-time>";

/// What rules and schedules start.
#[async_trait::async_trait]
pub trait StartExecution: fmt::Debug + Send + Sync {
    /// Starts an execution with a name of the callee's choice, and answers its ARN.
    async fn start_execution(&self, state_machine: &str, input: Value) -> anyhow::Result<String>;
}

/// Starts an execution when an object comes to be.
#[derive(Debug, Clone)]
pub struct ObjectRule {
    /// Its name.
    pub name: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: KeyPattern,
    /// The state machine's ARN.
    pub state_machine: String,
    /// What every execution is given.
    pub input: Value,
}

/// Which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPattern {
    /// This one.
    Exact(String),
    /// Those that start like this.
    Prefix(String),
    /// Those that end like this.
    Suffix(String),
}

impl KeyPattern {
    /// Whether a key is meant.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        match self {
            Self::Exact(exact) => key == exact,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Suffix(suffix) => key.ends_with(suffix),
        }
    }
}

/// Starts an execution again and again.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When for the first time.
    pub first: Timestamp,
    /// How long until the next time.
    pub every: SignedDuration,
    /// The state machine's ARN.
    pub state_machine: String,
    /// What every execution is given. `<aws.scheduler.scheduled-time>` in a text becomes the time when it was due.
    pub input: Value,
}

/// What happens to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It comes twice.
    Twice,
    /// The target is not reached: nothing is started.
    Lost,
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The rule or schedule.
    pub rule: String,
    /// What the execution was given.
    pub input: Value,
    /// The execution's ARN, or why there is none.
    pub execution: Result<String, String>,
}

/// A running stand-in. It has a thread of its own, and stops when it is dropped.
#[derive(Debug)]
pub struct Events {
    bus: Arc<Bus>,
    spawner: Spawner,
    _background: Background,
}

#[derive(Debug)]
struct Bus {
    target: Arc<dyn StartExecution>,
    rules: Mutex<Vec<ObjectRule>>,
    execution_rules: Mutex<Vec<ExecutionRule>>,
    /// Each with the time when it is due next.
    schedules: Mutex<Vec<(Timestamp, Schedule)>>,
    faults: Script<String, Effect>,
    starts: watch::Sender<Vec<Start>>,
}

impl Events {
    /// Starts a stand-in without rules.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(target: Arc<dyn StartExecution>) -> anyhow::Result<Self> {
        let background = Background::start("localcloud-events")?;
        let bus = Bus {
            target,
            rules: Mutex::default(),
            execution_rules: Mutex::default(),
            schedules: Mutex::default(),
            faults: Script::default(),
            starts: watch::Sender::new(Vec::new()),
        };
        Ok(Self { bus: Arc::new(bus), spawner: background.spawner(), _background: background })
    }

    /// Takes the events of an S3 from here on.
    pub fn listen(&self, created: broadcast::Receiver<ObjectCreated>) {
        self.spawner.spawn(listen(Arc::clone(&self.bus), created));
    }

    /// Adds a rule. It sees events that come after it.
    pub fn add_rule(&self, rule: ObjectRule) {
        lock(&self.bus.rules).push(rule);
    }

    /// Takes the ends of executions from here on.
    pub fn watch(&self, ended: broadcast::Receiver<Execution>) {
        self.spawner.spawn(watch_ends(Arc::clone(&self.bus), self.spawner.clone(), ended));
    }

    /// Adds a rule about the ends of executions. It sees those that come after it.
    pub fn add_execution_rule(&self, rule: ExecutionRule) {
        lock(&self.bus.execution_rules).push(rule);
    }

    /// Adds a schedule.
    ///
    /// # Errors
    /// When its interval is not positive.
    pub fn add_schedule(&self, schedule: Schedule) -> anyhow::Result<()> {
        if !schedule.every.is_positive() {
            bail!(
                "schedule `{}` has an interval of {}, which must be positive",
                schedule.name,
                schedule.every
            );
        }
        lock(&self.bus.schedules).push((schedule.first, schedule));
        Ok(())
    }

    /// Says what time it is: everything that has become due is started, in order, and its starts are answered. What was due several
    /// times since the last tick is started as often.
    pub async fn tick(&self, now: Timestamp) -> Vec<Start> {
        let mut due = Vec::new();
        for (next, schedule) in lock(&self.bus.schedules).iter_mut() {
            while *next <= now {
                due.push((*next, schedule.clone()));
                *next = next.checked_add(schedule.every).unwrap_or(Timestamp::MAX);
                if *next == Timestamp::MAX {
                    break;
                }
            }
        }
        due.sort_by_key(|(time, _)| *time);
        let mut starts = Vec::new();
        for (time, schedule) in due {
            let input = with_time(schedule.input, time);
            starts.extend(self.bus.deliver(&schedule.name, &schedule.state_machine, &input).await);
        }
        starts
    }

    /// The script of faults, by the name of the rule or schedule.
    #[must_use]
    pub fn faults(&self) -> &Script<String, Effect> {
        &self.bus.faults
    }

    /// Every delivery so far.
    #[must_use]
    pub fn starts(&self) -> Vec<Start> {
        self.bus.starts.borrow().clone()
    }

    /// Waits until the deliveries are as wanted.
    ///
    /// # Errors
    /// When they are not within `bound`; the error says what they were then.
    pub async fn wait_for(
        &self,
        bound: Duration,
        wanted: impl Fn(&[Start]) -> bool,
    ) -> anyhow::Result<Vec<Start>> {
        let mut starts = self.bus.starts.subscribe();
        let reached = tokio::time::timeout(bound, starts.wait_for(|starts| wanted(starts))).await;
        match reached {
            Ok(Ok(starts)) => Ok(starts.clone()),
            Ok(Err(_)) | Err(_) => {
                bail!("the deliveries did not get there in {bound:?}: {:?}", self.starts())
            }
        }
    }
}

async fn listen(bus: Arc<Bus>, mut created: broadcast::Receiver<ObjectCreated>) {
    loop {
        match created.recv().await {
            Ok(object) => {
                let rules: Vec<_> = lock(&bus.rules)
                    .iter()
                    .filter(|rule| rule.bucket == object.bucket && rule.key.matches(&object.key))
                    .cloned()
                    .collect();
                for rule in rules {
                    bus.deliver(&rule.name, &rule.state_machine, &rule.input).await;
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::error!(missed, "events were lost");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn watch_ends(bus: Arc<Bus>, spawner: Spawner, mut ended: broadcast::Receiver<Execution>) {
    loop {
        match ended.recv().await {
            Ok(execution) => {
                let rules: Vec<_> = lock(&bus.execution_rules).clone();
                for rule in rules.into_iter().filter(|rule| rule.is_about(&execution)) {
                    let (bus, event) = (Arc::clone(&bus), status::event(&execution));
                    spawner.spawn(async move {
                        tokio::time::sleep(rule.delay).await;
                        bus.deliver(&rule.name, &rule.state_machine, &event).await;
                    });
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::error!(missed, "ends of executions were lost");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

impl Bus {
    async fn deliver(&self, rule: &str, state_machine: &str, input: &Value) -> Vec<Start> {
        let times = match self.faults.strike(&rule.to_owned()) {
            Some(Effect::Twice) => 2,
            Some(Effect::Lost) => 0,
            None => 1,
        };
        let mut made = Vec::new();
        for _ in 0..times {
            let execution = self.target.start_execution(state_machine, input.clone()).await;
            let execution = execution.map_err(|error| format!("{error:#}"));
            made.push(Start { rule: rule.to_owned(), input: input.clone(), execution });
        }
        self.starts.send_modify(|starts| starts.extend(made.iter().cloned()));
        made
    }
}

/// The input with the scheduled time wherever a text asks for it.
fn with_time(input: Value, time: Timestamp) -> Value {
    match input {
        Value::String(text) => {
            Value::String(text.replace(SCHEDULED_TIME, &time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
        }
        Value::Array(items) => items.into_iter().map(|item| with_time(item, time)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, with_time(value, time))).collect()
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::s3::{Reason, S3Options, S3Server};

    const BOUND: Duration = Duration::from_secs(30);

    /// Counts executions, and refuses those of one machine.
    #[derive(Debug, Default)]
    struct Machines(Mutex<u32>);

    #[async_trait::async_trait]
    impl StartExecution for Machines {
        async fn start_execution(&self, state_machine: &str, _input: Value) -> anyhow::Result<String> {
            if state_machine == "absent" {
                bail!("there is no such machine");
            }
            let mut count = lock(&self.0);
            *count += 1;
            Ok(format!("{state_machine}:{count}"))
        }
    }

    fn events() -> Events {
        Events::start(Arc::<Machines>::default()).unwrap()
    }

    fn executions(starts: &[Start]) -> Vec<&str> {
        starts.iter().map(|start| start.execution.as_deref().unwrap_or("none")).collect()
    }

    #[tokio::test]
    async fn an_object_starts_an_execution_at_least_once() {
        let options = S3Options { buckets: vec!["backups".to_owned()], ..S3Options::default() };
        let s3 = S3Server::start(options).await.unwrap();
        let events = events();
        events.listen(s3.object_created());
        for (name, key, machine) in [
            ("marker", KeyPattern::Exact("markers/success.json".to_owned()), "backup"),
            ("all", KeyPattern::Prefix("markers/".to_owned()), "absent"),
            ("never", KeyPattern::Suffix(".csv".to_owned()), "other"),
        ] {
            events.add_rule(ObjectRule {
                name: name.to_owned(),
                bucket: "backups".to_owned(),
                key,
                state_machine: machine.to_owned(),
                input: json!({ "trigger": name }),
            });
        }
        events.faults().on("marker").nth(2).inject(Effect::Twice);
        let mut created = s3.object_created();
        let client = s3.client().await;
        let put = |key: &'static str| {
            client.put_object().bucket("backups").key(key).body("x".as_bytes().to_vec().into()).send()
        };
        for key in ["markers/success.json", "elsewhere/success.json", "markers/success.json"] {
            put(key).await.unwrap();
        }
        let starts = events.wait_for(BOUND, |starts| starts.len() == 5).await.unwrap();
        assert_eq!(executions(&starts), ["backup:1", "none", "backup:2", "backup:3", "none"]);
        assert_eq!(starts[0].input, json!({ "trigger": "marker" }));
        assert_eq!(starts[1].execution.as_ref().unwrap_err(), "there is no such machine");

        let told = created.recv().await.unwrap();
        assert_eq!(
            (told.key.as_str(), told.size, told.reason),
            ("markers/success.json", 1, Reason::PutObject)
        );
        assert_eq!(told.etag, "9dd4e461268c8034f5c8564e155c67a6");
        assert!(told.version.is_some());
    }

    #[tokio::test]
    async fn a_schedule_is_due_as_often_as_the_clock_says() {
        let events = events();
        let first: Timestamp = "2026-11-23T05:00:00Z".parse().unwrap();
        let schedule = |name: &str, hours| Schedule {
            name: name.to_owned(),
            first,
            every: SignedDuration::from_hours(hours),
            state_machine: name.to_owned(),
            input: json!({ "at": ["<aws.scheduler.scheduled-time>", 1] }),
        };
        events.add_schedule(schedule("daily", 24)).unwrap();
        events.add_schedule(schedule("hourly", 1)).unwrap();
        assert!(events.add_schedule(schedule("always", 0)).is_err());
        let at = |minutes| first.checked_add(SignedDuration::from_mins(minutes)).unwrap();
        assert_eq!(events.tick(at(-1)).await, []);
        assert_eq!(executions(&events.tick(at(0)).await), ["daily:1", "hourly:2"]);
        assert_eq!(events.tick(at(59)).await, []);
        events.faults().on("hourly").inject(Effect::Lost);
        events.faults().on("hourly").nth(2).inject(Effect::Twice);
        let starts = events.tick(at(150)).await;
        assert_eq!(executions(&starts), ["hourly:3", "hourly:4"]);
        assert_eq!(starts[0].input, json!({ "at": ["2026-11-23T07:00:00Z", 1] }));
    }
}
