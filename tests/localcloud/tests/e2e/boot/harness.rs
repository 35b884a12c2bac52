//! A host that was lost, and the instance that takes its place.

use localcloud::{
    instance::{Instance, InstanceOptions},
    s3::Operation,
};
use serde_json::Value;

use crate::harness::{Fixture, Running, failed, program};

/// The steps of a boot, in their order.
const STEPS: [&str; 13] = [
    "disks",
    "choose",
    "clear",
    "room",
    "start",
    "restore",
    "move",
    "warm-up",
    "mark",
    "address",
    "serve",
    "lifecycle",
    "done",
];

/// A cloud whose host is lost, and a new instance with an empty disk.
pub(crate) struct Replaced {
    pub(crate) instance: Instance,
    pub(crate) fixture: Fixture,
    /// What was backed up last.
    pub(crate) manifest: Value,
}

impl Replaced {
    /// After a backup of [`Fixture::small`].
    pub(crate) async fn small() -> Self {
        let fixture = Fixture::small().await;
        fixture.backup().await;
        Self::with(fixture, |_| {}).await
    }

    /// After whatever `fixture` has stored, where nobody can say what was published.
    pub(crate) async fn with_lost_pointer(fixture: Fixture) -> Self {
        Self::of(fixture, Value::Null, InstanceOptions::default()).await
    }

    /// After whatever `fixture` has stored, with other options of the instance.
    pub(crate) async fn with(fixture: Fixture, change: impl FnOnce(&mut InstanceOptions)) -> Self {
        let mut options = InstanceOptions::default();
        change(&mut options);
        let manifest = match fixture.pointer().await {
            Some(_) => fixture.ok("show").await,
            None => Value::Null,
        };
        Self::of(fixture, manifest, options).await
    }

    async fn of(mut fixture: Fixture, manifest: Value, options: InstanceOptions) -> Self {
        fixture.cloud.qdrant.kill().await.unwrap();
        let dir = fixture.cloud.dir().join("instance");
        fs_err::create_dir_all(&dir).unwrap();
        let instance = Instance::launch(&dir, &program(), &fixture.cloud.s3, options).unwrap();
        fixture.forget_calls();
        Self { instance, fixture, manifest }
    }

    /// Runs the worker on the instance, which must succeed.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> Value {
        self.instance.run(arguments).await.unwrap().success().unwrap()
    }

    /// Runs the worker on the instance, which must fail so.
    pub(crate) async fn fails(&self, arguments: &[&str], kind: &str, code: i32) -> Value {
        failed(&self.instance.run(arguments).await.unwrap(), kind, code)
    }

    /// Boots, which must end with a host that serves.
    pub(crate) async fn boots(&self) -> Value {
        let result = self.ok(&["boot"]).await;
        assert_eq!(result["outcome"], "serving", "{result:#}");
        result
    }

    /// Starts a boot and does not wait for it.
    pub(crate) fn start(&self) -> Running {
        Running::start(&mut self.instance.worker(&["boot", "--json"]))
    }

    /// What is on the disk of the boot, if anything is.
    pub(crate) fn record(&self) -> Option<Value> {
        let bytes = fs_err::read(self.instance.work_dir().join("boot.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Waits until the boot has come to this step, or further.
    pub(crate) async fn until_reached(&self, step: &str) {
        let place = |name: &str| STEPS.iter().position(|step| *step == name).unwrap();
        let reached = |_: &Instance| {
            let at = self.record().and_then(|record| record["step"].as_str().map(place));
            at.is_some_and(|at| at >= place(step))
        };
        self.instance.until(step, reached).await.unwrap();
    }

    /// The kind of failure that the boot is held by.
    pub(crate) fn held(&self) -> Option<String> {
        self.record()?["held"]["kind"].as_str().map(str::to_owned)
    }

    /// Waits until the boot is held by this kind of failure; gives what the record says of it.
    pub(crate) async fn until_held(&self, kind: &str) -> Value {
        let held = self.instance.until("the boot is held", |_| self.held().as_deref() == Some(kind)).await;
        held.unwrap_or_else(|error| panic!("{error:#}: {:#}", self.record().unwrap_or_default()));
        self.record().unwrap()["held"].clone()
    }

    /// Whether anybody is served.
    pub(crate) async fn serves(&self) -> bool {
        self.instance.client().count("docs").await.is_ok()
    }

    /// Fails unless [`Fixture::small`] is there at the address that clients know.
    pub(crate) async fn assert_serves_what_was_lost(&self) {
        let client = self.instance.client();
        assert_eq!((client.count("docs").await.unwrap(), client.count("notes").await.unwrap()), (60, 20));
        assert_eq!(client.count(crate::harness::ALIAS).await.unwrap(), 60, "the alias is lost");
    }

    /// How often S3 was asked for an archive since the last look.
    pub(crate) fn downloads_of_archives(&self) -> usize {
        let calls = self.fixture.cloud.s3.calls();
        let archive = |key: &Option<String>| key.as_deref().is_some_and(|key| key.ends_with(".tar.zst"));
        calls.iter().filter(|call| call.operation == Operation::GetObject && archive(&call.key)).count()
    }

    /// How often S3 was asked for objects since the last look.
    pub(crate) fn downloads(&self) -> usize {
        self.fixture.cloud.s3.count(Operation::GetObject)
    }
}

/// What took how long.
pub(crate) fn steps(result: &Value) -> Vec<(String, f64)> {
    let steps = result["record"]["steps"].as_array().unwrap();
    let pair = |step: &Value| (step["step"].as_str().unwrap().to_owned(), step["seconds"].as_f64().unwrap());
    steps.iter().map(pair).collect()
}
