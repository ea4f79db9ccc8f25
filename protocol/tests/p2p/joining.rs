//! Joining: each way it fails is named within seconds, and a restarted entry point is found again.

use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use swarm_protocol::PeerId;
use swarm_protocol::p2p::{
    BootstrapPeer, BootstrapStatus, Identity, JoinError, Network, NetworkConfig, NetworkError, SwarmKey,
};
use tokio::net::TcpListener;

use crate::members::{announce, client, echo, entry_point, eventually, joined, known, ping, server, soon, start};

/// A person waits for this long without wondering.
const SECONDS: Duration = Duration::from_secs(15);

async fn join_error(config: NetworkConfig) -> JoinError {
    let begun = Instant::now();
    let bootstrap = config.bootstrap.clone();
    let (network, _streams) = start(config).await;
    let error = network.join(&bootstrap).await.expect_err("joined where it could not");
    assert!(begun.elapsed() < SECONDS, "{error} took {:?}", begun.elapsed());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn another_swarm_is_named() {
    let theirs = NetworkConfig { swarm: "theirs".parse().unwrap(), ..server(vec![]) };
    let (bootstrap, _streams) = start(theirs).await;
    match join_error(client(vec![entry_point(&bootstrap)])).await {
        JoinError::OtherSwarm { theirs, ours, .. } => {
            assert_eq!((theirs.as_str(), ours.as_str()), ("theirs", "public"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_swarm_key_joins_and_no_other() {
    let key = SwarmKey::generate();
    let (keyed, streams) = start(NetworkConfig { swarm_key: Some(key), ..server(vec![]) }).await;
    let _ends = echo(streams);
    let (open, _streams) = start(server(vec![])).await;
    let at_keyed = vec![entry_point(&keyed)];
    let right = NetworkConfig { swarm_key: Some(key), ..client(at_keyed.clone()) };
    let wrong = NetworkConfig { swarm_key: Some(SwarmKey::generate()), ..client(at_keyed.clone()) };
    let without = client(at_keyed);
    let needless = NetworkConfig { swarm_key: Some(key), ..client(vec![entry_point(&open)]) };
    let (member, wrong, without, needless) =
        tokio::join!(joined(right), join_error(wrong), join_error(without), join_error(needless));
    ping(&member.0, &keyed, 1).await;
    for error in [wrong, without, needless] {
        assert!(matches!(error, JoinError::Handshake { .. }), "{error}");
        assert!(error.to_string().contains("--swarm-key"), "{error}");
    }
    // Those who failed took nothing down.
    ping(&member.0, &keyed, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_only_quic_is_an_error_not_a_wait() {
    let quic = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    let config = NetworkConfig { swarm_key: Some(SwarmKey::generate()), listen: quic, ..server(vec![]) };
    let started = soon("an answer", Network::start(config)).await;
    assert!(matches!(started, Err(NetworkError::Listen { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_at_the_address_is_named() {
    let (bootstrap, _streams) = start(server(vec![])).await;
    let expected = BootstrapPeer { peer: PeerId::random(), ..entry_point(&bootstrap) };
    match join_error(client(vec![expected])).await {
        JoinError::WrongPeer { obtained, .. } => assert_eq!(obtained, bootstrap.peer_id()),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_there_is_unreachable() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap()
    };
    let error = join_error(client(vec![BootstrapPeer { peer: PeerId::random(), address: closed }])).await;
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
}

/// Another program's port: it takes the connection and never says a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_port_is_no_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let error = join_error(client(vec![BootstrapPeer { peer: PeerId::random(), address }])).await;
    assert!(matches!(error, JoinError::Handshake { .. }), "{error}");
}

/// One entry point with two addresses, one of which swallows every packet.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_does_not_hide_a_live_one() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let (bootstrap, _streams) = start(server(vec![])).await;
    let live = entry_point(&bootstrap);
    let (member, _streams) = start(client(vec![BootstrapPeer { address: dead, ..live.clone() }, live.clone()])).await;
    member.join(&[live]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_entry_points_there_is_nothing_to_wait_for() {
    let (alone, _streams) = start(server(vec![])).await;
    let begun = Instant::now();
    alone.join(&[]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_entry_point_is_joined_again() {
    let folder = std::env::temp_dir().join(format!("swarm-restart-test-{}", std::process::id()));
    let file = folder.join("id.key");
    let identity = || Identity::load_or_create(&file).unwrap();
    let (bootstrap, first_streams) = start(NetworkConfig { identity: identity(), ..server(vec![]) }).await;
    let entry = entry_point(&bootstrap);
    let (member, _streams) = joined(server(vec![entry.clone()])).await;
    let mut status = member.bootstrap_status();

    soon("the shutdown", bootstrap.shut_down()).await;
    drop((bootstrap, first_streams));
    let lost = |statuses: &Vec<_>| matches!(statuses[0], BootstrapStatus::Unreachable { .. });
    soon("that the loss is noticed", status.wait_for(lost)).await.unwrap();

    let again = NetworkConfig { identity: identity(), listen: vec![entry.address.clone()], ..server(vec![]) };
    let (bootstrap, _streams) = start(again).await;
    assert_eq!(entry_point(&bootstrap), entry);
    let back = |statuses: &Vec<_>| statuses[0] == BootstrapStatus::Joined;
    soon("joining again", status.wait_for(back)).await.unwrap();
    announce(&member, 1).await;
    let (other, _streams) = joined(client(vec![entry])).await;
    eventually("the statement on the restarted peer", async || {
        (!known(&other, &member).await.is_empty()).then_some(())
    })
    .await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_is_known_at_the_start_and_quic_works() {
    let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"].map(|address| address.parse().unwrap());
    let (bootstrap, streams) = start(NetworkConfig { listen: listen.to_vec(), ..server(vec![]) }).await;
    let _ends = echo(streams);
    let listening = bootstrap.listening();
    assert_eq!(listening.len(), 2, "{listening:?}");
    let quic = listening.into_iter().find(|address| address.iter().any(|part| part == Protocol::QuicV1)).unwrap();
    let entry = BootstrapPeer { peer: bootstrap.peer_id(), address: quic };
    let (member, _streams) = joined(client(vec![entry])).await;
    ping(&member, &bootstrap, 1).await;
}
