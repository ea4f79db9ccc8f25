//! The messages of a session. A stream of the session protocol is one of three, by its first message:
//!
//! - [`SessionRequest::Open`]: the session's owner (a client) and a hop, from the session's beginning to its end. The
//!   owner steers; it feeds the hop itself unless it has named a server that does.
//! - [`SessionRequest::Feed`]: a hop hands its output to the next one.
//! - [`SessionRequest::Import`]: a hop hands its KV cache over to another server.
//!
//! Pings are answered at once, also while a step is computed: a slow server is told from a silent one.

use serde::{Deserialize, Serialize};

use crate::block::BlockRange;
use crate::model_id::{ModelId, NumericClass};
use crate::session::{SessionId, TokenCount};
use crate::trace_context::TraceContext;

use super::chain::{Connect, HandOver, Incoming, Input, KvHeader};
use super::frame::Payload;
use super::link_format::LinkFormats;
use super::prefix::{Keep, Recall};
use super::refusal::{CloseReason, Refusal, StepError};
use super::rows::{RowsError, RowsHeader};

/// What is asked of a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionRequest {
    /// Reserve room and get ready; the first message of an owner's stream, and only that.
    Open(Open),
    /// Push rows through the hop's blocks; the rows follow the header.
    Step(Step),
    /// Answer at once.
    Ping {
        /// Comes back in the reply.
        nonce: u64,
    },
    /// The session is over; the hop frees its KV cache.
    Close,
    /// From now on the hop's rows come from there. By the owner.
    Accept(Input),
    /// From now on the hop's output goes there. By the owner.
    Connect(Connect),
    /// Send the session's KV cache to another server, and go on. By the owner.
    HandOver(HandOver),
    /// I am the server that the owner named as this session's upstream; steps follow. The first message of such a stream.
    Feed(Incoming),
    /// I am the server whose KV cache this session is to get; it follows in pieces. The first message of such a stream.
    Import(Incoming),
    /// A piece of a KV cache; its bytes follow the header, then those of the outputs kept for the same positions.
    Kv(KvHeader),
    /// Rows that mean nothing, sent before any that do: a connection that has carried data carries the next at once. On a
    /// link it is answered like a step; the owner asks with a ping whether it has arrived.
    Warm(RowsHeader),
    /// Begin with what these pages hold; answered at once, with [`SessionReply::Recalled`]. By the owner.
    Recall(Recall),
    /// Keep these pages for later sessions; not answered. By the owner.
    Keep(Keep),
    /// Rows come and go in these formats, from the first one on; answered at once, with [`SessionReply::Agreed`]. By the
    /// owner, right behind [`Self::Open`]; without it rows are exact.
    Links(LinkFormats),
    /// What comes from now on is a part of this span's work, or of none; not answered. By the owner, and only one whose
    /// program collects spans: nothing else changes by it.
    Trace(Option<TraceContext>),
}

/// What a session needs of a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Drawn by the client for this hop: never used twice.
    pub session: SessionId,
    /// Which model.
    pub model: ModelId,
    /// Which arithmetic: a replacement must give the same bits.
    pub class: NumericClass,
    /// Which of the hosted blocks.
    pub blocks: BlockRange,
    /// Room to reserve in the KV cache, and for outputs kept.
    pub tokens: TokenCount,
}

/// Rows at the positions `[position, position + rows)`. Each hop hands its output on under the same header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Counts the session's truncations: an answer from before one is void.
    pub epoch: u32,
    /// Absolute position of the first row. Below the KV cache's length, the cache is rewound to it; above, the step fails.
    pub position: u32,
    /// Shape of the rows behind the header.
    pub rows: RowsHeader,
    /// The last hop sends its output rows of positions from this one on to the owner, and no others.
    pub wanted_from: u32,
}

/// From a hop: to the session's owner, or to the server that feeds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionReply {
    /// The room is reserved.
    Opened {
        /// The most rows a step may have.
        max_step_rows: u32,
        /// The most steps that are taken in before one is computed; further ones wait in the connection.
        max_steps: u32,
        /// A session silent for longer is closed.
        idle_timeout_ms: u64,
    },
    /// The session, or whoever wants to feed it, is not taken; the stream ends.
    Refused(Refusal),
    /// Output rows for the owner; the rows follow the header.
    Output(StepOutput),
    /// A step was not computed; the session lives on.
    Failed {
        /// The step's epoch.
        epoch: u32,
        /// The step's position.
        position: u32,
        /// Why.
        error: StepError,
    },
    /// To [`SessionRequest::Ping`].
    Pong {
        /// As asked.
        nonce: u64,
    },
    /// The server will be gone soon; the session should move.
    Leaving {
        /// How long it still serves, in milliseconds.
        within_ms: u64,
    },
    /// The hop ended the session; the stream ends.
    Closed(CloseReason),
    /// To the owner: a step was computed, and its output is on its way to where it goes.
    Done(StepDone),
    /// To the owner: what [`Connect`] named under this number cannot be fed (any more).
    Unlinked {
        /// The number of the link.
        link: u32,
        /// Why.
        reason: String,
    },
    /// To whoever wants to feed the session or hand a KV cache over: go on.
    Expected,
    /// To whoever feeds the session, again and again while anything is under way: all rows below this position are here.
    /// To whoever hands its KV cache over, and to the owner: all positions below this one are stored.
    Received {
        /// The first position that is not here.
        position: u32,
    },
    /// To the owner: handing the KV cache over came to an end.
    HandedOver {
        /// The number of the hand-over.
        link: u32,
        /// Why not, if it failed.
        failure: Option<String>,
    },
    /// To the owner: what [`Connect`] named under this number is fed now, over a connection that is up to speed.
    Linked {
        /// The number of the link.
        link: u32,
    },
    /// To [`SessionRequest::Recall`]: all positions below this one are here, as if they had just been computed.
    Recalled {
        /// The first position that is not here: a multiple of [`PAGE_POSITIONS`](super::PAGE_POSITIONS).
        position: u32,
    },
    /// To [`SessionRequest::Links`]: so it will be.
    Agreed,
}

/// Output rows for the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOutput {
    /// The number of the [`Connect`] by which the owner asked for them.
    pub link: u32,
    /// The epoch of the newest step that they follow from.
    pub epoch: u32,
    /// Absolute position of the first row.
    pub position: u32,
    /// Shape of the rows behind the header.
    pub rows: RowsHeader,
}

/// A step was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDone {
    /// The step's epoch.
    pub epoch: u32,
    /// The step's position.
    pub position: u32,
    /// How many rows it had: the KV cache now ends behind them.
    pub rows: u32,
    /// How long the step waited for the compute thread, in microseconds.
    pub queue_us: u32,
    /// How long it was computed, in microseconds.
    pub compute_us: u32,
}

impl Payload for SessionRequest {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        match self {
            Self::Step(step) => step.rows.payload_bytes(),
            Self::Warm(rows) => rows.payload_bytes(),
            Self::Kv(kv) => kv.payload_bytes(),
            _ => Ok(0),
        }
    }
}

impl Payload for SessionReply {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        match self {
            Self::Output(output) => output.rows.payload_bytes(),
            _ => Ok(0),
        }
    }
}
