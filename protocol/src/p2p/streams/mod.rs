//! Long-lived streams between peers, as a behaviour of our own: requests to open one are queued here until the peer is
//! connected, every inbound stream is handed on with its peer and kind, and the connection is chosen by us.

mod bound;
mod handler;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::task::{Context, Poll};

use futures::io::AsyncReadExt;
use libp2p::TransportError;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::oneshot;

pub(super) use self::bound::BoundStream;
use self::handler::Handler;
use super::frames::{FrameReader, FrameWriter};
use crate::swarm_name::SwarmName;
use crate::wire::{EDGES_VERSION, INFO_VERSION, Payload, SESSION_VERSION};

/// Streams waiting for one peer to be connected; a client opens a handful.
const MAX_WAITING_PER_PEER: usize = 64;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// The info call and latency probe.
    Info,
    /// A session's steps.
    Session,
    /// Embedding, head and sampling.
    Edges,
}

impl StreamKind {
    /// Every kind there is.
    pub const ALL: [Self; 3] = [Self::Info, Self::Session, Self::Edges];

    pub(super) fn protocol(self, swarm: &SwarmName) -> StreamProtocol {
        let name = match self {
            Self::Info => swarm.protocol("info", INFO_VERSION),
            Self::Session => swarm.protocol("session", SESSION_VERSION),
            Self::Edges => swarm.protocol("edges", EDGES_VERSION),
        };
        // A swarm's name holds no character that a protocol name may not.
        StreamProtocol::try_from_owned(name).unwrap_or(StreamProtocol::new("/swarm-node"))
    }
}

/// A stream of bytes to one peer.
pub struct ByteStream(BoundStream);

impl ByteStream {
    fn new(stream: BoundStream) -> Self {
        Self(stream)
    }

    /// The stream as frames: messages of type `I` come in, with payloads of at most `payload_limit` bytes, and messages
    /// of type `O` go out.
    pub fn into_frames<I, O>(self, payload_limit: usize) -> (FrameReader<I>, FrameWriter<O>)
    where
        I: DeserializeOwned + Payload,
        O: Serialize + Payload,
    {
        let (reader, writer) = self.0.split();
        (FrameReader::new(reader, payload_limit), FrameWriter::new(writer))
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}

/// Why no stream could be opened.
#[derive(Debug, Clone, Error)]
pub enum OpenError {
    /// The peer cannot be reached.
    #[error("peer {peer} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        peer: PeerId,
        /// What the attempts ended with.
        reason: String,
    },
    /// The peer does not speak the protocol.
    #[error("peer {peer} does not speak {protocol}; it may run another release or be in another swarm")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// The protocol's name.
        protocol: String,
    },
    /// The connection broke while the stream was being opened.
    #[error("the connection to {peer} broke: {reason}")]
    Broken {
        /// The peer.
        peer: PeerId,
        /// What broke.
        reason: String,
    },
    /// Too many streams are waiting for this peer.
    #[error("too many streams are waiting for {0}")]
    Busy(PeerId),
    /// The network driver has stopped.
    #[error("the network has been shut down")]
    Stopped,
}

/// Where an opened stream goes.
pub(super) type Reply = oneshot::Sender<Result<ByteStream, OpenError>>;

/// A stream to be opened.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) protocol: StreamProtocol,
    pub(super) reply: Reply,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: PeerId,
    pub(super) protocol: StreamProtocol,
    pub(super) stream: ByteStream,
}

type Action = ToSwarm<Inbound, Request>;

/// The behaviour.
pub(super) struct Behaviour {
    served: Vec<StreamProtocol>,
    connections: HashMap<PeerId, Vec<Connection>>,
    waiting: HashMap<PeerId, Vec<Waiting>>,
    actions: VecDeque<Action>,
}

struct Connection {
    id: ConnectionId,
    relayed: bool,
}

/// Requests that a dial of ours is for. Somebody else's dial of the same peer, perhaps at stale addresses, may serve them
/// if it succeeds but does not fail them.
struct Waiting {
    dial: ConnectionId,
    addresses: Vec<Multiaddr>,
    requests: Vec<Request>,
}

