//! What every stream of a running server needs.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::announcement::ServerState;
use swarm_protocol::p2p::{InboundStream, InboundStreams, StreamKind, answer_info};
use swarm_protocol::wire::{ElementType, InfoReply, ServerInfo};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::about::{About, Details, Profile};
use super::compute::Compute;
use super::edges::{OfferedEdges, serve_edges};
use super::occupancy::Occupancy;
use super::opening::Offer;
use super::phase::Phase;
use super::prefixes::Prefixes;
use super::registry::Registry;
use super::session::serve_session;
use super::steps::StepShape;

/// Streams served at once: every session that admission takes, as many that wait to be refused, and probing clients.
/// Each costs some ten kilobytes.
const MAX_STREAMS: usize = 1024;

/// Of these, streams of one peer: as many sessions as admission takes at all. No peer can lock the others out.
const MAX_STREAMS_OF_A_PEER: usize = 256;

/// What every stream of a running server needs.
pub(super) struct Host {
    pub(super) about: Arc<About>,
    pub(super) profile: Profile,
    pub(super) details: Details,
    pub(super) offer: Offer,
    pub(super) shape: StepShape,
    /// Keys and values of one position in one block.
    pub(super) kv_bytes_per_token_block: u64,
    pub(super) idle_timeout: Duration,
    pub(super) compute: Compute,
    /// What is offered beside the blocks.
    pub(super) edges: Option<OfferedEdges>,
    pub(super) registry: Registry,
    /// What was computed in other sessions.
    pub(super) prefixes: Prefixes,
    pub(super) occupancy: Occupancy,
    pub(super) phase: watch::Receiver<Phase>,
    /// How often a peer broke the protocol.
    pub(super) protocol_errors: AtomicU64,
}

impl Host {
    /// Logs and counts that `peer` broke the protocol.
    pub(super) fn broke_the_protocol(&self, peer: PeerId, reason: &str) {
        self.about.metrics.protocol_errors.inc();
        let count = self.protocol_errors.fetch_add(1, Ordering::Relaxed) + 1;
        warn!(%peer, reason, count, "a peer broke the protocol; its stream was closed");
    }

    fn info(&self) -> ServerInfo {
        let state = match *self.phase.borrow() {
            Phase::Serving => ServerState::Serving,
            Phase::Leaving { .. } | Phase::Left => ServerState::Leaving,
        };
        let announcement = self.about.announcement(&self.profile, state, self.occupancy.load());
        self.details.info(announcement)
    }
}

/// What a server would answer to whoever asks it, for its own process: it cannot dial itself.
#[derive(Clone)]
pub struct OwnWord {
    host: Weak<Host>,
    /// Elements of a row of its model's activations.
    pub hidden: u32,
    /// Their type.
    pub element: ElementType,
}

impl OwnWord {
    pub(super) fn of(host: &Arc<Host>, hidden: u32, element: ElementType) -> Self {
        Self { host: Arc::downgrade(host), hidden, element }
    }

    /// What it says now; `None` once it no longer hosts the blocks that it was asked about.
    pub fn info(&self) -> Option<ServerInfo> {
        self.host.upgrade().map(|host| host.info())
    }
}

impl fmt::Debug for OwnWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnWord").field("hidden", &self.hidden).field("element", &self.element).finish_non_exhaustive()
    }
}

/// Serves every stream that comes in, each by a task of its own, until the network ends. Returns when the last of them
/// is done, which is soon after the server has left.
pub(super) async fn serve_streams(host: Arc<Host>, mut inbound: InboundStreams) {
    let mut streams = JoinSet::new();
    let mut owners = Owners(HashMap::new());
    loop {
        tokio::select! {
            stream = inbound.recv() => match stream {
                Some(stream) if owners.have_room_for(stream.peer) => {
                    let peer = stream.peer;
                    owners.0.insert(streams.spawn(serve(host.clone(), stream)).id(), peer);
                }
                Some(stream) => warn!(peer = %stream.peer, "as many streams are open as are served; one was reset"),
                None => return,
            },
            Some(done) = streams.join_next_with_id() => match done {
                Ok((id, ())) => owners.ended(id),
                Err(failed) => {
                    error!(%failed, "a stream's task failed");
                    owners.ended(failed.id());
                }
            },
        }
    }
}

/// Whose stream each task serves.
#[derive(Debug)]
struct Owners<Id>(HashMap<Id, PeerId>);

impl<Id: Eq + Hash> Owners<Id> {
    fn have_room_for(&self, peer: PeerId) -> bool {
        let of_peer = self.0.values().filter(|owner| **owner == peer).count();
        self.0.len() < MAX_STREAMS && of_peer < MAX_STREAMS_OF_A_PEER
    }

    fn ended(&mut self, id: Id) {
        self.0.remove(&id);
    }
}

async fn serve(host: Arc<Host>, InboundStream { peer, kind, stream }: InboundStream) {
    match kind {
        StreamKind::Session => serve_session(host, peer, stream).await,
        StreamKind::Edges => serve_edges(host, peer, stream).await,
        StreamKind::Info => answer_info(peer, stream, || InfoReply::Server(Box::new(host.info()))).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_peer_locks_the_others_out() {
        let mut owners = Owners(HashMap::new());
        let peers: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
        let mut next = 0;
        let mut fill = |owners: &mut Owners<usize>, peer| {
            while owners.have_room_for(peer) {
                owners.0.insert(next, peer);
                next += 1;
            }
        };
        fill(&mut owners, peers[0]);
        assert_eq!(owners.0.len(), MAX_STREAMS_OF_A_PEER);
        peers.iter().for_each(|peer| fill(&mut owners, *peer));
        assert_eq!(owners.0.len(), MAX_STREAMS);
        assert!(!owners.have_room_for(PeerId::random()));
        owners.ended(3);
        assert!(owners.have_room_for(PeerId::random()));
    }
}
