//! Faults as a script: what goes wrong is named beforehand, by call and count. Nothing here is left to chance.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::call::{Call, Operation};
use super::clock::Clock;

/// What happens to a call that a fault was scripted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// 500 `InternalError`; nothing is done.
    InternalError,
    /// 503 `SlowDown`; nothing is done.
    SlowDown,
    /// 403 `AccessDenied`; nothing is done.
    AccessDenied,
    /// The connection is reset (RST) once this many bytes of the request's body were read, or at its end if it is shorter.
    /// Nothing is done.
    ResetRequest {
        /// Bytes of the body as they are on the wire.
        after: u64,
    },
    /// The answer announces its whole length, but the connection is closed (FIN) after this many bytes of its body.
    CutReply {
        /// Bytes of the body.
        after: u64,
    },
    /// The call waits this long before anything is done, then goes on as if nothing had been.
    Stall(Duration),
    /// The call is carried out, but the connection is reset instead of an answer.
    LoseReply,
    /// One bit of what is stored (object or part) is wrong from the start; the checksums and the `ETag` are those of what was sent.
    WrongByte {
        /// Offset of the byte; beyond the end it is the last byte.
        offset: u64,
    },
    /// The bodies of request and answer pass no faster than this.
    Throttle {
        /// Bytes per second, at least 1.
        bytes_per_second: u64,
    },
}

/// The script of a server's faults. Everything takes effect at once, also for connections that are open.
#[derive(Debug)]
pub struct Faults {
    script: Mutex<Script>,
    clock: Arc<Clock>,
    refusing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    denials: Vec<Denial>,
}

#[derive(Debug, Clone)]
struct Rule {
    operation: Option<Operation>,
    key_contains: Option<String>,
    part_number: Option<u32>,
    first: u64,
    times: u64,
    seen: u64,
    effect: Effect,
}

#[derive(Debug, Clone)]
struct Denial {
    operation: Operation,
    key_prefix: String,
}

impl Faults {
    pub(crate) fn new(clock: Arc<Clock>) -> Self {
        Self { script: Mutex::default(), clock, refusing: watch::Sender::new(false) }
    }

    /// Begins a fault for calls of one operation: by default the first such call from now on, once.
    pub fn on(&self, operation: Operation) -> FaultBuilder<'_> {
        FaultBuilder::new(self, Some(operation))
    }

    /// Begins a fault for calls of whatever operation.
    pub fn on_any(&self) -> FaultBuilder<'_> {
        FaultBuilder::new(self, None)
    }

    /// Denies (403) every call of `operation` whose key (for a listing: whose prefix) starts with `key_prefix`.
    ///
    /// Denying `ListObjectsV2` is denying the permission `s3:ListBucket`: it denies `ListObjects` too, with an empty prefix also
    /// `HeadBucket`, and a read of an absent key below the prefix answers 403 instead of 404.
    pub fn deny(&self, operation: Operation, key_prefix: &str) {
        self.script().denials.push(Denial { operation, key_prefix: key_prefix.to_owned() });
    }

    /// Lifts every denial.
    pub fn allow_all(&self) {
        self.script().denials.clear();
    }

    /// Sets S3's clock apart from this machine's by that many seconds (negative: behind). As AWS does, a difference
    /// above 15 minutes refuses a signed request with `RequestTimeTooSkewed`. The SDK learns the difference from the answer,
    /// and signs by S3's clock from then on.
    pub fn clock_skew(&self, seconds: i64) {
        self.clock.set_skew(seconds);
    }

    /// Resets every open connection and every new one, until [`resume`](Self::resume).
    pub fn refuse_all(&self) {
        self.refusing.send_replace(true);
    }

    /// Ends [`refuse_all`](Self::refuse_all).
    pub fn resume(&self) {
        self.refusing.send_replace(false);
    }

    /// Forgets every fault and denial, sets the clock right and resumes.
    pub fn clear(&self) {
        *self.script() = Script::default();
        self.clock_skew(0);
        self.resume();
    }

    /// The faults which have not (or not often enough) struck, in words: a test asserts that there are none.
    #[must_use]
    pub fn unfired(&self) -> Vec<String> {
        let script = self.script();
        script.rules.iter().filter(|rule| rule.seen < rule.last()).map(|rule| format!("{rule:?}")).collect()
    }

    /// Counts the call against every fault, and answers what is to happen to it.
    pub(crate) fn strike(&self, call: &Call) -> Option<Effect> {
        let mut effect = None;
        for rule in self.script().rules.iter_mut().filter(|rule| rule.matches(call)) {
            rule.seen = rule.seen.saturating_add(1);
            if effect.is_none() && (rule.first..=rule.last()).contains(&rule.seen) {
                effect = Some(rule.effect);
            }
        }
        effect
    }

    /// Whether a denial covers the call.
    pub(crate) fn denies(&self, call: &Call) -> bool {
        let subject = call.key.as_deref().or(call.prefix.as_deref()).unwrap_or_default();
        self.script().denials.iter().any(|denial| {
            let covered = denial.operation == call.operation
                || denial.operation == Operation::ListObjectsV2
                    && matches!(call.operation, Operation::ListObjects | Operation::HeadBucket);
            covered && subject.starts_with(&denial.key_prefix)
        })
    }

    /// Whether the caller may not learn that `key` is absent.
    pub(crate) fn hides_absence(&self, key: &str) -> bool {
        let lists = |operation| matches!(operation, Operation::ListObjectsV2);
        self.script()
            .denials
            .iter()
            .any(|denial| lists(denial.operation) && key.starts_with(&denial.key_prefix))
    }

    pub(crate) fn refusing(&self) -> watch::Receiver<bool> {
        self.refusing.subscribe()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    fn matches(&self, call: &Call) -> bool {
        self.operation.is_none_or(|operation| operation == call.operation)
            && self.part_number.is_none_or(|number| call.part_number == Some(number))
            && self
                .key_contains
                .as_deref()
                .is_none_or(|text| call.key.as_deref().is_some_and(|key| key.contains(text)))
    }

    fn last(&self) -> u64 {
        self.first.saturating_add(self.times).saturating_sub(1)
    }
}

