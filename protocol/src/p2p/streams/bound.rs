//! A stream that ends with its connection.
//!
//! When we close a connection ourselves, yamux (0.14) forgets its streams without a word: whoever reads or writes one of them
//! then waits for ever. So each stream also watches for the end of its connection's handler, which libp2p drops first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::Shared;
use futures::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// The end of a connection, as its handler holds it: it comes when this is dropped.
#[derive(Debug)]
pub(super) struct Lifetime {
    _sender: oneshot::Sender<()>,
    end: Shared<oneshot::Receiver<()>>,
}

impl Lifetime {
    pub(super) fn new() -> Self {
        let (sender, end) = oneshot::channel();
        Self { _sender: sender, end: end.shared() }
    }

    pub(super) fn bind(&self, stream: libp2p::Stream) -> BoundStream {
        BoundStream { stream, end: self.end.clone() }
    }
}

/// A stream that ends with its connection.
#[derive(Debug)]
pub(in crate::p2p) struct BoundStream {
    stream: libp2p::Stream,
    end: Shared<oneshot::Receiver<()>>,
}

impl BoundStream {
    /// What has arrived counts, also after the end.
    fn unless_over<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.end.poll_unpin(cx).is_ready() {
            let over = io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was closed");
            return Poll::Ready(Err(over));
        }
        polled
    }
}

impl AsyncRead for BoundStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.unless_over(cx, polled)
    }
}

impl AsyncWrite for BoundStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.unless_over(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.unless_over(cx, polled)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_close(cx);
        self.unless_over(cx, polled)
    }
}
