//! What a bootstrap peer does: keep the DHT, say who it is, and be pasted on other members' command lines.

use std::path::Path;
use std::time::Duration;

use libp2p::Multiaddr;
use tokio::task::JoinSet;

use super::info_stream::answer_info;
use super::network::{InboundStreams, Network};
use super::streams::StreamKind;
use crate::swarm_name::{DEFAULT_SWARM, SwarmName};
use crate::wire::InfoReply;

/// Info streams answered at once; each costs some kilobytes, and a newcomer keeps its own open for minutes.
const MAX_INFO_STREAMS: usize = 1024;

/// A node that listens on every interface learns its addresses one by one, within milliseconds.
const ADDRESSES_SETTLED: Duration = Duration::from_millis(100);

/// The longest that is waited for further addresses.
const ADDRESSES_DEADLINE: Duration = Duration::from_secs(1);

/// Answers the info streams of a peer that keeps the DHT and serves nothing; streams of other kinds, and those beyond
/// what it can answer at once, are reset. Returns when the network has been shut down.
pub async fn answer_as_bootstrap(mut inbound: InboundStreams) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            inbound = inbound.recv() => match inbound {
                Some(inbound) if inbound.kind == StreamKind::Info && streams.len() < MAX_INFO_STREAMS => {
                    streams.spawn(answer_info(inbound.peer, inbound.stream, describe));
                }
                Some(inbound) => tracing::warn!(peer = %inbound.peer, kind = ?inbound.kind, "a stream was reset"),
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

fn describe() -> InfoReply {
    InfoReply::Bootstrap { version: env!("CARGO_PKG_VERSION").to_string() }
}

/// Waits until the addresses that `network` listens on no longer change, which takes some milliseconds.
pub async fn addresses_settled(network: &Network) {
    let settled = async {
        let mut last = network.listening();
        loop {
            tokio::time::sleep(ADDRESSES_SETTLED).await;
            let now = network.listening();
            if now == last {
                return;
            }
            last = now;
        }
    };
    // Addresses that still change then are announced when they come.
    let _ = tokio::time::timeout(ADDRESSES_DEADLINE, settled).await;
}

/// `address` as another member writes it behind `--bootstrap`.
pub fn pasteable(address: &Multiaddr, network: &Network) -> String {
    format!("{address}/p2p/{}", network.peer_id())
}

/// The flags with which another member joins through a node at `address` (with its peer id).
pub fn join_flags(address: &str, swarm: &SwarmName, swarm_key: Option<&Path>) -> String {
    let mut flags = format!("--bootstrap {address}");
    if swarm.as_str() != DEFAULT_SWARM {
        flags += &format!(" --swarm {swarm}");
    }
    if let Some(key) = swarm_key {
        flags += &format!(" --swarm-key {}", key.display());
    }
    flags
}
