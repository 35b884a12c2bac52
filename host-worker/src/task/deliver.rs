//! From an envelope on the disk to an answer that Step Functions has acknowledged.
//!
//! Every delivered envelope gets a process of its own, which first finds out whether there is anything for it to do: the task may be done, running, or asked for with
//! a newer token. Only the holder of the host's lock works; it answers by the newest token of its execution and says so on the disk, upon
//! which the process that brought the token leaves.

use std::{panic::AssertUnwindSafe, path::PathBuf};

use futures::FutureExt as _;
use protocol::{Envelope, FailureKind};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    callback::{Callbacks, MAX_OUTPUT},
    inbox::Inbox,
    timing::Timing,
    watch::{Answer, Beat, Stop, Told, Watch},
    work::{Failure, Work},
};
use crate::{error::Error, lock::HostLock, pulse::Pulse};

/// A host, as tasks see it.
#[derive(Debug)]
pub struct Host<C, W> {
    /// Where locks and journals are.
    pub work_dir: PathBuf,
    /// How Step Functions is answered.
    pub callbacks: C,
    /// What does the work.
    pub work: W,
    /// How long is waited for what.
    pub timing: Timing,
    /// The process was asked to stop.
    pub cancel: CancellationToken,
}

/// What became of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The task is done, now or before, and Step Functions knows.
    Done,
    /// The task failed, and Step Functions knows.
    Failed(FailureKind),
    /// The worker that runs already answers by this token.
    HandedOver,
    /// A newer token was delivered: its own process sees to it.
    Outdated,
    /// The token is dead, and no newer one came. What was done is kept for a later one.
    Expired,
}

/// What the host has for an envelope.
enum Turn {
    Ours(HostLock),
    Done(Value),
    NotNeeded(Delivered),
    Refused(Failure),
}

/// Sees to an envelope. Whatever goes wrong on this host is an answer, too.
pub async fn deliver<C: Callbacks, W: Work>(host: &Host<C, W>, envelope: &Envelope) -> Delivered {
    let inbox = Inbox::of(&host.work_dir, envelope.task, &envelope.execution);
    let pulse = Pulse::default();
    let watch = Watch::new(&host.callbacks, &inbox, host.timing, &pulse, envelope);
    // Before the lock is taken: what waits for a token to be accepted must not keep others from the host.
    if inbox.result().is_none() && !watch.introduce(&host.cancel).await {
        info!(task = %envelope.task, "nobody waits for an answer by this token: nothing is done");
        inbox.spend(envelope.order);
        return Delivered::Expired;
    }
    let turn = turn(host, &inbox, envelope).await;
    let answer = match turn.unwrap_or_else(|error| Turn::Refused(Failure::from(&error))) {
        Turn::NotNeeded(delivered) => {
            if delivered != Delivered::HandedOver {
                inbox.spend(envelope.order);
            }
            return delivered;
        }
        Turn::Done(output) => Answer::Success(output),
        Turn::Refused(failure) => Answer::Failure(failure),
        Turn::Ours(lock) => match worked(host, &inbox, envelope, &watch, &pulse, &lock).await {
            Some(answer) => answer,
            None => {
                watch.spend();
                return Delivered::Expired;
            }
        },
    };
    // The lock is free by now: a newer token's process finds the result, or does again what failed.
    match (watch.tell(&answer, &host.cancel).await, answer) {
        (Told::Acknowledged, Answer::Success(_)) => Delivered::Done,
        (Told::Acknowledged, Answer::Failure(failure)) => Delivered::Failed(failure.kind),
        (Told::Outdated, _) => Delivered::Outdated,
        (Told::Expired, _) => Delivered::Expired,
    }
}

