//! A cloud with everything around it, and short words for what happens to executions.

use std::time::Duration;

use localcloud::{
    ssm::HostOptions,
    stepfunctions::{
        Effect, Execution, Operation, Status,
        machine::{Failure, HistoryEvent},
    },
    workflow::{INSTANCE, TAG, Workflow, WorkflowOptions},
};
use serde_json::{Value, json};

use crate::harness::Fixture;

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

/// For tests of what happens on AWS's side.
impl Flow {
    /// A cloud with the data of [`Fixture::small`], in which nothing waits for longer than it must.
    pub(crate) async fn eager() -> Self {
        let options = WorkflowOptions { eager: true, unseen_calls: 0, ..WorkflowOptions::default() };
        Self::around(Fixture::small().await, &options)
    }

    /// Registers the host anew, with something about it changed. It has neither commands nor processes of before.
    pub(crate) fn change_host(&self, change: impl FnOnce(&mut HostOptions)) {
        let options = self.host(INSTANCE, change);
        self.workflow.ssm.remove_host(INSTANCE).unwrap();
        self.workflow.ssm.add_host(options).unwrap();
    }

    /// The host's options under this instance id, changed.
    pub(crate) fn host(&self, instance_id: &str, change: impl FnOnce(&mut HostOptions)) -> HostOptions {
        let agent = self.fixture.cloud.dir().join("agent").join(instance_id);
        let (key, value) = TAG.split_once('=').unwrap();
        let mut options = HostOptions::new(instance_id, agent).tag(key, value);
        options.env = self.workflow.ssm.environment(INSTANCE).unwrap();
        change(&mut options);
        options
    }

    /// Runs an execution in which something is done to what is stored before it is published: the worker has finished, and is not heard until then.
    pub(crate) async fn run_with_a_break(&self, input: Value, act: impl AsyncFnOnce(&Self)) -> Execution {
        let faults = self.workflow.step_functions.faults();
        // The first is the answer to quiescence.
        faults.on(Operation::SendTaskSuccess).nth(2).times(u64::MAX).inject(Effect::Throttled);
        let execution = self.start(input);
        let tasks = self.fixture.cloud.work_dir().join("tasks");
        let id = self.backup_of(&self.workflow.service().describe_execution(&execution).unwrap());
        let result = tasks.join(format!("backup-{id}")).join("result.json");
        crate::harness::until(|| result.exists()).await;
        act(self).await;
        faults.clear();
        self.ended(&execution).await
    }

    /// Fails unless an execution failed with this error, in words that have all of these, and somebody was told the same.
    pub(crate) fn is_failure(&self, execution: &Execution, error: &str, texts: &[&str]) -> String {
        let Failure { error: found, cause } = &execution.failure;
        let cause = cause.clone().unwrap_or_default();
        assert_eq!(execution.status, Status::Failed, "{}", self.logs());
        assert_eq!(found.as_deref(), Some(error), "{cause}\n{}", self.logs());
        let shown = in_words(&cause);
        for text in texts {
            assert!(shown.contains(text), "`{text}` is not in: {shown}");
        }
        let handbook = include_str!("../../../../../docs/operations.md");
        let mut headings = handbook.lines().filter_map(|line| line.strip_prefix("### "));
        let has = headings.any(|heading| heading.split([' ', ',']).any(|word| word == error));
        assert!(has, "docs/operations.md has no heading {error}");
        let states = self.states(&execution.arn);
        assert_eq!(states[states.len() - 2..], ["NotifyFailure", "Failed"]);
        let name = &execution.name;
        let told = format!(
            "Execution {name} of qdrant-backup failed with {error}: {cause} (what it means and what to do: docs/operations.md, heading {error})"
        );
        let messages = self.workflow.sns.messages();
        let mine = messages.iter().filter(|message| message.text.contains(name.as_str()));
        let texts: Vec<&str> = mine.map(|message| message.text.as_str()).collect();
        assert_eq!(texts, [told]);
        shown
    }

    /// How often a state was retried and went on by itself: by the errors of its failed attempts.
    pub(crate) fn errors(&self, execution: &str) -> Vec<String> {
        let history = self.workflow.service().history(execution).unwrap();
        let details = ["taskFailedEventDetails", "taskTimedOutEventDetails"];
        let errors = history.iter().map(HistoryEvent::to_json).filter_map(|event| {
            details.iter().find_map(|name| event[*name]["error"].as_str().map(str::to_owned))
        });
        errors.collect()
    }

    /// The id of an execution's backup: the second of its start.
    pub(crate) fn backup_of(&self, execution: &Execution) -> String {
        execution.started_at.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// The ids of the backups that have a manifest, oldest first.
    pub(crate) async fn published(&self) -> Vec<String> {
        let keys = self.fixture.keys().await.into_iter();
        let ids = keys.filter_map(|key| {
            let name = key.strip_prefix("qdrant/manifests/")?.strip_suffix(".json")?;
            Some(name.to_owned())
        });
        ids.collect()
    }

    /// Fails unless the host is as a backup that ended leaves it: free, nothing unfinished, no snapshot, no upload.
    pub(crate) async fn assert_put_away(&self) {
        self.assert_free().await;
        let unfinished = self.fixture.cloud.work_dir().join("unfinished/backup.json");
        assert!(!unfinished.exists(), "an unfinished backup stays");
        assert_eq!(self.fixture.snapshot_files(), Vec::<std::path::PathBuf>::new(), "a snapshot stays");
        assert_eq!(self.fixture.uploads().await, 0, "a multipart upload stays");
    }

    /// Fails unless the host's lock can be had, and no token is kept. A worker that was just heard may need a moment to leave.
    pub(crate) async fn assert_free(&self) {
        let work_dir = self.fixture.cloud.work_dir();
        let lock = work_dir.join("lock");
        if !lock.exists() {
            return;
        }
        crate::harness::until(|| fs_err::File::open(&lock).unwrap().file().try_lock().is_ok()).await;
        let kept = || {
            let files = crate::harness::files_below(&work_dir).into_iter();
            let mut tokens =
                files.filter(|file| file.extension().is_some_and(|extension| extension == "token"));
            tokens.any(|file| !fs_err::read(file).unwrap().is_empty())
        };
        crate::harness::until(|| !kept()).await;
    }
}

/// What a cause says: a function's is the JSON of its error, as AWS passes it on.
pub(crate) fn in_words(cause: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(cause).ok();
    let message = parsed.and_then(|parsed| parsed["errorMessage"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| cause.to_owned())
}
