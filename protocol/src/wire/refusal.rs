//! Why a hop does not do what it is asked.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::block::BlockRange;
use crate::model_id::{ModelId, NumericClass};
use crate::session::TokenCount;

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
    /// To a server that wants to feed a session: there is none of that id, or it is to be fed by somebody else.
    #[error("no session here is waiting to be fed by that peer")]
    NotExpected,
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
