//! Two servers of a chain, and a client that steers them frame by frame.

use swarm_protocol::PeerId;
use swarm_protocol::wire::{Incoming, Input, Output, Refusal, SessionReply, SessionRequest, Step, StepError};

use crate::support::{Client, OWNER_LINK, ROW, Server, Session, header, local, rows};

/// The first half of the demo model, and the second.
async fn two_servers() -> [(Server, Client); 2] {
    let server = async |blocks| {
        let server = Server::start(&["--model", "demo", "--block-range", blocks]).await;
        let client = Client::of(&server).await;
        (server, client)
    };
    let (upper, lower) = tokio::join!(server("0..6"), server("6..12"));
    [upper, lower]
}

fn whole(count: u32) -> Vec<u8> {
    local("0..12".parse().unwrap(), count)
}

fn half(count: u32) -> Vec<u8> {
    local("0..6".parse().unwrap(), count)
}

/// A session on one server, and a member that will come to feed it.
async fn fed_session() -> (Server, Client, Session, Client) {
    let server = Server::start(&["--model", "demo", "--block-range", "0..6"]).await;
    let client = Client::of(&server).await;
    let session = client.open_session().await;
    let upstream = Client::of(&server).await;
    (server, client, session, upstream)
}

fn upstream(client: &Client, link: u32) -> Input {
    Input::Upstream { peer: client.network.peer_id(), link }
}

#[tokio::test]
async fn only_the_named_server_feeds_and_only_over_the_named_link() {
    let (server, client, mut session, upper) = fed_session().await;
    let stranger = Client::of(&server).await;
    let refused = SessionReply::Refused(Refusal::NotExpected);
    session.accept(upstream(&upper, 5)).await;
    let nobodys = SessionRequest::Feed(Incoming { session: client.new_session(), link: 5 });
    assert_eq!(upper.visit(nobodys).await.1, refused, "there is no such session");
    assert_eq!(stranger.feed(&session, 5).await.1, refused, "somebody else is to feed it");
    assert_eq!(client.feed(&session, 5).await.1, refused, "its owner is not the server it has named");
    assert_eq!(upper.feed(&session, 4).await.1, refused, "an older link");
    let import = SessionRequest::Import(Incoming { session: session.id, link: 5 });
    assert_eq!(upper.visit(import).await.1, refused, "it is to feed it, not to hand a KV cache over");
    let (mut feed, reply) = upper.feed(&session, 5).await;
    assert_eq!(reply, SessionReply::Expected);
    feed.send_with(SessionRequest::Warm(header(3)), &[0; 3 * ROW]).await;
    assert_eq!(feed.next().await.0, SessionReply::Received { position: 0 });
    feed.send_step(0, 3, 0).await;
    assert_eq!(feed.next().await.0, SessionReply::Received { position: 3 });
    assert_eq!(session.computed(0, 3, 0).await, half(3));
    // What the owner sends meanwhile is not what the session is fed with.
    session.send_step(3, 1, 3).await;
    session.is_quiet().await;
    feed.send_step(3, 1, 3).await;
    assert_eq!(session.computed(3, 1, 3).await, half(4)[3 * ROW..]);
    drop(session);
    client.wait_until_free().await;
}

#[tokio::test]
async fn a_link_that_another_takes_the_place_of_is_ended() {
    let (_server, client, mut session, upper) = fed_session().await;
    session.accept(upstream(&upper, 5)).await;
    let (mut old, reply) = upper.feed(&session, 5).await;
    assert_eq!(reply, SessionReply::Expected);
    old.send_step(0, 2, 0).await;
    session.computed(0, 2, 0).await;
    session.accept(upstream(&upper, 6)).await;
    old.has_ended().await;
    assert_eq!(upper.feed(&session, 5).await.1, SessionReply::Refused(Refusal::NotExpected));
    let (mut new, reply) = upper.feed(&session, 6).await;
    assert_eq!(reply, SessionReply::Expected);
    // The KV cache is what it was.
    new.send_step(2, 2, 2).await;
    assert_eq!(session.computed(2, 2, 2).await, half(4)[2 * ROW..]);
    session.accept(Input::Owner).await;
    new.has_ended().await;
    assert_eq!(session.output(4, 1).await, half(5)[4 * ROW..]);
    drop(session);
    client.wait_until_free().await;
}

