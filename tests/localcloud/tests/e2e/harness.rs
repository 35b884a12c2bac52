//! A small cloud per test, and short words for what tests do with it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use localcloud::{
    cloud::{self, BUCKET, Cloud, Finished, Program},
    corpus::Corpus,
    indexer::Client,
    qdrant::{QdrantOptions, QdrantStandIn, Server, ServerOptions},
    s3::Operation,
};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The alias that readers of `docs` use.
pub(crate) const ALIAS: &str = "docs-live";

/// How many points of a megabyte [`Fixture::large`] has: enough for three parts.
pub(crate) const LARGE_POINTS: u64 = 48;

/// A cloud with the stand-in, whose every piece goes when it is dropped.
pub(crate) struct Fixture {
    pub(crate) cloud: Cloud,
    _dir: TempDir,
}

/// The worker: a program of its own where `HOST_WORKER_BIN` names one, as CI does, and `localcloud` being it otherwise.
#[expect(clippy::disallowed_methods, reason = "the one switch of the end-to-end tests")]
pub(crate) fn program() -> Program {
    match std::env::var("HOST_WORKER_BIN") {
        Ok(path) => Program::HostWorker(PathBuf::from(path)),
        Err(_) => Program::Localcloud(PathBuf::from(env!("CARGO_BIN_EXE_localcloud"))),
    }
}

/// The Qdrant of this test target: the stand-in, or a real one and nothing else.
fn server(options: QdrantOptions) -> ServerOptions {
    ServerOptions { only_stand_in: !crate::REAL, only_real: crate::REAL, ..Cloud::protected(options) }
}

impl Fixture {
    /// A cloud with an empty Qdrant.
    pub(crate) async fn empty() -> Self {
        Self::with(QdrantOptions::default()).await
    }

    /// A cloud with an empty stand-in of this kind, or with a real server where this target is about those.
    pub(crate) async fn with(options: QdrantOptions) -> Self {
        let dir = TempDir::with_prefix("localcloud-e2e-").unwrap();
        let options = server(options);
        let cloud = Cloud::start(dir.path(), program(), options).await.unwrap();
        Self { cloud, _dir: dir }
    }

    /// A cloud whose Qdrant has `docs` with 300 points and an alias, and `notes` with 40 points and none.
    pub(crate) async fn loaded() -> Self {
        let fixture = Self::empty().await;
        fixture.load("docs", 300).await;
        fixture.client().create_alias(ALIAS, "docs").await.unwrap();
        fixture.load("notes", 40).await;
        fixture
    }

    /// A cloud whose Qdrant has `docs` with 60 points and an alias, and `notes` with 20 points: enough for most faults.
    pub(crate) async fn small() -> Self {
        let fixture = Self::empty().await;
        fixture.fill_small().await;
        fixture
    }

    /// A cloud whose Qdrant has a collection `large` of some 48 MB that hardly compress.
    pub(crate) async fn large() -> Self {
        let fixture = Self::empty().await;
        let vectors = json!({ "vectors": { "size": 4, "distance": "Dot" } });
        fixture.call(Method::PUT, "/collections/large", vectors).await;
        for number in 0..LARGE_POINTS {
            let blob = STANDARD.encode(noise(number, 786_432));
            let point = json!({ "id": number, "vector": [1, 2, 3, number], "payload": { "blob": blob } });
            let points = json!({ "points": [point] });
            fixture.call(Method::PUT, "/collections/large/points?wait=true", points).await;
        }
        fixture
    }

    /// What [`small`](Self::small) has.
    pub(crate) async fn fill_small(&self) {
        self.load("docs", 60).await;
        self.client().create_alias(ALIAS, "docs").await.unwrap();
        self.load("notes", 20).await;
    }

    /// A cloud that has the data of [`small`](Self::small), in a Qdrant of this kind.
    pub(crate) async fn small_with(options: QdrantOptions) -> Self {
        let fixture = Self::with(options).await;
        fixture.fill_small().await;
        fixture
    }

    /// Makes a collection with the first `points` of the corpus.
    pub(crate) async fn load(&self, name: &str, points: usize) {
        let client = self.client();
        client.create_collection(&encoded(name)).await.unwrap();
        assert_eq!(
            client.index(&encoded(name), corpus().points().take(points)).await.unwrap(),
            points as u64
        );
    }

