//! How hops are joined to a chain: by whom each is fed, and where its output goes.
//!
//! The owner numbers the links between hops; a number is never used twice in a session. It names the link to both of its
//! ends: to the lower hop with [`SessionRequest::Accept`](super::SessionRequest::Accept), to the upper one with
//! [`Connect`]. The upper one then opens a stream to the lower one and says [`Incoming`]. What comes over any other link
//! is not taken.

use serde::{Deserialize, Serialize};

use crate::session::SessionId;
use crate::{Multiaddr, PeerId};

use super::rows::{RowsError, RowsHeader};

/// Addresses of one next hop: as many as a server announces.
pub const MAX_NEXT_ADDRESSES: usize = crate::announcement::MAX_ADDRESSES;

/// The most bytes of KV cache in one piece: a compute thread copies that much within about a millisecond.
pub const MAX_KV_BYTES: u32 = 4 << 20;

/// Where a hop's rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From the session's owner, on its stream. So it is when a session is opened.
    Owner,
    /// From that server, which feeds it over the link of that number.
    Upstream {
        /// Who; the transport proves it.
        peer: PeerId,
        /// The link.
        link: u32,
    },
    /// A KV cache comes first, from that server.
    Import {
        /// Who; the transport proves it.
        peer: PeerId,
        /// The number of the hand-over.
        link: u32,
    },
}

/// A hop may feed two others: the next one of the chain, and one that is kept like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    /// The chain's own way.
    Main,
    /// To a server that is being brought up to date beside the chain.
    Mirror,
}

/// Where a hop's output goes from now on. Under the number of a link that the hop feeds already, that link moves to this
/// lane and goes on where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Which of the hop's ways out.
    pub lane: Lane,
    /// The link's number.
    pub link: u32,
    /// Where to.
    pub output: Output,
    /// The first position whose output is sent: outputs are kept, so it may lie far back.
    pub position: u32,
}

/// Where a hop's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Nowhere; it is kept. So it is when a session is opened.
    Nobody,
    /// The rows that are wanted, to the session's owner. The hop is the last one.
    Owner,
    /// Every row, to the session's owner, who hands it on to a server that this one cannot reach.
    Relay,
    /// Every row, to the next hop.
    Next(Next),
}

/// A hop of the chain, as another one is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// The server.
    pub peer: PeerId,
    /// Where it can be dialled; at most [`MAX_NEXT_ADDRESSES`].
    pub addresses: Vec<Multiaddr>,
    /// The session's id there.
    pub session: SessionId,
    /// The most rows of one step.
    pub max_rows: u32,
}

/// Hand the KV cache, and the outputs that are kept, over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// The number of the hand-over.
    pub link: u32,
    /// To whom.
    pub to: Next,
}

/// A server comes to feed a session, or to hand its KV cache over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Which session.
    pub session: SessionId,
    /// Over which link.
    pub link: u32,
}

/// Keys and values of the positions `[position, position + positions)`, for every block of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvHeader {
    /// The epoch of the newest step that went into them.
    pub epoch: u32,
    /// Absolute position of the first.
    pub position: u32,
    /// How many, at least 1.
    pub positions: u32,
    /// Bytes of keys and values; they come first.
    pub kv_bytes: u32,
    /// The outputs kept for these positions, all of them or none; they come behind.
    pub outputs: RowsHeader,
}

impl KvHeader {
    /// Bytes behind the header.
    ///
    /// # Errors
    /// [`RowsError`] if there are more than any honest peer sends.
    pub fn payload_bytes(&self) -> Result<usize, RowsError> {
        let rows = self.outputs.payload_bytes()?;
        if self.kv_bytes > MAX_KV_BYTES {
            return Err(RowsError::Kv { bytes: self.kv_bytes });
        }
        Ok(rows + self.kv_bytes as usize)
    }
}
