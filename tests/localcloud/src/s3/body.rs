//! The bodies of requests and answers, as the wire faults see them: counted, slowed down, cut.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::StdError;
use tokio::time::{Sleep, sleep};

use super::link::Link;

/// Lets bytes pass no faster than a rate: after each piece it waits as long as the piece should have taken.
#[derive(Debug, Default)]
struct Pace {
    bytes_per_second: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, pause: None }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn passed(&mut self, bytes: usize) {
        if let Some(rate) = self.bytes_per_second {
            let micros = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / rate.max(1);
            self.pause = Some(Box::pin(sleep(Duration::from_micros(micros))));
        }
    }
}

/// The body of a request. What the operation leaves unread is still here for [`drain`](Self::drain).
#[derive(Debug, Clone)]
pub(crate) struct RequestBody {
    inner: Arc<Mutex<RequestState>>,
}

#[derive(Debug)]
struct RequestState {
    body: Incoming,
    pace: Pace,
    /// Bytes until the connection is reset.
    fuse: Option<u64>,
    link: Arc<Link>,
}

impl RequestBody {
    /// Wraps the body; `reset_after` resets the connection when that many bytes have passed, or at the end.
    pub(crate) fn new(
        body: Incoming,
        link: Arc<Link>,
        reset_after: Option<u64>,
        bytes_per_second: Option<u64>,
    ) -> Self {
        let state = RequestState { body, pace: Pace::new(bytes_per_second), fuse: reset_after, link };
        Self { inner: Arc::new(Mutex::new(state)) }
    }

    /// Reads what is left and throws it away, so that the client gets to see an answer that was given early.
    pub(crate) async fn drain(mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await
        {
        }
    }
}

impl RequestState {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if self.fuse == Some(0) {
            self.link.reset();
            return Poll::Pending;
        }
        ready!(self.pace.poll_ready(context));
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.pace.passed(bytes);
                if let Some(fuse) = &mut self.fuse {
                    *fuse = fuse.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None if self.fuse.is_some() => {
                self.link.reset();
                Poll::Pending
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        state.fuse.is_none() && state.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    body: s3s::Body,
    pace: Pace,
    /// Bytes until the connection is closed.
    fuse: Option<u64>,
    link: Arc<Link>,
    length: SizeHint,
}

impl ReplyBody {
    /// Wraps the body; `cut_after` closes the connection when that many bytes are sent.
    pub(crate) fn new(
        body: s3s::Body,
        link: Arc<Link>,
        cut_after: Option<u64>,
        bytes_per_second: Option<u64>,
    ) -> Self {
        let length = body.size_hint();
        Self { body, pace: Pace::new(bytes_per_second), fuse: cut_after, link, length }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let reply = &mut *self;
        if reply.fuse == Some(0) {
            reply.link.close_when_flushed();
            return Poll::Pending;
        }
        ready!(reply.pace.poll_ready(context));
        let frame = ready!(Pin::new(&mut reply.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let frame = match (frame.into_data(), &mut reply.fuse) {
            (Ok(data), Some(fuse)) => {
                let length = data.len().min(usize::try_from(*fuse).unwrap_or(usize::MAX));
                *fuse -= u64::try_from(length).unwrap_or(*fuse);
                Frame::data(data.slice(..length))
            }
            (Ok(data), None) => Frame::data(data),
            (Err(frame), _) => frame,
        };
        reply.pace.passed(frame.data_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.fuse.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
    }
}
