//! libp2p nodes that are not ours: they may connect, and that is all.

use std::collections::HashSet;

use futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, Event, Mode, QueryResult};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use swarm_protocol::p2p::NetworkConfig;
use tokio::sync::mpsc;

use crate::members::{announce, client, echo, entry_point, eventually, joined, known, ping, server, soon, start};

#[derive(NetworkBehaviour)]
struct Plain {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn plain(kad_protocol: &'static str, mode: Mode) -> Swarm<Plain> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|keys| {
            let peer = keys.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new(kad_protocol));
            let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
            kad.set_mode(Some(mode));
            // It claims our name: what counts is what it speaks.
            let identify = identify::Config::new("/swarm-node/public/id/1".to_string(), keys.public());
            Plain { kad, identify: identify::Behaviour::new(identify) }
        })
        .unwrap()
        .build()
}

/// Connects a foreign DHT server to `address` and keeps it alive. Its id, its inbound DHT requests, and that identify is
/// through both ways come back.
async fn foreigner(address: Multiaddr) -> (PeerId, mpsc::Receiver<Event>) {
    let mut swarm = plain("/ipfs/kad/1.0.0", Mode::Server);
    let peer = *swarm.local_peer_id();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    swarm.dial(address).unwrap();
    let (events, requests) = mpsc::channel(64);
    let (mut sent, mut received) = (false, false);
    let introductions = async {
        while !(sent && received) {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(PlainEvent::Identify(identify::Event::Sent { .. })) => sent = true,
                SwarmEvent::Behaviour(PlainEvent::Identify(identify::Event::Received { .. })) => received = true,
                _ => {}
            }
        }
    };
    soon("introductions", introductions).await;
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(PlainEvent::Kad(event @ Event::InboundRequest { .. })) =
                swarm.select_next_some().await
                && events.send(event).await.is_err()
            {
                return;
            }
        }
    });
    (peer, requests)
}

/// The nearest peers to `target` that `address` knows, asked in the swarm's own DHT protocol: a look into its table. Whoever
/// it names is dialled, also those that then do not answer.
async fn table_of(peer: PeerId, address: Multiaddr, target: PeerId) -> HashSet<PeerId> {
    let mut swarm = plain("/swarm-node/public/kad/2", Mode::Client);
    swarm.behaviour_mut().kad.add_address(&peer, address);
    swarm.behaviour_mut().kad.get_closest_peers(target);
    let mut named = HashSet::new();
    let answer = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Dialing { peer_id, .. } => named.extend(peer_id),
                SwarmEvent::Behaviour(PlainEvent::Kad(Event::OutboundQueryProgressed {
                    result: QueryResult::GetClosestPeers(result),
                    ..
                })) => {
                    named.extend(result.unwrap().peers.into_iter().map(|peer| peer.peer_id));
                    return named;
                }
                _ => {}
            }
        }
    };
    soon("the table", answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_dht_node_never_enters_the_table() {
    let (bootstrap, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let entry = vec![entry_point(&bootstrap)];
    let (stranger, requests) = foreigner(bootstrap.listening()[0].clone()).await;
    let (author, _streams) = joined(server(entry.clone())).await;
    let (other, _streams) = joined(client(entry)).await;
    announce(&author, 1).await;
    let found =
        eventually("the statement", async || Some(known(&other, &author).await).filter(|k| !k.is_empty())).await;
    assert!(found.iter().all(|(holder, ..)| *holder != Some(stranger)));

    let address = bootstrap.listening()[0].clone();
    let table = eventually("the author in the table", async || {
        let table = table_of(bootstrap.peer_id(), address.clone(), author.peer_id()).await;
        table.contains(&author.peer_id()).then_some(table)
    })
    .await;
    assert!(!table.contains(&stranger), "{table:?}");
    let near_stranger = table_of(bootstrap.peer_id(), address, stranger).await;
    assert!(!near_stranger.contains(&stranger), "{near_stranger:?}");
    assert!(requests.is_empty(), "the stranger was asked something");
    // Nor has it hurt anybody.
    ping(&other, &bootstrap, 1).await;
}

/// A client of the DHT asks and is never asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_never_enters_the_table() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let entry = vec![entry_point(&bootstrap)];
    // It can be dialled, and is not to be all the same.
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let (asker, _streams) = joined(NetworkConfig { listen, ..client(entry.clone()) }).await;
    let (member, _streams) = joined(server(entry)).await;
    let address = bootstrap.listening()[0].clone();
    let table = eventually("the member in the table", async || {
        let table = table_of(bootstrap.peer_id(), address.clone(), asker.peer_id()).await;
        table.contains(&member.peer_id()).then_some(table)
    })
    .await;
    assert!(!table.contains(&asker.peer_id()), "{table:?}");
}