    /// A client of Qdrant with the read-write key.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.cloud.qdrant.url(), self.cloud.qdrant.api_key())
    }

    /// The stand-in, for its faults.
    pub(crate) fn stand_in(&self) -> &QdrantStandIn {
        self.cloud.qdrant.stand_in().unwrap()
    }

    /// Replaces the host: a new, empty Qdrant and an empty work directory.
    pub(crate) async fn replace_host(&mut self) {
        self.replace_host_with(QdrantOptions::default()).await;
    }

    /// Replaces the host by one with a Qdrant of this kind.
    pub(crate) async fn replace_host_with(&mut self, options: QdrantOptions) {
        self.cloud.qdrant = Server::choose(server(options)).await.unwrap();
        fs_err::remove_dir_all(self.cloud.work_dir()).unwrap();
    }

    /// The worker with `--json`, ready to be changed and started.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.cloud.worker(line.split_whitespace()).unwrap();
        command.arg("--json");
        command
    }

    /// Starts the worker and does not wait for it.
    pub(crate) fn start(&self, line: &str) -> Running {
        Running::start(&mut self.command(line))
    }

    /// Runs the worker as a person does, without `--json`.
    pub(crate) async fn person(&self, line: &str) -> Finished {
        cloud::finish(&mut self.cloud.worker(line.split_whitespace()).unwrap()).await.unwrap()
    }

    /// Runs the worker to its end.
    pub(crate) async fn run(&self, line: &str) -> Finished {
        self.cloud.run(line.split_whitespace()).await.unwrap()
    }

    /// Runs the worker, which must succeed; gives its result.
    pub(crate) async fn ok(&self, line: &str) -> Value {
        self.run(line).await.success().unwrap()
    }

    /// Runs the worker, which must fail with this kind and code; gives what it said.
    pub(crate) async fn fails(&self, line: &str, kind: &str, code: i32) -> Value {
        failed(&self.run(line).await, kind, code)
    }

    /// A backup without waiting for quiescence, which takes seconds; gives its manifest.
    pub(crate) async fn backup(&self) -> Value {
        self.ok("backup --no-quiesce").await["manifest"].clone()
    }

    /// The names of all collections.
    pub(crate) async fn collections(&self) -> Vec<String> {
        let answer = self.client().call(reqwest::Method::GET, "/collections", None).await.unwrap();
        let mut names: Vec<String> = answer["collections"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Alias to collection.
    pub(crate) async fn aliases(&self) -> Value {
        let answer = self.client().call(reqwest::Method::GET, "/aliases", None).await.unwrap();
        let pairs = answer["aliases"].as_array().unwrap();
        pairs
            .iter()
            .map(|a| (a["alias_name"].as_str().unwrap().to_owned(), a["collection_name"].clone()))
            .collect()
    }

    /// Every file below Qdrant's snapshots directory.
    pub(crate) fn snapshot_files(&self) -> Vec<PathBuf> {
        files_below(self.cloud.qdrant.snapshots_dir())
    }

    /// The names of the snapshots of a collection that lie on the disk.
    pub(crate) fn snapshots_of(&self, collection: &str) -> Vec<String> {
        let dir = self.cloud.qdrant.snapshots_dir().join(collection);
        let Ok(entries) = fs_err::read_dir(dir) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".snapshot")).collect()
    }

    /// How many multipart uploads are left.
    pub(crate) async fn uploads(&self) -> usize {
        let s3 = self.cloud.s3.client().await;
        let listed = s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
        listed.uploads().len()
    }

    /// Fails if a backup that failed before anything was stored has left anything: in the bucket, or on the host.
    pub(crate) async fn assert_nothing_left(&self) {
        self.cloud.s3.faults().clear();
        assert_eq!(self.keys().await, [""; 0], "an object stays");
        assert_eq!(self.uploads().await, 0, "a multipart upload stays");
        assert_eq!(self.snapshot_files(), Vec::<PathBuf>::new(), "a snapshot stays");
    }

    /// Fails if a restore into an empty Qdrant that failed has left anything.
    pub(crate) async fn assert_nothing_restored(&self) {
        assert_eq!(self.collections().await, [""; 0], "a collection stays");
        assert_eq!(self.aliases().await, json!({}), "an alias stays");
        assert_eq!(self.snapshot_files(), Vec::<PathBuf>::new(), "a staged file stays");
    }

    /// Replaces the host and restores the newest backup, which must verify.
    pub(crate) async fn restores(&mut self) -> Value {
        self.replace_host().await;
        let restored = self.ok("restore").await;
        assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
        restored
    }

    /// The exact number of points.
    pub(crate) async fn count(&self, collection: &str) -> u64 {
        self.client().count(&encoded(collection)).await.unwrap()
    }

    /// Makes a call of Qdrant, which must succeed.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        self.client().call(method, path, Some(&body)).await.unwrap()
    }

    /// Waits until S3 is asked for this.
    pub(crate) async fn until_asked(&self, operation: Operation) {
        until(|| self.cloud.s3.count(operation) > 0).await;
    }

    /// The parts that S3 has confirmed.
    pub(crate) fn stored_parts(&self) -> Vec<u32> {
        let calls = self.cloud.s3.calls();
        let stored =
            calls.iter().filter(|call| call.operation == Operation::UploadPart && call.status == Some(200));
        stored.filter_map(|call| call.part_number).collect()
    }

    /// Lets the calls of S3 be counted from now on.
    pub(crate) fn forget_calls(&self) {
        let _forgotten = self.cloud.s3.take_calls();
    }

    /// Waits until Qdrant is asked for this.
    pub(crate) async fn until_qdrant_is_asked(&self, method: &str, path: &str) {
        until(|| self.stand_in().calls().iter().any(|call| call.method == method && call.path == path)).await;
    }

    /// The bucket's keys, without the one small object by which the worker tries the store, which is always the same and stays.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let s3 = self.cloud.s3.client().await;
        let listed = s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        let keys = listed.contents().iter().map(|object| object.key().unwrap().to_owned());
        keys.filter(|key| !key.ends_with("/.doctor")).collect()
    }

    /// The pointer's backup, if there is a pointer.
    pub(crate) async fn pointer(&self) -> Option<String> {
        let path = self.cloud.object_path(protocol::key::POINTER);
        let bytes = fs_err::read(path).ok()?;
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        Some(manifest["backup_id"].as_str().unwrap().to_owned())
    }

    /// Deletes some points, so that a collection changes.
    pub(crate) async fn delete_points(&self, collection: &str, count: usize) {
        let ids: Vec<_> = corpus().points().take(count).map(|point| point.unwrap().id).collect();
        let path = format!("/collections/{collection}/points/delete?wait=true");
        self.client().call(reqwest::Method::POST, &path, Some(&json!({ "points": ids }))).await.unwrap();
    }
}

