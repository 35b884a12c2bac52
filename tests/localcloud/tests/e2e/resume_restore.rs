//! Restores that were killed or stopped: the same command, typed again, goes on from what is there.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use localcloud::{
    corpus::DIMENSIONS,
    qdrant::{Fault, When},
    s3::{Effect, Operation},
};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{ALIAS, Fixture, Running, archive, failed, files_below, id, next_second, says, until};

/// The size of a frame in a real archive, in bytes.
const FRAME: u64 = 8 << 20;
const STALL: Effect = Effect::Stall(Duration::from_secs(120));

impl Fixture {
    /// The ranges of archives that were read since the calls were last taken.
    fn ranges_read(&self) -> Vec<(u64, u64)> {
        let calls = self.cloud.s3.calls();
        let read = calls.iter().filter(|call| {
            call.operation == Operation::GetObject
                && call.key.as_deref().is_some_and(|key| key.ends_with(".tar.zst"))
        });
        let bounds = read.map(|call| {
            let range = call.range.as_deref().unwrap().strip_prefix("bytes=").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            (first.parse().unwrap(), last.parse().unwrap())
        });
        bounds.collect()
    }

    /// Lets all reads of the archive but the first `free` wait.
    fn stall_after(&self, free: u64) {
        let _seen = self.cloud.s3.take_calls();
        let reads = self.cloud.s3.faults().on(Operation::GetObject).key_containing(".tar.zst");
        reads.nth(free + 1).times(u64::MAX).inject(STALL);
    }

    /// Runs `line` until the archive was asked for more than `free` ranges and `arrived` bytes of a snapshot are staged; then kills it.
    async fn kill_in_download(&self, line: &str, free: u64, arrived: u64) {
        self.stall_after(free);
        let worker = self.start(line);
        until(|| self.ranges_read().len() as u64 > free && self.staged_bytes() >= arrived).await;
        self.kill(worker).await;
    }

    async fn kill(&self, worker: Running) {
        worker.signal(Signal::KILL);
        assert_eq!(worker.finished().await.code(), None);
        self.cloud.s3.faults().clear();
        let _seen = self.cloud.s3.take_calls();
    }

    /// Bytes on the disk of what is staged.
    fn staged_bytes(&self) -> u64 {
        let blocks = |path: &std::path::PathBuf| fs_err::metadata(path).map_or(0, |found| found.blocks());
        let dir = self.cloud.qdrant.snapshots_dir();
        let staged = dir.join("qdrant-backup:restore");
        if !staged.exists() {
            return 0;
        }
        files_below(&staged).iter().map(blocks).sum::<u64>() * 512
    }

    /// How often Qdrant was asked for this.
    fn asked(&self, method: &str, path: &str) -> usize {
        let calls = self.stand_in().calls();
        calls.iter().filter(|call| call.method == method && call.path == path).count()
    }

    fn recoveries(&self, collection: &str) -> usize {
        self.asked("PUT", &format!("/collections/{collection}/snapshots/recover"))
    }

    /// Goes on to the end: verified, and nothing is left that a restore needs.
    async fn goes_on(&self, line: &str) -> Value {
        let restored = self.ok(line).await;
        assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
        assert_eq!(self.snapshot_files().len(), 0, "a staged file stays");
        assert!(!self.journal(), "the journal stays");
        restored
    }

    fn journal(&self) -> bool {
        self.cloud.work_dir().join("restore.json").exists()
    }

    /// Makes `big`, whose snapshot has several frames that hardly compress: more than one range of an archive.
    async fn load_big(&self) {
        self.client().create_collection("big").await.unwrap();
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        // Xorshift, by Marsaglia: any noise will do.
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        let mut digit = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            char::from(digits[usize::try_from(noise >> 58).unwrap()])
        };
        for number in 0..10_u64 {
            let text: String = (0..4 << 20).map(|_| digit()).collect();
            let mut vector = vec![0.0; DIMENSIONS];
            vector[usize::try_from(number).unwrap()] = 1.0;
            let body = json!({ "points": [{ "id": number, "vector": vector, "payload": { "text": text } }] });
            self.call(Method::PUT, "/collections/big/points?wait=true", body).await;
        }
    }
}

