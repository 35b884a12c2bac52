//! The main job on a laptop: index a real corpus, let the workflow back it up although its worker is killed, lose the host, watch
//! its successor bring itself up, and drill.

#![expect(clippy::print_stdout, reason = "the demo tells its story to a person")]

mod backup;
mod recovery;

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use host_worker::config::ByteSize;
use jiff::Timestamp;
use protocol::{Manifest, key};

use crate::{
    cloud::{BUCKET, Cloud, Program},
    corpus::Corpus,
    indexer::{self, Answer, Client},
    qdrant::{Existing, QdrantOptions, ServerOptions},
    workflow::{Workflow, WorkflowOptions},
};

/// The collection of the corpus itself, which readers know by [`ALIAS`].
const HANDBOOK: &str = "handbook";
/// The collection of the extension, which makes the upload long enough to be worth watching.
const EXTENDED: &str = "handbook-extended";
/// What readers search.
const ALIAS: &str = "handbook-live";
/// Points of the extension: with them an archive has more than ten parts of 16 MiB.
const EXTENSION: usize = 100_000;
/// The least parts of the demo's upload.
const LEAST_PARTS: u64 = 10;
/// The size of a part in bytes (`docs/format.md`).
const PART: u64 = 16 << 20;

/// How the demo is run.
#[derive(Debug)]
pub struct Options {
    /// Where the bucket is kept; a directory of its own in the system's temporary one otherwise.
    pub keep: Option<PathBuf>,
    /// A Qdrant that somebody else runs. It must be empty.
    pub existing: Option<Existing>,
    /// A `qdrant` program.
    pub binary: Option<PathBuf>,
    /// Use the stand-in even where a real server could be had.
    pub only_stand_in: bool,
}

/// A line of the table at the end.
struct Step {
    what: &'static str,
    amount: String,
    took: Duration,
    rate: String,
}

/// Runs the demo; fails if anything does not come back as it was.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let dir = directory(options.keep.as_deref())?;
    let program = Program::Localcloud(std::env::current_exe().context("find this program")?);
    let server = ServerOptions {
        existing: options.existing,
        binary: options.binary,
        only_stand_in: options.only_stand_in,
        ..Cloud::protected(QdrantOptions::default())
    };
    let mut cloud = Cloud::start(&dir, program, server.clone()).await?;
    let mut steps = Vec::new();
    heading("the embedded cloud");
    println!(
        "S3      embedded, at {}, bucket `{BUCKET}` in `{}`",
        cloud.s3.endpoint(),
        cloud.s3.root().display()
    );
    println!("Qdrant  {}", cloud.qdrant.describe());
    let options = WorkflowOptions::default();
    let workflow = Workflow::start(&cloud, &options)?;
    workflow.listen(&cloud);
    println!(
        "AWS     Step Functions, Lambda, Systems Manager at {}; waits and heartbeats divided by {}",
        workflow.endpoint(),
        options.divisor
    );

    heading("an indexing job loads a corpus");
    let corpus = Corpus::load()?;
    let counts = index(&cloud, &corpus, &mut steps).await?;

    heading("a reader asks questions");
    let answers = ask(&client(&cloud), &corpus).await?;
    print_answers(&corpus, &answers);

    heading("the job marks success, and the workflow backs up; its worker is killed in mid-upload");
    backup::cut_off_a_part(&cloud);
    let started = Instant::now();
    mark_success(&cloud, &counts).await?;
    backup::survive_a_kill(&cloud, &workflow).await?;
    steps.push(step(
        "from the marker to the pointer, the kill included",
        String::new(),
        started.elapsed(),
        None,
    ));
    let manifest: Manifest = serde_json::from_value(cloud.run(["show"]).await?.success()?)?;
    backup_steps(&manifest, &mut steps)?;

    heading("the host is lost, with everything on its disk");
    let successor = recovery::instance(&cloud, &cloud.qdrant, "production")?;
    lose(&mut cloud, server).await?;
    let started = Instant::now();
    let client = match &successor {
        Some(instance) => {
            heading("a new host brings itself up, and serves nobody before all is verified");
            recovery::boots(instance).await?;
            instance.client()
        }
        None => {
            println!("this Qdrant is somebody else's, so that no host can bring it up: a person restores");
            worker(&cloud, &["restore"]).await?;
            client(&cloud)
        }
    };
    let restored: u64 = manifest.collections.iter().map(|collection| collection.size_bytes).sum();
    steps.push(step(
        "from nothing to serving",
        ByteSize(restored).to_string(),
        started.elapsed(),
        Some(restored),
    ));

    heading("the same questions again");
    let again = ask(&client, &corpus).await?;
    ensure!(again == answers, "the restored Qdrant answers differently");
    for (name, count) in &counts {
        ensure!(client.count(name).await? == *count, "`{name}` has another number of points");
    }
    println!("all {} questions have the same answers: ids, scores and payloads are equal", answers.len());

    heading("the stored archive, read back to the last byte");
    let started = Instant::now();
    worker(&cloud, &["verify", "--archive"]).await?;
    steps.push(step(
        "re-read the archive",
        ByteSize(manifest.size_bytes).to_string(),
        started.elapsed(),
        Some(manifest.size_bytes),
    ));

    heading("the monthly drill: another host restores the backup, proves it, and is gone");
    let started = Instant::now();
    let staging = recovery::instance(&cloud, &cloud.qdrant, "staging")?;
    let report = recovery::drills(&cloud, &workflow, staging.as_ref()).await?;
    steps.push(step("drill, from its start to its end", String::new(), started.elapsed(), None));
    worker(&cloud, &["list"]).await?;

    heading("what happened");
    print_steps(&steps);
    print_places(&cloud, &manifest);
    println!("\nreport: {}", report.display());
    Ok(())
}

