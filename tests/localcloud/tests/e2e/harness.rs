//! A small cloud per test, and short words for what tests do with it.

use std::path::PathBuf;

use localcloud::{
    cloud::{BUCKET, Cloud, Finished, Program},
    corpus::Corpus,
    indexer::Client,
    qdrant::{QdrantOptions, QdrantStandIn, Server, ServerOptions},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The alias that readers of `docs` use.
pub(crate) const ALIAS: &str = "docs-live";

/// A cloud with the stand-in, whose every piece goes when it is dropped.
pub(crate) struct Fixture {
    pub(crate) cloud: Cloud,
    _dir: TempDir,
}

/// The worker: a program of its own where `HOST_WORKER_BIN` names one, as CI does, and `localcloud` being it otherwise.
#[expect(clippy::disallowed_methods, reason = "the one switch of the end-to-end tests")]
fn program() -> Program {
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

    /// Makes a collection with the first `points` of the corpus.
    pub(crate) async fn load(&self, name: &str, points: usize) {
        let client = self.client();
        client.create_collection(&encoded(name)).await.unwrap();
        let corpus = Corpus::load().unwrap();
        assert_eq!(client.index(&encoded(name), corpus.points().take(points)).await.unwrap(), points as u64);
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
        self.cloud.qdrant = Server::choose(server(QdrantOptions::default())).await.unwrap();
        fs_err::remove_dir_all(self.cloud.work_dir()).unwrap();
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
        let finished = self.run(line).await;
        let said = finished.json().unwrap();
        assert_eq!(said["error"], kind, "{line}: {}\n{}", finished.stdout, finished.stderr);
        assert_eq!(finished.code(), Some(code), "{line}: {}", finished.stdout);
        said
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
        let mut files = Vec::new();
        let mut dirs = vec![self.cloud.qdrant.snapshots_dir().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs_err::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// The bucket's keys.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let s3 = self.cloud.s3.client().await;
        let listed = s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
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
        let corpus = Corpus::load().unwrap();
        let ids: Vec<_> = corpus.points().take(count).map(|point| point.unwrap().id).collect();
        let path = format!("/collections/{collection}/points/delete?wait=true");
        self.client().call(reqwest::Method::POST, &path, Some(&json!({ "points": ids }))).await.unwrap();
    }
}

/// A collection's name as a path segment.
pub(crate) fn encoded(name: &str) -> String {
    name.parse::<protocol::CollectionName>().unwrap().percent_encoded()
}

/// Backup ids have whole seconds: the next backup is another one only after the clock has moved on.
pub(crate) async fn next_second() {
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
}
