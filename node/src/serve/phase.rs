//! How far a running server is on its way out.

use std::time::Instant;

use tokio::sync::watch;

/// How far a running server is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sessions are welcome.
    Serving,
    /// Running sessions go on until then, new ones are refused.
    Leaving {
        /// When the last of them are ended.
        until: Instant,
    },
    /// Nothing goes on.
    Left,
}

/// Waits until the server is told to leave; gives the time when running sessions are ended.
pub(super) async fn leaving(mut phase: watch::Receiver<Phase>) -> Instant {
    let changed = phase.wait_for(|phase| *phase != Phase::Serving).await;
    match changed.as_deref() {
        Ok(Phase::Leaving { until }) => *until,
        // Gone already, or the server's task is.
        _ => Instant::now(),
    }
}

/// Waits until everything is to end.
pub(super) async fn left(mut phase: watch::Receiver<Phase>) {
    // A server whose task is gone has left, too.
    let _ = phase.wait_for(|phase| *phase == Phase::Left).await;
}
