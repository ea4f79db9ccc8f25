//! A server that is none: it announces itself, describes itself, opens sessions, and then misbehaves.

mod intruder;
mod session;

use std::sync::Arc;

use swarm_protocol::announcement::{SegmentKey, Shard, Statement, segments};
use swarm_protocol::p2p::{DhtMode, Identity, InboundStreams, Network, NetworkConfig, StreamKind, answer_info};
use swarm_protocol::wire::{InfoReply, ServerInfo};
use swarm_protocol::{Multiaddr, PeerId};

use self::intruder::Intruder;
pub use self::intruder::Visits;
use self::session::Sessions;
use super::TestSwarm;

/// What an impostor does with a session, from its first step on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Never answers a step, nor a ping.
    Silent,
    /// Answers pings, never a step.
    PongsOnly,
    /// Answers each step with rows of another width.
    WrongShape,
    /// Answers each step with bytes that are no frame.
    Garbage,
    /// Announces an answer larger than any.
    Oversized,
    /// Answers with rows of positions that it was not given.
    WrongPosition,
    /// Says that computing failed.
    Fails,
    /// Says at each step that its KV cache is empty, also at the first.
    Forgetful,
    /// Ends the stream at the first step.
    HangsUp,
    /// Refuses every session.
    Refuses,
    /// Never answers the request to open a session.
    NeverOpens,
    /// Says that it has computed each step, and sends nothing of what came of it.
    DoneOnly,
    /// Says without end that it has computed steps it was not given.
    FloodsDone,
    /// Sends rows without end over its way out, wherever that leads.
    FloodsOutputs,
    /// Sends rows without end over links that it does not have.
    FloodsStrayOutputs,
    /// Says without end how much of a KV cache it has stored, though nobody hands it one.
    FloodsReceived,
    /// Says without end that links broke, most of which it does not have.
    FloodsUnlinked,
    /// Says of each link that it cannot be fed.
    Unlinks,
    /// Computes nothing, and goes to the next hop's session without having been named for it.
    Intrudes,
}

/// A running impostor.
pub struct Impostor {
    /// Its membership.
    pub network: Network,
    /// What came of its visits to other servers' sessions.
    pub visits: Arc<Visits>,
    info: ServerInfo,
}

impl Impostor {
    /// A member that says it is as `like`, only much faster, and behaves in that manner. It is announced when this returns.
    pub async fn start(swarm: &TestSwarm, like: &ServerInfo, manner: Manner) -> Self {
        Self::of(swarm, Identity::ephemeral(), like, manner).await
    }

    /// The same under that identity; it refuses every session.
    pub async fn with_identity(swarm: &TestSwarm, identity: Identity, like: &ServerInfo) -> Self {
        Self::of(swarm, identity, like, Manner::Refuses).await
    }

    async fn of(swarm: &TestSwarm, identity: Identity, like: &ServerInfo, manner: Manner) -> Self {
        let (network, inbound) = member(swarm, identity).await;
        let mut info = like.clone();
        info.announcement.peer = network.peer_id();
        info.announcement.addresses = network.dialable_addresses();
        // So that it is preferred to honest servers.
        info.announcement.rates.decode_us_per_block = 1;
        info.announcement.load.queue_us = 0;
        let visits = Arc::new(Visits::default());
        let intruder = Intruder { network: network.clone(), visits: visits.clone() };
        tokio::spawn(serve(inbound, info.clone(), Arc::new(Sessions::new(manner, intruder))));
        let impostor = Self { network, visits, info };
        impostor.announce(1).await;
        impostor
    }

    /// Its id.
    pub fn peer(&self) -> PeerId {
        self.network.peer_id()
    }

    /// Announces itself again, with that sequence.
    pub async fn announce(&self, sequence: u64) {
        let mut announcement = self.info.announcement.clone();
        announcement.sequence = sequence;
        for segment in segments(announcement.blocks) {
            let key = SegmentKey::segment(announcement.model, segment, Shard::of(self.peer(), 0));
            let statement = Statement::Announcement(announcement.clone());
            self.network.put(key, &statement).await.expect("a holder for the announcement");
        }
    }
}

/// A member of the swarm that listens and takes every kind of stream.
async fn member(swarm: &TestSwarm, identity: Identity) -> (Network, InboundStreams) {
    let listen: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().expect("an address");
    let config = NetworkConfig {
        identity,
        listen: vec![listen],
        dht: DhtMode::Server,
        serve: StreamKind::ALL.to_vec(),
        ..NetworkConfig::client("public".parse().expect("a name"), vec![swarm.entry()])
    };
    let (network, inbound) = Network::start(config).await.expect("a network");
    network.join(&[swarm.entry()]).await.expect("the swarm lets a member in");
    (network, inbound)
}

async fn serve(mut inbound: InboundStreams, info: ServerInfo, sessions: Arc<Sessions>) {
    while let Some(inbound) = inbound.recv().await {
        let (info, sessions) = (info.clone(), sessions.clone());
        tokio::spawn(async move {
            match inbound.kind {
                StreamKind::Info => {
                    let describe = || InfoReply::Server(Box::new(info.clone()));
                    answer_info(inbound.peer, inbound.stream, describe).await;
                }
                StreamKind::Session => sessions.serve(inbound).await,
                // It offers none.
                StreamKind::Edges => {}
            }
        });
    }
}
