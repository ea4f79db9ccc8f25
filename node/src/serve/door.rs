//! Where streams come in: to the blocks that are served now, and to nobody while there are none.

use swarm_protocol::p2p::{InboundStream, InboundStreams};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

/// Streams that may wait to be taken, each for microseconds.
const WAITING_STREAMS: usize = 64;

/// Hands streams on to whoever serves now. While nobody does they are reset: who asks learns so at once.
#[derive(Debug)]
pub(super) struct Door {
    to: watch::Sender<Option<mpsc::Sender<InboundStream>>>,
    task: JoinHandle<()>,
}

impl Door {
    /// Closed at first.
    pub(super) fn new(mut inbound: InboundStreams) -> Self {
        let (sender, to) = watch::channel(None::<mpsc::Sender<InboundStream>>);
        let task = tokio::spawn(async move {
            while let Some(stream) = inbound.recv().await {
                let Some(taker) = to.borrow().clone() else { continue };
                if let Err(mpsc::error::TrySendError::Full(stream)) = taker.try_send(stream) {
                    warn!(peer = %stream.peer, "streams come faster than they are taken; one was reset");
                }
            }
        });
        Self { to: sender, task }
    }

    /// From now on streams come here.
    pub(super) fn open(&self) -> InboundStreams {
        let (sender, streams) = mpsc::channel(WAITING_STREAMS);
        self.to.send_replace(Some(sender));
        streams
    }

    /// Streams are reset from now on; what [`Door::open`] gave ends.
    pub(super) fn close(&self) {
        self.to.send_replace(None);
    }

    /// Resolves when the network has ended.
    pub(super) async fn ended(&mut self) {
        // A task that panicked has ended, too.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}