/// A fault being written; [`inject`](Self::inject) puts it into force.
#[derive(Debug)]
#[must_use = "a fault is in force only after `inject`"]
pub struct FaultBuilder<'a> {
    faults: &'a Faults,
    rule: Rule,
}

impl<'a> FaultBuilder<'a> {
    fn new(faults: &'a Faults, operation: Option<Operation>) -> Self {
        let rule = Rule {
            operation,
            key_contains: None,
            part_number: None,
            first: 1,
            times: 1,
            seen: 0,
            effect: Effect::InternalError,
        };
        Self { faults, rule }
    }

    /// Only calls whose key contains `text` count.
    pub fn key_containing(mut self, text: &str) -> Self {
        self.rule.key_contains = Some(text.to_owned());
        self
    }

    /// Only calls about this part count.
    pub fn part(mut self, number: u32) -> Self {
        self.rule.part_number = Some(number);
        self
    }

    /// Strikes the `n`-th matching call from now on, counted from 1 (retries count as calls).
    pub fn nth(mut self, n: u64) -> Self {
        self.rule.first = n.max(1);
        self
    }

    /// Strikes this many matching calls in a row; `u64::MAX` is for ever.
    pub fn times(mut self, times: u64) -> Self {
        self.rule.times = times;
        self
    }

    /// Puts the fault into force. Where several strike the same call, the one injected first wins.
    pub fn inject(self, effect: Effect) {
        self.faults.script().rules.push(Rule { effect, ..self.rule });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn call(method: &str, uri: &str) -> Call {
        Call::identify(&Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    fn faults() -> Faults {
        Faults::new(Arc::default())
    }

    #[test]
    fn the_nth_call_is_struck_as_often_as_said() {
        let faults = faults();
        faults.on(Operation::GetObject).nth(2).times(2).inject(Effect::SlowDown);
        let get = call("GET", "/b/k");
        assert_eq!(faults.unfired().len(), 1);
        let effects: Vec<_> = (0..4).map(|_| faults.strike(&get)).collect();
        assert_eq!(effects, [None, Some(Effect::SlowDown), Some(Effect::SlowDown), None]);
        assert!(faults.unfired().is_empty());
    }

    #[test]
    fn only_matching_calls_count() {
        let faults = faults();
        faults.on(Operation::UploadPart).part(3).key_containing("tar").inject(Effect::LoseReply);
        assert_eq!(faults.strike(&call("PUT", "/b/a.tar?partNumber=2&uploadId=u")), None);
        assert_eq!(faults.strike(&call("PUT", "/b/a.zip?partNumber=3&uploadId=u")), None);
        assert_eq!(faults.strike(&call("PUT", "/b/a.tar?partNumber=3&uploadId=u")), Some(Effect::LoseReply));
    }

    #[test]
    fn a_denial_covers_its_operation_and_prefix() {
        let faults = faults();
        faults.deny(Operation::PutObject, "qdrant/");
        assert!(faults.denies(&call("PUT", "/b/qdrant/x")));
        assert!(!faults.denies(&call("PUT", "/b/other")));
        assert!(!faults.denies(&call("GET", "/b/qdrant/x")));
        faults.deny(Operation::ListObjectsV2, "");
        assert!(faults.denies(&call("HEAD", "/b")));
        assert!(faults.hides_absence("anything"));
        faults.allow_all();
        assert!(!faults.hides_absence("anything"));
    }
}
