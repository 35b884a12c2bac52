//! Where task tokens and keys are to be seen, and where not. What is found here is what docs/operations.md says under “What may be seen of a task token”.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use localcloud::{
    cloud::{API_KEY, READ_ONLY_KEY},
    lambda::Effect,
    s3,
    stepfunctions::Execution,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

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
            } else if !is("log") {
                // Logs only grow: they are read in the end.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_keys_are_seen_where_the_handbook_says_and_nowhere_else() {
    let flow = Flow::eager().await;
    flow.change_host(|host| host.env.extend([("RUST_LOG".to_owned(), "trace".to_owned())]));
    let (executions, seen) = looked_at(&flow, run(&flow)).await;
    let arns: Vec<String> = executions.iter().map(|execution| execution.arn.clone()).collect();
    let secrets = Secrets::of(&flow, &arns);
    assert_seen(&flow, &arns, &seen, &secrets);
    assert_unseen_on_aws(&flow, &executions, &secrets);
    assert_unseen_on_the_host(&flow, &seen, &secrets);
}

/// What an execution came to: one is retried, with a token that is never used and one that is taken over; one fails in the worker, one in the dispatch.
async fn run(flow: &Flow) -> [Execution; 3] {
    let faults = flow.workflow.lambda.faults();
    faults.on("quiesce-check").nth(2).inject(Effect::Throttle);
    faults.on("trigger-snapshot").inject(Effect::LoseReply);
    let slow = s3::Effect::Stall(Duration::from_secs(4));
    flow.fixture.cloud.s3.faults().on(s3::Operation::CreateMultipartUpload).inject(slow);
    let retried = flow.run(json!({})).await;
    assert_eq!(flow.is_success(&retried), "BackedUp");
    flow.fixture.cloud.s3.faults().deny(s3::Operation::CreateMultipartUpload, "");
    let failed = flow.run(json!({})).await;
    flow.has_failed(&failed, "StoreUnavailable", &[]);
    flow.fixture.cloud.s3.faults().clear();
    flow.change_host(|host| {
        host.env.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    });
    let unfit = flow.run(json!({})).await;
    flow.has_failed(&unfit, "HostUnreachable", &[]);
    [retried, failed, unfit]
}

/// Looks at processes and files for as long as something runs.
async fn looked_at<T>(flow: &Flow, running: impl Future<Output = T>) -> (T, Seen) {
    let work_dir = flow.fixture.cloud.work_dir();
    let done = CancellationToken::new();
    let stop = done.clone();
    let looking = tokio::task::spawn_blocking(move || {
        let mut seen = Seen::default();
        while !stop.is_cancelled() {
            seen.look(&work_dir);
            std::thread::sleep(LOOK);
        }
        seen
    });
    let stops = done.drop_guard();
    let came_to = running.await;
    drop(stops);
    (came_to, looking.await.unwrap())
}

/// What must not be seen.
struct Secrets {
    tokens: Vec<String>,
    /// Enough of each token to know it by, from its beginning and from its end.
    pieces: Vec<String>,
    keys: Vec<String>,
}

impl Secrets {
    fn of(flow: &Flow, executions: &[String]) -> Self {
        let tokens = tokens(flow, executions);
        assert_eq!(tokens.len(), (2 + 2) + (1 + 3) + 3, "one for every attempt at a task of the worker");
        // What every token begins with is no secret.
        let ends = |token: &String| [token[8..8 + PIECE].to_owned(), token[token.len() - PIECE..].to_owned()];
        let pieces = tokens.iter().flat_map(ends).collect();
        let (_, s3_secret) = flow.fixture.cloud.s3.credentials();
        let keys = [API_KEY, READ_ONLY_KEY, s3_secret].map(str::to_owned).to_vec();
        Self { tokens, pieces, keys }
    }

    /// Fails if something shows a token.
    fn no_token(&self, what: &str, text: &[u8]) {
        assert!(!self.pieces.iter().any(|piece| contains(text, piece.as_bytes())), "{what} shows a token");
    }

    /// Fails if something shows a key.
    fn no_key(&self, what: &str, text: &[u8]) {
        assert!(!self.keys.iter().any(|key| contains(text, key.as_bytes())), "{what} shows a key");
    }

    fn none(&self, what: &str, text: &[u8]) {
        self.no_token(what, text);
        self.no_key(what, text);
    }
}

/// In what the state was scheduled with, in the command, for a moment in an environment, and on the host in files for their owner.
fn assert_seen(flow: &Flow, executions: &[String], seen: &Seen, secrets: &Secrets) {
    for execution in executions {
        for event in flow.workflow.service().history(execution).unwrap() {
            let json = event.to_json();
            secrets.no_key("a history", json.to_string().as_bytes());
            if json["taskScheduledEventDetails"].is_null() {
                secrets.no_token(&event.type_name(), json.to_string().as_bytes());
            }
        }
    }
    for mut command in flow.workflow.ssm.commands() {
        let token = command.parameters.remove("TaskToken").unwrap();
        assert!(secrets.tokens.contains(&token[0]));
        secrets.none("a command beside its parameter", format!("{command:?}").as_bytes());
    }
    assert!(!seen.tokens.is_empty(), "no envelope was seen: this test looks too seldom");
    for (file, (mode, bytes)) in &seen.tokens {
        assert_eq!(*mode, 0o600, "{file}");
        secrets.no_key(file, bytes);
    }
    assert!(seen.dispatches > 0, "the environment of no dispatch was seen: this test looks too seldom");
}

fn assert_unseen_on_aws(flow: &Flow, executions: &[Execution], secrets: &Secrets) {
    for line in flow.workflow.lambda.logs() {
        secrets.none(&format!("the log of {}", line.function), line.text.as_bytes());
    }
    let messages = flow.workflow.sns.messages();
    assert_eq!(messages.len(), 2);
    secrets.none("a message", format!("{messages:?}").as_bytes());
    for Execution { output, failure, .. } in executions {
        secrets.none("what an execution came to", format!("{output:?} {failure:?}").as_bytes());
    }
    for file in files_below(flow.fixture.cloud.s3.root()) {
        secrets.none(&file.display().to_string(), &fs_err::read(&file).unwrap());
    }
}

fn assert_unseen_on_the_host(flow: &Flow, seen: &Seen, secrets: &Secrets) {
    let is_task = |line: &Vec<u8>| contains(line, b"\0task\0") && contains(line, b".token");
    assert!(seen.command_lines.iter().any(is_task), "no worker was seen");
    for line in &seen.command_lines {
        secrets.no_token(&String::from_utf8_lossy(line), line);
        if contains(line, b"host-worker") {
            secrets.no_key(&String::from_utf8_lossy(line), line);
        }
    }
    assert!(!seen.workers.is_empty());
    for (process, environment) in &seen.workers {
        secrets.no_token(&format!("the environment of {process}"), environment);
    }
    for bytes in &seen.others {
        secrets.none("a file of the work directory", bytes);
    }
    let files = files_below(&flow.fixture.cloud.work_dir());
    let logs = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    assert!(logs.map(|file| fs_err::read_to_string(file).unwrap()).any(|log| log.contains("TRACE")));
    for file in files.into_iter().chain(files_below(&flow.fixture.cloud.dir().join("agent"))) {
        secrets.none(&file.display().to_string(), &fs_err::read(&file).unwrap());
    }
}