#[tokio::test]
async fn who_comes_before_the_owner_has_named_it_waits() {
    let (_server, _client, mut session, upper) = fed_session().await;
    let mut feed = upper.session_stream().await;
    feed.send(SessionRequest::Feed(Incoming { session: session.id, link: 7 })).await;
    // It goes on without an answer, and has been heard by now.
    feed.send_step(0, 2, 0).await;
    upper.describe().await;
    session.is_quiet().await;
    session.send(SessionRequest::Accept(upstream(&upper, 7))).await;
    assert_eq!(feed.next().await.0, SessionReply::Expected);
    assert_eq!(session.computed(0, 2, 0).await, half(2));
}

#[tokio::test]
async fn a_gap_is_told_to_who_sent_it_and_other_failures_to_the_owner() {
    let (_server, _client, mut session, upper) = fed_session().await;
    session.accept(upstream(&upper, 1)).await;
    let (mut feed, _) = upper.feed(&session, 1).await;
    feed.send_step(0, 2, 0).await;
    session.computed(0, 2, 0).await;
    assert_eq!(feed.next().await.0, SessionReply::Received { position: 2 });
    feed.send_step(5, 1, 5).await;
    let gap = loop {
        match feed.next().await.0 {
            SessionReply::Received { .. } => {}
            other => break other,
        }
    };
    assert_eq!(gap, SessionReply::Failed { epoch: 1, position: 5, error: StepError::Gap { have: 2 } });
    session.is_quiet().await;
    feed.send_step(2, 4, 2).await;
    assert_eq!(session.computed(2, 4, 2).await, half(6)[2 * ROW..]);
    feed.send_step(6, 60, 6).await;
    let (reply, _) = session.next().await;
    assert!(matches!(reply, SessionReply::Failed { error: StepError::PastReservation { .. }, .. }), "{reply:?}");
}

#[tokio::test]
async fn garbage_on_a_feed_costs_that_stream_and_no_session() {
    let (_server, client, mut session, upper) = fed_session().await;
    let mut other = client.open_session().await;
    let garbage: [&[u8]; 4] = [&[0xff; 64], &[2, 0, 0, 0, 0xee, 0xee], &[1, 0, 0, 0, 3], b"GET / HTTP/1.1\r\n\r\n"];
    for (link, bytes) in (1..).zip(garbage) {
        session.accept(upstream(&upper, link)).await;
        let (mut feed, reply) = upper.feed(&session, link).await;
        assert_eq!(reply, SessionReply::Expected);
        feed.send_bytes(bytes).await;
        feed.has_ended().await;
        session.is_quiet().await;
    }
    session.accept(upstream(&upper, 9)).await;
    let (mut feed, _) = upper.feed(&session, 9).await;
    feed.send_step(0, 2, 0).await;
    assert_eq!(session.computed(0, 2, 0).await, half(2));
    other.output(0, 2).await;
    // What only servers say is not for the owner's stream.
    for request in [
        SessionRequest::Feed(Incoming { session: session.id, link: 9 }),
        SessionRequest::Open(client.open_request().await),
    ] {
        let mut session = client.open_session().await;
        session.send(request).await;
        let (reply, _) = session.next().await;
        assert!(matches!(reply, SessionReply::Closed(_)), "{reply:?}");
    }
    drop((session, other));
    client.wait_until_free().await;
}

