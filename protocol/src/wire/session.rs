//! The messages of a session: one long-lived stream between a client and each hop.
//!
//! The client sends [`SessionRequest::Open`] and waits for [`SessionReply::Opened`] or [`SessionReply::Refused`]; then
//! steps, each answered by [`SessionReply::Output`] or [`SessionReply::Failed`] in order. Pings are answered at once, also
//! while a step is computed: a slow server is told from a silent one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::block::BlockRange;
use crate::model_id::{ModelId, NumericClass};
use crate::session::{SessionId, TokenCount};

use super::frame::Payload;
use super::rows::RowsHeader;

/// From the session's owner to a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionRequest {
    /// Reserve room and get ready; the first message of a stream, and only that.
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
    /// Room to reserve in the KV cache.
    pub tokens: TokenCount,
    /// Where the hop's rows come from.
    pub input: Input,
    /// Where its output goes.
    pub output: Output,
}

/// Where a hop's rows come from. Variants for direct chains are appended here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From the session's owner, on this stream.
    Owner,
}

/// Where a hop's output goes. Variants for direct chains are appended here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// To the session's owner, on this stream.
    Owner,
}

/// Rows at the positions `[position, position + rows)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Counts the session's repairs and truncations: an answer of an earlier epoch is void.
    pub epoch: u32,
    /// Absolute position of the first row. Below the KV cache's length, the cache is rewound to it; above, the step fails.
    pub position: u32,
    /// Shape of the rows behind the header.
    pub rows: RowsHeader,
    /// Which output rows are wanted back.
    pub output: OutputRows,
}

/// Which output rows of a step are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputRows {
    /// All of them: another hop needs them.
    All,
    /// The last one: logits follow.
    Last,
    /// None: only the KV cache was to be rebuilt.
    None,
}

impl OutputRows {
    /// How many output rows a step of `rows` rows gives.
    pub fn count(self, rows: u32) -> u32 {
        match self {
            Self::All => rows,
            Self::Last => rows.min(1),
            Self::None => 0,
        }
    }
}

/// From a hop to the session's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionReply {
    /// The room is reserved.
    Opened {
        /// The most rows a step may have.
        max_step_rows: u32,
        /// A session silent for longer is closed.
        idle_timeout_ms: u64,
    },
    /// The session is not taken; the stream ends.
    Refused(Refusal),
    /// A step's output; the rows follow the header.
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
}

/// The answer to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOutput {
    /// The step's epoch.
    pub epoch: u32,
    /// The step's position.
    pub position: u32,
    /// Shape of the rows behind the header.
    pub rows: RowsHeader,
    /// How long the step waited for the compute thread, in microseconds.
    pub queue_us: u32,
    /// How long it was computed, in microseconds.
    pub compute_us: u32,
}

/// Why a server does not take a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// It serves another model.
    #[error("the server serves another model ({serves}); check --model and the weights' format on both sides")]
    WrongModel {
        /// What it serves.
        serves: ModelId,
    },
    /// Its arithmetic gives other bits.
    #[error("the server computes in numeric class {serves}")]
    WrongClass {
        /// What it serves.
        serves: NumericClass,
    },
    /// Some of the blocks are not here.
    #[error("the server hosts blocks {hosted} only")]
    NotHosted {
        /// What it hosts.
        hosted: BlockRange,
    },
    /// The KV cache has no room of that size now.
    #[error("no room for that many tokens in the KV cache: {free} are free")]
    NoRoom {
        /// Tokens free now.
        free: TokenCount,
        /// When to ask again, in milliseconds.
        retry_after_ms: u64,
    },
    /// No session of that length ever fits.
    #[error("the session is too long for this server: it takes at most {most} tokens")]
    TooLong {
        /// The longest session it takes.
        most: TokenCount,
    },
    /// As many sessions are open as it takes.
    #[error("the server has as many sessions as it takes")]
    TooManySessions {
        /// When to ask again, in milliseconds.
        retry_after_ms: u64,
    },
    /// It is on its way out.
    #[error("the server is leaving")]
    Leaving,
    /// The request breaks the protocol.
    #[error("the server did not understand the request: {0}")]
    BadRequest(String),
}

impl Refusal {
    /// When it may help to ask this server again, in milliseconds; `None` if never.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::NoRoom { retry_after_ms, .. } | Self::TooManySessions { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }
}

/// Why a step was not computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum StepError {
    /// Positions before the step are missing from the KV cache.
    #[error("the server's KV cache holds {have} positions, fewer than the step builds on")]
    Gap {
        /// Positions in the KV cache.
        have: u32,
    },
    /// The step reaches past the reserved room.
    #[error("the step reaches past the {reserved} tokens that were reserved")]
    PastReservation {
        /// What was reserved at opening.
        reserved: TokenCount,
    },
    /// The rows are not of the model's width and type, or too many.
    #[error("the rows do not fit the model: {0}")]
    BadRows(String),
    /// The blocks failed on them.
    #[error("computing the step failed: {0}")]
    Compute(String),
}

/// Why a hop ended a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum CloseReason {
    /// Nothing came for as long as the server waits.
    #[error("the session was idle for too long")]
    Idle,
    /// The server is shutting down.
    #[error("the server left")]
    Left,
    /// The client broke the protocol.
    #[error("the server ended the session for a protocol error: {0}")]
    Protocol(String),
}

impl Payload for SessionRequest {
    fn rows(&self) -> Option<RowsHeader> {
        match self {
            Self::Step(step) => Some(step.rows),
            _ => None,
        }
    }
}

impl Payload for SessionReply {
    fn rows(&self) -> Option<RowsHeader> {
        match self {
            Self::Output(output) => Some(output.rows),
            _ => None,
        }
    }
}
