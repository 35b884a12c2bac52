//! What the tests of all functions stand on: a bucket and hosts in memory, a backup in every stage; and what holds for all functions alike.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};

use catalog::{
    Catalog, PublishPolicy,
    store::{Attributes, Memory as Bucket},
};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::Diagnostic;
use protocol::{
    AttemptId, BackupId, FailureKind, Layout, Manifest, SuccessMarker, key,
    manifest::{Archive, ArchiveEntry, CollectionRecord, FORMAT_VERSION, GoldenSummary, QdrantServer, Tool},
    task::Stored,
};
use serde_json::{Value, json};
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

use crate::{
    Error, Function, Reply, Settings, handle,
    hosts::{Call, HostsError, InstanceId, Invocation, Memory as Hosts, Plan, Refusal, Tag},
};

/// A token as Step Functions makes them, in length and alphabet.
pub(crate) const TOKEN: &str =
    "AQCEAAAAKgAAAAMAAAAAAAAAAfX+/Qkq7bTtZWUy0nwkbqUdK1OXk0nqQf4gG9vLQ2Vw6fYq1mXb8A==";
/// The key that archives are encrypted with.
pub(crate) const KMS_KEY: &str =
    "arn:aws:kms:eu-central-1:111122223333:key/0b8f6c1e-7a55-4c3e-9d52-1f1f1f1f1f1f";
/// Production and staging.
pub(crate) const HOST_TAG: &str = "Role=qdrant";
pub(crate) const STAGING_TAG: &str = "Role=qdrant-staging";

/// The beginning of all tests: backup `n` is started `n` minutes later.
pub(crate) fn minute(n: i64) -> Timestamp {
    "2026-11-23T05:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(n)
}

pub(crate) fn id(n: i64) -> BackupId {
    BackupId::from_time(minute(n)).unwrap()
}

pub(crate) fn layout() -> Layout {
    Layout::new(key::DEFAULT_PREFIX.parse().unwrap())
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub(crate) fn host(n: u32) -> InstanceId {
    format!("i-{n:017x}").parse().unwrap()
}

/// Everything that a function is given, two hours after the beginning.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) bucket: Bucket,
    pub(crate) hosts: Hosts,
    pub(crate) now: Timestamp,
}

impl World {
    /// A bucket with nothing in it, and no hosts.
    pub(crate) fn empty() -> Self {
        let values = BTreeMap::from([
            ("QDRANT_BACKUP_BUCKET", "memory"),
            ("QDRANT_BACKUP_DOCUMENT", "qdrant-host-task"),
            ("QDRANT_BACKUP_HOST_TAG", HOST_TAG),
            ("QDRANT_BACKUP_STAGING_TAG", STAGING_TAG),
            ("QDRANT_BACKUP_KMS_KEY", KMS_KEY),
        ]);
        let settings =
            Settings::from_lookup(|name| values.get(name).map(|value| (*value).to_owned())).unwrap();
        Self { settings, bucket: Bucket::new(minute(120)), hosts: Hosts::new(), now: minute(120) }
    }

    /// The same with a production host and a staging host.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        world.hosts.add(&host(1), "Online", &[&tag(HOST_TAG)]);
        world.hosts.add(&host(2), "Online", &[&tag(STAGING_TAG)]);
        world
    }

    pub(crate) fn catalog(&self) -> Catalog<Bucket> {
        Catalog::new(self.bucket.clone(), "memory", layout())
    }

    pub(crate) async fn call(&self, function: Function, event: Value) -> Result<Reply, Error> {
        handle(function, &self.settings, &self.catalog(), &self.hosts, event, self.now).await
    }

    /// Puts the indexing job's success marker.
    pub(crate) fn mark(&self, batch: &str, finished_at: Timestamp) {
        self.bucket
            .insert(key::DEFAULT_SUCCESS_MARKER, serde_json::to_vec(&marker(batch, finished_at)).unwrap());
    }

    /// Stores the archive and what belongs to it, the manifest that is handed over among it.
    pub(crate) fn store(&self, mut manifest: Manifest) -> Stored {
        let attributes = Attributes {
            size: manifest.size_bytes,
            crc64nvme: Some(manifest.crc64nvme.clone()),
            sse_kms_key_id: Some(KMS_KEY.to_owned()),
        };
        manifest.version_id = Some(self.bucket.insert_with(&manifest.key.to_string(), attributes));
        for key in [manifest.key.frames(), manifest.key.golden()] {
            self.bucket.insert(&key, "not looked into");
        }
        let bytes = manifest.to_json();
        self.bucket.insert(&manifest.key.manifest(), bytes.clone());
        Stored {
            backup_id: manifest.backup_id,
            key: manifest.key.clone(),
            manifest_sha256: Manifest::digest(&bytes),
            size_bytes: manifest.size_bytes,
            collections: 1,
            points: 1000,
            read_back: false,
            resumed: false,
            timings: Vec::new(),
        }
    }

    /// Stores and publishes a backup.
    pub(crate) async fn publish(&self, manifest: Manifest) {
        let key = manifest.key.manifest();
        self.store(manifest);
        let manifest = Manifest::from_json(&self.bucket.bytes(&key).unwrap()).unwrap();
        self.catalog().publish(&manifest, &PublishPolicy::default()).await.unwrap();
    }
}

