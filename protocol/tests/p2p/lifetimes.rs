//! The driver ends when nobody holds it, and takes its connections with it.

use std::time::Duration;

use libp2p::multiaddr::Protocol;
use swarm_protocol::p2p::{BootstrapPeer, BootstrapStatus, OpenError, QueryError, StreamKind};
use swarm_protocol::wire::{InfoReply, InfoRequest};
use swarm_protocol::wire::{SessionReply, SessionRequest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::members::{client, echo, entry_point, joined, key, ping, server, soon, start};

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_closes_everything() {
    let (host, mut streams) = start(server(vec![])).await;
    let (guest, mut guest_streams) = joined(client(vec![entry_point(&host)])).await;
    let mut status = guest.bootstrap_status();
    let stream = guest.open(host.peer_id(), &[], StreamKind::Info).await.unwrap();
    let (mut reader, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
    writer.send(&InfoRequest::Describe, &[]).await.unwrap();
    let held = soon("the stream", streams.recv()).await.unwrap();

    let clone = host.clone();
    drop(host);
    assert!(!clone.listening().is_empty());
    drop(clone);
    assert!(soon("the driver's end", streams.recv()).await.is_none());
    let lost = |statuses: &Vec<_>| matches!(statuses[0], BootstrapStatus::Unreachable { .. });
    soon("that the peer notices", status.wait_for(lost)).await.unwrap();
    assert!(!matches!(soon("the stream's end", reader.next()).await, Ok(Some(_))));
    drop(held);

    soon("the shutdown", guest.shut_down()).await;
    assert!(soon("the other driver's end", guest_streams.recv()).await.is_none());
    assert!(matches!(guest.open(guest.peer_id(), &[], StreamKind::Info).await, Err(OpenError::Stopped)));
    assert!(matches!(guest.get(key(&guest)).await, Err(QueryError::Stopped)));
    // A second time is no harm.
    guest.shut_down().await;
}

/// A peer that vanished is reached again once it is back, over a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_opened_anew_after_a_restart() {
    let (host, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let (guest, _streams) = start(client(vec![])).await;
    for nonce in 0..3 {
        ping(&guest, &host, nonce).await;
        let (brief, streams) = start(server(vec![])).await;
        let _ends = echo(streams);
        ping(&guest, &brief, nonce).await;
        soon("the shutdown", brief.shut_down()).await;
        // The connection may still look alive for a moment: any error but no hang.
        let gone = soon("an answer", guest.open(brief.peer_id(), &[], StreamKind::Info)).await;
        if let Ok(stream) = gone {
            let (mut reader, _writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
            assert!(!matches!(soon("its end", reader.next()).await, Ok(Some(_))));
        }
    }
}

/// A cable is cut: packets vanish and nobody closes anything. The connection is given up all the same, and so is whoever
/// waits for something to come over it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for two pings to time out, about a minute"]
async fn a_connection_gone_silent_is_closed() {
    let (host, _streams) = start(server(vec![])).await;
    let port = host.listening()[0].iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let cable = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", cable.local_addr().unwrap().port()).parse().unwrap();
    let (cut, mut is_cut) = watch::channel(false);
    tokio::spawn(async move {
        let (mut near, _) = cable.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut.wait_for(|cut| *cut) => {}
        }
        // Both ends stay open, and nothing is passed on any more.
        std::future::pending::<()>().await;
    });
    let entry = BootstrapPeer { peer: host.peer_id(), address };
    let (guest, _streams) = joined(client(vec![entry])).await;
    let mut status = guest.bootstrap_status();
    let stream = guest.open(host.peer_id(), &host.listening(), StreamKind::Session).await.unwrap();
    let (mut reader, _writer) = stream.into_frames::<SessionReply, SessionRequest>(0);
    let waiting = tokio::spawn(async move { reader.next().await.map(|_| ()) });
    cut.send_replace(true);
    let lost = |statuses: &Vec<_>| matches!(statuses[0], BootstrapStatus::Unreachable { .. });
    let noticed = tokio::time::timeout(Duration::from_secs(120), status.wait_for(lost)).await;
    noticed.expect("a dead connection is kept").unwrap();
    assert!(soon("the end of its stream", waiting).await.unwrap().is_err());
}
