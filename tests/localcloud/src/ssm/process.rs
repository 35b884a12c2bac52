//! Processes of a host: found by a variable in their environment, because whatever detaches itself keeps that.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The variable that every process of a host has.
pub(crate) const MARKER: &str = "LOCALCLOUD_HOST";

/// How often the table of processes is read until nothing is left of what was killed, and how long between: five seconds.
const ROUNDS: u32 = 1000;
const BETWEEN: Duration = Duration::from_millis(5);

/// Which of the marked processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them.
    All,
    /// Those in this process's own session: what detached itself with a session of its own is left alone.
    Attached,
}

/// Kills (SIGKILL) the processes whose [`MARKER`] starts with `prefix`, until there is none any more. Answers how many there were.
pub(crate) fn kill_marked(prefix: &str, which: Which) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found = marked(prefix, which);
        if found.is_empty() {
            return killed.len();
        }
        for pid in found {
            if kill_process(pid, Signal::KILL).is_ok() {
                killed.insert(pid.as_raw_nonzero());
            }
        }
        std::thread::sleep(BETWEEN);
    }
    tracing::error!(prefix, "some processes of the host cannot be killed");
    killed.len()
}

/// The processes whose [`MARKER`] starts with `prefix`. One that is dead and not yet waited for has no environment.
pub(crate) fn marked(prefix: &str, which: Which) -> Vec<Pid> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Vec::new() };
    let start = format!("{MARKER}={prefix}");
    let pids = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = fs_err::read(entry.path().join("environ")).ok()?;
        let ours = environment.split(|&byte| byte == 0).any(|pair| pair.starts_with(start.as_bytes()));
        ours.then_some(pid)
    });
    let own = session("self");
    pids.filter(|pid| {
        which == Which::All || (own.is_some() && session(&pid.as_raw_nonzero().to_string()) == own)
    })
    .collect()
}

/// The session of a process, read where it may be 0: in a container its leader can be a process that is not seen from within,
/// and `getsid` of `rustix` takes that for impossible.
fn session(process: &str) -> Option<i32> {
    let stat = fs_err::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which is in parentheses and may hold anything: state, parent, process group, session (proc_pid_stat(5)).
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}
