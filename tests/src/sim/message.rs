//! What client and servers say to one another.

use swarm_client::chain::{OutputRows, WorkId};
use swarm_node::admission::Refusal;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

use super::rows::Activations;

/// From the client, about one session.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Reserve room.
    Open { blocks: BlockRange, tokens: TokenCount },
    /// Compute.
    Step { work: WorkId, from: TokenCount, rows: Activations, output: OutputRows },
    /// Give the room back.
    Close,
}

/// From a server, about one session.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// There is room.
    Opened,
    /// There is none.
    Refused(Refusal),
    /// The output rows that were asked for.
    Answer { work: WorkId, rows: Option<Activations> },
    /// The KV does not reach the step's position.
    Behind { work: WorkId, kv: TokenCount },
    /// The server is about to leave.
    Leaving,
    /// The session is gone, or the connection.
    Reset,
}
