//! What is kept of tasks on this host's disk: who asked, with which token, who has taken it over, and what came out.
//!
//! ```text
//! <work-dir>/tasks/<task>/<execution>/<order>.token   an envelope, token included (0600); empty once it is answered or of no use
//! <work-dir>/tasks/<task>/<execution>/<order>.taken   the running worker answers by this token
//! <work-dir>/tasks/<task>/<execution>/result.json     the output of a task that is done: a later token for it is answered at once
//! ```
//!
//! Names are never used again, a token goes only from full to empty, and orders sort as their names do, so that deliveries which come twice, late or at the same time need no lock: the greatest order counts.

use std::{
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use protocol::{Envelope, ExecutionName, TaskId, TaskKind, TokenOrder};
use serde_json::Value;
use tracing::warn;

use crate::{
    backup::{local, write_durably},
    error::Error,
};

/// How long what is known of a task is kept after it was last touched: longer than an execution takes and may be redriven (14 days after its end).
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 20);

/// How old a file is that nobody writes any more.
const TORN_AFTER: Duration = Duration::from_secs(60);

/// The tasks that one execution has asked for under one id.
#[derive(Clone, Debug)]
pub struct Inbox {
    task: TaskId,
    dir: PathBuf,
}

/// What became of an envelope that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is the newest now. The file that holds it.
    Newest(PathBuf),
    /// A newer one was delivered before: this one says nothing any more.
    Outdated {
        /// The newest.
        newest: TokenOrder,
    },
}

impl Inbox {
    /// The inbox of a task in this work directory. Nothing is made yet.
    pub fn of(work_dir: &Path, task: TaskId, execution: &ExecutionName) -> Self {
        let dir = tasks(work_dir).join(task.to_string()).join(execution.to_string());
        Self { task, dir }
    }

    /// Keeps an envelope unless a newer one is there, and empties older ones: an execution gives out a token when the one before is dead. The same one
    /// again changes nothing.
    pub fn offer(&self, envelope: &Envelope) -> Result<Offer, Error> {
        if let Some(newest) = self.newest()?.filter(|newest| *newest > envelope.order) {
            return Ok(Offer::Outdated { newest });
        }
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).map_err(|source| local(&self.dir, "create", source))?;
        self.remove_torn();
        let path = self.file(envelope.order, "token");
        if !path.exists() {
            write_secret(&path, envelope)?;
        }
        for order in self.orders()?.into_iter().filter(|order| *order < envelope.order) {
            self.spend(order);
        }
        Ok(Offer::Newest(path))
    }

    /// Removes what a delivery has left that was killed while it wrote. One that writes right now writes again, or is the same.
    fn remove_torn(&self) {
        let Ok(entries) = fs_err::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let age = fs_err::metadata(&path).and_then(|metadata| metadata.modified());
            let torn = path.extension().is_some_and(|extension| extension == "tmp");
            if torn && age.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > TORN_AFTER)) {
                let _gone_already = fs_err::remove_file(&path);
            }
        }
    }

    /// The greatest order that was delivered.
    pub fn newest(&self) -> Result<Option<TokenOrder>, Error> {
        Ok(self.orders()?.into_iter().max())
    }

    /// Every order that was delivered.
    fn orders(&self) -> Result<Vec<TokenOrder>, Error> {
        let entries = match fs_err::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(local(&self.dir, "list", source)),
        };
        let mut orders = Vec::new();
        for entry in entries {
            let name = entry.map_err(|source| local(&self.dir, "list", source))?.file_name();
            orders.extend(name.to_str().and_then(parse_token_file));
        }
        Ok(orders)
    }

    /// The envelope of this order; `None` when it was answered, or is known to be dead.
    pub fn envelope(&self, order: TokenOrder) -> Result<Option<Envelope>, Error> {
        read_envelope(&self.file(order, "token"))
    }

    /// Empties the envelope of this order, for its token is of no use any more. The file stays: that it was delivered is worth knowing.
    pub fn spend(&self, order: TokenOrder) {
        let path = self.file(order, "token");
        if let Err(error) = fs_err::write(&path, b"") {
            warn!(error = &error as &dyn std::error::Error, "a token that is of no use stays on the disk");
        }
    }

    /// Says that the running worker answers by the token of this order.
    pub fn take(&self, order: TokenOrder) -> Result<(), Error> {
        let path = self.file(order, "taken");
        fs_err::write(&path, b"").map_err(|source| local(&path, "write", source))
    }

    /// Whether the running worker has said so.
    pub fn is_taken(&self, order: TokenOrder) -> bool {
        self.file(order, "taken").exists()
    }

    /// Keeps what came out, before anybody is told. That nothing was being written is an observation, and grows old: it is made anew for whoever asks again.
    pub fn keep_result(&self, output: &Value) -> Result<(), Error> {
        if self.task.kind == TaskKind::Quiesce {
            return Ok(());
        }
        write_durably(&self.result_file(), output.to_string().as_bytes())
    }

    /// What came out, when the task was done before.
    pub fn result(&self) -> Option<Value> {
        // One that cannot be read is as good as none: the task is done again, and ends the same.
        serde_json::from_slice(&fs_err::read(self.result_file()).ok()?).ok()
    }

    /// The log of a worker that is started as a detached process.
    pub(super) fn log_file(&self, order: TokenOrder) -> PathBuf {
        self.file(order, "log")
    }

    fn result_file(&self) -> PathBuf {
        self.dir.join("result.json")
    }

    fn file(&self, order: TokenOrder, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", file_stem(order)))
    }

    /// The task.
    pub fn task(&self) -> TaskId {
        self.task
    }
}