pub(crate) fn marker(batch: &str, finished_at: Timestamp) -> SuccessMarker {
    SuccessMarker {
        batch_id: batch.to_owned(),
        finished_at,
        expected_counts: BTreeMap::new(),
        id_scheme: None,
    }
}

/// Backup `n`, with collection `docs` of 1000 points.
pub(crate) fn manifest(n: i64) -> Manifest {
    with_points(n, 1000)
}

pub(crate) fn with_points(n: i64, points: u64) -> Manifest {
    let sha256 = "ab".repeat(32);
    let key = layout().archive(id(n), AttemptId::from_bits(u32::try_from(n).unwrap()));
    let entry = "snapshots/docs/docs-1.snapshot".to_owned();
    Manifest {
        backup_and_restore_path: "/workspace/qdrant/data/".to_owned(),
        latest_snapshot: key.file_name(),
        latest_snapshot_from_path: "/workspace/qdrant/snapshots".to_owned(),
        latest_snapshot_to_path: format!("s3://memory/{key}"),
        latest_snapshot_size_in_mb: 20.5,
        multipart_upload_concurrency: 8,
        latest_snapshot_upload_duration_in_seconds: 1.25,
        format_version: FORMAT_VERSION,
        backup_id: id(n),
        created_at: minute(n),
        key,
        size_bytes: 20_500_000,
        sha256: sha256.clone(),
        crc64nvme: "rosUhgp5mIg=".to_owned(),
        version_id: None,
        archive: Archive {
            raw_bytes: 30_000_000,
            frame_count: 7,
            frames_root: sha256.clone(),
            golden_sha256: sha256.clone(),
            entries: vec![ArchiveEntry {
                name: entry.clone(),
                size: 29,
                sha256: sha256.clone(),
                first_frame: 1,
                raw_offset: 512,
            }],
        },
        qdrant: QdrantServer { version: "1.18.3".to_owned(), image: None },
        collections: vec![CollectionRecord {
            name: "docs".parse().unwrap(),
            snapshot: "docs-1.snapshot".to_owned(),
            entry,
            size_bytes: 29,
            sha256,
            points_before: points,
            points_after: points,
            written_during_backup: false,
            config: json!({}),
            payload_schema: BTreeMap::new(),
            golden: GoldenSummary { points: 1, changed: 0, searches: 1, recall: Some(1.0) },
        }],
        aliases: BTreeMap::new(),
        quiesced: true,
        indexing: None,
        origin: None,
        partial: false,
        timings: Vec::new(),
        tool: Tool { name: "host-worker".to_owned(), version: "0.1.0".to_owned() },
        previous: None,
    }
}

/// A backup that covers a batch, finished five minutes before it.
pub(crate) fn of_batch(n: i64, batch: &str) -> Manifest {
    Manifest { indexing: Some(marker(batch, minute(n - 5))), ..manifest(n) }
}

/// What `decide` answered for backup `n`.
pub(crate) fn decided(n: i64) -> Value {
    json!({
        "decision": "Proceed", "backup_id": id(n), "trigger": "schedule", "force": false, "collections": [],
        "reason": "asked for by schedule",
    })
}

/// The event by which a state hands over a task of backup `n`.
pub(crate) fn task_event(operation: &str, n: i64) -> Value {
    json!({
        "operation": operation, "backup": decided(n), "execution": "nightly-1", "entered_at": "2026-11-23T05:14:01.25Z",
        "retry_count": 2, "token": TOKEN,
    })
}

pub(crate) fn drill_event() -> Value {
    json!({
        "operation": "dispatch", "backup_id": id(10), "instance_id": host(2), "execution": "drill-1",
        "entered_at": "2026-11-23T05:14:01.25Z", "retry_count": 0, "token": TOKEN,
    })
}

