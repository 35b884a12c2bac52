//! For tests of what happens on AWS's side: a host that is changed, a break before publication, and what came of an execution.

use localcloud::{
    cloudwatch::Datum,
    ssm::HostOptions,
    stepfunctions::{
        Effect, Execution, Operation, Status,
        machine::{Failure, HistoryEvent},
    },
    workflow::{INSTANCE, Machine, NAMESPACE, TAG, WorkflowOptions},
};
use serde_json::Value;

use super::harness::Flow;
use crate::harness::{Fixture, files_below, until};

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
        let asked = self.workflow.service().describe_execution(&execution).unwrap();
        let task = format!("backup-{}", self.backup_of(&asked));
        let result = tasks.join(task).join(&asked.name).join("result.json");
        until(|| result.exists()).await;
        act(self).await;
        faults.clear();
        self.ended(&execution).await
    }

    /// Fails unless an execution failed with this error, in words that have all of these, and somebody was told the same.
    pub(crate) fn has_failed(&self, execution: &Execution, error: &str, texts: &[&str]) -> String {
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
        let machine =
            Machine::ALL.into_iter().find(|one| self.workflow.machine(*one) == execution.state_machine_arn);
        if matches!(machine, Some(Machine::Backup | Machine::RestoreDrill)) {
            assert_eq!(states[states.len() - 3], "CountFailure");
            assert!(self.failures_counted().contains(&error.to_owned()), "{:?}", self.failures_counted());
        }
        let name = &execution.name;
        let machine = execution.state_machine_arn.rsplit(':').next().unwrap();
        let told = format!(
            "Execution {name} of {machine} failed with {error}: {cause} (what it means and what to do: docs/operations.md, heading {error})"
        );
        let messages = self.workflow.sns.messages();
        let mine = messages.iter().filter(|message| message.text.contains(name.as_str()));
        let texts: Vec<&str> = mine.map(|message| message.text.as_str()).collect();
        assert_eq!(texts, [told]);
        shown
    }

    /// The kinds of failed executions that were counted, in order.
    pub(crate) fn failures_counted(&self) -> Vec<String> {
        let data = self.workflow.cloudwatch.data();
        let counted = data.into_iter().filter(|datum| datum.metric == "ExecutionFailures");
        counted
            .map(|Datum { namespace, dimensions, unit, value, .. }| {
                assert_eq!((namespace.as_str(), unit.as_str(), value), (NAMESPACE, "Count", 1.0));
                let [(name, kind)] = dimensions.try_into().unwrap();
                assert_eq!(name, "FailureKind");
                kind
            })
            .collect()
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
        until(|| fs_err::File::open(&lock).unwrap().file().try_lock().is_ok()).await;
        let kept = || {
            let files = files_below(&work_dir).into_iter();
            let mut tokens =
                files.filter(|file| file.extension().is_some_and(|extension| extension == "token"));
            tokens.any(|file| !fs_err::read(file).unwrap().is_empty())
        };
        until(|| !kept()).await;
    }
}

/// What a cause says: a function's is the JSON of its error, as AWS passes it on.
pub(crate) fn in_words(cause: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(cause).ok();
    let message = parsed.and_then(|parsed| parsed["errorMessage"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| cause.to_owned())
}
