//! No secret appears in what the worker says, logs, stores or shows to other users of the host.

use localcloud::{
    cloud::{API_KEY, Finished, READ_ONLY_KEY},
    s3::{Effect, Operation},
};

use crate::harness::{Fixture, Running, files_below, finish};

const WRONG_KEY: &str = "a-key-that-was-mistyped";

pub(crate) fn assert_silent(fixture: &Fixture, what: &str, text: &[u8]) {
    let (_, s3_secret) = fixture.cloud.s3.credentials();
    for secret in [API_KEY, READ_ONLY_KEY, s3_secret, WRONG_KEY] {
        let found = text.windows(secret.len()).position(|window| window == secret.as_bytes());
        if let Some(at) = found {
            let around = &text[at.saturating_sub(200)..text.len().min(at + 100)];
            panic!("{what} shows a secret: {}", String::from_utf8_lossy(around));
        }
    }
}

fn assert_said_nothing(fixture: &Fixture, line: &str, finished: &Finished) {
    assert!(finished.stderr.contains("TRACE"), "{line}: the log is not at its most talkative");
    assert_silent(fixture, &format!("standard output of `{line}`"), finished.stdout.as_bytes());
    assert_silent(fixture, &format!("the log of `{line}`"), finished.stderr.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_logged_or_stored_whatever_happens() {
    let fixture = Fixture::small().await;
    let key = fixture.cloud.work_dir().with_extension("wrong-key");
    fs_err::write(&key, WRONG_KEY).unwrap();
    let key = format!("--qdrant-api-key-file {}", key.display());
    for (line, code) in [
        ("doctor", 0),
        ("backup --no-quiesce --keep-local 1", 0),
        ("list", 0),
        ("show", 0),
        ("verify --archive", 0),
        ("restore --as -copy", 0),
        ("verify --data --as -copy", 0),
        ("restore", 1),
        (&format!("backup --no-quiesce {key}"), 1),
        (&format!("doctor {key}"), 1),
        ("backup --no-quiesce --bucket nowhere", 2),
        ("backup --no-quiesce --collection nowhere", 2),
    ] {
        let finished = finish(fixture.command(line).env("RUST_LOG", "trace")).await;
        assert_eq!(finished.code(), Some(code), "{line}: {}{}", finished.stdout, finished.stderr);
        assert_said_nothing(&fixture, line, &finished);
    }
    let mut from_environment = fixture.command("backup --no-quiesce");
    from_environment.env_remove("QDRANT_BACKUP_QDRANT_API_KEY_FILE").env("RUST_LOG", "trace");
    let finished = finish(from_environment.env("QDRANT_API_KEY", API_KEY)).await;
    assert_eq!(finished.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    assert_said_nothing(&fixture, "backup with the key from the environment", &finished);

    fixture.cloud.s3.faults().deny(Operation::CreateMultipartUpload, "");
    let finished = finish(fixture.command("backup --no-quiesce").env("RUST_LOG", "trace")).await;
    assert_eq!(finished.code(), Some(1));
    assert_said_nothing(&fixture, "a backup that S3 refuses", &finished);

    let stored = files_below(fixture.cloud.s3.root());
    let kept = files_below(&fixture.cloud.work_dir());
    assert!(stored.len() > 5 && kept.len() > 1, "{stored:?} {kept:?}");
    for path in stored.iter().chain(&kept) {
        assert_silent(&fixture, &path.display().to_string(), &fs_err::read(path).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_shows_no_secret_to_other_users() {
    let fixture = Fixture::small().await;
    let stall = Effect::Stall(std::time::Duration::from_secs(2));
    fixture.cloud.s3.faults().on(Operation::UploadPart).inject(stall);
    let worker: Running = fixture.start("backup --no-quiesce");
    fixture.until_asked(Operation::UploadPart).await;
    let command_line = fs_err::read(format!("/proc/{}/cmdline", worker.pid())).unwrap();
    assert!(command_line.windows(6).any(|word| word == b"backup"), "it still runs");
    assert_silent(&fixture, "the command line", &command_line);
    worker.finished().await.success().unwrap();
}
