//! Hosts in memory: they know what Systems Manager knows, record what they are sent, and fare as a script says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Call, Command, CommandId, Host, Hosts, HostsError, InstanceId, Invocation, Tag};

/// Hosts in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    hosts: Vec<(Vec<Tag>, Host)>,
    sent: Vec<Sent>,
    faults: Vec<HostsError>,
    plan: Plan,
    commands: BTreeMap<CommandId, VecDeque<Option<Invocation>>>,
}

/// How commands fare from now on: the answers to one look after another, of which the last is repeated.
#[derive(Clone, Debug)]
pub struct Plan(pub Vec<Option<Invocation>>);

impl Default for Plan {
    /// Unknown at first, as is normal, then a success.
    fn default() -> Self {
        let success = Invocation {
            status: "Success".to_owned(),
            exit_code: Some(0),
            stdout: String::new(),
            stderr: String::new(),
        };
        Self(vec![None, Some(success)])
    }
}

/// A command that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The id that it got.
    pub id: CommandId,
    /// What was sent.
    pub command: Command,
}

impl Memory {
    /// No hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a host that carries these tags.
    pub fn add(&self, id: &InstanceId, ping: &str, tags: &[&Tag]) {
        let tags = tags.iter().map(|tag| (*tag).clone()).collect();
        self.lock().hosts.push((tags, Host { id: id.clone(), ping: ping.to_owned() }));
    }

    /// Forgets every host.
    pub fn clear(&self) {
        self.lock().hosts.clear();
    }

    /// Decides how commands fare that are sent from now on.
    pub fn plan(&self, plan: Plan) {
        self.lock().plan = plan;
    }

    /// Lets the next call of its kind fail so. A refused call has no effect.
    pub fn fail(&self, error: HostsError) {
        self.lock().faults.push(error);
    }

    /// What was sent, in order.
    pub fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fault(&mut self, call: Call) -> Result<(), HostsError> {
        match self.faults.iter().position(|fault| fault.call == call) {
            Some(index) => Err(self.faults.remove(index)),
            None => Ok(()),
        }
    }
}

impl Hosts for Memory {
    async fn tagged(&self, tag: &Tag) -> Result<Vec<Host>, HostsError> {
        let mut state = self.lock();
        state.fault(Call::Describe)?;
        let carry = state.hosts.iter().filter(|(tags, _)| tags.contains(tag));
        Ok(carry.map(|(_, host)| host.clone()).collect())
    }

    async fn send(&self, command: &Command) -> Result<CommandId, HostsError> {
        let mut state = self.lock();
        state.fault(Call::Send)?;
        let id = CommandId::from(format!("00000000-0000-4000-8000-{:012}", state.sent.len() + 1));
        let course = state.plan.0.iter().cloned().collect();
        state.commands.insert(id.clone(), course);
        state.sent.push(Sent { id: id.clone(), command: command.clone() });
        Ok(id)
    }

    async fn look(&self, command: &CommandId, _host: &InstanceId) -> Result<Option<Invocation>, HostsError> {
        let mut state = self.lock();
        state.fault(Call::Look)?;
        let Some(course) = state.commands.get_mut(command) else { return Ok(None) };
        Ok(if course.len() > 1 { course.pop_front() } else { course.front().cloned() }.flatten())
    }
}