/// Reads the envelope that [`Offer::Newest`] named; `None` when it was spent.
pub fn read_envelope(path: &Path) -> Result<Option<Envelope>, Error> {
    let bytes = fs_err::read(path).map_err(|source| local(path, "read", source))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    // The parser's message could quote the token.
    let unreadable = |_e: serde_json::Error| io::Error::other("it is not an envelope");
    serde_json::from_slice(&bytes).map(Some).map_err(unreadable).map_err(|source| local(path, "read", source))
}

/// Removes what is known of tasks that nobody can ask for any more, by when they were last touched. What cannot be removed is tried again by the next one.
pub fn forget_old(work_dir: &Path, current: TaskId, now: Timestamp) {
    let Ok(entries) = fs_err::read_dir(tasks(work_dir)) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let old = last_touched(&path).is_some_and(|touched| now.duration_since(touched) > KEPT);
        if old
            && path != tasks(work_dir).join(current.to_string())
            && let Err(error) = fs_err::remove_dir_all(&path)
        {
            warn!(error = &error as &dyn std::error::Error, "what is known of an old task stays on the disk");
        }
    }
}

/// When something was last added to a task's directory, or to one of its executions'.
fn last_touched(task_dir: &Path) -> Option<Timestamp> {
    let executions = fs_err::read_dir(task_dir).ok()?.flatten().map(|entry| entry.path());
    let touched = executions
        .chain([task_dir.to_owned()])
        .filter_map(|path| Timestamp::try_from(fs_err::metadata(path).ok()?.modified().ok()?).ok());
    touched.max()
}

fn tasks(work_dir: &Path) -> PathBuf {
    work_dir.join("tasks")
}

/// As `00001795410841500000000-0002`: nanoseconds of the epoch and retries, so that names sort as orders do.
fn file_stem(order: TokenOrder) -> String {
    format!("{:023}-{:04}", order.entered_at.as_nanosecond().max(0), order.retry_count)
}

fn parse_token_file(name: &str) -> Option<TokenOrder> {
    let (entered, retries) = name.strip_suffix(".token")?.split_once('-')?;
    let entered_at = Timestamp::from_nanosecond(entered.parse().ok()?).ok()?;
    Some(TokenOrder { entered_at, retry_count: retries.parse().ok()? })
}

