//! The info call, which doubles as the latency probe: one stream, a description, then pings.

use serde::{Deserialize, Serialize};

use crate::announcement::Announcement;
use crate::model_id::BlockDigest;

use super::edges::EdgesOffer;
use super::frame::Payload;
use super::rows::RowsError;

/// What a peer asks on an info stream; each request has one reply, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InfoRequest {
    /// Who are you and what do you serve?
    Describe,
    /// Answer at once: the time it takes is the round-trip time.
    Ping {
        /// Comes back in the reply.
        nonce: u64,
    },
}

/// The replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InfoReply {
    /// A server of blocks.
    Server(Box<ServerInfo>),
    /// A bootstrap peer: it keeps the DHT and serves no blocks.
    Bootstrap {
        /// Its release, for people.
        version: String,
    },
    /// To [`InfoRequest::Ping`].
    Pong {
        /// As asked.
        nonce: u64,
    },
}

/// What a server says to whoever asks it directly: fresher and fuller than its announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// What it would announce now. Not signed: the transport has authenticated the peer.
    pub announcement: Announcement,
    /// blake3 of each hosted block, in order.
    pub digests: Vec<BlockDigest>,
    /// The longest sequence the model takes, in positions.
    pub max_positions: u32,
    /// Seconds since the server became ready.
    pub uptime_seconds: u64,
    /// The embedding and head that it offers to others, if it does.
    pub edges: Option<EdgesOffer>,
}

impl Payload for InfoRequest {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        Ok(0)
    }
}

impl Payload for InfoReply {
    fn payload_bytes(&self) -> Result<usize, RowsError> {
        Ok(0)
    }
}
