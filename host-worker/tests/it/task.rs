//! A task from its envelope to its answer, on a clock that is driven: Step Functions and the work are doubles, the disk is real.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    time::Duration,
};

use host_worker::{
    lock::HostLock,
    pulse::{Phase, Pulse},
    task::{
        CallbackError, Callbacks, Delivered, Failure, Host, Inbox, MAX_OUTPUT, Offer, Timing, Work, deliver,
    },
};
use protocol::{Envelope, FailureKind, TaskId, TaskKind, TaskToken, TokenOrder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Step Functions, as far as a worker sees it.
#[derive(Clone, Default)]
struct Workflow(Rc<WorkflowState>);

#[derive(Default)]
struct WorkflowState {
    closed: RefCell<BTreeSet<String>>,
    unreachable: Cell<bool>,
    lose_replies: Cell<bool>,
    said: RefCell<Vec<String>>,
}

impl Workflow {
    fn call(&self, token: &TaskToken, what: &str, closes: bool) -> Result<(), CallbackError> {
        let token = token.expose().to_owned();
        if self.0.unreachable.get() {
            return Err(CallbackError::Unreachable { problem: "no route".to_owned() });
        }
        if self.0.closed.borrow().contains(&token) {
            return Err(CallbackError::Dead { code: "TaskTimedOut".to_owned() });
        }
        self.0.said.borrow_mut().push(format!("{token} {what}"));
        if closes {
            self.close(&token);
        }
        if self.0.lose_replies.get() {
            return Err(CallbackError::Unreachable { problem: "no reply".to_owned() });
        }
        Ok(())
    }

    fn close(&self, token: &str) {
        self.0.closed.borrow_mut().insert(token.to_owned());
    }

    fn said(&self) -> Vec<String> {
        self.0.said.borrow().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.said().iter().filter(|said| *said == what).count()
    }

    /// What was said besides heartbeats.
    fn answers(&self) -> Vec<String> {
        self.said().into_iter().filter(|said| !said.ends_with(" beats")).collect()
    }
}

impl Callbacks for Workflow {
    async fn heartbeat(&self, token: &TaskToken) -> Result<(), CallbackError> {
        self.call(token, "beats", false)
    }

    async fn success(&self, token: &TaskToken, output: &str) -> Result<(), CallbackError> {
        self.call(token, &format!("succeeds with {output}"), true)
    }

    async fn failure(&self, token: &TaskToken, kind: FailureKind, cause: &str) -> Result<(), CallbackError> {
        self.call(token, &format!("fails with {kind}: {cause}"), true)
    }
}

/// Work that takes a time and then ends in a way.
#[derive(Clone)]
struct Job {
    seconds: u64,
    ends: Ends,
    runs: Rc<Cell<u32>>,
    stopped: Rc<Cell<bool>>,
}

#[derive(Clone)]
enum Ends {
    With(Value),
    Failing(FailureKind),
    Panicking,
    /// It goes on living, marks nothing and hears nothing.
    Never,
}

fn job(seconds: u64, ends: Ends) -> Job {
    Job { seconds, ends, runs: Rc::default(), stopped: Rc::default() }
}

impl Work for Job {
    async fn run(
        &self,
        _envelope: &Envelope,
        _lock: &HostLock,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> Result<Value, Failure> {
        self.runs.set(self.runs.get() + 1);
        pulse.enter(Phase::Upload);
        if matches!(self.ends, Ends::Never) {
            std::future::pending::<()>().await;
        }
        for _ in 0..self.seconds {
            pulse.mark();
            if cancel.run_until_cancelled(sleep(Duration::from_secs(1))).await.is_none() {
                self.stopped.set(true);
                return Err(Failure {
                    kind: FailureKind::Cancelled,
                    cause: "stopped by a signal".to_owned(),
                });
            }
        }
        match &self.ends {
            Ends::With(output) => Ok(output.clone()),
            Ends::Failing(kind) => Err(Failure { kind: *kind, cause: "it broke; hint: mend it".to_owned() }),
            Ends::Panicking => panic!("index out of bounds"),
            Ends::Never => unreachable!("it never ends"),
        }
    }
}

fn envelope_of(execution: &str, retry_count: u32) -> Envelope {
    Envelope {
        task: TaskId { kind: TaskKind::Backup, backup: "20261123T051400Z".parse().unwrap() },
        collections: Vec::new(),
        execution: execution.parse().unwrap(),
        order: TokenOrder { entered_at: "2026-11-23T05:14:01.5Z".parse().unwrap(), retry_count },
        token: TaskToken::from(format!("{execution}-{retry_count}")),
    }
}

fn envelope(retry_count: u32) -> Envelope {
    envelope_of("nightly", retry_count)
}

/// What `host-worker dispatch` and the process that it starts do.
async fn arrives(host: &Host<Workflow, Job>, envelope: Envelope) -> Delivered {
    match inbox(&host.work_dir, &envelope).offer(&envelope).unwrap() {
        Offer::Newest(file) => match host_worker::task::read_envelope(&file).unwrap() {
            Some(envelope) => deliver(host, &envelope).await,
            None => Delivered::Expired,
        },
        Offer::Outdated { .. } => Delivered::Outdated,
    }
}

fn inbox(work_dir: &Path, envelope: &Envelope) -> Inbox {
    Inbox::of(work_dir, envelope.task, &envelope.execution)
}

struct Setting {
    dir: tempfile::TempDir,
    workflow: Workflow,
}

fn setting() -> Setting {
    Setting { dir: tempfile::tempdir().unwrap(), workflow: Workflow::default() }
}

impl Setting {
    fn host(&self, work: Job) -> Host<Workflow, Job> {
        Host {
            work_dir: self.dir.path().to_owned(),
            callbacks: self.workflow.clone(),
            work,
            timing: Timing::STANDARD,
            cancel: CancellationToken::new(),
        }
    }
}

async fn after(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn done() -> Ends {
    Ends::With(json!({ "size": 7 }))
}

#[tokio::test(start_paused = true)]
async fn work_beats_and_is_answered_once() {
    let setting = setting();
    let host = setting.host(job(100, done()));
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Done);
    // On arrival, with the host's lock, and then every thirty seconds.
    assert_eq!(setting.workflow.count("nightly-0 beats"), 5);
    assert_eq!(setting.workflow.answers(), [r#"nightly-0 succeeds with {"size":7}"#]);
    // The same message again: the token is spent, nothing runs.
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Expired);
    assert_eq!((host.work.runs.get(), setting.workflow.answers().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_and_the_next_token_tries_again() {
    let setting = setting();
    let host = setting.host(job(5, Ends::Failing(FailureKind::UploadFailed)));
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Failed(FailureKind::UploadFailed));
    assert_eq!(arrives(&host, envelope(1)).await, Delivered::Failed(FailureKind::UploadFailed));
    assert_eq!(host.work.runs.get(), 2);
    assert_eq!(setting.workflow.answers()[1], "nightly-1 fails with UploadFailed: it broke; hint: mend it");
    // A late copy of the first message has nothing to say any more.
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Outdated);
    assert_eq!(host.work.runs.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_answer() {
    let setting = setting();
    let host = setting.host(job(1, Ends::Panicking));
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Failed(FailureKind::Internal));
    assert!(setting.workflow.answers()[0].contains("index out of bounds"), "{:?}", setting.workflow.said());
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_an_answer() {
    let setting = setting();
    let host = setting.host(job(1_000, done()));
    let (delivered, ()) = tokio::join!(arrives(&host, envelope(0)), async {
        after(50).await;
        host.cancel.cancel();
    });
    assert_eq!(delivered, Delivered::Failed(FailureKind::Cancelled));
    assert_eq!(setting.workflow.answers(), ["nightly-0 fails with Cancelled: stopped by a signal"]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_not_held_up_by_a_workflow_that_cannot_be_reached() {
    let setting = setting();
    let host = setting.host(job(1_000, done()));
    let begin = Instant::now();
    let (delivered, ()) = tokio::join!(arrives(&host, envelope(0)), async {
        after(50).await;
        setting.workflow.0.unreachable.set(true);
        host.cancel.cancel();
    });
    assert_eq!(delivered, Delivered::Expired);
    assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn work_that_stands_still_is_given_up() {
    let setting = setting();
    let host = setting.host(job(0, Ends::Never));
    let begin = Instant::now();
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Failed(FailureKind::Stalled));
    assert!(setting.workflow.answers()[0].contains("phase `upload` made no progress for"));
    let deadline = Phase::Upload.deadline();
    let took = begin.elapsed();
    assert!(took > deadline && took < deadline + Duration::from_secs(60), "{took:?}");
    // The host is free again.
    assert_eq!(arrives(&setting.host(job(1, done())), envelope(1)).await, Delivered::Done);
}

#[tokio::test(start_paused = true)]
async fn a_retry_hands_its_token_to_the_worker_that_runs() {
    let setting = setting();
    let host = setting.host(job(400, done()));
    let (first, second) = tokio::join!(arrives(&host, envelope(0)), async {
        after(100).await;
        setting.workflow.close("nightly-0");
        after(60).await;
        arrives(&host, envelope(1)).await
    });
    assert_eq!((first, second), (Delivered::Done, Delivered::HandedOver));
    assert_eq!(host.work.runs.get(), 1);
    assert!(setting.workflow.count("nightly-1 beats") >= 8, "{:?}", setting.workflow.said());
    assert_eq!(setting.workflow.answers(), [r#"nightly-1 succeeds with {"size":7}"#]);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_twice_is_handed_over_to_itself() {
    let setting = setting();
    let host = setting.host(job(100, done()));
    let (first, second) = tokio::join!(arrives(&host, envelope(0)), async {
        after(10).await;
        arrives(&host, envelope(0)).await
    });
    assert_eq!((first, second), (Delivered::Done, Delivered::HandedOver));
    assert_eq!(host.work.runs.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_that_none_follows_ends_the_work() {
    let setting = setting();
    let host = setting.host(job(100_000, done()));
    let begin = Instant::now();
    let (delivered, ()) = tokio::join!(arrives(&host, envelope(0)), async {
        after(100).await;
        setting.workflow.close("nightly-0");
    });
    assert_eq!(delivered, Delivered::Expired);
    assert!(host.work.stopped.get(), "the work was not asked to put away what it has in hand");
    let grace = Timing::STANDARD.grace;
    let took = begin.elapsed();
    assert!(took > grace && took < grace + Duration::from_secs(200), "{took:?}");
    assert_eq!(setting.workflow.answers(), [""; 0]);
    let inbox = inbox(setting.dir.path(), &envelope(0));
    assert_eq!(inbox.result(), None);
    assert_eq!(inbox.envelope(envelope(0).order).unwrap(), None, "a dead token stays on the disk");
}

#[tokio::test(start_paused = true)]
async fn what_was_done_under_a_dead_token_is_given_to_the_next() {
    let setting = setting();
    let host = setting.host(job(200, done()));
    let (delivered, ()) = tokio::join!(arrives(&host, envelope(0)), async {
        after(100).await;
        setting.workflow.close("nightly-0");
    });
    assert_eq!(delivered, Delivered::Expired);
    assert_eq!(arrives(&host, envelope(1)).await, Delivered::Done);
    assert_eq!(host.work.runs.get(), 1);
    assert_eq!(setting.workflow.answers(), [r#"nightly-1 succeeds with {"size":7}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_cannot_be_reached_for_a_while_is_told_afterwards() {
    let setting = setting();
    let host = setting.host(job(200, done()));
    let (delivered, ()) = tokio::join!(arrives(&host, envelope(0)), async {
        after(100).await;
        setting.workflow.0.unreachable.set(true);
        after(3_600).await;
        setting.workflow.0.unreachable.set(false);
    });
    assert_eq!(delivered, Delivered::Done);
    assert_eq!(setting.workflow.answers(), [r#"nightly-0 succeeds with {"size":7}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_can_never_be_reached_keeps_no_process_for_ever() {
    let setting = setting();
    let host = setting.host(job(10, done()));
    setting.workflow.0.unreachable.set(true);
    let begin = Instant::now();
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Expired);
    let (took, bound) = (begin.elapsed(), Timing::STANDARD.last_word);
    assert!(took > bound && took < bound + Duration::from_secs(60), "{took:?}");
    // What was done is there for whoever asks again.
    setting.workflow.0.unreachable.set(false);
    assert_eq!(arrives(&host, envelope(1)).await, Delivered::Done);
    assert_eq!(host.work.runs.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_arrives_while_the_answer_waits_is_answered_itself() {
    for (ends, runs) in [(done(), 1), (Ends::Failing(FailureKind::UploadFailed), 2)] {
        let setting = setting();
        let host = setting.host(job(10, ends));
        let (first, second) = tokio::join!(arrives(&host, envelope(0)), async {
            after(5).await;
            setting.workflow.0.unreachable.set(true);
            after(200).await;
            setting.workflow.close("nightly-0");
            let (second, ()) = tokio::join!(arrives(&host, envelope(1)), async {
                after(40).await;
                setting.workflow.0.unreachable.set(false);
            });
            second
        });
        assert_eq!(first, Delivered::Outdated);
        assert!(
            matches!(second, Delivered::Done | Delivered::Failed(FailureKind::UploadFailed)),
            "{second:?}"
        );
        assert_eq!(host.work.runs.get(), runs);
        assert!(setting.workflow.answers()[0].starts_with("nightly-1 "), "{:?}", setting.workflow.said());
        assert_eq!(setting.workflow.answers().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_reply_was_lost_is_given_once() {
    let setting = setting();
    let host = setting.host(job(10, done()));
    setting.workflow.0.lose_replies.set(true);
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Expired);
    assert_eq!(setting.workflow.answers(), [r#"nightly-0 succeeds with {"size":7}"#]);
}

#[tokio::test(start_paused = true)]
async fn other_work_on_the_host_is_not_waited_for_long() {
    let setting = setting();
    let host = setting.host(job(1_000, done()));
    let (first, second) = tokio::join!(arrives(&host, envelope(0)), async {
        after(10).await;
        arrives(&host, envelope_of("console", 0)).await
    });
    assert_eq!((first, second), (Delivered::Done, Delivered::Failed(FailureKind::Busy)));
    let answers = setting.workflow.answers();
    assert!(answers[0].starts_with("console-0 fails with Busy: "), "{answers:?}");
    assert!(answers[0].contains("task backup-20261123T051400Z of execution nightly (process"), "{answers:?}");
    // A result is for the execution that asked: another one may have asked for other collections, and the work itself knows what is there.
    assert_eq!(arrives(&host, envelope_of("console", 1)).await, Delivered::Done);
    assert_eq!(host.work.runs.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_died_while_it_waited_starts_nothing() {
    let setting = setting();
    let host = setting.host(job(10, done()));
    setting.workflow.close("nightly-0");
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Expired);
    assert_eq!(host.work.runs.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_may_arrive_before_it_is_accepted() {
    let setting = setting();
    let host = setting.host(job(10, done()));
    setting.workflow.close("nightly-0");
    let (delivered, ()) = tokio::join!(arrives(&host, envelope(0)), async {
        after(100).await;
        // The function has returned.
        setting.workflow.0.closed.borrow_mut().clear();
    });
    assert_eq!(delivered, Delivered::Done);
    assert_eq!(setting.workflow.answers(), [r#"nightly-0 succeeds with {"size":7}"#]);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_step_functions_refuses_is_a_failure_of_ours() {
    let setting = setting();
    let host = setting.host(job(1, Ends::With(json!("x".repeat(MAX_OUTPUT)))));
    assert_eq!(arrives(&host, envelope(0)).await, Delivered::Failed(FailureKind::Internal));
    assert_eq!(inbox(setting.dir.path(), &envelope(0)).result(), None);
}

#[tokio::test(start_paused = true)]
async fn tokens_stay_off_the_disk_once_they_are_of_no_use() {
    let setting = setting();
    let host = setting.host(job(100, done()));
    // Whoever had the first token was killed, and whoever waits with the third hears of a fourth.
    inbox(&host.work_dir, &envelope(0)).offer(&envelope(0)).unwrap();
    let path = setting.dir.path().join("lock");
    let Envelope { task, execution, .. } = envelope(0);
    fs_err::write(&path, format!("task {task} of execution {execution} (process 1)")).unwrap();
    let lock = fs_err::File::open(&path).unwrap();
    lock.file().lock().unwrap();
    let (outdated, fourth) = tokio::join!(arrives(&host, envelope(2)), async {
        after(10).await;
        let offered = inbox(&host.work_dir, &envelope(3)).offer(&envelope(3)).unwrap();
        after(10).await;
        drop(lock);
        offered
    });
    assert_eq!(outdated, Delivered::Outdated);
    assert!(matches!(fourth, Offer::Newest(_)), "{fourth:?}");
    let (first, second) = tokio::join!(arrives(&host, envelope(3)), async {
        after(10).await;
        arrives(&host, envelope(4)).await
    });
    assert_eq!((first, second), (Delivered::Done, Delivered::HandedOver));
    let mut files = BTreeMap::new();
    let mut dirs = vec![setting.dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(path.clone(), fs_err::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    for (path, text) in files {
        assert!(!text.contains("nightly-"), "{}: {text}", path.display());
    }
}
