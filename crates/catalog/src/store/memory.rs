//! A store in memory for tests: it behaves as S3 does, records its calls, and fails where a script says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Condition, Deletion, Head, Listed, MAX_OBJECT_BYTES, Object, ObjectStore, Operation, Put, PutError,
    StoreError,
};

/// The name that the store's errors call its bucket by.
const BUCKET: &str = "memory";

/// A bucket in memory, with versions. Clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Vec<Stored>>,
    /// Keys with a delete marker on top of their versions.
    deleted: BTreeSet<String>,
    calls: Vec<Call>,
    script: Vec<Scripted>,
    now: Timestamp,
    written: u64,
    stepping: bool,
    ignores_conditions: bool,
    keeps_crc: bool,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    attributes: Attributes,
    etag: String,
    version_id: String,
    last_modified: Timestamp,
}

/// What the store says of an object besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The size in bytes, which need not be that of the bytes: a test of publication needs no archive.
    pub size: u64,
    /// CRC-64/NVME, base64 of its eight bytes.
    pub crc64nvme: Option<String>,
    /// The ARN of the KMS key.
    pub sse_kms_key_id: Option<String>,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub operation: Operation,
    /// The key or prefix; empty for the clock.
    pub key: String,
    /// The condition of a write.
    pub condition: Option<Condition>,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 403, nothing happens.
    Denied,
    /// 503, nothing happens.
    Unavailable,
    /// The bucket is not there.
    NoSuchBucket,
    /// The call takes effect and its reply is lost.
    ReplyLost,
    /// The call takes effect, its reply is lost, and the client's own retry of a conditional write meets that effect.
    Retried,
    /// 409: another write to the key is under way; nothing happens.
    Conflict,
}

#[derive(Debug)]
struct Scripted {
    operation: Operation,
    key_part: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Memory {
    /// An empty bucket whose clock stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            deleted: BTreeSet::new(),
            calls: Vec::new(),
            script: Vec::new(),
            now,
            written: 0,
            stepping: false,
            ignores_conditions: false,
            keeps_crc: true,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Sets the store's clock.
    pub fn set_now(&self, now: Timestamp) {
        self.lock().now = now;
    }

    /// Makes every call wait until it is polled a second time, so that a test decides the order of concurrent calls.
    pub fn set_stepping(&self, stepping: bool) {
        self.lock().stepping = stepping;
    }

    /// Makes the store one that takes every write, whatever its condition.
    pub fn ignore_conditions(&self) {
        self.lock().ignores_conditions = true;
    }

    /// Makes the store one that keeps no CRC-64/NVME.
    pub fn forget_crc(&self) {
        self.lock().keeps_crc = false;
    }

    /// Lets the next call of `operation` on a key that contains `key_part` fail.
    pub fn fail(&self, operation: Operation, key_part: &str, fault: Fault) {
        self.script(operation, key_part, 0, 1, fault);
    }

    /// Lets `times` such calls fail, after `skip` of them went well.
    pub fn script(&self, operation: Operation, key_part: &str, skip: usize, times: usize, fault: Fault) {
        let key_part = key_part.to_owned();
        self.lock().script.push(Scripted { operation, key_part, skip, times, fault });
    }

    /// Writes an object behind the callers' back; the version that it gets.
    pub fn insert(&self, key: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let mut state = self.lock();
        let attributes = state.attributes(&bytes);
        state.write(key, bytes, attributes).version_id
    }

    /// Writes an object of which only these attributes matter; the version that it gets.
    pub fn insert_with(&self, key: &str, attributes: Attributes) -> String {
        self.lock().write(key, Bytes::new(), attributes).version_id
    }

    /// Removes an object with all its versions.
    pub fn remove(&self, key: &str) {
        self.lock().objects.remove(key);
    }

    /// The bytes of an object now.
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        self.lock().current(key).map(|stored| stored.bytes.clone())
    }

    /// The bytes of every version of an object, oldest first.
    pub fn history(&self, key: &str) -> Vec<Bytes> {
        self.lock().objects.get(key).into_iter().flatten().map(|stored| stored.bytes.clone()).collect()
    }

    /// Every key, in order.
    pub fn keys(&self) -> Vec<String> {
        let state = self.lock();
        state.objects.keys().filter(|key| !state.deleted.contains(*key)).cloned().collect()
    }

    /// The calls made since the last time that this was asked.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn, records the call and says how it fails.
    async fn begin(
        &self,
        operation: Operation,
        key: &str,
        condition: Option<&Condition>,
    ) -> Result<Option<Fault>, StoreError> {
        let mut waited = !self.lock().stepping;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let mut state = self.lock();
        state.calls.push(Call { operation, key: key.to_owned(), condition: condition.cloned() });
        let Some(fault) = state.next_fault(operation, key) else { return Ok(None) };
        let (bucket, key) = (BUCKET.to_owned(), key.to_owned());
        let source = "scripted".into();
        match fault {
            Fault::Denied => {
                let code = "AccessDenied, HTTP 403".to_owned();
                Err(StoreError::Denied { operation, bucket, key, code, source })
            }
            Fault::Unavailable => {
                let code = "SlowDown, HTTP 503".to_owned();
                Err(StoreError::Failed { operation, bucket, key, code, source })
            }
            Fault::NoSuchBucket => Err(StoreError::NoSuchBucket { operation, bucket, key }),
            Fault::ReplyLost | Fault::Retried | Fault::Conflict => Ok(Some(fault)),
        }
    }
}

