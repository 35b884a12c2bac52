//! Child processes that do not outlive what started them.

use rustix::process::{Pid, Signal, kill_process_group};

/// A process group that dies (SIGKILL) with its guard.
#[derive(Debug)]
pub(crate) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// Guards the group whose leader is this child.
    pub(crate) fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Kills the whole group.
    pub(crate) fn kill(&self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a process group had already ended");
        }
    }

    /// Lets go of it: the leader has ended, and its number may be another's soon.
    pub(crate) fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
