//! Parallel and Map: several threads below one state, which ends when all have ended, or fails when one fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Turn;
use super::failure::{Failure, Trouble};
use super::flow::{Activity, Entry, Thread, ThreadId};
use super::history::Happening;
use crate::stepfunctions::asl::{Kind, Map, Parallel, Sequence, State};

/// A branch's place in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) thread: ThreadId,
    pub(super) index: usize,
}

/// The branches of a state, or its items.
#[derive(Debug)]
pub(super) struct Fork {
    results: Vec<Value>,
    running: BTreeMap<usize, ThreadId>,
    /// Items that wait for a place (`MaxConcurrency`).
    waiting: VecDeque<Item>,
}

#[derive(Debug)]
struct Item {
    index: usize,
    input: Value,
    /// What `$$.Map.Item` shows.
    shown: Option<Value>,
    sequence: Arc<Sequence>,
}

impl Turn<'_> {
    pub(super) fn fork_branches(
        &mut self,
        thread: ThreadId,
        state: &State,
        parallel: &Parallel,
    ) -> Result<(), Trouble> {
        let (_, input) = self.with_desk(thread, None, |desk, raw| desk.effective(state, &raw))?;
        self.record(thread, Happening::ParallelStateStarted);
        let items = parallel.branches.iter().enumerate().map(|(index, branch)| Item {
            index,
            input: input.clone(),
            shown: None,
            sequence: Arc::clone(branch),
        });
        self.fork(thread, items.collect(), usize::MAX);
        Ok(())
    }

    pub(super) fn fork_items(&mut self, thread: ThreadId, state: &State, map: &Map) -> Result<(), Trouble> {
        let context = self.context(thread, None);
        let inputs = self.with_desk(thread, None, |desk, raw| {
            let (input, _) = desk.effective(state, &raw)?;
            let Value::Array(items) = desk.filter(&map.items_path, &input)? else {
                return Err(Trouble::Unusable("The items of a Map state must be an array".to_owned()));
            };
            let mut inputs = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let shown = json!({"Index": index, "Value": item});
                let item = match &map.item_selector {
                    None => item,
                    Some(template) => {
                        let mut context = context.clone();
                        context["Map"] = json!({"Item": shown});
                        let mut desk = super::data::Desk { context: &context, uuid: &mut *desk.uuid };
                        desk.fill(template, &input)?
                    }
                };
                inputs.push((item, shown));
            }
            Ok(inputs)
        })?;
        self.record(thread, Happening::MapStateStarted { length: inputs.len() });
        let items = inputs.into_iter().enumerate().map(|(index, (input, shown))| Item {
            index,
            input,
            shown: Some(shown),
            sequence: Arc::clone(&map.processor),
        });
        let at_once = map.max_concurrency.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        self.fork(thread, items.collect(), at_once);
        Ok(())
    }

    fn fork(&mut self, thread: ThreadId, items: VecDeque<Item>, at_once: usize) {
        let fork = Fork { results: vec![Value::Null; items.len()], running: BTreeMap::new(), waiting: items };
        let first = fork.waiting.len().min(at_once);
        self.set_activity(thread, Activity::Forked(fork));
        let previous = self.last_event(thread);
        for _ in 0..first {
            self.start_next(thread, previous);
        }
        self.join(thread);
    }

    /// Starts the next item that waits for a place.
    fn start_next(&mut self, parent: ThreadId, previous: u64) {
        let Some(item) = self.fork_mut(parent).and_then(|fork| fork.waiting.pop_front()) else { return };
        self.execution.forks += 1;
        let thread = ThreadId(self.execution.forks);
        let previous = match self.map_name(parent) {
            Some(name) => {
                self.record_after(previous, Happening::MapIterationStarted { name, index: item.index })
            }
            None => previous,
        };
        if let Some(fork) = self.fork_mut(parent) {
            fork.running.insert(item.index, thread);
        }
        let state = item.sequence.start_at.clone();
        let child = Thread {
            sequence: item.sequence,
            parent: Some(Parent { thread: parent, index: item.index }),
            // A branch below an item still sees the item.
            item: item.shown.or_else(|| self.execution.threads.get(&parent)?.item.clone()),
            last_event: previous,
            visit: None,
        };
        self.execution.threads.insert(thread, child);
        self.ready.push_back(Entry { thread, state, input: item.input });
    }

    pub(super) fn child_ended(&mut self, child: ThreadId, parent: Parent, output: Value) {
        let last = self.last_event(child);
        self.execution.threads.remove(&child);
        if let Some(fork) = self.fork_mut(parent.thread) {
            fork.running.remove(&parent.index);
            if let Some(result) = fork.results.get_mut(parent.index) {
                *result = output;
            }
        }
        let ended = match self.map_name(parent.thread) {
            Some(name) => {
                self.record_after(last, Happening::MapIterationSucceeded { name, index: parent.index })
            }
            None => last,
        };
        self.set_last_event(parent.thread, ended);
        self.start_next(parent.thread, last);
        self.join(parent.thread);
    }

    /// Ends the state if nothing is left to be run.
    fn join(&mut self, thread: ThreadId) {
        let Some(fork) = self.fork_mut(thread) else { return };
        if !fork.running.is_empty() || !fork.waiting.is_empty() {
            return;
        }
        let results = Value::Array(std::mem::take(&mut fork.results));
        self.set_activity(thread, Activity::Working);
        let Some(state) = self.state(thread) else { return };
        // On AWS the exit follows the same event as this one does.
        let last = self.last_event(thread);
        self.record_after(last, Happening::StateSucceeded { state_type: state.type_name() });
        self.complete(thread, results);
    }

    /// One branch has failed: the others are cut short, and the state fails.
    pub(super) fn child_failed(&mut self, child: ThreadId, parent: Parent, failure: Failure) {
        let last = self.last_event(child);
        let Some(fork) = self.fork_mut(parent.thread) else { return };
        let running = std::mem::take(&mut fork.running);
        for (index, thread) in running {
            if let Some(name) = self.map_name(parent.thread) {
                let happening = if thread == child {
                    Happening::MapIterationFailed { name, index }
                } else {
                    Happening::MapIterationAborted { name, index }
                };
                self.record_after(last, happening);
            }
            self.abort(thread, last);
        }
        self.set_activity(parent.thread, Activity::Working);
        self.set_last_event(parent.thread, last);
        self.state_failed(parent.thread, failure);
    }

    /// Takes a thread out, with all below it. A task, a wait and a fork leave a trace, as on AWS.
    fn abort(&mut self, thread: ThreadId, previous: u64) {
        self.cancel_timers_of(thread);
        let below: Vec<ThreadId> =
            self.fork_mut(thread).map(|fork| fork.running.values().copied().collect()).unwrap_or_default();
        for child in below {
            self.abort(child, previous);
        }
        self.ready.retain(|entry| entry.thread != thread);
        let Some(gone) = self.execution.threads.remove(&thread) else { return };
        let Some(state) = gone.visit.map(|visit| visit.state) else { return };
        if matches!(state.kind, Kind::Task(_) | Kind::Wait { .. } | Kind::Parallel(_) | Kind::Map(_)) {
            self.record_after(previous, Happening::StateAborted { state_type: state.type_name() });
        }
    }

    fn fork_mut(&mut self, thread: ThreadId) -> Option<&mut Fork> {
        match &mut self.visit_mut(thread)?.activity {
            Activity::Forked(fork) => Some(fork),
            Activity::Working
            | Activity::Waiting { .. }
            | Activity::BackingOff(_)
            | Activity::Attempting(_) => None,
        }
    }

    /// The name of the Map that a thread is in; nothing for a Parallel.
    fn map_name(&self, thread: ThreadId) -> Option<String> {
        let state = self.state(thread)?;
        matches!(state.kind, Kind::Map(_)).then(|| state.name.clone())
    }
}
