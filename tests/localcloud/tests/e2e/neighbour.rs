//! Being a good neighbour: priorities, limits, and an upload that gives way to searches.

use std::time::Duration;

use localcloud::{
    cloud::Finished,
    qdrant::Condition,
    s3::{Effect, Operation},
};
use rustix::process::getpriority_process;
use serde_json::Value;

use crate::harness::{Fixture, failed, next_second, says, until};

/// How long a search takes when something is in its way, far above the target of these tests.
const SLOW: Duration = Duration::from_millis(600);
/// The target, far above what a search takes here.
const PROTECT: &str = "backup --no-quiesce --protect-latency 400ms";
/// A rate at which the data of these tests takes some seconds. Half of it is the lowest rate that there is.
const LIMIT: &str = "--bandwidth-limit 2MB/s";
const LOWEST: u64 = 1_000_000;

/// A cloud whose archive has some five megabytes.
async fn sizeable() -> Fixture {
    let fixture = Fixture::empty().await;
    fixture.load("docs", 3_000).await;
    fixture.load("notes", 20).await;
    fixture
}

/// Starts a backup, and sets the condition as soon as its archive is on its way.
async fn backup_meets(fixture: &Fixture, line: &str, condition: Condition) -> Finished {
    let running = fixture.start(line);
    fixture.until_asked(Operation::UploadPart).await;
    fixture.stand_in().faults().set(condition);
    running.finished().await
}

fn searches(fixture: &Fixture) -> u64 {
    let calls = fixture.stand_in().calls();
    calls.iter().filter(|call| call.path.ends_with("/docs/points/query")).count() as u64
}

