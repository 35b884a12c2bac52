//! What a boot costs beside its parts, and how much disk it needs: `cargo bench -p localcloud --bench boot`.
//!
//! Side by side, in turn: a `restore` into an empty Qdrant, of which only downloading (with decoding and writing) and Qdrant's own recovery count; and a
//! whole `boot` of a blank instance until Qdrant answers at its address. Rounds alternate, medians are compared, and what the rest of a boot is made of is said.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which ends where it cannot measure"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use localcloud::{
    cloud::{Cloud, Program},
    corpus::Corpus,
    indexer::Client,
    instance::{Instance, InstanceOptions},
    qdrant::{QdrantOptions, ServerOptions},
};
use serde_json::Value;

const ROUNDS: usize = 5;
const POINTS: usize = 60_000;

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(bench());
}

async fn bench() {
    let dir = tempfile::TempDir::with_prefix("bench-boot-").unwrap();
    let program = Program::Localcloud(PathBuf::from(env!("CARGO_BIN_EXE_localcloud")));
    let server = ServerOptions { only_stand_in: true, ..Cloud::protected(QdrantOptions::default()) };
    let mut cloud = Cloud::start(dir.path(), program.clone(), server).await.unwrap();
    let corpus = Corpus::load().unwrap();
    let client = Client::new(&cloud.qdrant.url(), cloud.qdrant.api_key());
    for (name, points) in [("docs", POINTS), ("more", POINTS / 3)] {
        client.create_collection(name).await.unwrap();
        client.index(name, corpus.extension(points)).await.unwrap();
    }
    let backup = cloud.run(["backup", "--no-quiesce"]).await.unwrap().success().unwrap();
    let sizes: Vec<u64> = backup["manifest"]["collections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|collection| collection["size_bytes"].as_u64().unwrap())
        .collect();
    let (largest, all) = (*sizes.iter().max().unwrap(), sizes.iter().sum::<u64>());
    cloud.qdrant.kill().await.unwrap();
    println!(
        "{} collections, {:.0} MB of snapshots, the largest of {:.0} MB",
        sizes.len(),
        mb(all),
        mb(largest)
    );

    let host = dir.path().join("instance");
    fs_err::create_dir_all(&host).unwrap();
    // The stand-in compares every vector in a search: one round is all the warming that there is to measure.
    let targets = "search-milliseconds = 5000".to_owned();
    let options = InstanceOptions { divisor: 1, targets, ..InstanceOptions::default() };
    let mut instance = Instance::launch(&host, &program, &cloud.s3, options).unwrap();
    let (mut parts, mut boots, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=ROUNDS {
        parts.push(parts_alone(&mut instance).await);
        instance.replace().await.unwrap();
        // Beside the data, which the stand-in writes when it ends: what is staged for it.
        let staged = instance.workspace().join("snapshots");
        let watch = Watch::start(&staged);
        let booted = instance.run(&["boot"]).await.unwrap().success().unwrap();
        let (peak, end) = watch.stop(&staged);
        peaks.push(peak.saturating_sub(end));
        boots.push(booted["record"]["serving_after_seconds"].as_f64().unwrap());
        for step in booted["record"]["steps"].as_array().unwrap() {
            let name = step["step"].as_str().unwrap().to_owned();
            steps.entry(name).or_default().push(step["seconds"].as_f64().unwrap());
        }
        println!("round {round}: parts {:.2} s, boot {:.2} s", parts[round - 1], boots[round - 1]);
    }
    let (part, boot) = (median(&parts), median(&boots));
    println!("\nmedians: parts {part:.2} s, boot {boot:.2} s: {:.2} times as long (goal: 1.15)", boot / part);
    for (step, seconds) in &steps {
        println!("  {step:<10} {:.2} s", median(seconds));
    }
    let peak = peaks.iter().max().unwrap();
    println!(
        "disk beyond what stays, at most: {:.0} MB, {:.2} of the largest snapshot",
        mb(*peak),
        *peak as f64 / largest as f64
    );
}

/// Downloading and recovering, by a restore into an empty Qdrant on the same instance.
async fn parts_alone(instance: &mut Instance) -> f64 {
    instance.replace().await.unwrap();
    let mut server = localcloud::qdrant::QdrantStandIn::start(QdrantOptions {
        api_key: Some(localcloud::cloud::API_KEY.to_owned()),
        storage_dir: Some(instance.workspace().join("data")),
        snapshots_dir: Some(instance.workspace().join("snapshots")),
        ..QdrantOptions::default()
    })
    .await
    .unwrap();
    let url = server.url();
    let restored = instance.run(&["--qdrant-url", &url, "restore"]).await.unwrap().success().unwrap();
    // It writes its data when it ends, which must not be after the disk is gone.
    server.kill().await;
    let timings = restored["timings"].as_array().unwrap();
    let counts = |timing: &&Value| ["download", "recover"].contains(&timing["phase"].as_str().unwrap());
    timings.iter().filter(counts).map(|timing| timing["seconds"].as_f64().unwrap()).sum()
}

/// Looks again and again at how much lies below a directory.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(dir: &Path) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (dir, stopped, seen) = (dir.to_owned(), Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(below(&dir), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, most, thread }
    }

    /// The most that was there, and what is there now.
    fn stop(self, dir: &Path) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.most.load(Ordering::Relaxed), below(dir))
    }
}

/// Bytes on the disk: what is allocated, so that holes count for nothing. Files come and go meanwhile.
fn below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { below(&entry.path()) } else { metadata.blocks() * 512 })
    });
    sizes.sum()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