fn lost(operation: Operation, key: &str) -> StoreError {
    StoreError::Failed {
        operation,
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        code: "no connection".to_owned(),
        source: "scripted".into(),
    }
}

/// The reply of a call without effects: it arrives, or it is lost.
fn reply<T>(fault: Option<Fault>, operation: Operation, key: &str, answer: T) -> Result<T, StoreError> {
    match fault {
        Some(Fault::ReplyLost) => Err(lost(operation, key)),
        // A retry of a call without effects is simply the answer.
        Some(Fault::Retried | Fault::Conflict | Fault::Denied | Fault::Unavailable | Fault::NoSuchBucket)
        | None => Ok(answer),
    }
}

impl ObjectStore for Memory {
    async fn get(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let fault = self.begin(Operation::Get, key, None).await?;
        let object = self.lock().find(key, version).map(|stored| Object {
            bytes: stored.bytes.clone(),
            etag: stored.etag.clone(),
            version_id: Some(stored.version_id.clone()),
            last_modified: stored.last_modified,
        });
        if object.as_ref().is_some_and(|object| object.bytes.len() as u64 > MAX_OBJECT_BYTES) {
            let (bucket, key) = (BUCKET.to_owned(), key.to_owned());
            return Err(StoreError::TooLarge { operation: Operation::Get, bucket, key });
        }
        reply(fault, Operation::Get, key, object)
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Put, PutError> {
        let fault = self.begin(Operation::Put, key, Some(&condition)).await?;
        let refused = || PutError::PreconditionFailed { key: key.to_owned() };
        if fault == Some(Fault::Conflict) {
            return Err(refused());
        }
        let mut state = self.lock();
        let current = state.current(key).map(|stored| &stored.etag);
        let holds = match &condition {
            Condition::None => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfMatch(etag) => current == Some(etag),
        };
        if !holds && !state.ignores_conditions {
            return Err(refused());
        }
        let attributes = state.attributes(&bytes);
        let written = state.write(key, bytes, attributes);
        match fault {
            Some(Fault::ReplyLost) => Err(lost(Operation::Put, key).into()),
            Some(Fault::Retried) if condition != Condition::None => Err(refused()),
            Some(
                Fault::Retried | Fault::Conflict | Fault::Denied | Fault::Unavailable | Fault::NoSuchBucket,
            )
            | None => Ok(Put { etag: written.etag, version_id: Some(written.version_id) }),
        }
    }

    async fn head(&self, key: &str, version: Option<&str>) -> Result<Option<Head>, StoreError> {
        let fault = self.begin(Operation::Head, key, None).await?;
        let head = self.lock().find(key, version).map(|stored| Head {
            size: stored.attributes.size,
            crc64nvme: stored.attributes.crc64nvme.clone(),
            version_id: Some(stored.version_id.clone()),
            etag: stored.etag.clone(),
            sse_kms_key_id: stored.attributes.sse_kms_key_id.clone(),
            metadata: BTreeMap::new(),
        });
        reply(fault, Operation::Head, key, head)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let fault = self.begin(Operation::List, prefix, None).await?;
        let listed = {
            let state = self.lock();
            let there = |key: &String| key.starts_with(prefix) && !state.deleted.contains(key);
            let current = state.objects.iter().filter(|(key, _)| there(key));
            current
                .filter_map(|(key, versions)| {
                    versions.last().map(|stored| Listed {
                        key: key.clone(),
                        size: stored.attributes.size,
                        last_modified: stored.last_modified,
                    })
                })
                .collect()
        };
        reply(fault, Operation::List, prefix, listed)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let fault = self.begin(Operation::Now, "", None).await?;
        let now = self.lock().now;
        reply(fault, Operation::Now, "", now)
    }
}

impl Deletion for Memory {
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let fault = self.begin(Operation::Delete, key, None).await?;
        self.lock().deleted.insert(key.to_owned());
        reply(fault, Operation::Delete, key, ())
    }
}

impl State {
    fn current(&self, key: &str) -> Option<&Stored> {
        self.objects.get(key).filter(|_| !self.deleted.contains(key)).and_then(|versions| versions.last())
    }

    fn find(&self, key: &str, version: Option<&str>) -> Option<&Stored> {
        match version {
            None => self.current(key),
            Some(version) => self.objects.get(key)?.iter().find(|stored| stored.version_id == version),
        }
    }

    fn attributes(&self, bytes: &Bytes) -> Attributes {
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, crc.to_be_bytes());
        Attributes {
            size: bytes.len() as u64,
            crc64nvme: self.keeps_crc.then_some(text),
            sse_kms_key_id: None,
        }
    }

    fn write(&mut self, key: &str, bytes: Bytes, attributes: Attributes) -> Stored {
        self.written += 1;
        let stored = Stored {
            bytes,
            attributes,
            etag: format!("\"{:032x}\"", self.written),
            version_id: format!("v{}", self.written),
            last_modified: self.now,
        };
        self.deleted.remove(key);
        self.objects.entry(key.to_owned()).or_default().push(stored.clone());
        stored
    }

    fn next_fault(&mut self, operation: Operation, key: &str) -> Option<Fault> {
        for scripted in &mut self.script {
            if scripted.operation != operation || !key.contains(&scripted.key_part) || scripted.times == 0 {
                continue;
            }
            if scripted.skip > 0 {
                scripted.skip -= 1;
                continue;
            }
            scripted.times -= 1;
            return Some(scripted.fault);
        }
        None
    }
}