/// Bytes that do not compress, a function of `seed`: SplitMix64, which is quick without optimisation.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let word = |number: u64| {
        let word = seed.wrapping_mul(len as u64).wrapping_add(number).wrapping_mul(STEP);
        let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    };
    (0..len as u64 / 8).flat_map(|number| word(number).to_le_bytes()).collect()
}

/// The corpus: read once, for it never changes.
pub(crate) fn corpus() -> &'static Corpus {
    static CORPUS: OnceLock<Corpus> = OnceLock::new();
    CORPUS.get_or_init(|| Corpus::load().unwrap())
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn finished(self) -> Finished {
        let output = self.child.wait_with_output().await.unwrap();
        Finished {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn finish(command: &mut Command) -> Finished {
    cloud::finish(command).await.unwrap()
}

/// Fails unless the worker failed with this kind and code; gives what it said.
pub(crate) fn failed(finished: &Finished, kind: &str, code: i32) -> Value {
    let said = finished.json().unwrap();
    assert_eq!(said["error"], kind, "{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code(), Some(code), "{}", finished.stdout);
    said
}

/// Fails unless what the worker said (message, causes, hint) contains all of these.
pub(crate) fn says(said: &Value, texts: &[&str]) {
    let all = said.to_string();
    for text in texts {
        assert!(all.contains(text), "`{text}` is not said: {said:#}");
    }
}

/// Waits until something holds, at most 30 seconds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never came to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every file below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files
}

/// The key of a backup's archive.
pub(crate) fn archive(manifest: &Value) -> String {
    manifest["key"].as_str().unwrap().to_owned()
}

/// The key of the file beside a backup's archive: `frames` or `golden`.
pub(crate) fn beside(manifest: &Value, what: &str) -> String {
    archive(manifest).replace(".tar.zst", &format!(".{what}.json.zst"))
}

/// A backup's id.
pub(crate) fn id(manifest: &Value) -> &str {
    manifest["backup_id"].as_str().unwrap()
}

/// A collection's name as a path segment.
pub(crate) fn encoded(name: &str) -> String {
    name.parse::<protocol::CollectionName>().unwrap().percent_encoded()
}

/// Backup ids have whole seconds: the next backup is another one only after the clock has moved on.
pub(crate) async fn next_second() {
    let into_second = u64::try_from(jiff::Timestamp::now().subsec_millisecond()).unwrap();
    tokio::time::sleep(Duration::from_millis(1_010 - into_second)).await;
}
