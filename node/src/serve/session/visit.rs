//! What other streams of this server, and its own tasks, bring to a running session.

use swarm_protocol::PeerId;
use swarm_protocol::wire::{KvHeader, Step, StepError};
use tokio::sync::{mpsc, oneshot};

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
