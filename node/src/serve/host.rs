//! What every stream of a running server needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::announcement::ServerState;
use swarm_protocol::p2p::{InboundStream, InboundStreams, StreamKind, answer_info};
use swarm_protocol::wire::InfoReply;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::about::{About, Details, Profile};
use super::compute::Compute;
use super::occupancy::Occupancy;
use super::opening::Offer;
use super::phase::Phase;
use super::registry::Registry;
use super::session::serve_session;
use super::steps::StepShape;

/// Streams served at once: every session that admission takes, as many that wait to be refused, and probing clients.
/// Each costs some ten kilobytes.
const MAX_STREAMS: usize = 1024;

/// What every stream of a running server needs.
pub(super) struct Host {
    pub(super) about: Arc<About>,
    pub(super) profile: Profile,
    pub(super) details: Details,
    pub(super) offer: Offer,
    pub(super) shape: StepShape,
    pub(super) idle_timeout: Duration,
    pub(super) compute: Compute,
    pub(super) registry: Registry,
    pub(super) occupancy: Occupancy,
    pub(super) phase: watch::Receiver<Phase>,
    /// How often a peer broke the protocol.
    pub(super) protocol_errors: AtomicU64,
}

impl Host {
    /// Logs and counts that `peer` broke the protocol.
    pub(super) fn broke_the_protocol(&self, peer: PeerId, reason: &str) {
        let count = self.protocol_errors.fetch_add(1, Ordering::Relaxed) + 1;
        warn!(%peer, reason, count, "a peer broke the protocol; its stream was closed");
    }

    fn describe(&self) -> InfoReply {
        let state = match *self.phase.borrow() {
            Phase::Serving => ServerState::Serving,
            Phase::Leaving { .. } | Phase::Left => ServerState::Leaving,
        };
        let announcement = self.about.announcement(&self.profile, state, self.occupancy.load());
        InfoReply::Server(Box::new(self.details.info(announcement)))
    }
}

/// Serves every stream that comes in, each by a task of its own, until the network ends. Returns when the last of them
/// is done, which is soon after the server has left.
pub(super) async fn serve_streams(host: Arc<Host>, mut inbound: InboundStreams) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = inbound.recv() => match stream {
                Some(stream) if streams.len() < MAX_STREAMS => {
                    streams.spawn(serve(host.clone(), stream));
                }
                Some(stream) => warn!(peer = %stream.peer, "as many streams are open as are served; one was reset"),
                None => return,
            },
            Some(done) = streams.join_next() => if let Err(failed) = done {
                error!(%failed, "a stream's task failed");
            },
        }
    }
}

async fn serve(host: Arc<Host>, InboundStream { peer, kind, stream }: InboundStream) {
    match kind {
        StreamKind::Session => serve_session(host, peer, stream).await,
        StreamKind::Info => answer_info(peer, stream, || host.describe()).await,
    }
}
