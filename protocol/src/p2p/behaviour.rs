//! The behaviours a node is made of.

use std::io;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::kad;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, identify, mdns, ping};

use super::network::{DhtMode, NetworkConfig};
use super::record_store::StatementStore;
use super::streams;
use crate::swarm_name::SwarmName;
use crate::wire::KAD_VERSION;

/// How long a DHT query may take in all. Dead peers cost a substream time-out each, a few at once.
const QUERY_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a DHT peer may take to answer: enough for a slow WAN link, and far below the default of 10 s, which made
/// a look-up among blackholed peers take as long (measured).
const DHT_STREAM_TIMEOUT: Duration = Duration::from_secs(3);

/// How often an otherwise quiet connection is checked.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a peer may take to answer that check; two misses in a row and the connection counts as dead. The answer queues
/// behind bulk data: on a home uplink of 2 Mbit/s, 4 MiB of it take 17 s.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest DHT message: a full record (12 KiB) and the twenty nearest peers with all the addresses kept of each.
/// libp2p's default of 16 KiB would make crowded keys unanswerable as soon as members have a few addresses.
const MAX_DHT_PACKET_BYTES: usize = 48 * 1024;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) streams: streams::Behaviour,
    pub(super) kad: kad::Behaviour<StatementStore>,
    pub(super) identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(config: &NetworkConfig, keypair: &Keypair) -> io::Result<Self> {
        let peer = keypair.public().to_peer_id();
        let served = config.serve.iter().map(|kind| kind.protocol(&config.swarm)).collect();
        let identify = identify::Config::new(identify_version(&config.swarm), keypair.public())
            .with_agent_version(format!("swarm-node/{}", env!("CARGO_PKG_VERSION")))
            .with_push_listen_addr_updates(true);
        let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
        let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), peer)).transpose()?;
        Ok(Self {
            streams: streams::Behaviour::new(served),
            kad: kademlia(config, peer),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            mdns: mdns.into(),
        })
    }
}

/// What a node calls its family of protocols when peers get to know one another: the swarm's name is in it, so a peer of
/// another swarm can be told so.
pub(super) fn identify_version(swarm: &SwarmName) -> String {
    swarm.protocol("id", 1)
}

/// The DHT's protocol name in `swarm`.
pub(super) fn kad_protocol(swarm: &SwarmName) -> StreamProtocol {
    // A swarm's name holds no character that a protocol name may not.
    StreamProtocol::try_from_owned(swarm.protocol("kad", KAD_VERSION)).unwrap_or(StreamProtocol::new("/swarm-node"))
}

fn kademlia(config: &NetworkConfig, peer: libp2p::PeerId) -> kad::Behaviour<StatementStore> {
    let mut kad = kad::Config::new(kad_protocol(&config.swarm));
    // Statements are signed, expire, and are put anew by their authors: nobody replicates or caches them for others.
    kad.set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_max_packet_size(MAX_DHT_PACKET_BYTES)
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(DHT_STREAM_TIMEOUT);
    let mut kad = kad::Behaviour::with_config(peer, StatementStore::new(config.swarm.clone()), kad);
    // Never left to libp2p: it would follow confirmed addresses, which a relay reservation can add.
    kad.set_mode(Some(match config.dht {
        DhtMode::Server => kad::Mode::Server,
        DhtMode::Client => kad::Mode::Client,
    }));
    kad
}