/// The niceness of each of the threads of a process, out of `/proc`.
fn niceness(pid: u32) -> Vec<i32> {
    let tasks = fs_err::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.filter_map(|task| fs_err::read_to_string(task.unwrap().path().join("stat")).ok());
    // The name, in brackets, may hold anything; the niceness is the 19th field, 17 after it.
    let nice =
        |stat: String| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
    stats.map(nice).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_of_a_backup_goes_to_the_back_of_the_line_and_none_of_a_restore() {
    let mut fixture = Fixture::small().await;
    // A worker that is started with a low priority, as these tests may be, keeps it.
    let ours = getpriority_process(None).unwrap();
    for (line, asked, expected) in [
        ("backup --no-quiesce", Operation::UploadPart, ours.max(10)),
        ("backup --no-quiesce --nice 19", Operation::UploadPart, 19),
        ("backup --no-quiesce --nice 0", Operation::UploadPart, ours),
        ("verify --archive", Operation::GetObject, ours.max(10)),
        ("restore", Operation::GetObject, ours),
    ] {
        if line == "restore" {
            fixture.replace_host().await;
        }
        next_second().await;
        let _before = fixture.cloud.s3.take_calls();
        // The archive's bytes are late, so that there is time to look.
        let late = fixture.cloud.s3.faults().on(asked).key_containing(".tar.zst");
        late.inject(Effect::Stall(Duration::from_secs(1)));
        let running = fixture.start(line);
        until(|| {
            let calls = fixture.cloud.s3.calls();
            calls.iter().any(|call| call.operation == asked && is_archive(call.key.as_deref()))
        })
        .await;
        let nice = niceness(running.pid());
        assert!(nice.len() > 2 && nice.iter().all(|nice| *nice == expected), "{line}: {nice:?}");
        running.finished().await.success().unwrap();
    }
}

fn is_archive(key: Option<&str>) -> bool {
    key.is_some_and(|key| key.ends_with(".tar.zst"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_makes_searches_slow_gives_way() {
    let fixture = sizeable().await;
    let line = format!("{PROTECT} {LIMIT}");
    let finished = backup_meets(&fixture, &line, Condition::SearchSlow(SLOW)).await;
    let searched = searches(&fixture);
    let latency = finished.success().unwrap()["latency"].clone();
    assert_eq!((&latency["target_ms"], &latency["lowest_bytes_per_second"]), (&400.0.into(), &LOWEST.into()));
    let number = |name: &str| latency[name].as_f64().unwrap_or_else(|| panic!("{name}: {latency:#}"));
    assert!(number("before_ms") < 400.0 && number("p95_ms") >= 600.0, "{latency:#}");
    assert!(number("throttled_share") > 0.3, "{latency:#}");
    let samples = latency["samples"].as_u64().unwrap();
    assert!((3..=searched).contains(&samples), "{samples} of {searched} searches");
    assert!(latency.get("raised_target_ms").is_none() && latency.get("not_measured").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_beside_fast_searches_is_left_alone() {
    let fixture = sizeable().await;
    let result = fixture.ok(&format!("backup --no-quiesce --protect-latency 30s {LIMIT}")).await;
    let latency = &result["latency"];
    assert!(latency["samples"].as_u64().unwrap() >= 2, "{latency:#}");
    assert_eq!(latency["throttled_share"], 0.0, "{latency:#}");
    assert!(latency.get("lowest_bytes_per_second").is_none(), "{latency:#}");
    assert_eq!(result["limits"]["binds"], "bandwidth-limit");
    assert_eq!(result["limits"]["allowed_bytes_per_second"], 2_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_slow_without_the_upload_is_said_and_no_reason_to_crawl() {
    let fixture = sizeable().await;
    fixture.stand_in().faults().set(Condition::SearchSlow(SLOW));
    let finished = fixture.run(&format!("{PROTECT} {LIMIT}")).await;
    let latency = finished.success().unwrap()["latency"].clone();
    assert!(finished.stderr.contains("which slowing the upload down cannot help"), "{}", finished.stderr);
    assert!(latency["before_ms"].as_f64().unwrap() >= 600.0, "{latency:#}");
    assert!(latency["raised_target_ms"].as_f64().unwrap() >= 900.0, "{latency:#}");
    assert_eq!(latency["throttled_share"], 0.0, "{latency:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_that_does_not_answer_gets_all_the_room_and_the_backup_succeeds() {
    let fixture = sizeable().await;
    let silence = Condition::SearchSlow(Duration::from_secs(3600));
    let finished = backup_meets(&fixture, &format!("{PROTECT} {LIMIT}"), silence).await;
    let result = finished.success().unwrap();
    let latency = &result["latency"];
    assert!(latency["unanswered"].as_u64().unwrap() >= 1, "{latency:#}");
    assert_eq!(latency["lowest_bytes_per_second"], LOWEST, "{latency:#}");
    assert_eq!(result["publication"]["outcome"]["outcome"], "published", "{result:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_that_are_forbidden_are_not_measured_and_do_not_slow_the_upload() {
    let fixture = Fixture::small().await;
    fixture.stand_in().faults().set(Condition::SearchForbidden);
    let finished = fixture.run(PROTECT).await;
    let latency = finished.success().unwrap()["latency"].clone();
    says(&latency, &["Search is not allowed"]);
    assert_eq!((&latency["samples"], &latency["throttled_share"]), (&0.into(), &0.0.into()));
    assert!(finished.stderr.contains("the latency of searches cannot be measured"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_once_follows_from_the_network_and_is_said() {
    let fixture = Fixture::small().await;
    for (flags, in_flight, binds) in [
        ("--network-bandwidth 7.5Gbps", 11, "network"),
        ("--network-bandwidth 22.5Gbps --memory-budget 4GiB", 32, "network"),
        ("--network-bandwidth 22.5Gbps --concurrency 5", 5, "concurrency"),
        ("--network-bandwidth 7.5Gbps --bandwidth-limit 300MB/s", 11, "bandwidth-limit"),
    ] {
        next_second().await;
        let finished = fixture.run(&format!("backup --no-quiesce {flags}")).await;
        let limits = finished.success().unwrap()["limits"].clone();
        assert_eq!(
            (&limits["in_flight"], &limits["binds"]),
            (&in_flight.into(), &binds.into()),
            "{flags}: {limits:#}"
        );
        assert!(finished.stderr.contains("requests in flight in"), "{flags}: {}", finished.stderr);
    }
    // How many fit depends on the host's cores, whose frames want room too.
    next_second().await;
    let result = fixture.ok("backup --no-quiesce --network-bandwidth 22.5Gbps --memory-budget 128MiB").await;
    assert!((1..8).contains(&result["limits"]["in_flight"].as_u64().unwrap()), "{result:#}");
    assert_eq!(result["limits"]["binds"], "memory-budget");
    let doctor = fixture.ok("doctor --network-bandwidth 15Gbps").await;
    let data_path = finding(&doctor, "data path");
    assert!(
        data_path["seen"].as_str().unwrap().contains("network 15Gbps (as set), 21 requests"),
        "{data_path:#}"
    );
    for (line, text) in [
        ("backup --bandwidth-limit 200", "as 200MB/s"),
        ("backup --bandwidth-limit 200Mbps", "as 200MB/s"),
        ("restore --bandwidth-limit 900kB/s", "is too low"),
        ("backup --network-bandwidth 7.5GB/s", "as 7.5Gbps"),
        ("backup --protect-latency 50", "as 50ms"),
        ("backup --nice 20", "19"),
    ] {
        let finished = fixture.person(line).await;
        assert_eq!(finished.code(), Some(2), "{line}");
        assert!(finished.stderr.contains(text), "{line}: {}", finished.stderr);
    }
}

fn finding<'a>(doctor: &'a Value, subject: &str) -> &'a Value {
    doctor["findings"].as_array().unwrap().iter().find(|finding| finding["subject"] == subject).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_does_not_keep_a_transfer_from_stopping() {
    let fixture = sizeable().await;
    let running = fixture.start("backup --no-quiesce --bandwidth-limit 1MB/s");
    fixture.until_asked(Operation::UploadPart).await;
    let begin = std::time::Instant::now();
    running.signal(rustix::process::Signal::TERM);
    failed(&running.finished().await, "Cancelled", 1);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}