fn heading(text: &str) {
    println!("\n── {text}");
}

/// An empty directory for the bucket.
fn directory(keep: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = keep {
        fs_err::create_dir_all(dir)?;
        ensure!(fs_err::read_dir(dir)?.next().is_none(), "`{}` is not empty", dir.display());
        return Ok(dir.to_owned());
    }
    let parent = std::env::temp_dir().join("qdrant-backup-demo");
    // Only what an earlier demo left there is removed.
    match fs_err::remove_dir_all(&parent) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    fs_err::create_dir_all(&parent)?;
    Ok(parent)
}

fn client(cloud: &Cloud) -> Client {
    Client::new(&cloud.qdrant.url(), cloud.qdrant.api_key())
}

async fn index(
    cloud: &Cloud,
    corpus: &Corpus,
    steps: &mut Vec<Step>,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let client = client(cloud);
    let there = client.call(reqwest::Method::GET, "/collections", None).await?;
    if there["collections"].as_array().is_none_or(|collections| !collections.is_empty()) {
        bail!("{} is not empty: the demo deletes what it made and touches nobody's data", cloud.qdrant.url());
    }
    let started = Instant::now();
    let mut counts = BTreeMap::new();
    client.create_collection(HANDBOOK).await?;
    counts.insert(HANDBOOK.to_owned(), client.index(HANDBOOK, corpus.points()).await?);
    client.create_alias(ALIAS, HANDBOOK).await?;
    client.create_collection(EXTENDED).await?;
    counts.insert(EXTENDED.to_owned(), client.index(EXTENDED, corpus.extension(EXTENSION)).await?);
    let (points, took) = (counts.values().sum::<u64>(), started.elapsed());
    println!("{points} points in {} collections, {:.1} s", counts.len(), took.as_secs_f64());
    let rate = format!("{:.0} points/s", points as f64 / took.as_secs_f64());
    steps.push(Step { what: "index", amount: format!("{points} points"), took, rate });
    Ok(counts)
}

async fn mark_success(cloud: &Cloud, counts: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let s3 = cloud.s3.client().await;
    indexer::mark_success(&s3, BUCKET, "demo-batch-1", Timestamp::now(), counts).await?;
    println!("marker  `s3://{BUCKET}/{}`", key::DEFAULT_SUCCESS_MARKER);
    Ok(())
}

async fn ask(client: &Client, corpus: &Corpus) -> anyhow::Result<Vec<Vec<Answer>>> {
    let mut answers = Vec::with_capacity(corpus.questions.len());
    for question in &corpus.questions {
        answers.push(client.answer(ALIAS, &question.embedding).await?);
    }
    Ok(answers)
}

