//! A cloud with everything around it, and short words for what happens to executions.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use localcloud::{
    s3::{Effect, Operation},
    stepfunctions::{Execution, Status},
    workflow::{Workflow, WorkflowOptions},
};
use protocol::task::parameter;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Fixture, until};

/// How long an execution of a test may take, whatever happens to it.
const BOUND: Duration = Duration::from_secs(120);

/// A host with its Qdrant and bucket, and the workflow around it.
pub(crate) struct Flow {
    pub(crate) workflow: Workflow,
    pub(crate) fixture: Fixture,
}

impl Flow {
    /// A cloud with the data of [`Fixture::small`].
    pub(crate) async fn small() -> Self {
        Self::around(Fixture::small().await, &WorkflowOptions::default())
    }

    /// The workflow around a cloud.
    pub(crate) fn around(fixture: Fixture, options: &WorkflowOptions) -> Self {
        let workflow = Workflow::start(&fixture.cloud, options).unwrap();
        Self { workflow, fixture }
    }

    /// Writes the indexing job's success marker.
    pub(crate) async fn mark(&self, batch: &str, finished_at: &str) {
        let s3 = self.fixture.cloud.s3.client().await;
        let marker = json!({ "batch_id": batch, "finished_at": finished_at });
        s3.put_object()
            .bucket(localcloud::cloud::BUCKET)
            .key(protocol::key::DEFAULT_SUCCESS_MARKER)
            .body(marker.to_string().into_bytes().into())
            .send()
            .await
            .unwrap();
    }

    /// Starts an execution.
    pub(crate) fn start(&self, input: Value) -> String {
        self.workflow.start_execution(&input).unwrap()
    }

    /// Waits for the end of an execution.
    pub(crate) async fn ended(&self, execution: &str) -> Execution {
        match self.workflow.ended(execution, BOUND).await {
            Ok(ended) => ended,
            Err(error) => panic!("{error:#}\n{}", self.logs()),
        }
    }

    /// Runs an execution to its end.
    pub(crate) async fn run(&self, input: Value) -> Execution {
        let execution = self.start(input);
        self.ended(&execution).await
    }

    /// Runs an execution that must succeed, and answers with its last state.
    pub(crate) async fn succeeds(&self, input: Value) -> String {
        let execution = self.run(input).await;
        self.is_success(&execution)
    }

    /// Fails unless an execution succeeded; answers with its last state.
    pub(crate) fn is_success(&self, execution: &Execution) -> String {
        assert_eq!(execution.status, Status::Succeeded, "{:?}\n{}", execution.failure, self.logs());
        self.states(&execution.arn).pop().unwrap()
    }

    /// The states that an execution has entered, in order.
    pub(crate) fn states(&self, execution: &str) -> Vec<String> {
        let history = self.workflow.service().history(execution).unwrap();
        let entered = history.iter().map(|event| event.to_json());
        entered
            .filter_map(|event| event["stateEnteredEventDetails"]["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// The kinds of the events of an execution.
    pub(crate) fn events(&self, execution: &str) -> Vec<String> {
        self.workflow.service().history(execution).unwrap().iter().map(|event| event.type_name()).collect()
    }

    /// All that Lambdas and workers have said.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for line in self.workflow.lambda.logs() {
            logs += &format!("{}: {}\n", line.function, line.text);
        }
        for file in crate::harness::files_below(&self.fixture.cloud.work_dir()) {
            if file.extension().is_some_and(|extension| extension == "log") {
                logs += &format!("{}:\n{}\n", file.display(), fs_err::read_to_string(&file).unwrap());
            }
        }
        for command in self.workflow.ssm.commands() {
            logs += &format!("{command:?}\n");
        }
        logs
    }
}

/// How a fault is given that outlasts every test.
pub(crate) const NEVER: Duration = Duration::from_secs(300);

/// By how much the worker of [`Flow::impatient`] waits shorter than a real one. Its grace period is 6 s then, and so is the deadline of an upload.
const IMPATIENT: u32 = 150;

/// What happens to workers.
impl Flow {
    /// Lets the waits of workers on the host end sooner than those of Step Functions.
    pub(crate) fn impatient(self) -> Self {
        self.change_host(|options| {
            options.env.insert("QDRANT_BACKUP_TIME_DIVISOR".to_owned(), IMPATIENT.to_string());
        });
        self
    }

    /// Starts an execution whose upload stands still for `stall`, and waits until it does. Nothing else happens to it in that time.
    pub(crate) async fn uploading(&self, stall: Duration) -> String {
        self.fixture.cloud.s3.faults().on(Operation::UploadPart).part(1).inject(Effect::Stall(stall));
        let execution = self.start(json!({}));
        self.fixture.until_asked(Operation::UploadPart).await;
        execution
    }

    /// The worker that holds the host's lock for the task `kind`. Waits for it.
    pub(crate) async fn worker(&self, kind: &str) -> Pid {
        let lock = self.fixture.cloud.work_dir().join("lock");
        let holder = || {
            let text = fs_err::read_to_string(&lock).ok()?;
            let number = text.strip_prefix(&format!("task {kind}-"))?.split("(process ").nth(1)?;
            Pid::from_raw(number.trim_end().strip_suffix(')')?.parse().ok()?)
        };
        until(|| holder().is_some_and(|pid| self.workers().contains(&pid))).await;
        holder().unwrap()
    }

