//! Embedding, final norm, head and sampling: this client's own, or a server's.

mod line;
mod served;

use swarm_edges::{Chosen, EdgesWorker, Wish};
use swarm_protocol::PeerId;
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::wire::MAX_STEP_ROWS;

use crate::session::SessionError;
pub(crate) use served::{Served, ServedParts};

/// Where a model's sessions get their edges.
#[derive(Debug, Clone)]
pub(crate) enum EdgesSource {
    Own(EdgesWorker),
    Served(Box<ServedParts>),
}

impl EdgesSource {
    /// Those of one session.
    pub(crate) fn begin(&self) -> ClientEdges {
        match self {
            Self::Own(worker) => ClientEdges::Own(worker.clone()),
            Self::Served(parts) => ClientEdges::Served(Served::start(ServedParts::clone(parts))),
        }
    }
}

/// The edges of one session; clones share.
#[derive(Debug, Clone)]
pub(crate) enum ClientEdges {
    /// On a thread of this client.
    Own(EdgesWorker),
    /// Wherever a server offers them: for the whole session with the same weights and the same bits.
    Served(Served),
}

impl ClientEdges {
    /// Waits until there are any.
    ///
    /// # Errors
    /// [`SessionError::NoEdges`] if no server offers them.
    pub(crate) async fn ready(&self) -> Result<(), SessionError> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Served(served) => served.ready().await,
        }
    }

    /// What they do now is no part of any span.
    pub(crate) fn leave_span(&self) {
        if let Self::Served(served) = self {
            served.leave_span();
        }
    }

    /// Whether they are this client's own.
    pub(crate) fn are_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The server that was last asked, if they are not this client's own.
    pub(crate) fn server(&self) -> Option<PeerId> {
        match self {
            Self::Own(_) => None,
            Self::Served(served) => served.server(),
        }
    }

    /// How many rows are best embedded at once; 0 if it makes no difference.
    pub(crate) fn rows_at_once(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Served(_) => MAX_STEP_ROWS as usize,
        }
    }

    /// The embeddings of `ids`: the input of block 0.
    ///
    /// # Errors
    /// [`SessionError::Model`] if an id is not in the vocabulary, [`SessionError::NoEdges`] if nobody embeds it.
    pub(crate) async fn embed(&self, ids: Vec<u32>) -> Result<ActivationRows, SessionError> {
        match self {
            Self::Own(worker) => Ok(worker.embed(ids).await?),
            Self::Served(served) => served.embed(&ids).await,
        }
    }

    /// The logits `(rows, vocabulary)` of the last block's output, row after row.
    ///
    /// # Errors
    /// [`SessionError::NoLogits`] if they are not this client's own.
    pub(crate) async fn logits(&self, rows: ActivationRows) -> Result<Vec<Vec<f32>>, SessionError> {
        match self {
            Self::Own(worker) => Ok(worker.logits(rows).await?),
            Self::Served(_) => Err(SessionError::NoLogits),
        }
    }

    /// The last block's output after the final norm `(rows, hidden)`, row after row.
    ///
    /// # Errors
    /// [`SessionError::NoLogits`] if it is not this client's own.
    pub(crate) async fn final_norm(&self, rows: ActivationRows) -> Result<Vec<Vec<f32>>, SessionError> {
        match self {
            Self::Own(worker) => Ok(worker.final_norm(rows).await?),
            Self::Served(_) => Err(SessionError::NoLogits),
        }
    }

    /// The token that is wished for.
    ///
    /// # Errors
    /// [`SessionError::NoEdges`] if nobody chooses it.
    pub(crate) async fn choose(&self, wish: Wish) -> Result<Chosen, SessionError> {
        match self {
            Self::Own(worker) => Ok(worker.choose(wish).await?),
            Self::Served(served) => served.choose(wish).await,
        }
    }
}
