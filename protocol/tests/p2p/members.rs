//! What the tests start and wait for.

use std::time::Duration;

use swarm_protocol::announcement::{Announcement, Load, Rates, SegmentKey, ServerState, Shard, Statement, segments};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass};
use swarm_protocol::p2p::{
    BootstrapPeer, DhtMode, FrameReader, FrameWriter, InboundStream, InboundStreams, Network, NetworkConfig,
    StreamError, StreamKind,
};
use swarm_protocol::session::TokenCount;
use swarm_protocol::swarm_name::SwarmName;
use swarm_protocol::wire::{
    InfoReply, InfoRequest, RowEncoding, RowsHeader, SessionReply, SessionRequest, Step, StepOutput,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Far longer than anything waited for takes, also on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The pause between two looks at a condition that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The payload that the echo server takes.
pub(crate) const PAYLOAD_LIMIT: usize = 8 * 1024 * 1024;

pub(crate) fn server(bootstrap: Vec<BootstrapPeer>) -> NetworkConfig {
    NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        dht: DhtMode::Server,
        serve: StreamKind::ALL.to_vec(),
        ..NetworkConfig::client(SwarmName::default(), bootstrap)
    }
}

pub(crate) fn client(bootstrap: Vec<BootstrapPeer>) -> NetworkConfig {
    NetworkConfig::client(SwarmName::default(), bootstrap)
}

pub(crate) async fn start(config: NetworkConfig) -> (Network, InboundStreams) {
    Network::start(config).await.unwrap()
}

/// Starts a member and waits until it has joined.
pub(crate) async fn joined(config: NetworkConfig) -> (Network, InboundStreams) {
    let bootstrap = config.bootstrap.clone();
    let (network, inbound) = start(config).await;
    network.join(&bootstrap).await.unwrap();
    (network, inbound)
}

/// `network` as others join through it.
pub(crate) fn entry_point(network: &Network) -> BootstrapPeer {
    BootstrapPeer { peer: network.peer_id(), address: network.listening()[0].clone() }
}

/// Fails if `future` takes longer than anything here should.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// Looks again and again until `condition` gives something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

const MODEL: ModelId = ModelId([3; 32]);

pub(crate) fn announcement(network: &Network, sequence: u64) -> Announcement {
    Announcement {
        peer: network.peer_id(),
        instance: 1,
        sequence,
        state: ServerState::Serving,
        addresses: network.listening(),
        model: MODEL,
        blocks: BlockRange::new(0, 8).unwrap(),
        class: NumericClass::new("f32/any").unwrap(),
        rates: Rates { decode_us_per_block: 1, prefill_ns_per_token_block: 1 },
        load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(1), total_tokens: TokenCount(1) },
        neighbours: vec![],
        ttl_seconds: 240,
        name: None,
        version: "0.1.0".to_string(),
        edges: false,
    }
}

/// The key that [`announcement`]s stand under.
pub(crate) fn key(network: &Network) -> SegmentKey {
    let announcement = announcement(network, 0);
    let segment = *segments(announcement.blocks).start();
    SegmentKey::segment(MODEL, segment, Shard::of(announcement.peer, 0))
}

/// What all holders that `network` asks know of `peer`: holder, sequence and state.
pub(crate) async fn known(network: &Network, of: &Network) -> Vec<(Option<swarm_protocol::PeerId>, u64, ServerState)> {
    let found = network.get(key(of)).await.unwrap();
    let mut known = Vec::new();
    for answer in found {
        for statement in answer.statements {
            if let Statement::Announcement(announcement) = statement
                && announcement.peer == of.peer_id()
            {
                known.push((answer.holder, announcement.sequence, announcement.state));
            }
        }
    }
    known
}

/// Announces with the sequence number, and waits until somebody took it.
pub(crate) async fn announce(network: &Network, sequence: u64) {
    network.put(key(network), &Statement::Announcement(announcement(network, sequence))).await.unwrap();
}

/// Answers every stream: pings with pongs, steps with their own rows. How each stream ended comes out of the channel.
pub(crate) fn echo(mut inbound: InboundStreams) -> mpsc::Receiver<Result<(), StreamError>> {
    let (ends, ended) = mpsc::channel(1024);
    tokio::spawn(async move {
        while let Some(stream) = inbound.recv().await {
            let ends = ends.clone();
            tokio::spawn(async move {
                let end = serve(stream).await;
                // A test that does not ask how streams end has dropped the receiver.
                let _ = ends.send(end).await;
            });
        }
    });
    ended
}

async fn serve(inbound: InboundStream) -> Result<(), StreamError> {
    match inbound.kind {
        StreamKind::Info => serve_info(inbound.stream.into_frames(0)).await,
        StreamKind::Session => serve_session(inbound.stream.into_frames(PAYLOAD_LIMIT)).await,
        // Nobody asks these members for one.
        StreamKind::Edges => Ok(()),
    }
}

async fn serve_info(
    (mut reader, mut writer): (FrameReader<InfoRequest>, FrameWriter<InfoReply>),
) -> Result<(), StreamError> {
    while let Some((request, _)) = reader.next().await? {
        let reply = match request {
            InfoRequest::Describe => InfoReply::Bootstrap { version: "test".to_string() },
            InfoRequest::Ping { nonce } => InfoReply::Pong { nonce },
        };
        writer.send(&reply, &[]).await?;
    }
    writer.close().await
}

/// Reads and writes in separate tasks, as every user of large payloads must.
async fn serve_session(
    (mut reader, mut writer): (FrameReader<SessionRequest>, FrameWriter<SessionReply>),
) -> Result<(), StreamError> {
    let (steps, mut queue) = mpsc::channel(4);
    let writing = tokio::spawn(async move {
        while let Some((Step { epoch, position, rows, .. }, payload)) = queue.recv().await {
            let output = StepOutput { link: 0, epoch, position, rows };
            writer.send(&SessionReply::Output(output), &payload as &Vec<u8>).await?;
        }
        writer.close().await
    });
    while let Some((request, payload)) = reader.next().await? {
        if let SessionRequest::Step(step) = request {
            // The writer ends early only when the connection does, which the reader sees too.
            let _ = steps.send((step, payload)).await;
        }
    }
    drop(steps);
    writing.await.unwrap()
}

/// A step with a payload of bf16 rows that can be told from other steps'.
pub(crate) fn step(number: u32, rows: u32, hidden: u32) -> (SessionRequest, Vec<u8>) {
    let header = RowsHeader { rows, hidden, element: RowEncoding::Bf16 };
    let payload = (0..header.payload_bytes().unwrap()).map(|at| (at as u32 ^ number) as u8).collect();
    (SessionRequest::Step(Step { epoch: 0, position: number, rows: header, wanted_from: 0 }), payload)
}

/// Opens an info stream and exchanges one ping.
pub(crate) async fn ping(from: &Network, to: &Network, nonce: u64) {
    let stream = from.open(to.peer_id(), &to.listening(), StreamKind::Info).await.unwrap();
    let (mut reader, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
    writer.send(&InfoRequest::Ping { nonce }, &[]).await.unwrap();
    let (reply, _) = reader.next().await.unwrap().expect("the stream ended before the reply");
    assert_eq!(reply, InfoReply::Pong { nonce });
}
