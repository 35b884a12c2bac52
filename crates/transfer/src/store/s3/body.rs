//! A part's bytes on their way out: paced, and watched for a connection that takes none of them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use crate::rate::Rate;

/// The bytes of a part as the connection takes them, chunk by chunk, no faster than the rate allows.
#[derive(Debug)]
pub(super) struct Paced {
    rest: Bytes,
    rate: Rate,
    /// The chunk that waits for its turn, and its length.
    waiting: Option<(ReusableBoxFuture<'static, ()>, usize)>,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    moved: AtomicU64,
    held_back: AtomicBool,
}

/// What can be seen of a body from outside.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Arc<Seen>,
}

impl Paced {
    pub(super) fn new(body: Bytes, rate: Rate) -> (Self, Watch) {
        let seen = Arc::new(Seen::default());
        (Self { rest: body, rate, waiting: None, seen: Arc::clone(&seen) }, Watch { seen })
    }

    fn next(&mut self, len: usize) -> Bytes {
        self.seen.moved.fetch_add(len as u64, Relaxed);
        self.rest.split_to(len)
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = &mut *self;
        if body.waiting.is_none() {
            if body.rest.is_empty() {
                return Poll::Ready(None);
            }
            let len = body.rest.len().min(body.rate.chunk());
            if body.rate.try_take(len) {
                return Poll::Ready(Some(Ok(Frame::data(body.next(len)))));
            }
            let rate = body.rate.clone();
            let turn = ReusableBoxFuture::new(async move { rate.take(len).await });
            body.waiting = Some((turn, len));
            body.seen.held_back.store(true, Relaxed);
        }
        let len = match &mut body.waiting {
            Some((turn, len)) => {
                ready!(turn.poll(context));
                *len
            }
            None => 0,
        };
        body.waiting = None;
        body.seen.held_back.store(false, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(body.next(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Watch {
    /// Ends when the connection has taken nothing for as long as `limit`, while it could have.
    pub(super) async fn stalled(&self, limit: Duration) {
        let mut before = self.seen.moved.load(Relaxed);
        let mut since = Instant::now();
        while since.elapsed() < limit {
            tokio::time::sleep(limit / 8).await;
            let now = self.seen.moved.load(Relaxed);
            if now != before || self.seen.held_back.load(Relaxed) {
                before = now;
                since = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn next(body: &mut Paced) -> usize {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.map_or(0, |frame| frame.unwrap().into_data().unwrap().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_moves_does_not_stall() {
        let (mut body, watch) = Paced::new(vec![0; 10 << 20].into(), Rate::default());
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(LIMIT * 2 / 3).await;
                assert_eq!(next(&mut body).await, 256 << 10);
            }
        };
        tokio::select! {
            () = watch.stalled(LIMIT) => panic!("it moved"),
            () = moving => {}
        }
        let begin = Instant::now();
        watch.stalled(LIMIT).await;
        assert!(begin.elapsed() >= LIMIT && begin.elapsed() < LIMIT * 5 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_held_back_does_not_stall_and_one_that_is_not_taken_does() {
        let rate = Rate::new(Some(1_000_000));
        // Somebody else's bytes go first, for a thousand seconds.
        rate.take(1_000_000_000).await;
        let (mut body, watch) = Paced::new(vec![0; 20_000].into(), rate);
        tokio::select! {
            () = watch.stalled(LIMIT) => panic!("it was held back"),
            sent = next(&mut body) => assert_eq!(sent, 16 << 10),
        }
        let begin = Instant::now();
        watch.stalled(LIMIT).await;
        assert!(begin.elapsed() < LIMIT * 5 / 4, "nobody asks for the rest");
        assert_eq!((next(&mut body).await, next(&mut body).await), (20_000 - (16 << 10), 0));
    }
}