/// Nobody but this user may read it, from its first byte on; and it is there as a whole or not at all.
fn write_secret(path: &Path, envelope: &Envelope) -> Result<(), Error> {
    let failed = |source| local(path, "write", source);
    let bytes = serde_json::to_vec(envelope).map_err(|error| failed(error.into()))?;
    // Two deliveries of the same envelope write the same bytes to files of their own.
    let temporary = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create_new(true);
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary).map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs_err::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use protocol::TaskToken;
    use serde_json::json;

    use super::*;

    fn envelope(retry_count: u32) -> Envelope {
        Envelope {
            task: TaskId { kind: TaskKind::Backup, backup: "20261123T051400Z".parse().unwrap() },
            collections: Vec::new(),
            execution: "nightly".parse().unwrap(),
            order: TokenOrder { entered_at: "2026-11-23T05:14:01.5Z".parse().unwrap(), retry_count },
            token: TaskToken::from(format!("token-{retry_count}")),
        }
    }

    fn inbox(dir: &Path) -> Inbox {
        let Envelope { task, execution, .. } = envelope(0);
        Inbox::of(dir, task, &execution)
    }

    #[test]
    fn the_newest_token_counts_whatever_comes_when() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = inbox(dir.path());
        assert_eq!(inbox.newest().unwrap(), None);
        let Offer::Newest(path) = inbox.offer(&envelope(1)).unwrap() else { panic!("it is the only one") };
        assert_eq!(read_envelope(&path).unwrap(), Some(envelope(1)));
        assert_eq!(inbox.offer(&envelope(1)).unwrap(), Offer::Newest(path), "delivered twice");
        assert_eq!(inbox.offer(&envelope(0)).unwrap(), Offer::Outdated { newest: envelope(1).order });
        assert!(matches!(inbox.offer(&envelope(12)).unwrap(), Offer::Newest(_)));
        assert_eq!(inbox.newest().unwrap(), Some(envelope(12).order));

        assert!(!inbox.is_taken(envelope(12).order));
        inbox.take(envelope(12).order).unwrap();
        assert!(inbox.is_taken(envelope(12).order) && !inbox.is_taken(envelope(1).order));
    }

    #[test]
    fn a_token_is_for_nobody_else_and_goes_when_it_is_spent() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = inbox(dir.path());
        let Offer::Newest(path) = inbox.offer(&envelope(0)).unwrap() else { panic!("it is the only one") };
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs_err::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        inbox.spend(envelope(0).order);
        assert_eq!(inbox.envelope(envelope(0).order).unwrap(), None);
        assert!(!fs_err::read_to_string(&path).unwrap().contains("token"));
        inbox.offer(&envelope(0)).unwrap();
        assert_eq!(
            inbox.envelope(envelope(0).order).unwrap(),
            None,
            "a late delivery does not bring it back"
        );
        inbox.offer(&envelope(1)).unwrap();
        inbox.offer(&envelope(2)).unwrap();
        assert_eq!(inbox.envelope(envelope(1).order).unwrap(), None, "nobody waits for it any more");
        assert_eq!(inbox.envelope(envelope(2).order).unwrap(), Some(envelope(2)));
    }

    #[test]
    fn a_result_is_for_the_execution_that_asked() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, kept) in [(TaskKind::Backup, true), (TaskKind::Drill, true), (TaskKind::Quiesce, false)] {
            let asked = Envelope { task: TaskId { kind, ..envelope(0).task }, ..envelope(0) };
            let inbox = Inbox::of(dir.path(), asked.task, &asked.execution);
            inbox.offer(&asked).unwrap();
            assert_eq!(inbox.result(), None);
            inbox.keep_result(&json!({"size": 7})).unwrap();
            assert_eq!(inbox.result().is_some(), kept, "{kind}: what was seen at rest is looked at again");
            let other = Inbox::of(dir.path(), asked.task, &"console".parse().unwrap());
            assert_eq!(other.result(), None, "{kind}: another may have asked for something else");
        }
    }

    #[test]
    fn old_tasks_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = inbox(dir.path());
        inbox.offer(&envelope(0)).unwrap();
        let days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
        let another = TaskId { kind: TaskKind::Drill, ..envelope(0).task };
        forget_old(dir.path(), another, days(19));
        assert!(inbox.newest().unwrap().is_some());
        forget_old(dir.path(), envelope(0).task, days(400));
        assert!(inbox.newest().unwrap().is_some(), "a backup may be drilled after a year");
        forget_old(dir.path(), another, days(21));
        assert_eq!(inbox.newest().unwrap(), None);
        forget_old(&dir.path().join("none"), another, days(21));
    }
}
