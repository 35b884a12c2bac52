//! What the functions are called with, read and checked. The states that call are in `state-machines/`.
//!
//! A part that somebody types or that this release defines refuses fields that it does not know: a mistyped `force` must not be taken for its absence. What
//! another release may have written (the answer of an earlier state, the worker's answer) is read with more patience.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use protocol::{
    BackupId, CollectionName, Envelope, ExecutionName, FailureKind, TaskId, TaskKind, TaskToken, TokenOrder,
    task::{Drilled, Stored},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value};

use crate::{
    error::Error,
    hosts::InstanceId,
    redact::{in_tokens, redact},
};

/// What people type, in messages.
const THE_INPUT: &str = "the input of the execution";
/// The form of an execution's input.
const INPUT: &str = r#"{"trigger":"marker|schedule|console","force":false,"collections":["…"]}, where everything may be left out"#;
/// The form of `decide`.
const DECIDE: &str =
    r#"{"operation":"decide","input":{…},"execution":"…","started_at":"2026-11-23T05:14:00Z"}"#;
/// The form of `freshness`.
const FRESHNESS: &str = r#"{"operation":"freshness","input":{"stuck_after_seconds":86400} or {},"execution":"…","backups":{"recent":[{"StartDate":"…","Status":"…"}],"running":[…]},"drills":{"schedule":"none|weekly|monthly","created_at":"…","running":[…],"passed":[…]}}"#;
/// The form of `quiesce` and `backup`.
const DISPATCH: &str = r#"{"operation":"quiesce|backup","backup":{the answer to decide},"execution":"…","entered_at":"2026-11-23T05:14:00Z","retry_count":0,"token":"…"}"#;
/// The form of `publish-manifest`'s event.
const PUBLISH: &str = r#"{"backup":{the answer to decide},"stored":{the worker's answer},"execution":"…"}"#;
/// The form of a drill's input.
const DRILL_INPUT: &str =
    r#"{"mode":"NEWEST|RANDOM"} or {"backup_id":"20261123T051400Z"} or {} for the newest"#;
/// The form of `choose`.
const CHOOSE: &str =
    r#"{"operation":"choose","input":{…},"execution":"…","started_at":"2026-11-23T05:14:00Z"}"#;
/// The form of `dispatch`.
const DRILL: &str = r#"{"operation":"dispatch","backup_id":"20261123T051400Z","instance_id":"i-…","execution":"…","entered_at":"2026-11-23T05:14:00Z","retry_count":0,"token":"…"}"#;
/// The form of `verdict`.
const VERDICT: &str = r#"{"operation":"verdict","drilled":{the worker's answer}}"#;
/// The form of `outcome`.
const OUTCOME: &str = r#"{"operation":"outcome","drill":{the answer to choose, or nothing},"judged":{"verdict":{the answer to verdict}},"failure":{"Error":"…","Cause":"…"},"execution":"…","started_at":"2026-11-23T05:14:00Z"}"#;

/// The most retries that the document's parameter can say.
const MAX_RETRIES: u32 = 9999;
/// The longest token, as in the document.
const MAX_TOKEN: usize = 2048;

/// Who asked for a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The indexing job's success marker: a batch is done.
    Marker,
    /// The clock.
    Schedule,
    /// A person.
    #[default]
    Console,
}

impl Trigger {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Schedule => "schedule",
            Self::Console => "console",
        }
    }
}

/// The input of an execution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// Who asks.
    pub trigger: Trigger,
    /// Publish although something looks like damage.
    pub force: bool,
    /// Only these collections; all of them when there are none.
    pub collections: Vec<CollectionName>,
}

/// Event of `decide`.
#[derive(Debug)]
pub(crate) struct Decide {
    pub(crate) input: Input,
    pub(crate) execution: ExecutionName,
    pub(crate) started_at: Timestamp,
}

/// Whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// A backup is to be made.
    Proceed,
    /// What is wanted is stored already.
    AlreadyBackedUp,
}

