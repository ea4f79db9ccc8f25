//! Streams: both ways, many at once, large ones, broken ones.

use std::time::Instant;

use futures::FutureExt;
use futures::future::join_all;
use swarm_protocol::p2p::{NetworkConfig, OpenError, StreamError, StreamKind};
use swarm_protocol::wire::{InfoReply, InfoRequest, MAX_HEADER_BYTES, SessionReply, SessionRequest, encode};
use swarm_protocol::{Multiaddr, PeerId};
use tokio::net::TcpListener;

use crate::members::{DEADLINE, PAYLOAD_LIMIT, client, echo, ping, server, soon, start, step};

#[tokio::test(flavor = "multi_thread")]
async fn frames_go_both_ways() {
    let (one, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let (two, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    ping(&one, &two, 1).await;
    // Over the connection that stands, the other way round.
    let stream = two.open(one.peer_id(), &[], StreamKind::Session).await.unwrap();
    let (mut reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(PAYLOAD_LIMIT);
    for number in 0..3 {
        let (request, payload) = step(number, 2, 8);
        writer.send(&request, &payload).await.unwrap();
        let (reply, echoed) = reader.next().await.unwrap().unwrap();
        assert!(matches!(reply, SessionReply::Output(output) if output.position == number));
        assert_eq!(echoed, payload);
    }
    // The end of a stream is the end of it, not an error.
    writer.close().await.unwrap();
    assert!(soon("the end", reader.next()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_streams_at_once_none_is_lost() {
    let (host, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let (guest, _streams) = start(client(vec![])).await;
    // None is connected yet: all wait for one dial.
    soon("64 streams before the connection", join_all((0..64).map(|nonce| ping(&guest, &host, nonce)))).await;
    soon("64 streams over the connection", join_all((0..64).map(|nonce| ping(&guest, &host, nonce)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_waiting_room_says_so() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let (guest, _streams) = start(client(vec![])).await;
    let peer = PeerId::random();
    let opens = (0..70).map(|_| guest.open(peer, std::slice::from_ref(&address), StreamKind::Info));
    let results = soon("all answers", join_all(opens)).await;
    let busy = results.iter().filter(|result| matches!(result, Err(OpenError::Busy(_)))).count();
    let unreachable = results.iter().filter(|result| matches!(result, Err(OpenError::Unreachable { .. }))).count();
    assert_eq!((busy, unreachable), (6, 64));
}

/// 4 MiB a step and four steps each way under way at once: more than any window. Whoever writes all before it reads would
/// wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_cross_without_deadlock() {
    let (host, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let (guest, _streams) = start(client(vec![])).await;
    let stream = guest.open(host.peer_id(), &host.listening(), StreamKind::Session).await.unwrap();
    let (mut reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(PAYLOAD_LIMIT);
    let writing = tokio::spawn(async move {
        for number in 0..8 {
            let (request, payload) = step(number, 512, 4096);
            writer.send(&request, &payload).await.unwrap();
        }
        writer.close().await.unwrap();
    });
    for number in 0..8 {
        let (reply, payload) = soon("an echo", reader.next()).await.unwrap().unwrap();
        assert!(matches!(reply, SessionReply::Output(output) if output.position == number));
        assert!(payload == step(number, 512, 4096).1, "the payload of step {number} changed");
    }
    writing.await.unwrap();
    assert!(soon("the end", reader.next()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_the_protocol_disturbs_nobody() {
    let (host, streams) = start(server(vec![])).await;
    let mut ends = echo(streams);
    let (good, _streams) = start(client(vec![])).await;
    let (bad, _streams) = start(client(vec![])).await;
    let stream = good.open(host.peer_id(), &host.listening(), StreamKind::Session).await.unwrap();
    let (mut reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(PAYLOAD_LIMIT);

    let (request, payload) = step(0, 512, 65_536);
    let whole = encode(&request, &payload).unwrap();
    let garbage = [
        ("a header over the limit", (MAX_HEADER_BYTES as u32 + 1).to_le_bytes().to_vec()),
        ("a header of 4 GiB", vec![0xff; 64]),
        ("an empty header", vec![0; 4]),
        ("an unknown variant", vec![1, 0, 0, 0, 99]),
        ("bytes behind the message", vec![2, 0, 0, 0, 3, 3]),
        ("a payload over the limit", whole[..64].to_vec()),
    ];
    for (number, (what, bytes)) in garbage.into_iter().enumerate() {
        let stream = bad.open(host.peer_id(), &host.listening(), StreamKind::Session).await.unwrap();
        let (mut replies, mut bad_writer) = stream.into_frames::<SessionReply, SessionRequest>(PAYLOAD_LIMIT);
        bad_writer.send_bytes(&bytes).await.unwrap();
        let end = soon(what, ends.recv()).await.unwrap();
        assert!(matches!(end, Err(StreamError::Frame(_))), "{what}: {end:?}");
        // The stream is gone, not silent.
        let answer = soon(what, replies.next()).await;
        assert!(!matches!(answer, Ok(Some(_))), "{what}: {answer:?}");
        // The others go on.
        let (request, payload) = step(number as u32, 1, 8);
        writer.send(&request, &payload).await.unwrap();
        assert_eq!(soon("an echo", reader.next()).await.unwrap().unwrap().1, payload);
    }

    let stream = bad.open(host.peer_id(), &host.listening(), StreamKind::Session).await.unwrap();
    let (_replies, mut cut) = stream.into_frames::<SessionReply, SessionRequest>(PAYLOAD_LIMIT);
    cut.send_bytes(&[8, 0, 0, 0, 1, 5]).await.unwrap();
    cut.close().await.unwrap();
    assert!(matches!(soon("the cut", ends.recv()).await.unwrap(), Err(StreamError::Cut)));
}

/// A node that accepts nothing holds a bounded number of streams; those beyond end at once, for their openers to see.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_accepts_are_bounded() {
    let (host, mut streams) = start(server(vec![])).await;
    let (guest, _streams) = start(client(vec![])).await;
    let addresses = host.listening();
    let mut held = Vec::new();
    let mut ended = 0;
    for _ in 0..300 {
        let stream = soon("a stream", guest.open(host.peer_id(), &addresses, StreamKind::Info)).await.unwrap();
        held.push(stream.into_frames::<InfoReply, InfoRequest>(0));
    }
    for (reader, _) in &mut held[256..] {
        ended += usize::from(!matches!(soon("an end", reader.next()).await, Ok(Some(_))));
    }
    assert_eq!(ended, 44);
    for _ in 0..256 {
        soon("a stream that was held", streams.recv()).await.unwrap();
    }
    let next = soon("room again", guest.open(host.peer_id(), &addresses, StreamKind::Info)).await;
    assert!(next.is_ok());
    assert_eq!(soon("it", streams.recv()).await.unwrap().peer, guest.peer_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_does_not_serve_is_unsupported() {
    let (host, streams) = start(NetworkConfig { serve: vec![StreamKind::Info], ..server(vec![]) }).await;
    let _ends = echo(streams);
    let (guest, _streams) = start(client(vec![])).await;
    ping(&guest, &host, 1).await;
    let refused = guest.open(host.peer_id(), &[], StreamKind::Session).await.unwrap_err();
    match refused {
        OpenError::Unsupported { peer, protocol } => {
            assert_eq!((peer, protocol.as_str()), (host.peer_id(), "/swarm-node/public/session/6"));
        }
        other => panic!("{other}"),
    }
    ping(&guest, &host, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_there_is_unreachable_within_seconds() {
    let (guest, _streams) = start(client(vec![])).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = |port: u16| vec![format!("/ip4/127.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap()];
    let cases = [
        ("closed", PeerId::random(), at(closed)),
        ("silent", PeerId::random(), at(silent.local_addr().unwrap().port())),
        ("unknown", PeerId::random(), vec![]),
        ("myself", guest.peer_id(), vec![]),
    ];
    for (what, peer, addresses) in cases {
        let begun = Instant::now();
        let result = guest.open(peer, &addresses, StreamKind::Info).await;
        assert!(matches!(result, Err(OpenError::Unreachable { .. })), "{what}: {result:?}");
        assert!(begun.elapsed() < DEADLINE / 2, "{what} took {:?}", begun.elapsed());
    }
}

/// A dial at stale addresses that hangs does not take one at the right address down with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_address_does_not_hide_a_fresh_one() {
    let (host, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let (guest, _streams) = start(client(vec![])).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stale = vec![format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap()];
    let peer = host.peer_id();
    let stale = guest.open(peer, &stale, StreamKind::Info);
    let fresh = host.listening();
    let fresh = guest.open(peer, &fresh, StreamKind::Info);
    let (stale, fresh) = soon("both", async { tokio::join!(stale, fresh) }).await;
    assert!(fresh.is_ok(), "{fresh:?}");
    assert!(stale.is_ok(), "any connection to the peer will do: {stale:?}");
}

/// A reader is polled and dropped at every byte of a frame: a ping over the same connection comes back after the byte has
/// arrived.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_pending_read_loses_nothing() {
    let (host, mut streams) = start(server(vec![])).await;
    let (guest, _streams) = start(client(vec![])).await;
    let addresses = host.listening();
    let stream = guest.open(host.peer_id(), &addresses, StreamKind::Session).await.unwrap();
    let (_reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(PAYLOAD_LIMIT);
    let inbound = soon("the stream", streams.recv()).await.unwrap();
    let (mut reader, _writer) = inbound.stream.into_frames::<SessionRequest, SessionReply>(PAYLOAD_LIMIT);
    let _ends = echo(streams);
    let info = guest.open(host.peer_id(), &addresses, StreamKind::Info).await.unwrap();
    let (mut pongs, mut pings) = info.into_frames::<InfoReply, InfoRequest>(0);

    let frames: Vec<_> = (0..3).map(|number| step(number, 1, 8)).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|(request, payload)| encode(request, payload).unwrap()).collect();
    let mut received = Vec::new();
    let mut dropped = 0;
    for byte in &bytes {
        writer.send_bytes(std::slice::from_ref(byte)).await.unwrap();
        pings.send(&InfoRequest::Ping { nonce: 0 }, &[]).await.unwrap();
        soon("a pong", pongs.next()).await.unwrap();
        match reader.next().now_or_never() {
            Some(frame) => received.push(frame.unwrap().unwrap()),
            None => dropped += 1,
        }
    }
    while received.len() < frames.len() {
        received.push(soon("the rest", reader.next()).await.unwrap().unwrap());
    }
    assert!(received == frames);
    assert!(dropped > bytes.len() / 2, "only {dropped} reads were dropped: the test has tested little");
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_in_order() {
    let (host, streams) = start(server(vec![])).await;
    let _ends = echo(streams);
    let (guest, _streams) = start(client(vec![])).await;
    let stream = guest.open(host.peer_id(), &host.listening(), StreamKind::Info).await.unwrap();
    let (mut reader, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
    for nonce in 0..100 {
        writer.send(&InfoRequest::Ping { nonce }, &[]).await.unwrap();
    }
    for nonce in 0..100 {
        let (reply, _) = soon("a pong", reader.next()).await.unwrap().unwrap();
        assert_eq!(reply, InfoReply::Pong { nonce });
    }
}
