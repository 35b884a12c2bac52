//! Work that goes on beside the caller: a thread with a runtime of its own, so that a stand-in serves whatever the
//! caller's runtime does. When it is dropped, every job has ended.

use std::pin::Pin;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The thread and its jobs.
#[derive(Debug)]
pub(crate) struct Background {
    spawner: Spawner,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Gives jobs to a [`Background`]. One that has ended takes no more, in silence.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(mpsc::UnboundedSender<Job>);

impl Background {
    /// Starts the thread; `name` is what a debugger calls it.
    pub(crate) fn start(name: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .with_context(|| format!("build the runtime of `{name}`"))?;
        let (jobs, queue) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(work(queue, stopped)))
            .with_context(|| format!("start the thread of `{name}`"))?;
        Ok(Self { spawner: Spawner(jobs), stop: Some(stop), thread: Some(thread) })
    }

    /// A handle that gives it jobs.
    pub(crate) fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a stand-in's thread panicked");
        }
    }
}

impl Spawner {
    /// Starts a job.
    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        if self.0.send(Box::pin(job)).is_err() {
            tracing::debug!("a job came after the end");
        }
    }
}

/// Runs the jobs until `stopped` resolves or its sender is gone.
async fn work(mut queue: mpsc::UnboundedReceiver<Job>, mut stopped: oneshot::Receiver<()>) {
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(ended) = jobs.join_next(), if !jobs.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a job of a stand-in panicked");
                }
            }
            Some(job) = queue.recv() => {
                jobs.spawn(job);
            }
        }
    }
    jobs.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn jobs_run_beside_the_caller_and_have_ended_when_it_is_dropped() {
        let background = Background::start("test").unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        background.spawner().spawn(async move {
            told.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(inside);
        });
        heard.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        drop(background);
        assert_eq!(Arc::strong_count(&held), 1, "a job outlives its thread");
    }
}
