//! Where task tokens and keys are to be seen, and where not. What is found here is what docs/operations.md says under “What may be seen of a task token”.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use localcloud::{
    cloud::{API_KEY, READ_ONLY_KEY},
    lambda::Effect,
    s3,
    stepfunctions::machine::HistoryEvent,
};
use serde_json::{Value, json};

use super::harness::Flow;
use crate::harness::files_below;

/// How often processes and files are looked at while an execution runs.
const LOOK: Duration = Duration::from_millis(5);
/// A piece of a token of this length is enough to know it by.
const PIECE: usize = 24;

/// What was seen of this test's processes and files while executions ran.
#[derive(Debug, Default)]
struct Seen {
    /// Command lines of every process of this machine.
    command_lines: BTreeSet<Vec<u8>>,
    /// How often a token was seen in the environment of a dispatch.
    dispatches: usize,
    /// Environments of workers that do a task, by process.
    workers: BTreeMap<String, Vec<u8>>,
    /// Envelopes in the work directory that were not empty, with their mode.
    tokens: BTreeMap<String, (u32, Vec<u8>)>,
    /// Every other content that was in the work directory.
    others: BTreeSet<Vec<u8>>,
}

impl Seen {
    fn look(&mut self, work_dir: &Path) {
        for entry in fs_err::read_dir("/proc").unwrap().flatten() {
            let Ok(command_line) = fs_err::read(entry.path().join("cmdline")) else { continue };
            if contains(&command_line, b"host-worker\0") {
                self.look_at_worker(&entry.path(), &command_line, work_dir);
            }
            self.command_lines.insert(command_line);
        }
        if !work_dir.exists() {
            return;
        }
        for file in files_now(work_dir) {
            let (Ok(bytes), Ok(metadata)) = (fs_err::read(&file), fs_err::metadata(&file)) else { continue };
            let is = |wanted| file.extension().is_some_and(|extension| extension == wanted);
            // An envelope comes to be under another name.
            if is("token") || (is("tmp") && contains(&bytes, b"\"token\":\"")) {
                if !bytes.is_empty() {
                    let mode = metadata.permissions().mode() & 0o777;
                    self.tokens.insert(file.display().to_string(), (mode, bytes));
                }
            } else {
                self.others.insert(bytes);
            }
        }
    }
}

impl Seen {
    /// A worker of this test, by its work directory: several tests run at once.
    fn look_at_worker(&mut self, process: &Path, command_line: &[u8], work_dir: &Path) {
        let Ok(environment) = fs_err::read(process.join("environ")) else { return };
        if !contains(&environment, work_dir.as_os_str().as_encoded_bytes()) {
            return;
        }
        if contains(command_line, b"\0dispatch\0") {
            self.dispatches += usize::from(contains(&environment, b"SSM_TaskToken=AAAA"));
        } else if contains(command_line, b"\0task\0") {
            self.workers.insert(process.display().to_string(), environment);
        }
    }
}

/// Every file below a directory in which others come and go meanwhile.
fn files_now(dir: &Path) -> Vec<std::path::PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Every token of every execution, from the histories.
fn tokens(flow: &Flow, executions: &[String]) -> Vec<String> {
    let mut tokens = Vec::new();
    for execution in executions {
        for event in flow.workflow.service().history(execution).unwrap() {
            let event = event.to_json();
            let Some(parameters) = event["taskScheduledEventDetails"]["parameters"].as_str() else {
                continue;
            };
            let parameters: Value = serde_json::from_str(parameters).unwrap();
            tokens.extend(parameters["Payload"]["token"].as_str().map(str::to_owned));
        }
    }
    tokens
}

