//! One TCP connection, and the ways to end it from below HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const OPEN: u8 = 0;
const CLOSE_WHEN_FLUSHED: u8 = 1;
const RESET: u8 = 2;

/// The handle by which a call ends its connection.
#[derive(Debug, Default)]
pub(crate) struct Link {
    state: AtomicU8,
    cut: Notify,
}

impl Link {
    /// Ends the connection now, with a reset (RST).
    pub(crate) fn reset(&self) {
        self.state.store(RESET, Ordering::SeqCst);
        self.cut.notify_one();
    }

    /// Closes the connection (FIN) when what has been written is with the kernel.
    pub(crate) fn close_when_flushed(&self) {
        // A reset that was asked for before stays one.
        let _before =
            self.state.compare_exchange(OPEN, CLOSE_WHEN_FLUSHED, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Resolves when the connection is to be dropped.
    pub(crate) async fn ended(&self) {
        self.cut.notified().await;
    }
}

/// The stream of a connection, which ends as its [`Link`] says.
#[derive(Debug)]
pub(crate) struct LinkedStream {
    stream: TcpStream,
    link: Arc<Link>,
}

impl LinkedStream {
    pub(crate) fn new(stream: TcpStream, link: Arc<Link>) -> Self {
        Self { stream, link }
    }
}

impl Drop for LinkedStream {
    fn drop(&mut self) {
        if self.link.state.load(Ordering::SeqCst) == RESET {
            // Without it the client would see an orderly end; if it fails, that is what the client sees.
            let _unset = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for LinkedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LinkedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Reached when everything written so far is with the kernel.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.link.state.load(Ordering::SeqCst) == CLOSE_WHEN_FLUSHED {
            self.link.cut.notify_one();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