    /// The workers that run on the host, whatever it is called.
    pub(crate) fn workers(&self) -> Vec<Pid> {
        workers_below(&self.fixture.cloud.work_dir())
    }

    /// Waits until no worker is left; then the lock is free, and no token is on the disk.
    pub(crate) async fn assert_host_is_free(&self) {
        until(|| self.workers().is_empty()).await;
        let lock = fs_err::File::open(self.fixture.cloud.work_dir().join("lock")).unwrap();
        lock.file().try_lock().unwrap();
        assert_eq!(self.tokens_on_disk(), Vec::<PathBuf>::new(), "a token stays on the disk");
    }

    /// The files of the host that hold a token, whether it is of use or not.
    pub(crate) fn tokens_on_disk(&self) -> Vec<PathBuf> {
        let tokens = self.tokens();
        let holds = |path: &PathBuf| {
            let text = String::from_utf8_lossy(&fs_err::read(path).unwrap()).into_owned();
            tokens.iter().any(|token| text.contains(token))
        };
        crate::harness::files_below(&self.fixture.cloud.work_dir()).into_iter().filter(holds).collect()
    }

    /// Every token that was sent to a host, in order.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let commands = self.workflow.ssm.commands();
        commands.iter().map(|command| command.parameters[parameter::TASK_TOKEN][0].clone()).collect()
    }

    /// How the attempts of a state have ended, in order: `done`, the name of an error, or `open`.
    pub(crate) fn attempts(&self, execution: &str, state: &str) -> Vec<String> {
        let history = self.workflow.service().history(execution).unwrap();
        let (mut attempts, mut within) = (Vec::new(), false);
        for event in history.iter().map(|event| event.to_json()) {
            if let Some(name) = event["stateEnteredEventDetails"]["name"].as_str() {
                within = name == state;
            }
            let error = |details: &str| event[details]["error"].as_str().unwrap_or("(none)").to_owned();
            let ended = match event["type"].as_str().unwrap() {
                "TaskScheduled" if within => {
                    attempts.push("open".to_owned());
                    continue;
                }
                "TaskSucceeded" if within => "done".to_owned(),
                "TaskFailed" if within => error("taskFailedEventDetails"),
                "TaskTimedOut" if within => error("taskTimedOutEventDetails"),
                _other => continue,
            };
            *attempts.last_mut().unwrap() = ended;
        }
        attempts
    }

    /// Waits until the attempts of a state have come to this.
    pub(crate) async fn until_attempts(&self, execution: &str, state: &str, expected: &[&str]) {
        until(|| self.attempts(execution, state) == expected).await;
    }

    /// The keys of all archives in the bucket.
    pub(crate) async fn archives(&self) -> Vec<String> {
        self.fixture.keys().await.into_iter().filter(|key| key.ends_with(".tar.zst")).collect()
    }

    /// Fails unless an execution backed up what there is: its backup is published, its archive is the only one, and nothing is left of the way there.
    pub(crate) async fn is_the_only_backup(&self, execution: &Execution) {
        assert_eq!(self.is_success(execution), "BackedUp");
        let archives = self.archives().await;
        assert_eq!(archives.len(), 1, "{archives:?}");
        let manifest = self.fixture.ok("show").await;
        assert_eq!(manifest["key"], archives[0]);
        assert_eq!(self.fixture.pointer().await.as_deref(), manifest["backup_id"].as_str());
        assert_eq!(self.fixture.uploads().await, 0, "a multipart upload stays");
        assert_eq!(self.fixture.snapshot_files(), Vec::<PathBuf>::new(), "a snapshot stays");
        assert!(!self.fixture.cloud.work_dir().join("unfinished").exists(), "the journal stays");
        assert_eq!(self.workflow.sns.messages(), [], "a success is told as a failure");
    }

    /// Fails unless an execution failed with this error, and says these texts to whoever looks at it and to whoever is notified.
    pub(crate) fn is_failure(&self, execution: &Execution, error: &str, texts: &[&str]) {
        assert_eq!(execution.status, Status::Failed, "{}", self.logs());
        assert_eq!(execution.failure.error.as_deref(), Some(error), "{:?}", execution.failure);
        let messages = self.workflow.sns.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        let cause = execution.failure.cause.as_deref().unwrap_or_default();
        for (said, by) in [(cause, "the execution"), (&messages[0].text, "the notification")] {
            for text in texts {
                assert!(said.contains(text), "{by} does not say `{text}`: {said}");
            }
        }
        assert!(messages[0].text.contains(error), "{messages:?}");
    }
}

/// Sends a signal to a worker.
pub(crate) fn signal(worker: Pid, signal: Signal) {
    kill_process(worker, signal).unwrap();
}

/// The workers whose work directory is this one, or below it.
pub(crate) fn workers_below(dir: &Path) -> Vec<Pid> {
    let ours = format!("QDRANT_BACKUP_WORK_DIR={}", dir.display());
    let is_ours = |process: &Path| {
        let has = |file, is: &dyn Fn(&[u8]) -> bool| {
            fs_err::read(process.join(file)).is_ok_and(|text| text.split(|byte| *byte == 0).any(is))
        };
        let below = |pair: &[u8]| {
            let rest = pair.strip_prefix(ours.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        has("environ", &below) && has("cmdline", &|argument| argument == b"task")
    };
    let pids = fs_err::read_dir("/proc").unwrap().filter_map(|entry| {
        let process = entry.ok()?.path();
        let pid = Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?)?;
        is_ours(&process).then_some(pid)
    });
    pids.collect()
}