/// Waits until it is clear what there is to do.
async fn turn<C, W>(host: &Host<C, W>, inbox: &Inbox, envelope: &Envelope) -> Result<Turn, Error> {
    let purpose = purpose(envelope);
    let begin = Instant::now();
    loop {
        if inbox.newest()?.is_some_and(|newest| newest > envelope.order) {
            return Ok(Turn::NotNeeded(Delivered::Outdated));
        }
        if let Some(output) = inbox.result() {
            info!(task = %envelope.task, "the task is done already: its result is given again");
            return Ok(Turn::Done(output));
        }
        let (holder, path) = match HostLock::acquire(&host.work_dir, &purpose) {
            Ok(lock) => return Ok(Turn::Ours(lock)),
            Err(Error::Locked { holder, path }) => (holder, path),
            Err(error) => return Ok(Turn::Refused(Failure::from(&error))),
        };
        if inbox.is_taken(envelope.order) {
            return Ok(Turn::NotNeeded(Delivered::HandedOver));
        }
        // The worker of the same task takes the token over, or leaves; one that does neither is waited for as long as the token can live.
        let same = holder.starts_with(&format!("{purpose} ("));
        let waited = begin.elapsed();
        if !same && waited >= host.timing.patience {
            return Ok(Turn::Refused(Failure::from(&Error::Locked { path, holder })));
        }
        if waited >= host.timing.grace {
            warn!(holder, "the worker of this task neither answers by the new token nor leaves");
            return Ok(Turn::NotNeeded(Delivered::Expired));
        }
        let stopped = host.cancel.run_until_cancelled(sleep(host.timing.poll)).await;
        if stopped.is_none() {
            return Ok(Turn::Refused(Failure::from(&Error::Cancelled)));
        }
    }
}

/// Who holds the lock, as its file says.
fn purpose(envelope: &Envelope) -> String {
    format!("task {} of execution {}", envelope.task, envelope.execution)
}

/// Works, with heartbeats; `None` when nobody wants the answer any more.
async fn worked<C: Callbacks, W: Work>(
    host: &Host<C, W>,
    inbox: &Inbox,
    envelope: &Envelope,
    watch: &Watch<'_, C>,
    pulse: &Pulse,
    lock: &HostLock,
) -> Option<Answer> {
    if let Err(error) = inbox.take(envelope.order) {
        return Some(Answer::Failure(Failure::from(&error)));
    }
    if watch.beat().await == Beat::Dead {
        // It was waited for the lock too long, or this is a late delivery of a token that was answered. Nobody waits for the work.
        info!(task = %envelope.task, "the token is not accepted any more: nothing is done");
        return None;
    }
    let cancel = host.cancel.child_token();
    let work = AssertUnwindSafe(host.work.run(envelope, lock, pulse, &cancel)).catch_unwind();
    tokio::pin!(work);
    let (ended, stop) = tokio::select! {
        ended = &mut work => (Some(ended), None),
        stop = watch.until_hopeless() => {
            warn!(task = %envelope.task, %stop, "the work is stopped");
            cancel.cancel();
            (timeout(host.timing.put_away, &mut work).await.ok(), Some(stop))
        }
    };
    let result = ended.map(|ended| ended.unwrap_or_else(|panic| Err(Failure::panicked(&*panic))));
    match (result, stop) {
        (Some(Ok(output)), _) => Some(kept(inbox, output)),
        (_, Some(Stop::TokenDead)) | (None, None) => None,
        (_, Some(stop @ Stop::Stalled { .. })) => Some(Answer::Failure(Failure::stalled(&stop))),
        (Some(Err(failure)), None) => {
            error!(task = %envelope.task, kind = %failure.kind, cause = failure.cause, "the task failed");
            Some(Answer::Failure(failure))
        }
    }
}

/// Keeps the result before anybody is told of it: whoever asks again gets the same.
fn kept(inbox: &Inbox, output: Value) -> Answer {
    let size = output.to_string().len();
    if size > MAX_OUTPUT {
        let cause = format!("the output has {size} bytes, and Step Functions takes {MAX_OUTPUT}");
        return Answer::Failure(Failure { kind: FailureKind::Internal, cause });
    }
    if let Err(error) = inbox.keep_result(&output) {
        // It is told all the same; only a retry would have to do the work again.
        warn!(error = &error as &dyn std::error::Error, "the result is not kept on this host");
    }
    Answer::Success(output)
}