/// Answer to `decide`, which later states pass on as `backup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Whether there is anything to do.
    pub decision: Decision,
    /// The backup that is to be made.
    pub backup_id: BackupId,
    /// Who asks.
    pub trigger: Trigger,
    /// Publish although something looks like damage.
    pub force: bool,
    /// Only these collections; all of them when there are none.
    pub collections: Vec<CollectionName>,
    /// Why it was decided so, for a person.
    pub reason: String,
    /// The batch that the success marker names, where it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
}

/// Event of `freshness`.
#[derive(Debug)]
pub(crate) struct Freshness {
    pub(crate) execution: ExecutionName,
    pub(crate) stuck_after: Option<SignedDuration>,
    pub(crate) backups: Backups,
    pub(crate) drills: Drills,
}

/// Executions of the backup machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backups {
    /// The last ones, newest first, whatever came of them.
    pub(crate) recent: Vec<Execution>,
    pub(crate) running: Vec<Execution>,
}

/// Executions of the drill machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drills {
    pub(crate) schedule: DrillSchedule,
    /// When the machine was made.
    #[serde(deserialize_with = "moment")]
    pub(crate) created_at: Timestamp,
    pub(crate) running: Vec<Execution>,
    /// The last one that succeeded, if any.
    pub(crate) passed: Vec<Execution>,
}

/// How often drills are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DrillSchedule {
    /// Never by themselves.
    None,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
}

/// An execution as `ListExecutions` has it; what else it says is not looked at.
#[derive(Debug, Deserialize)]
pub(crate) struct Execution {
    #[serde(rename = "StartDate", deserialize_with = "moment")]
    pub(crate) started_at: Timestamp,
    #[serde(rename = "StopDate", default, deserialize_with = "moment_or_none")]
    stopped_at: Option<Timestamp>,
    #[serde(rename = "Status")]
    status: String,
}

impl Execution {
    pub(crate) fn has_succeeded(&self) -> bool {
        self.status == "SUCCEEDED"
    }

    pub(crate) fn ended_at(&self) -> Timestamp {
        self.stopped_at.unwrap_or(self.started_at)
    }
}

/// A time as an SDK integration writes it: as text. An API of Step Functions itself has seconds, which are understood too, because only AWS can show which it is.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Text(Timestamp),
        Seconds(f64),
    }
    match Raw::deserialize(deserializer)? {
        Raw::Text(moment) => Ok(moment),
        Raw::Seconds(seconds) => SignedDuration::try_from_secs_f64(seconds)
            .and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since))
            .map_err(D::Error::custom),
    }
}

fn moment_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    moment(deserializer).map(Some)
}

/// Answer to `freshness`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fresh {
    /// What `cloudwatch:PutMetricData` is given.
    pub(crate) metric_data: Vec<MetricDatum>,
    /// What it comes from, for a person.
    pub(crate) reason: String,
}

/// A number as CloudWatch takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MetricDatum {
    metric_name: &'static str,
    unit: &'static str,
    value: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dimensions: Vec<Dimension>,
}

/// What tells one metric from another of its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: &'static str,
    value: &'static str,
}

impl MetricDatum {
    pub(crate) fn count(metric_name: &'static str, value: u64) -> Self {
        Self { metric_name, unit: "Count", value, dimensions: Vec::new() }
    }

    pub(crate) fn seconds(metric_name: &'static str, value: u64) -> Self {
        Self { metric_name, unit: "Seconds", value, dimensions: Vec::new() }
    }

    /// No failure of that kind, as `CountFailure` of the state machines counts them.
    pub(crate) fn no_failure(kind: FailureKind) -> Self {
        let dimensions = vec![Dimension { name: "FailureKind", value: kind.name() }];
        Self { dimensions, ..Self::count("ExecutionFailures", 0) }
    }
}

/// Event of `publish-manifest`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    pub(crate) backup: Decided,
    pub(crate) stored: Stored,
    #[serde(rename = "execution")]
    _execution: ExecutionName,
}

/// Which backup a drill restores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DrillMode {
    /// The one that the pointer names.
    #[default]
    Newest,
    /// An older one, drawn by lot.
    Random,
}

