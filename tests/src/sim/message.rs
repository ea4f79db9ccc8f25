//! What travels over a stream: the real messages, with rows of hashes in place of bytes.

use std::hash::{Hash, Hasher};

use swarm_protocol::PeerId;
use swarm_protocol::activations::Rows;
use swarm_protocol::model_id::NumericClass;
use swarm_protocol::wire::{
    KvHeader, RowEncoding, RowsHeader, SessionReply, SessionRequest, Step, StepDone, StepOutput,
};

use super::network::Node;
use super::rows::Activations;

/// Bytes of a row as they count for the network.
pub(super) const ROW_BYTES: usize = 1024;

/// Bytes of keys and values of a position and block, as they count for the network.
const KV_BYTES: usize = 256;

/// Bytes of a message without rows.
const HEADER_BYTES: usize = 60;

/// What follows a message's header.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    None,
    Rows(Activations),
    /// Keys and values by block, and the outputs kept.
    Kv(Vec<Vec<u64>>, Option<Activations>),
}

impl Payload {
    pub(super) fn into_rows(self) -> Activations {
        match self {
            Self::Rows(rows) => rows,
            Self::None | Self::Kv(..) => Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Request(SessionRequest, Payload),
    Reply(SessionReply, Payload),
    /// The other end has ended the stream.
    End,
    /// The connection is gone.
    Broken,
}

impl Message {
    pub(super) fn bytes(&self) -> usize {
        let payload = match self {
            Self::Request(SessionRequest::Warm(rows), _) => rows.rows as usize * ROW_BYTES,
            Self::Request(_, payload) | Self::Reply(_, payload) => match payload {
                Payload::None => 0,
                Payload::Rows(rows) => rows.rows() * ROW_BYTES,
                Payload::Kv(kv, rows) => {
                    kv.iter().map(|block| block.len() * KV_BYTES).sum::<usize>()
                        + rows.as_ref().map_or(0, |rows| rows.rows() * ROW_BYTES)
                }
            },
            Self::End | Self::Broken => 0,
        };
        payload + HEADER_BYTES
    }

    /// What tells traces apart, without writing a message out.
    pub(super) fn trace(&self, state: &mut impl Hasher) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Request(request, _) => {
                std::mem::discriminant(request).hash(state);
                match request {
                    SessionRequest::Step(Step { epoch, position, rows, .. }) => {
                        (epoch, position, rows.rows).hash(state)
                    }
                    SessionRequest::Kv(KvHeader { position, positions, .. }) => (position, positions).hash(state),
                    _ => {}
                }
            }
            Self::Reply(reply, _) => {
                std::mem::discriminant(reply).hash(state);
                match reply {
                    SessionReply::Output(StepOutput { epoch, position, rows, .. }) => {
                        (epoch, position, rows.rows).hash(state);
                    }
                    SessionReply::Done(StepDone { epoch, position, rows, .. }) => (epoch, position, rows).hash(state),
                    _ => {}
                }
            }
            Self::End | Self::Broken => {}
        }
    }
}

/// The shape of that many rows.
pub(super) fn shape(rows: usize) -> RowsHeader {
    RowsHeader { rows: rows as u32, hidden: (ROW_BYTES / 2) as u32, element: RowEncoding::Bf16 }
}

/// A node's name.
pub(super) fn peer_of(node: Node) -> PeerId {
    let digest = [0, 2, (node >> 8) as u8, node as u8];
    PeerId::from_bytes(&digest).unwrap_or_else(|_| PeerId::random())
}

/// The node of that name.
pub(super) fn node_of(peer: PeerId) -> Node {
    match peer.to_bytes().as_slice() {
        [.., high, low] => usize::from(*high) << 8 | usize::from(*low),
        _ => 0,
    }
}

/// The only arithmetic there is.
pub(super) fn class() -> Option<NumericClass> {
    NumericClass::new("hash").ok()
}
