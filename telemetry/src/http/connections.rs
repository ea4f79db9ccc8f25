//! Connections: accepted, bounded in number, timed out, and let finish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

/// The largest head of a request, in bytes.
const MOST_HEAD_BYTES: usize = 64 * 1024;

/// How long a caller may take no byte of an answer: a page of events that nobody reads is not kept for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long answers that are complete may take to leave in the end.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// The pause after the system would not accept a connection, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What callers may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once; who comes beyond waits to be accepted.
    pub connections: usize,
    /// The longest the head of a request may take, and a connection may rest between two requests.
    pub read_timeout: Duration,
}

impl Default for Bounds {
    /// For those who watch a program: few, and they ask at once.
    fn default() -> Self {
        Self { connections: 256, read_timeout: Duration::from_secs(30) }
    }
}

/// Answers those who connect to `listener` by what `router` gives for their address, until `end` resolves; then connections are
/// closed as soon as what was begun on them is answered, within moments.
pub async fn answer(
    listener: TcpListener,
    router: impl Fn(SocketAddr) -> Router,
    bounds: Bounds,
    end: impl Future<Output = ()>,
) {
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(&listener, router, bounds, closed, &mut connections) => {}
        () = end => {}
    }
    drop(listener);
    closing.send_replace(true);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_BYTES, rest).await.is_err() {
        debug!("connections that are still open are closed");
    }
}

async fn accept(
    listener: &TcpListener,
    router: impl Fn(SocketAddr) -> Router,
    bounds: Bounds,
    closed: watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    loop {
        // Never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, caller) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (router, closed) = (router(caller), closed.clone());
        connections.spawn(async move {
            connection(stream, caller, router, bounds.read_timeout, closed).await;
            drop(permit);
        });
    }
}

async fn connection(
    stream: TcpStream,
    caller: SocketAddr,
    router: Router,
    read_timeout: Duration,
    mut closed: watch::Receiver<bool>,
) {
    // Tokens are small and must not wait for one another.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    // No HTTP/2: without TLS nobody speaks it, and telling the two apart has no time-out.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(read_timeout).max_buf_size(MOST_HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let closing = async { drop(closed.wait_for(|closed| *closed).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%caller, %error, "a connection broke");
    }
}
