//! What other streams of this server, and its own tasks, bring to a running session.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::wire::{Incoming, KvHeader, Step, StepError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::serve::host::Host;

/// How long a server may wait for the owner's word that it is expected: the owner tells both ends at once, and the slower
/// of two ways is rarely seconds longer.
const EXPECTED_WITHIN: Duration = Duration::from_secs(10);

/// A step from upstream, with its rows.
pub(in crate::serve) type Fed = (Step, Vec<u8>);

/// A piece of a KV cache.
pub(in crate::serve) type Piece = (KvHeader, Vec<u8>);

/// A step that was not computed, as its sender is told.
#[derive(Debug)]
pub(in crate::serve) struct NotComputed {
    pub(in crate::serve) epoch: u32,
    pub(in crate::serve) position: u32,
    pub(in crate::serve) error: StepError,
}

/// What a server that may feed the session is given.
pub(in crate::serve) struct FeedIn {
    /// Takes its steps; closed when the session's owner has named another input.
    pub(in crate::serve) steps: mpsc::Sender<Fed>,
    /// Steps that it has to send again.
    pub(in crate::serve) failures: mpsc::Receiver<NotComputed>,
}

/// What a server that hands its KV cache over is given.
pub(in crate::serve) struct ImportIn {
    /// Takes the pieces.
    pub(in crate::serve) pieces: mpsc::Sender<Piece>,
    /// How far they are stored.
    pub(in crate::serve) stored: mpsc::Receiver<u32>,
}

/// Somebody has something for a session. Who is not expected (any more) finds the answer's other end dropped.
pub(in crate::serve) enum Visit {
    /// A server comes to feed it.
    Feed { peer: PeerId, link: u32, welcome: oneshot::Sender<FeedIn> },
    /// A server comes to hand its KV cache over.
    Import { peer: PeerId, link: u32, welcome: oneshot::Sender<ImportIn> },
    /// The next piece of the session's own KV cache is asked for; `None` when there is no more.
    Export { from: usize, reply: oneshot::Sender<Option<Piece>> },
}

impl Visit {
    /// Whether nobody waits for the answer any more.
    pub(in crate::serve) fn is_over(&self) -> bool {
        match self {
            Self::Feed { welcome, .. } => welcome.is_closed(),
            Self::Import { welcome, .. } => welcome.is_closed(),
            Self::Export { reply, .. } => reply.is_closed(),
        }
    }
}

/// Takes a visitor to the session that it has something for; gives what it is let in with, if it is.
pub(super) async fn welcomed<T>(
    host: &Host,
    Incoming { session, link }: Incoming,
    visit: impl FnOnce(u32, oneshot::Sender<T>) -> Visit,
) -> Option<T> {
    let visits = host.registry.find(session).await?;
    let (welcome, admitted) = oneshot::channel();
    visits.send(visit(link, welcome)).await.ok()?;
    timeout(EXPECTED_WITHIN, admitted).await.ok()?.ok()
}