/// Fails if something shows a secret.
fn assert_silent(secrets: &[String], what: &str, text: &[u8]) {
    for secret in secrets {
        assert!(!contains(text, secret.as_bytes()), "{what} shows a secret");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_keys_are_seen_where_the_handbook_says_and_nowhere_else() {
    let flow = Flow::eager().await;
    flow.change_host(|host| host.env.extend([("RUST_LOG".to_owned(), "trace".to_owned())]));
    let work_dir = flow.fixture.cloud.work_dir();
    let (seen, done) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
    let looking = {
        let (seen, done, work_dir) = (Arc::clone(&seen), Arc::clone(&done), work_dir.clone());
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::SeqCst) {
                seen.lock().unwrap().look(&work_dir);
                std::thread::sleep(LOOK);
            }
        })
    };

    // One that is retried, with a token that is never used; one that fails in the worker, one in the dispatch.
    let faults = flow.workflow.lambda.faults();
    faults.on("quiesce-check").nth(2).inject(Effect::Throttle);
    faults.on("trigger-snapshot").inject(Effect::LoseReply);
    let slow = s3::Effect::Stall(Duration::from_secs(4));
    flow.fixture.cloud.s3.faults().on(s3::Operation::CreateMultipartUpload).inject(slow);
    let retried = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&retried), "BackedUp");
    flow.fixture.cloud.s3.faults().deny(s3::Operation::CreateMultipartUpload, "");
    let failed = flow.run(json!({})).await;
    flow.is_failure(&failed, "StoreUnavailable", &[]);
    flow.fixture.cloud.s3.faults().clear();
    flow.change_host(|host| {
        host.env.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    });
    let unfit = flow.run(json!({})).await;
    flow.is_failure(&unfit, "HostUnreachable", &[]);
    done.store(true, Ordering::SeqCst);
    looking.await.unwrap();

    let executions = [retried, failed, unfit];
    let arns: Vec<String> = executions.iter().map(|execution| execution.arn.clone()).collect();
    let tokens = tokens(&flow, &arns);
    assert_eq!(
        tokens.len(),
        4 + 4 + 3,
        "of two retried states, one that failed three times, and one that did before"
    );
    let (_, s3_secret) = flow.fixture.cloud.s3.credentials();
    let keys = [API_KEY, READ_ONLY_KEY, s3_secret].map(str::to_owned);
    let pieces = tokens.iter().map(|token| token[token.len() - PIECE..].to_owned());
    let pieces: Vec<String> =
        pieces.chain(tokens.iter().map(|token| token[8..8 + PIECE].to_owned())).collect();
    let secrets: Vec<String> = pieces.iter().cloned().chain(keys.clone()).collect();

    // Where they are: in what the state was scheduled with, in the command, and on the host in a file for its owner.
    for execution in &arns {
        for event in flow.workflow.service().history(execution).unwrap() {
            let event: &HistoryEvent = &event;
            let json = event.to_json();
            assert_silent(&keys, "a history", json.to_string().as_bytes());
            if json["taskScheduledEventDetails"].is_null() {
                assert_silent(&pieces, &event.type_name(), json.to_string().as_bytes());
            }
        }
    }
    let commands = flow.workflow.ssm.commands();
    assert!(commands.iter().all(|command| tokens.contains(&command.parameters["TaskToken"][0])));
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(!seen.tokens.is_empty(), "no token was seen in the work directory: this test looks too seldom");
    for (file, (mode, bytes)) in &seen.tokens {
        assert_eq!(*mode, 0o600, "{file}");
        assert_silent(&keys, file, bytes);
    }

    assert!(seen.dispatches > 0, "the environment of no dispatch was seen: this test looks too seldom");

    // Where they are not.
    for command in &commands {
        let mut shown = command.clone();
        shown.parameters.remove("TaskToken");
        assert_silent(&secrets, "a command beside its parameter", format!("{shown:?}").as_bytes());
    }
    let task = |line: &&Vec<u8>| contains(line, b"\0task\0") && contains(line, b".token");
    assert!(seen.command_lines.iter().any(|line| task(&line)), "no worker was seen");
    for line in &seen.command_lines {
        assert_silent(&secrets, &String::from_utf8_lossy(line), line);
    }
    assert!(!seen.workers.is_empty());
    for (process, environment) in &seen.workers {
        assert_silent(&pieces, &format!("the environment of {process}"), environment);
    }
    for bytes in &seen.others {
        assert_silent(&secrets, "a file of the work directory", bytes);
    }
    for line in flow.workflow.lambda.logs() {
        assert_silent(&secrets, &format!("the log of {}", line.function), line.text.as_bytes());
    }
    for message in flow.workflow.sns.messages() {
        assert_silent(&secrets, "a message", format!("{message:?}").as_bytes());
    }
    for execution in &executions {
        assert_silent(
            &secrets,
            "what an execution came to",
            format!("{:?} {:?}", execution.output, execution.failure).as_bytes(),
        );
    }
    let agent = flow.fixture.cloud.dir().join("agent");
    let logs = files_below(&work_dir).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log"));
    assert!(logs.map(|file| fs_err::read_to_string(file).unwrap()).any(|log| log.contains("TRACE")));
    for dir in [flow.fixture.cloud.s3.root(), &work_dir, &agent] {
        let files = files_below(dir);
        assert!(files.len() > 5, "{files:?}");
        for file in files {
            assert_silent(&secrets, &file.display().to_string(), &fs_err::read(&file).unwrap());
        }
    }
}