fn print_answers(corpus: &Corpus, answers: &[Vec<Answer>]) {
    for (question, answers) in corpus.questions.iter().zip(answers) {
        println!("? {}", question.question);
        if let Some(best) = answers.first() {
            let text = best.payload["text"].as_str().unwrap_or_default();
            let line: String =
                text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(100).collect();
            println!(
                "  {:.3} {} — {line}…",
                best.score,
                best.payload["section"].as_str().unwrap_or_default()
            );
        }
    }
}

/// Runs the worker as a person would, with its own output.
async fn worker(cloud: &Cloud, arguments: &[&str]) -> anyhow::Result<()> {
    println!("$ host-worker {}", arguments.join(" "));
    let mut command = cloud.worker(arguments)?;
    if !std::io::stderr().is_terminal() {
        // Without a terminal the worker logs every step, which would bury the story.
        command.env("RUST_LOG", "error");
    }
    let status = command.stdout(Stdio::inherit()).stderr(Stdio::inherit()).status().await?;
    ensure!(status.success(), "host-worker {} ended with {status}", arguments.join(" "));
    Ok(())
}

fn backup_steps(manifest: &Manifest, steps: &mut Vec<Step>) -> anyhow::Result<()> {
    ensure!(
        manifest.size_bytes > (LEAST_PARTS - 1) * PART,
        "the archive has only {} bytes, too few for {LEAST_PARTS} parts",
        manifest.size_bytes
    );
    let snapshots: u64 = manifest.collections.iter().map(|collection| collection.size_bytes).sum();
    // The manifest has the times of the run that ended the backup: what was captured before the kill was not captured again.
    for timing in manifest.timings.iter().filter(|timing| timing.phase == "upload") {
        let took = Duration::from_secs_f64(timing.seconds);
        steps.push(step("of which the resumed upload", ByteSize(snapshots).to_string(), took, None));
    }
    Ok(())
}

fn step(what: &'static str, amount: String, took: Duration, bytes: Option<u64>) -> Step {
    let rate = bytes.map_or_else(String::new, |bytes| {
        format!("{:.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64().max(1e-3))
    });
    Step { what, amount, took, rate }
}

/// A server that was started here goes with its disk; one that somebody else runs loses what the demo made.
async fn lose(cloud: &mut Cloud, server: ServerOptions) -> anyhow::Result<()> {
    if server.existing.is_some() {
        let client = client(cloud);
        for name in [HANDBOOK, EXTENDED] {
            client.call(reqwest::Method::DELETE, &format!("/collections/{name}"), None).await?;
        }
    } else {
        cloud.qdrant.kill().await?;
        cloud.qdrant = crate::qdrant::Server::choose(server).await?;
    }
    fs_err::remove_dir_all(cloud.work_dir())?;
    Ok(())
}

fn print_steps(steps: &[Step]) {
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|step| {
            vec![
                step.what.to_owned(),
                step.amount.clone(),
                format!("{:.1} s", step.took.as_secs_f64()),
                step.rate.clone(),
            ]
        })
        .collect();
    println!("{}", host_worker::output::table(&["step", "amount", "took", "rate"], &[1, 2, 3], &rows));
}

fn print_places(cloud: &Cloud, manifest: &Manifest) {
    let archive = cloud.object_path(&manifest.key.to_string());
    println!(
        "\narchive    {} ({}, {} raw, {} frames, {} parts)",
        archive.display(),
        ByteSize(manifest.size_bytes),
        ByteSize(manifest.archive.raw_bytes),
        manifest.archive.frame_count,
        manifest.size_bytes.div_ceil(PART)
    );
    println!("manifest   {}", cloud.object_path(key::POINTER).display());
    println!("           {}", cloud.object_path(&key::manifest(manifest.backup_id)).display());
    println!("look at it with");
    println!("  zstd -t {}", archive.display());
    println!("  tar -I zstd -tvf {}", archive.display());
    println!("  (cd {} && sha256sum -c *.sha256)", archive.parent().unwrap_or(&archive).display());
}