/// The input of a drill's execution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrillInput {
    /// Which backup, unless one is named.
    pub mode: DrillMode,
    /// This one.
    pub backup_id: Option<BackupId>,
}

/// Event of `choose`.
#[derive(Debug)]
pub(crate) struct Choose {
    pub(crate) input: DrillInput,
    pub(crate) execution: ExecutionName,
    pub(crate) started_at: Timestamp,
}

/// Event of `dispatch`.
#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) backup_id: BackupId,
    pub(crate) instance_id: InstanceId,
    pub(crate) ticket: Ticket,
}

/// Event of `verdict`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    pub(crate) drilled: Drilled,
    #[serde(rename = "execution")]
    _execution: Option<ExecutionName>,
}

/// Event of `outcome`.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) drill: ChosenSoFar,
    pub(crate) judged: Judged,
    pub(crate) failure: Option<Failure>,
    pub(crate) execution: ExecutionName,
    pub(crate) started_at: Timestamp,
}

/// The answer to `choose`, where there is one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChosenSoFar {
    pub(crate) backup_id: Option<BackupId>,
}

/// What the state `Judge` has come to, if to anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Judged {
    pub(crate) verdict: Option<JudgedWell>,
}

/// The answer to `verdict`.
#[derive(Debug, Deserialize)]
pub(crate) struct JudgedWell {
    pub(crate) passed: bool,
}

/// What Step Functions puts aside when it catches: both may be null.
#[derive(Debug, Deserialize)]
pub(crate) struct Failure {
    #[serde(rename = "Error")]
    pub(crate) error: Option<String>,
}

/// By which a task is answered, and whose it is.
#[derive(Debug)]
pub(crate) struct Ticket {
    execution: ExecutionName,
    order: TokenOrder,
    token: TaskToken,
}

impl Ticket {
    pub(crate) fn envelope(
        self,
        kind: TaskKind,
        backup: BackupId,
        collections: Vec<CollectionName>,
    ) -> Envelope {
        let Self { execution, order, token } = self;
        Envelope { task: TaskId { kind, backup }, collections, execution, order, token }
    }
}

/// Takes the operation out of an event.
pub(crate) fn operation(event: &mut Value) -> Option<String> {
    match event.as_object_mut()?.remove("operation")? {
        Value::String(operation) => Some(operation),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Refuses an operation that a function does not have.
pub(crate) fn no_such_operation(event: &Value, found: Option<&str>, known: &'static str) -> Error {
    let problem = found.map_or_else(
        || "it is missing".to_owned(),
        |found| format!("`{}` is not known here", redact(found, token_of(event))),
    );
    Error::EventWrong { what: "the event's `operation`", problem, shape: known }
}

pub(crate) fn decide(event: Value) -> Result<Decide, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        input: Value,
        execution: ExecutionName,
        started_at: Timestamp,
    }
    let Raw { input, execution, started_at } = read("the event", event, DECIDE)?;
    Ok(Decide { input: self::input(input)?, execution, started_at })
}

pub(crate) fn freshness(event: Value) -> Result<Freshness, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        input: Value,
        execution: ExecutionName,
        backups: Backups,
        drills: Drills,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct RawInput {
        stuck_after_seconds: Option<u32>,
    }
    let Raw { input, execution, backups, drills } = read("the event", event, FRESHNESS)?;
    let RawInput { stuck_after_seconds } = read(THE_INPUT, input, FRESHNESS)?;
    let stuck_after = stuck_after_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    Ok(Freshness { execution, stuck_after, backups, drills })
}

fn input(value: Value) -> Result<Input, Error> {
    refuse_event(&value)?;
    let input: Input = read(THE_INPUT, value, INPUT)?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = input.collections.iter().find(|name| !seen.insert(*name)) {
        let problem = format!("collection `{twice}` is named twice");
        return Err(Error::EventWrong { what: THE_INPUT, problem, shape: INPUT });
    }
    Ok(input)
}

