//! What a session sees of the work, as it sees it.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use crate::session::HopInfo;

/// One observation. Every moment is on the client's clock, counted from the beginning of the generation; what a hop says of
/// itself are durations, so no two clocks need to agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceRecord {
    /// The route is this from now on.
    Route {
        /// The hops in order.
        hops: Vec<HopInfo>,
        /// When.
        at: Duration,
    },
    /// The client handed a step to the first hop.
    Step {
        /// The position of its first row.
        position: u32,
        /// Rows: one in decoding, up to a chunk in prefill and replay.
        rows: u32,
        /// When.
        at: Duration,
        /// How long the rows' embedding took just before.
        embedding: Duration,
    },
    /// A hop's word about a step it has computed.
    Hop {
        /// The server.
        peer: PeerId,
        /// The blocks it computed.
        blocks: BlockRange,
        /// The position of the step's first row.
        position: u32,
        /// Rows of the step.
        rows: u32,
        /// How long the step waited on the hop.
        queue: Duration,
        /// How long it was computed.
        compute: Duration,
        /// When the word arrived.
        acknowledged: Duration,
        /// How long a message to the hop and its answer take beyond that.
        rtt: Duration,
    },
    /// The last hop's output arrived.
    Output {
        /// The position of the step's first row.
        position: u32,
        /// When.
        at: Duration,
    },
    /// A token was chosen; also the one that ends the text.
    Token {
        /// Its id.
        id: u32,
        /// When.
        at: Duration,
        /// How long the final norm, the head and the choice took just before.
        sampling: Duration,
    },
    /// A server was lost and replaced.
    Reroute {
        /// The server.
        lost: PeerId,
        /// Why.
        reason: String,
        /// When its replacement was open.
        at: Duration,
        /// From noticing the loss until then.
        took: Duration,
    },
}
