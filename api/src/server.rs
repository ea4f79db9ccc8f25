//! Answering until told to stop, and then until requests have ended.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::{Extension, Router};
use swarm_telemetry::http::{Bounds, answer};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::Host;

/// Connections at once: far more than requests that run or wait; who comes beyond waits to be accepted.
const MOST_CONNECTIONS: usize = 1024;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(pub(crate) SocketAddr);

/// Answers requests to `listener` until `stop` resolves. Then new requests to the models are refused, and those that run are
/// let finish as long as the host's configuration says.
pub async fn serve(listener: TcpListener, router: Router, host: Arc<Host>, stop: impl Future<Output = ()>) {
    let bounds = Bounds { connections: MOST_CONNECTIONS, read_timeout: host.config().read_timeout };
    let router = |caller| router.clone().layer(Extension(Caller(caller)));
    answer(listener, router, bounds, finished(&host, stop)).await;
}

/// Resolves when this process was told to stop and requests have ended, or were given up.
async fn finished(host: &Host, stop: impl Future<Output = ()>) {
    stop.await;
    host.gate().stop();
    let (running, _) = host.load();
    info!(running, "stopping: running requests are let finish");
    if tokio::time::timeout(host.config().stop_timeout, host.gate().idle()).await.is_err() {
        warn!(running = host.load().0, "requests that have not finished in time are ended");
    }
}