/// A rule without an input of its own passes its event on.
fn refuse_event(input: &Value) -> Result<(), Error> {
    let text = |field: &str| input.get(field).and_then(Value::as_str).map(str::to_owned);
    match (text("detail-type"), text("source")) {
        (Some(detail_type), Some(source_name)) => Err(Error::EventOfEventBridge { detail_type, source_name }),
        _ => Ok(()),
    }
}

pub(crate) fn choose(event: Value) -> Result<Choose, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        input: Value,
        execution: ExecutionName,
        started_at: Timestamp,
    }
    let Raw { input, execution, started_at } = read("the event", event, CHOOSE)?;
    refuse_event(&input)?;
    let input: DrillInput = read(THE_INPUT, input, DRILL_INPUT)?;
    if input.backup_id.is_some() && input.mode == DrillMode::Random {
        let problem = "it names a backup and asks for a random one".to_owned();
        return Err(Error::EventWrong { what: THE_INPUT, problem, shape: DRILL_INPUT });
    }
    Ok(Choose { input, execution, started_at })
}

pub(crate) fn outcome(event: Value) -> Result<Outcome, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        drill: ChosenSoFar,
        judged: Judged,
        failure: Value,
        execution: ExecutionName,
        started_at: Timestamp,
    }
    let Raw { drill, judged, failure, execution, started_at } = read("the event", event, OUTCOME)?;
    // The machine begins with an empty one.
    let none = failure.as_object().is_some_and(Map::is_empty);
    let failure = if none { None } else { Some(read("the event's `failure`", failure, OUTCOME)?) };
    Ok(Outcome { drill, judged, failure, execution, started_at })
}

pub(crate) fn dispatch(event: Value) -> Result<(Decided, Ticket), Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        backup: Decided,
        execution: ExecutionName,
        entered_at: Timestamp,
        retry_count: u32,
        token: TaskToken,
    }
    let Raw { backup, execution, entered_at, retry_count, token } = read("the event", event, DISPATCH)?;
    Ok((backup, ticket(execution, entered_at, retry_count, token, DISPATCH)?))
}

pub(crate) fn publish(event: Value) -> Result<Publish, Error> {
    read("the event", event, PUBLISH)
}

pub(crate) fn drill(event: Value) -> Result<Drill, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        backup_id: BackupId,
        instance_id: InstanceId,
        execution: ExecutionName,
        entered_at: Timestamp,
        retry_count: u32,
        token: TaskToken,
    }
    let Raw { backup_id, instance_id, execution, entered_at, retry_count, token } =
        read("the event", event, DRILL)?;
    Ok(Drill { backup_id, instance_id, ticket: ticket(execution, entered_at, retry_count, token, DRILL)? })
}

pub(crate) fn verdict(event: Value) -> Result<Verdict, Error> {
    read("the event", event, VERDICT)
}

/// Holds the ticket to what the document allows, so that it is refused here and by name, not by AWS and perhaps with the token in the message.
fn ticket(
    execution: ExecutionName,
    entered_at: Timestamp,
    retry_count: u32,
    token: TaskToken,
    shape: &'static str,
) -> Result<Ticket, Error> {
    let wrong = |problem: String| Err(Error::EventWrong { what: "the event", problem, shape });
    let length = token.expose().len();
    if length == 0 || length > MAX_TOKEN || !token.expose().chars().all(in_tokens) {
        return wrong(format!("`token` has not 1 to {MAX_TOKEN} of [A-Za-z0-9+/=_.-]"));
    }
    if retry_count > MAX_RETRIES {
        return wrong(format!("`retry_count` is {retry_count}, above {MAX_RETRIES}"));
    }
    Ok(Ticket { execution, order: TokenOrder { entered_at, retry_count }, token })
}

fn read<T: DeserializeOwned>(what: &'static str, value: Value, shape: &'static str) -> Result<T, Error> {
    // A parser may quote what it does not understand.
    let token = token_of(&value).to_owned();
    if !value.is_object() {
        return Err(Error::EventWrong { what, problem: "it is not an object".to_owned(), shape });
    }
    serde_json::from_value(value).map_err(|error| Error::EventWrong {
        what,
        problem: redact(&error.to_string(), &token),
        shape,
    })
}

