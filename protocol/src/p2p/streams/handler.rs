//! The part of the streams behaviour that lives on one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, StreamUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use libp2p::{PeerId, Stream, StreamProtocol};

use super::bound::Lifetime;
use super::{ByteStream, OpenError, Reply, Request};

/// A stream the peer opened.
#[derive(Debug)]
pub(in crate::p2p) struct Accepted {
    pub(super) protocol: StreamProtocol,
    pub(super) stream: ByteStream,
}

/// Negotiates one of several protocols and gives back the raw stream with the one agreed on.
#[derive(Debug, Clone)]
pub(in crate::p2p) struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

type Event = ConnectionHandlerEvent<AnyOf, Request, Accepted>;

pub(in crate::p2p) struct Handler {
    peer: PeerId,
    served: Vec<StreamProtocol>,
    requested: VecDeque<Request>,
    accepted: VecDeque<Accepted>,
    lifetime: Lifetime,
}

impl Handler {
    pub(super) fn new(peer: PeerId, served: Vec<StreamProtocol>) -> Self {
        Self { peer, served, requested: VecDeque::new(), accepted: VecDeque::new(), lifetime: Lifetime::new() }
    }

    fn open_failed(&self, request: Request, error: StreamUpgradeError<Infallible>) {
        let peer = self.peer;
        let error = match error {
            StreamUpgradeError::NegotiationFailed => {
                OpenError::Unsupported { peer, protocol: request.protocol.to_string() }
            }
            StreamUpgradeError::Timeout => OpenError::Broken { peer, reason: "opening a stream timed out".to_string() },
            StreamUpgradeError::Io(error) => OpenError::Broken { peer, reason: error.to_string() },
            StreamUpgradeError::Apply(never) => match never {},
        };
        answer(request.reply, Err(error));
    }
}

/// The asker may have given up; then the stream is dropped, which resets it.
fn answer(reply: Reply, result: Result<ByteStream, OpenError>) {
    let _ = reply.send(result);
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Request;
    type ToBehaviour = Accepted;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Request;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyOf, ()> {
        SubstreamProtocol::new(AnyOf(self.served.clone()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        if let Some(accepted) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(accepted));
        }
        if let Some(request) = self.requested.pop_front() {
            let protocol = SubstreamProtocol::new(AnyOf(vec![request.protocol.clone()]), request);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: Request) {
        self.requested.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<AnyOf, AnyOf, (), Request>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.accepted.push_back(Accepted { protocol, stream: ByteStream::new(self.lifetime.bind(stream)) });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, _), info }) => {
                answer(info.reply, Ok(ByteStream::new(self.lifetime.bind(stream))));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => self.open_failed(info, error),
            _ => {}
        }
    }
}
