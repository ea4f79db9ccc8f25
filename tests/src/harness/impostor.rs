//! A server that is none: it announces itself, describes itself, opens sessions, and then misbehaves.

use swarm_protocol::announcement::{SegmentKey, Shard, Statement, segments};
use swarm_protocol::p2p::{
    DhtMode, FrameWriter, Identity, InboundStream, InboundStreams, Network, NetworkConfig, StreamKind, answer_info,
};
use swarm_protocol::wire::{
    InfoReply, MAX_STEP_ROWS, Refusal, RowsHeader, ServerInfo, SessionReply, SessionRequest, Step, StepError,
    StepOutput,
};
use swarm_protocol::{Multiaddr, PeerId};

use super::TestSwarm;

/// The largest payload of an honest client.
const PAYLOAD_LIMIT: usize = 16 << 20;

/// What an impostor does with a session.
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
    /// Answers a step it was not given.
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
}

/// A running impostor.
pub struct Impostor {
    /// Its membership.
    pub network: Network,
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
        tokio::spawn(serve(inbound, info.clone(), manner));
        let impostor = Self { network, info };
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

async fn serve(mut inbound: InboundStreams, info: ServerInfo, manner: Manner) {
    while let Some(inbound) = inbound.recv().await {
        let info = info.clone();
        tokio::spawn(async move {
            match inbound.kind {
                StreamKind::Info => {
                    let describe = || InfoReply::Server(Box::new(info.clone()));
                    answer_info(inbound.peer, inbound.stream, describe).await;
                }
                StreamKind::Session => session(inbound, manner).await,
            }
        });
    }
}

/// One session, up to the client's end of it or the impostor's.
async fn session(inbound: InboundStream, manner: Manner) {
    let (mut reader, mut writer) = inbound.stream.into_frames::<SessionRequest, SessionReply>(PAYLOAD_LIMIT);
    while let Ok(Some((request, _))) = reader.next().await {
        let lives = match request {
            SessionRequest::Open(_) => open(&mut writer, manner).await,
            SessionRequest::Step(step) => answer(&mut writer, manner, step).await,
            SessionRequest::Ping { .. } if manner == Manner::Silent => true,
            SessionRequest::Ping { nonce } => writer.send(&SessionReply::Pong { nonce }, &[]).await.is_ok(),
            SessionRequest::Close => false,
        };
        if !lives {
            return;
        }
    }
}

async fn open(writer: &mut FrameWriter<SessionReply>, manner: Manner) -> bool {
    let reply = match manner {
        Manner::NeverOpens => return true,
        Manner::Refuses => SessionReply::Refused(Refusal::BadRequest("no reason".to_string())),
        _ => SessionReply::Opened { max_step_rows: MAX_STEP_ROWS, idle_timeout_ms: 60_000 },
    };
    writer.send(&reply, &[]).await.is_ok()
}

async fn answer(writer: &mut FrameWriter<SessionReply>, manner: Manner, step: Step) -> bool {
    let failed = |error| SessionReply::Failed { epoch: step.epoch, position: step.position, error };
    let reply = match manner {
        Manner::HangsUp => return false,
        Manner::Garbage => return writer.send_bytes(&[7; 64]).await.is_ok(),
        Manner::Oversized => return writer.send_bytes(&u32::MAX.to_le_bytes()).await.is_ok(),
        Manner::Fails => failed(StepError::Compute("no reason".to_string())),
        Manner::Forgetful => failed(StepError::Gap { have: 0 }),
        Manner::WrongShape => output(step, RowsHeader { hidden: 2, ..step.rows }),
        Manner::WrongPosition => output(Step { position: step.position + 1, ..step }, step.rows),
        Manner::Silent | Manner::PongsOnly | Manner::Refuses | Manner::NeverOpens => return true,
    };
    let SessionReply::Output(header) = &reply else {
        return writer.send(&reply, &[]).await.is_ok();
    };
    let payload = vec![0; header.rows.payload_bytes().expect("a small payload")];
    writer.send(&reply, &payload).await.is_ok()
}

fn output(step: Step, rows: RowsHeader) -> SessionReply {
    let rows = RowsHeader { rows: step.output.count(rows.rows), ..rows };
    SessionReply::Output(StepOutput { epoch: step.epoch, position: step.position, rows, queue_us: 0, compute_us: 1 })
}