impl Behaviour {
    /// Accepts streams of the protocols in `served`.
    pub(super) fn new(served: Vec<StreamProtocol>) -> Self {
        Self { served, connections: HashMap::new(), waiting: HashMap::new(), actions: VecDeque::new() }
    }

    /// Opens a stream to `peer`, over a connection that stands or one dialled at `addresses`.
    pub(super) fn open(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, request: Request) {
        if let Some(connection) = self.best_connection(peer) {
            self.notify(peer, connection, request);
            return;
        }
        let waiting = self.waiting.entry(peer).or_default();
        if waiting.iter().map(|dial| dial.requests.len()).sum::<usize>() >= MAX_WAITING_PER_PEER {
            // The asker may be gone; then nobody needs the answer.
            let _ = request.reply.send(Err(OpenError::Busy(peer)));
            return;
        }
        if let Some(same) = waiting.iter_mut().find(|dial| dial.addresses == addresses) {
            same.requests.push(request);
            return;
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(addresses.clone())
            .extend_addresses_through_behaviour()
            .condition(PeerCondition::Disconnected)
            .build();
        waiting.push(Waiting { dial: opts.connection_id(), addresses, requests: vec![request] });
        self.actions.push_back(ToSwarm::Dial { opts });
    }

    /// A direct connection rather than a relayed one; the oldest, which is warm.
    fn best_connection(&self, peer: PeerId) -> Option<ConnectionId> {
        let connections = self.connections.get(&peer)?;
        connections.iter().min_by_key(|connection| connection.relayed).map(|connection| connection.id)
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, event: Request) {
        self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
    }

    fn connected(&mut self, peer: PeerId, connection: Connection) {
        let id = connection.id;
        self.connections.entry(peer).or_default().push(connection);
        for request in self.waiting.remove(&peer).into_iter().flatten().flat_map(|dial| dial.requests) {
            self.notify(peer, id, request);
        }
    }

    fn dial_failed(&mut self, peer: PeerId, dial: ConnectionId, error: &DialError) {
        let Some(waiting) = self.waiting.get_mut(&peer) else {
            return;
        };
        let reason = describe_dial_error(error);
        for request in waiting.extract_if(.., |waiting| waiting.dial == dial).flat_map(|waiting| waiting.requests) {
            let _ = request.reply.send(Err(OpenError::Unreachable { peer, reason: reason.clone() }));
        }
        if waiting.is_empty() {
            self.waiting.remove(&peer);
        }
    }
}

/// A dial error in one line.
pub(super) fn describe_dial_error(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) if !attempts.is_empty() => describe_attempts(attempts),
        DialError::NoAddresses => "no address of it is known".to_string(),
        other => innermost(other),
    }
}

/// One reason if all attempts ended alike, else each address with its own.
fn describe_attempts(attempts: &[(Multiaddr, TransportError<std::io::Error>)]) -> String {
    let reasons: BTreeSet<String> = attempts.iter().map(|(_, error)| innermost(error)).collect();
    if reasons.len() == 1 {
        return reasons.into_iter().collect();
    }
    let lines: BTreeSet<String> =
        attempts.iter().map(|(address, error)| format!("{address}: {}", innermost(error))).collect();
    lines.into_iter().collect::<Vec<_>>().join("; ")
}

/// The cause at the end of an error's chain, which is what a person can act on.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, self.served.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, self.served.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let address = endpoint.get_remote_address();
                let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
                self.connected(peer_id, Connection { id: connection_id, relayed });
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|connection| connection.id != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, connection_id }) => {
                self.dial_failed(peer, connection_id, error);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        let handler::Accepted { protocol, stream } = event;
        self.actions.push_back(ToSwarm::GenerateEvent(Inbound { peer, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Actions arise only in calls that the swarm makes, after which it polls again; `open` is called by the loop that
        // polls the swarm next.
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