/// The number of bytes in ranges of which none may overlap.
fn total(ranges: &[(u64, u64)]) -> u64 {
    let starts: BTreeSet<u64> = ranges.iter().map(|(first, _)| *first).collect();
    assert_eq!(starts.len(), ranges.len(), "{ranges:?}");
    ranges.iter().map(|(first, last)| last - first + 1).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_download_what_arrived_is_not_fetched_again() {
    let mut fixture = Fixture::empty().await;
    fixture.load_big().await;
    fixture.client().create_alias(ALIAS, "big").await.unwrap();
    let manifest = fixture.backup().await;
    let size = manifest["collections"][0]["size_bytes"].as_u64().unwrap();
    let _seen = fixture.cloud.s3.take_calls();
    fixture.goes_on("restore --as -whole").await;
    let mut whole = fixture.ranges_read();
    whole.sort_unstable();
    assert!(whole.len() >= 3, "the snapshot is too small for this test: {whole:?}");

    // One range after the other, so that it is known which has arrived.
    for line in [
        "restore --concurrency 1 --as -copy",
        "restore --concurrency 1 --replace --collection big",
        "restore --concurrency 1",
    ] {
        if line == "restore --concurrency 1" {
            fixture.replace_host().await;
        }
        fixture.kill_in_download(line, 1, 2 * FRAME).await;
        let restored = fixture.goes_on(line).await;
        let mut read = fixture.ranges_read();
        read.sort_unstable();
        assert_eq!(read, whole[1..], "{line}");
        assert_eq!(total(&read) + total(&whole[..1]), total(&whole));
        assert_eq!(restored["kept_bytes"], 2 * FRAME, "{line}");
        assert_eq!(restored["bytes"], size);

        // Twice, by a signal that can be handled and one that cannot.
        let name = if line.contains("--as") { "big-copy" } else { "big" };
        fixture.client().call(Method::DELETE, &format!("/collections/{name}"), None).await.unwrap();
        fixture.stall_after(1);
        let worker = fixture.start(line);
        until(|| fixture.ranges_read().len() > 1 && fixture.staged_bytes() >= 2 * FRAME).await;
        let asked = Instant::now();
        worker.signal(Signal::TERM);
        let said = failed(&worker.finished().await, "Cancelled", 1);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        says(&said, &["stopped by a signal", "the same command goes on from there"]);
        fixture.cloud.s3.faults().clear();
        fixture.kill_in_download(line, 1, 4 * FRAME).await;
        let restored = fixture.goes_on(line).await;
        assert_eq!(fixture.ranges_read(), whole[2..], "{line}");
        assert_eq!(restored["kept_bytes"], 4 * FRAME, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_two_collections_the_first_is_kept() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    for (line, docs, notes) in [
        ("restore --as -copy", "docs-copy", "notes-copy"),
        ("restore --replace", "docs", "notes"),
        ("restore", "docs", "notes"),
    ] {
        if line == "restore" {
            fixture.replace_host().await;
        }
        fixture.stand_in().clear_calls();
        fixture.kill_in_download(line, 1, 0).await;
        assert_eq!((fixture.recoveries(docs), fixture.recoveries(notes)), (1, 0));
        assert!(fixture.journal());
        let restored = fixture.goes_on(line).await;
        assert_eq!(fixture.ranges_read().len(), 1, "only that of the second collection");
        assert_eq!((fixture.recoveries(docs), fixture.recoveries(notes)), (1, 1), "{line}");
        let deleted = usize::from(line.contains("--replace"));
        for name in [docs, notes] {
            assert_eq!(fixture.asked("DELETE", &format!("/collections/{name}")), deleted, "{line}");
        }
        assert_eq!((fixture.count(docs).await, fixture.count(notes).await), (60, 20));
        assert!(restored["kept_bytes"].as_u64().unwrap() > 0);
    }
    assert_eq!(fixture.aliases().await, json!({ ALIAS: "docs" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_qdrant_recovers_the_recovery_is_waited_for() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    for (line, notes, signal) in [
        ("restore --as -copy", "notes-copy", Signal::KILL),
        ("restore --replace", "notes", Signal::TERM),
        ("restore", "notes", Signal::KILL),
    ] {
        if line == "restore" {
            fixture.replace_host().await;
        }
        fixture.stand_in().clear_calls();
        let pause = Fault::RecoverPauses(Duration::from_secs(3));
        fixture.stand_in().faults().inject(When::next_of(notes), pause);
        let worker = fixture.start(line);
        until(|| fixture.recoveries(notes) > 0).await;
        worker.signal(signal);
        let finished = worker.finished().await;
        if signal == Signal::TERM {
            let said = failed(&finished, "Cancelled", 1);
            says(&said, &["collection `docs` was replaced", "Qdrant may still be recovering `notes`"]);
        }
        let _seen = fixture.cloud.s3.take_calls();
        fixture.goes_on(line).await;
        assert_eq!(fixture.ranges_read(), [], "{line}");
        assert_eq!(fixture.recoveries(notes), 1, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_proof_only_the_proof_is_made() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    for line in ["restore", "restore --as -copy --switch-alias"] {
        fixture.stand_in().clear_calls();
        let notes = if line == "restore" { "notes" } else { "notes-copy" };
        let worker = fixture.start(line);
        until(|| fixture.asked("GET", &format!("/collections/{notes}")) > 0).await;
        fixture.kill(worker).await;
        fixture.stand_in().clear_calls();
        let restored = fixture.goes_on(line).await;
        assert_eq!(fixture.ranges_read(), [], "{line}");
        assert_eq!(fixture.recoveries(notes), 0, "{line}");
        assert_eq!(restored["kept_bytes"], restored["bytes"]);
    }
    assert_eq!(fixture.aliases().await, json!({ ALIAS: "docs-copy" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_backup_may_be_chosen_after_the_kill() {
    let mut fixture = Fixture::small().await;
    let old = fixture.backup().await;
    fixture.delete_points("docs", 10).await;
    next_second().await;
    let new = fixture.backup().await;
    fixture.replace_host().await;
    let restore_old = format!("restore --backup {}", id(&old));

    // Nothing is in Qdrant yet, and what is staged serves the other backup.
    fixture.kill_in_download("restore", 0, 0).await;
    assert_eq!(fixture.snapshot_files().len(), 1);
    fixture.goes_on(&restore_old).await;
    assert!(fixture.cloud.s3.calls().iter().all(|call| call.key.as_deref() != Some(&archive(&new))));
    assert_eq!(fixture.count("docs").await, 60);

    // A collection of the first choice is there, and is in the way of any other.
    fixture.replace_host().await;
    fixture.kill_in_download("restore", 1, 0).await;
    let said = fixture.fails(&restore_old, "RestoreFailed", 1).await;
    says(&said, &["Qdrant is not empty, it has docs"]);
    assert_eq!(fixture.count("docs").await, 50);
    fixture.goes_on("restore").await;
    assert_eq!((fixture.count("docs").await, fixture.count("notes").await), (50, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_made_after_the_kill_is_not_touched() {
    let mut fixture = Fixture::small().await;
    fixture.backup().await;
    fixture.replace_host().await;
    fixture.kill_in_download("restore", 1, 0).await;
    // Under a name that the restore will need, and under another.
    for (name, texts) in [("notes", ["it has notes"]), ("other", ["it has other"])] {
        fixture.load(name, 5).await;
        let said = fixture.fails("restore", "RestoreFailed", 1).await;
        says(&said, &texts);
        assert!(!said.to_string().contains("docs"), "what the restore made is not in its way: {said}");
        assert_eq!(fixture.count(name).await, 5);
        assert_eq!(fixture.count("docs").await, 60);
        fixture.client().call(Method::DELETE, &format!("/collections/{name}"), None).await.unwrap();
    }
    // In the place of what the restore had made.
    fixture.client().call(Method::DELETE, "/collections/docs", None).await.unwrap();
    fixture.load("docs", 7).await;
    let said = fixture.fails("restore", "RestoreFailed", 1).await;
    says(
        &said,
        &["collection `docs`, which an earlier run asked Qdrant to recover", "7 points, expected 60"],
    );
    assert_eq!(fixture.count("docs").await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_collection_is_replaced_when_that_is_typed() {
    let mut fixture = Fixture::small().await;
    let manifest = fixture.backup().await;
    fixture.replace_host().await;
    // Worker and Qdrant die together, as with the power.
    fixture.stand_in().faults().inject(When::next_of("notes"), Fault::DieInRecover);
    let worker = fixture.start("restore");
    // A request of a worker that is gone would not be carried out.
    until(|| !fixture.stand_in().is_running()).await;
    fixture.kill(worker).await;
    fixture.cloud.qdrant.restart().await.unwrap();
    let typed = format!("restore --backup {} --replace", id(&manifest));
    let said = fixture.fails("restore", "RestoreFailed", 1).await;
    says(&said, &["collection `notes`, which an earlier run asked Qdrant to recover", &typed]);
    // What was downloaded in full is looked at again before Qdrant gets it.
    let staged = fixture.snapshot_files();
    assert!(matches!(&staged[..], [file] if file.ends_with("1.snapshot")), "{staged:?}");
    let mut bytes = fs_err::read(&staged[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(&staged[0], bytes).unwrap();
    fixture.stand_in().clear_calls();
    fixture.goes_on(&typed).await;
    assert_eq!(fixture.ranges_read().len(), 1, "the one frame that was damaged");
    assert_eq!((fixture.recoveries("docs"), fixture.recoveries("notes")), (0, 1));
    assert_eq!(fixture.asked("DELETE", "/collections/docs"), 0);
    assert_eq!((fixture.count("docs").await, fixture.count("notes").await), (60, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_a_kill_undoes_its_own_run_and_keeps_what_was_downloaded() {
    let mut fixture = Fixture::small().await;
    fixture.load_big().await;
    fixture.backup().await;
    // `big` is the first collection.
    fixture.kill_in_download("restore --as -copy", 3, 0).await;
    assert_eq!(fixture.collections().await, ["big", "big-copy", "docs", "notes"]);
    fixture.stand_in().faults().inject(When::next_of("notes-copy"), Fault::RecoverFailsAtLoad);
    // What the earlier run restored may be in use by now: it stays, and is gone on from.
    let said = fixture.fails("restore --as -copy", "RestoreFailed", 1).await;
    says(&said, &["collection `big-copy`, which an earlier run restored, stays"]);
    assert_eq!(fixture.collections().await, ["big", "big-copy", "docs", "notes"]);
    assert_eq!(fixture.snapshot_files().len(), 0);
    assert!(fixture.journal());
    fixture.goes_on("restore --as -copy").await;
    assert_eq!(fixture.recoveries("big-copy"), 1);

    // A store that fails leaves what was fetched before; Qdrant is as it was.
    fixture.replace_host().await;
    let archive = fixture.cloud.s3.faults().on(Operation::GetObject).key_containing(".tar.zst");
    archive.nth(2).times(u64::MAX).inject(Effect::AccessDenied);
    let _seen = fixture.cloud.s3.take_calls();
    fixture.fails("restore --concurrency 1", "StoreUnavailable", 1).await;
    fixture.cloud.s3.faults().clear();
    let first = fixture.ranges_read()[0];
    let _seen = fixture.cloud.s3.take_calls();
    assert_eq!(fixture.collections().await, [""; 0]);
    assert!(!fixture.journal());
    assert!(fixture.staged_bytes() > 0);
    let restored = fixture.goes_on("restore").await;
    assert!(!fixture.ranges_read().contains(&first));
    assert_eq!(restored["kept_bytes"], 2 * FRAME);
}