#[tokio::test]
async fn one_server_feeds_the_next_and_the_last_one_answers() {
    let [(upper_server, upper), (_lower_server, lower)] = two_servers().await;
    let (mut first, mut last) = (upper.open_quiet().await, lower.open_session().await);
    last.accept(Input::Upstream { peer: upper_server.peer, link: 1 }).await;
    first.connect(1, Output::Next(lower.as_next(&last)), 0).await;
    let expected = whole(12);
    let row = |from: usize, to: usize| &expected[from * ROW..to * ROW];
    for (from, count, wanted) in [(0, 5, 4), (5, 1, 5), (6, 1, 6), (7, 3, 7)] {
        first.send_step(from, count, wanted).await;
        assert!(first.computed(from, count, wanted).await.is_empty(), "the first hop's output is not the client's");
        assert_eq!(last.computed(from, count, wanted).await, row(wanted as usize, (from + count) as usize));
    }
    // A step below the end rewinds the first hop, and what it sends on the next one.
    let again = Step { epoch: 1, position: 3, rows: header(2), wanted_from: 3 };
    first.send_rows(again, &rows(20, 2)).await;
    first.computed(3, 2, 3).await;
    assert_ne!(last.computed(3, 2, 3).await, row(3, 5), "other rows came");
    first.send_step(3, 9, 3).await;
    assert!(first.computed(3, 9, 3).await.is_empty());
    assert_eq!(last.computed(3, 9, 3).await, row(3, 12));
    assert_eq!((&first.linked[..], &last.linked[..]), (&[1][..], &[][..]));
    drop((first, last));
    upper.wait_until_free().await;
    lower.wait_until_free().await;
}

#[tokio::test]
async fn every_row_goes_through_the_client_if_it_relays() {
    let [(_upper_server, upper), (_lower_server, lower)] = two_servers().await;
    let (mut first, mut last) = (upper.open_quiet().await, lower.open_session().await);
    first.connect(1, Output::Relay, 0).await;
    first.send_step(0, 4, 3).await;
    // Also those whose last output nobody wants.
    let relayed = first.rows_of(1, 0, 4).await;
    assert_eq!(relayed, half(4));
    first.computed(0, 4, 0).await;
    last.send_rows(Step { epoch: 1, position: 0, rows: header(4), wanted_from: 3 }, &relayed).await;
    assert_eq!(last.computed(0, 4, 3).await, whole(4)[3 * ROW..]);
}

#[tokio::test]
async fn outputs_are_kept_until_somebody_is_named_for_them() {
    let [(upper_server, upper), (_lower_server, lower)] = two_servers().await;
    let mut first = upper.open_quiet().await;
    for (from, count) in [(0, 4), (4, 1), (5, 1)] {
        first.send_step(from, count, 0).await;
        assert!(first.computed(from, count, 0).await.is_empty());
    }
    first.connect(1, Output::Relay, 2).await;
    assert_eq!(first.rows_of(1, 2, 4).await, half(6)[2 * ROW..]);
    // A hop that takes a lost one's place is fed from the beginning.
    let mut fed = Vec::new();
    for link in [2, 3] {
        let mut last = lower.open_session().await;
        last.accept(Input::Upstream { peer: upper_server.peer, link }).await;
        first.connect(link, Output::Next(lower.as_next(&last)), 0).await;
        let mut outputs = Vec::new();
        while outputs.len() < 6 * ROW {
            if let (SessionReply::Output(output), rows) = last.next().await {
                assert_eq!((output.link, output.position as usize), (OWNER_LINK, outputs.len() / ROW));
                outputs.extend(rows);
            }
        }
        assert_eq!(outputs, whole(6));
        fed.push(last);
    }
    first.send_step(6, 1, 6).await;
    first.computed(6, 1, 6).await;
    drop((first, fed));
    upper.wait_until_free().await;
    lower.wait_until_free().await;
}

#[tokio::test]
async fn a_next_hop_that_cannot_be_fed_is_said_to_be_unlinked_and_nothing_is_lost() {
    let [(_upper_server, upper), (_lower_server, lower)] = two_servers().await;
    let (mut first, last) = (upper.open_quiet().await, lower.open_session().await);
    first.send_step(0, 3, 0).await;
    first.computed(0, 3, 0).await;
    let mut nowhere = lower.as_next(&last);
    nowhere.peer = PeerId::random();
    nowhere.addresses = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let mut ended = lower.as_next(&last);
    ended.session = lower.new_session();
    for (link, next) in [(1, nowhere), (2, ended)] {
        first.connect(link, Output::Next(next), 0).await;
        let (reply, _) = first.next().await;
        assert!(matches!(&reply, SessionReply::Unlinked { link: of, .. } if *of == link), "{reply:?}");
    }
    first.send_step(3, 1, 3).await;
    first.computed(3, 1, 3).await;
    first.connect(3, Output::Relay, 0).await;
    assert_eq!(first.rows_of(3, 0, 4).await, half(4));
}
