//! What the service knows: documents, hosts and commands, and how an invocation changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::SsmOptions;
use super::agent::Report;
use super::call::CallLog;
use super::command::{Command, Invocation, Run, State};
use super::document::{Definition, DocumentError};
use super::fault::Faults;
use super::host::Host;
use crate::background::Spawner;

/// What calls, agents and the owner share.
#[derive(Debug)]
pub(super) struct Service {
    /// What the processes of all hosts are known by.
    pub(super) id: String,
    pub(super) account: String,
    pub(super) region: String,
    pub(super) unseen_calls: u32,
    pub(super) second: Duration,
    pub(super) page_size: usize,
    pub(super) state: Mutex<Contents>,
    pub(super) faults: Faults,
    pub(super) calls: CallLog,
    /// Counts changes of the state, so that somebody can wait for one.
    pub(super) changes: watch::Sender<u64>,
    pub(super) spawner: Spawner,
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) documents: BTreeMap<String, Vec<Arc<StoredDocument>>>,
    pub(super) hosts: BTreeMap<String, Arc<Host>>,
    /// In the order in which they were sent.
    pub(super) commands: Vec<Command>,
    pub(super) released: u64,
}

/// One version of a document.
#[derive(Debug)]
pub(super) struct StoredDocument {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) content: String,
    pub(super) definition: Arc<Definition>,
    pub(super) created: Timestamp,
}

impl Service {
    pub(super) fn new(options: SsmOptions, spawner: Spawner) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            account: options.account,
            region: options.region,
            unseen_calls: options.unseen_calls,
            second: options.second,
            page_size: options.page_size.max(1),
            state: Mutex::default(),
            faults: Faults::default(),
            calls: CallLog::default(),
            changes: watch::Sender::new(0),
            spawner,
        }
    }

    /// The state, for as long as the guard lives. Nothing awaits while holding it.
    pub(super) fn state(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Resolves when the condition holds.
    pub(super) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        while !condition(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn released(&self) -> u64 {
        self.state().released
    }

    /// Whether a command that was sent to the host after this one has ended there.
    pub(super) fn newer_has_ended(&self, command_id: &str, instance_id: &str) -> bool {
        let state = self.state();
        let newer = state.commands.iter().skip_while(|command| command.id != command_id).skip(1);
        newer.filter_map(|command| command.invocation(instance_id)).any(|other| other.state.is_final())
    }

    pub(super) fn store_document(
        &self,
        name: &str,
        content: &str,
    ) -> Result<Arc<StoredDocument>, DocumentError> {
        let definition = Arc::new(Definition::parse(content)?);
        let mut state = self.state();
        let versions = state.documents.entry(name.to_owned()).or_default();
        let document = Arc::new(StoredDocument {
            name: name.to_owned(),
            version: versions.last().map_or(0, |last| last.version) + 1,
            content: content.to_owned(),
            definition,
            created: self.now(),
        });
        versions.push(Arc::clone(&document));
        Ok(document)
    }

    /// Changes an invocation, unless that is over.
    pub(super) fn change(&self, command_id: &str, instance_id: &str, change: impl FnOnce(&mut Invocation)) {
        let mut state = self.state();
        let command = state.commands.iter_mut().find(|command| command.id == command_id);
        if let Some(invocation) = command.and_then(|command| command.invocation_mut(instance_id)) {
            change(invocation);
        }
        drop(state);
        self.changed();
    }

    /// Notes that a script starts; the answer is the number of the run.
    pub(super) fn started(&self, command_id: &str, instance_id: &str) -> usize {
        let now = self.now();
        let mut number = 0;
        self.change(command_id, instance_id, |invocation| {
            if invocation.state == State::Pending {
                invocation.state = State::InProgress;
            }
            invocation.started.get_or_insert(now);
            number = invocation.runs.len();
            invocation.runs.push(Run { started: now, exit_code: None });
        });
        number
    }

    /// Notes how a run ended.
    pub(super) fn ran(&self, command_id: &str, instance_id: &str, number: usize, exit_code: Option<i32>) {
        self.change(command_id, instance_id, |invocation| {
            if let Some(run) = invocation.runs.get_mut(number) {
                run.exit_code = exit_code;
            }
        });
    }

    /// Takes the agent's report, unless the invocation has ended already.
    pub(super) fn report(&self, command_id: &str, instance_id: &str, report: Report) {
        let now = self.now();
        self.change(command_id, instance_id, |invocation| {
            if !invocation.state.is_final() {
                invocation.state = report.state;
                invocation.response_code = report.response_code;
                invocation.stdout = report.stdout;
                invocation.stderr = report.stderr;
                invocation.ended = Some(now);
            }
        });
    }
}