/// The token of an event, whatever else is wrong with it; empty where it has none.
pub(crate) fn token_of(event: &Value) -> &str {
    event.get("token").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::diagnostic::chain;

    fn text(error: &Error) -> String {
        format!("{} / {}", chain(error), error.hint().unwrap_or_default())
    }

    #[test]
    fn an_input_may_leave_everything_out() {
        assert_eq!(input(json!({})).unwrap(), Input::default());
        let given =
            input(json!({"trigger": "marker", "force": true, "collections": ["docs", "notes"]})).unwrap();
        assert_eq!((given.trigger, given.force, given.collections.len()), (Trigger::Marker, true, 2));
        assert_eq!(input(json!({"collections": []})).unwrap().collections, []);
    }

    #[test]
    fn a_wrong_input_is_told_what_and_how_it_should_be() {
        for (given, says) in [
            (json!(null), "it is not an object"),
            (json!("marker"), "it is not an object"),
            (
                json!({"trigger": "cron"}),
                "unknown variant `cron`, expected one of `marker`, `schedule`, `console`",
            ),
            (json!({"forced": true}), "unknown field `forced`"),
            (json!({"force": "yes"}), "expected a boolean"),
            (json!({"collections": "docs"}), "expected a sequence"),
            (json!({"collections": [""]}), "is not a collection name"),
            (json!({"collections": ["docs", "a", "docs"]}), "collection `docs` is named twice"),
        ] {
            let error = input(given.clone()).unwrap_err();
            assert_eq!(error.kind(), protocol::FailureKind::ConfigInvalid);
            let text = text(&error);
            assert!(text.contains(says) && text.contains("marker|schedule|console"), "{given}: {text}");
        }
    }

    #[test]
    fn an_event_of_eventbridge_gets_a_hint_of_its_own() {
        let event =
            json!({"version": "0", "detail-type": "Object Created", "source": "aws.s3", "detail": {}});
        let text = text(&input(event).unwrap_err());
        assert!(
            text.contains("`Object Created` of `aws.s3`") && text.contains("the rule's target"),
            "{text}"
        );
    }

    #[test]
    fn times_may_be_spelled_with_parts_of_a_second() {
        for time in ["2026-11-23T05:14:00Z", "2026-11-23T05:14:00.123Z", "2026-11-23T06:14:00.5+01:00"] {
            let event = json!({"input": {}, "execution": "x", "started_at": time});
            let started_at = decide(event).unwrap().started_at;
            assert_eq!(BackupId::from_time(started_at).unwrap().to_string(), "20261123T051400Z");
        }
    }

    #[test]
    fn no_refusal_repeats_the_token() {
        let token = "AAAAKgAAAAIAAAAAAAAAAfX+/Qkq";
        let event = |change: fn(&mut Value, &str)| {
            let mut event = json!({
                "backup_id": "20261123T051400Z", "instance_id": "i-0123456789abcdef0", "execution": "x",
                "entered_at": "2026-11-23T05:14:00Z", "retry_count": 0, "token": token,
            });
            change(&mut event, token);
            event
        };
        for (change, says) in [
            ((|e, t| e["retry_count"] = json!(t)) as fn(&mut Value, &str), "invalid type"),
            (|e, t| e["execution"] = json!(format!("{t} {t}")), "not the name of an execution"),
            (|e, t| e["backup_id"] = json!(&t[2..]), "not a backup id"),
            (|e, t| e["token"] = json!(format!("{t} ; reboot")), "`token` has not"),
            (|e, _| e["token"] = json!(""), "`token` has not"),
            (|e, t| e["token"] = json!(t.repeat(100)), "`token` has not"),
            (|e, _| e["retry_count"] = json!(10_000), "above 9999"),
            (|e, t| e[t] = json!(1), "unknown field"),
        ] {
            let error = drill(event(change)).unwrap_err();
            let text = format!("{} {error:?}", text(&error));
            assert!(text.contains(says), "{text}");
            assert!(!text.contains(&token[2..20]), "{text}");
        }
        assert!(!format!("{:?}", drill(event(|_, _| {})).unwrap()).contains(token));
    }
}