/// A command that has ended.
pub(crate) fn ended(status: &str, exit_code: Option<i32>, stdout: &str, stderr: &str) -> Invocation {
    Invocation { status: status.to_owned(), exit_code, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

/// What Step Functions is told.
pub(crate) fn told(outcome: Result<Reply, Error>) -> (FailureKind, String) {
    let diagnostic = Diagnostic::from(outcome.unwrap_err());
    (diagnostic.error_type.parse().unwrap(), diagnostic.error_message)
}

/// The names and values that are counted.
pub(crate) fn counted(reply: &Reply) -> BTreeMap<&'static str, Value> {
    reply.metrics.iter().map(|metric| (metric.name(), metric.value().clone())).collect()
}

#[test]
fn functions_have_the_names_of_their_programs() {
    for function in Function::ALL {
        assert_eq!(function.name().parse(), Ok(function));
        let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/bin/{function}.rs"));
        assert!(program.is_file(), "{} is not there", program.display());
    }
    let known = "dispatch".parse::<Function>().unwrap_err().to_string();
    assert!(Function::ALL.iter().all(|function| known.contains(function.name())), "{known}");
}

#[tokio::test]
async fn every_function_says_what_it_can_do() {
    let world = World::new();
    for (function, event, says) in [
        (Function::QuiesceCheck, json!({}), "`operation` cannot be used: it is missing"),
        (
            Function::QuiesceCheck,
            json!({"operation": "backup"}),
            "`backup` is not known here; hint: it has the form {\"operation\":\"decide|quiesce|freshness\"",
        ),
        (Function::TriggerSnapshot, json!({"operation": "quiesce"}), "`quiesce` is not known here"),
        (Function::TriggerSnapshot, json!(null), "it is missing"),
        (Function::VerifyRestore, json!({"operation": 7}), "it is missing"),
        (Function::VerifyRestore, json!({"operation": "verdict"}), "missing field `drilled`"),
        (Function::PublishManifest, json!({"operation": "publish"}), "unknown field `operation`"),
        (Function::PublishManifest, json!([]), "it is not an object"),
    ] {
        let (kind, message) = told(world.call(function, event).await);
        assert_eq!(kind, FailureKind::ConfigInvalid, "{message}");
        assert!(
            message.contains(says) && message.contains("; hint: it has the form"),
            "{function}: {message}"
        );
    }
    assert_eq!(world.hosts.sent(), []);
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Whether anybody listens to a place in the code is found out when it is first come to. A test beside this one, which has no subscriber, may be just finding out that
/// nobody does. So this asks anew until the answer is right, and forgets what was logged meanwhile.
async fn until_all_is_logged(lines: &Lines) {
    for _ in 0..10_000 {
        tracing::callsite::rebuild_interest_cache();
        let asked = World::new();
        asked.publish(manifest(1)).await;
        asked.call(Function::QuiesceCheck, task_event("quiesce", 14)).await.unwrap();
        let logged = String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();
        if logged.contains("the task is sent") && logged.contains("nightly-1") {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the log never has all that is said");
}

#[tokio::test(start_paused = true)]
async fn a_token_goes_into_the_command_and_nowhere_else() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(LevelFilter::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(lines.clone())
        .finish();
    // With two of them a place is asked of both, whoever comes to it, and not of its own thread's alone.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    until_all_is_logged(&lines).await;
    let quoting = |call, refusal| HostsError {
        call,
        refusal,
        detail: format!("InvalidParameters: `{TOKEN}` is not allowed"),
    };
    let document = json!({
        "error": "Busy", "transient": true, "message": format!("with {TOKEN}"), "causes": [TOKEN], "hint": format!("not {TOKEN}"),
    });
    let mut said = String::new();
    for (function, event) in [
        (Function::QuiesceCheck, task_event("quiesce", 14)),
        (Function::TriggerSnapshot, task_event("backup", 14)),
        (Function::VerifyRestore, drill_event()),
    ] {
        let world = World::new();
        world.publish(manifest(1)).await;
        let mut call = async |event: Value| {
            said.push_str(&match world.call(function, event).await {
                Ok(reply) => format!("{reply:?}"),
                Err(error) => format!("{error:?} {error} {:?}", Diagnostic::from(&error)),
            })
        };
        call(event.clone()).await;
        assert_eq!(world.hosts.sent().len(), 1);
        assert_eq!(world.hosts.sent()[0].command.parameters["TaskToken"], TOKEN);
        said_of(&world, &mut call, &event, quoting, &document.to_string()).await;
    }
    drop(guard);
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("the task is sent") && logged.contains("nightly-1"), "{logged}");
    for text in [&said, &logged] {
        let at = text.find(&TOKEN[..16]);
        assert_eq!(at, None, "{}", at.map_or("", |at| &text[at.saturating_sub(300)..at]));
    }
    assert!(said.contains("InvalidParameters: `…` is not allowed"), "{said}");
}

/// Every way in which a token may come back.
async fn said_of(
    world: &World,
    call: &mut impl AsyncFnMut(Value),
    event: &Value,
    quoting: impl Fn(Call, Refusal) -> HostsError,
    document: &str,
) {
    for refusal in [Refusal::Host, Refusal::Access, Refusal::Parameters, Refusal::Transient, Refusal::Other] {
        world.hosts.fail(quoting(Call::Send, refusal));
        call(event.clone()).await;
    }
    world.hosts.fail(quoting(Call::Look, Refusal::Other));
    call(event.clone()).await;
    let stderr = format!("sh: SSM_TaskToken={TOKEN}\n{TOKEN}");
    for invocation in [
        ended("Failed", Some(1), document, &stderr),
        ended("Failed", Some(127), "", &stderr),
        ended("Failed", Some(1), TOKEN, &stderr),
        ended("Failed", Some(1), "", &format!("{stderr} SSM agent is too old")),
        ended("Execution Timed Out", None, TOKEN, &stderr),
        ended("Success", Some(0), TOKEN, &stderr),
    ] {
        world.hosts.plan(Plan(vec![Some(invocation)]));
        call(event.clone()).await;
    }
    for field in ["execution", "entered_at", "retry_count", "instance_id", "backup", "backup_id", "operation"]
    {
        let mut wrong = event.clone();
        wrong[field] = json!(TOKEN);
        call(wrong).await;
    }
}
