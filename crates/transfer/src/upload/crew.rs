//! Who does the work of an upload: threads, or the calling task itself. Either way the parts come out as events, in order.

mod inline;
mod threads;

use std::sync::Arc;

use sha2::Sha256;
use tokio::sync::mpsc;

use self::inline::Inline;
use crate::{
    error::Error,
    memory::{Gauge, Pool},
    upload::{
        Threads, UploadOptions,
        assemble::{Assembled, Assembler, Part},
        checkpoint::Resume,
        pack::{Packer, Work},
        plan::Plan,
    },
};

/// What comes out of the work.
#[derive(Debug)]
pub(super) enum Event {
    /// A part is ready.
    Part(Part),
    /// This is the SHA-256 of an entry up to this frame, which goes on with it.
    Hashing(u64, Sha256),
    /// An entry was read to its end and has this digest, which is the one that was announced.
    Entry(usize, [u8; 32]),
    /// The object is complete; all its parts came before.
    Object(Assembled),
    /// Something failed; nothing useful comes any more.
    Failed(Error),
}

/// The workers of one upload. Dropping it makes threads stop at their next step.
#[derive(Debug)]
pub(super) struct Crew {
    pools: Pools,
    events: Events,
}

/// The buffers of one upload.
#[derive(Clone, Debug)]
struct Pools {
    raw: Arc<Pool>,
    compressed: Arc<Pool>,
    parts: Arc<Pool>,
}

#[derive(Debug)]
enum Events {
    Threads(mpsc::UnboundedReceiver<Event>),
    Inline(Box<Inline>),
}

impl Crew {
    /// Sets to work on everything behind `resume`, whose frames it takes.
    pub(super) fn start(
        work: &Work,
        resume: &mut Resume,
        plan: &Plan,
        options: &UploadOptions,
    ) -> Result<Self, Error> {
        let gauge = Gauge::new(plan.fixed, Arc::clone(&options.progress));
        let inline = options.threads == Threads::Inline;
        // Inline, one frame may fill several parts before anybody can send them.
        let parts =
            if inline { plan.parts + plan.compressed_size / plan.part_buffer + 2 } else { plan.parts };
        let pools = Pools {
            raw: Pool::new(plan.frames, plan.raw_size, &gauge),
            compressed: Pool::new(plan.frames, plan.compressed_size, &gauge),
            parts: Pool::new(parts, plan.part_buffer, &gauge),
        };
        let assembler = Assembler::new(plan.part_size, resume);
        let packer = || Packer::new(work, options.level, &resume.checkpoint);
        let events = if inline {
            Events::Inline(Box::new(Inline::new(work, resume, packer(), assembler, &pools)))
        } else {
            let packers = std::iter::repeat_with(packer).take(plan.threads);
            Events::Threads(threads::start(work, resume, packers, assembler, &pools)?)
        };
        Ok(Self { pools, events })
    }

    /// The next event. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.events {
            // All senders gone without a last word: nobody is left to finish.
            Events::Threads(receiver) => receiver
                .recv()
                .await
                .unwrap_or(Event::Failed(Error::Internal { what: "every thread ended before its work did" })),
            Events::Inline(inline) => {
                tokio::task::yield_now().await;
                inline.next()
            }
        }
    }

    /// Whether events come by themselves, so that waiting for one costs nothing.
    pub(super) fn runs_ahead(&self) -> bool {
        matches!(self.events, Events::Threads(_))
    }

    /// Waits until every thread has let go of what it holds.
    pub(super) async fn stop(mut self) {
        self.pools.close();
        if let Events::Threads(receiver) = &mut self.events {
            while receiver.recv().await.is_some() {}
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.pools.close();
    }
}

impl Pools {
    fn close(&self) {
        for pool in [&self.raw, &self.compressed, &self.parts] {
            pool.close();
        }
    }
}
