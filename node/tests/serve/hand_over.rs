//! A KV cache moves from one real server to another.

use swarm_model::{Checkpoint, KvFormat, ModelSpec};
use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::{HandOver, Incoming, Input, KvHeader, Output, Refusal, SessionReply, SessionRequest};

use crate::support::{Client, ROW, Server, Session, header, local};

const BLOCKS: &str = "2..8";

async fn server() -> (Server, Client) {
    let server = Server::start(&["--model", "demo", "--block-range", BLOCKS]).await;
    let client = Client::of(&server).await;
    (server, client)
}

fn expected(count: u32) -> Vec<u8> {
    local(BLOCKS.parse().unwrap(), count)
}

/// How a hand-over ends, by the word of the server that hands over.
async fn ended(session: &mut Session, link: u32) -> Option<String> {
    match session.next().await.0 {
        SessionReply::HandedOver { link: of, failure } if of == link => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn decoding_goes_on_elsewhere_to_the_bit() {
    let ((from_server, from), (_to_server, to)) = tokio::join!(server(), server());
    // One whose outputs are kept, and one whose outputs the client has.
    for kept in [true, false] {
        let (mut old, mut new) = (from.open_quiet().await, to.open_quiet().await);
        if !kept {
            old.connect(1, Output::Owner, 0).await;
        }
        old.send_step(0, 40, 39).await;
        old.computed(0, 40, 39).await;
        new.accept(Input::Import { peer: from_server.peer, link: 3 }).await;
        old.send(SessionRequest::HandOver(HandOver { link: 3, to: to.as_next(&new) })).await;
        assert_eq!(ended(&mut old, 3).await, None);
        assert_eq!(new.next().await.0, SessionReply::Received { position: 40 });
        // It is a copy: both go on.
        old.send_step(40, 1, 40).await;
        old.computed(40, 1, 40).await;
        new.accept(Input::Owner).await;
        if kept {
            new.connect(4, Output::Relay, 35).await;
            assert_eq!(new.rows_of(4, 35, 5).await, expected(40)[35 * ROW..]);
        }
        new.connect(5, Output::Owner, 40).await;
        assert_eq!(new.output(40, 1).await, expected(41)[40 * ROW..]);
        assert_eq!(new.output(41, 3).await, expected(44)[41 * ROW..]);
        assert_eq!(new.output(38, 2).await, expected(40)[38 * ROW..], "rewound into what was handed over");
        drop((old, new));
        from.wait_until_free().await;
        to.wait_until_free().await;
    }
}

#[tokio::test]
async fn outputs_that_were_let_go_of_are_not_to_be_had_elsewhere() {
    let ((from_server, from), (_to_server, to)) = tokio::join!(server(), server());
    let (mut old, mut new) = (from.open_session().await, to.open_quiet().await);
    old.output(0, 4).await;
    new.accept(Input::Import { peer: from_server.peer, link: 3 }).await;
    old.send(SessionRequest::HandOver(HandOver { link: 3, to: to.as_next(&new) })).await;
    assert_eq!(ended(&mut old, 3).await, None);
    assert_eq!(new.next().await.0, SessionReply::Received { position: 4 });
    new.connect(4, Output::Relay, 0).await;
    let (reply, _) = new.next().await;
    assert!(matches!(reply, SessionReply::Unlinked { link: 4, .. }), "{reply:?}");
}

#[tokio::test]
async fn a_kv_cache_is_taken_from_the_named_server_only() {
    let ((from_server, from), (_to_server, to)) = tokio::join!(server(), server());
    let (mut old, mut new) = (from.open_session().await, to.open_session().await);
    old.output(0, 4).await;
    // Over an older link than the newest, and to a session that is not.
    new.accept(Input::Import { peer: to.network.peer_id(), link: 5 }).await;
    let mut nobodys = to.as_next(&new);
    nobodys.session = to.new_session();
    for (link, to) in [(3, to.as_next(&new)), (4, nobodys)] {
        old.send(SessionRequest::HandOver(HandOver { link, to })).await;
        assert!(ended(&mut old, link).await.is_some());
    }
    let stranger = from.network.peer_id();
    assert_ne!(stranger, from_server.peer);
    let (_, reply) = from.visit(SessionRequest::Import(Incoming { session: old.id, link: 1 << 20 })).await;
    assert_eq!(reply, SessionReply::Refused(Refusal::NotExpected));
    // Both are what they were.
    new.accept(Input::Owner).await;
    assert_eq!(new.output(0, 1).await, expected(1));
    assert_eq!(old.output(4, 1).await, expected(5)[4 * ROW..]);
}

#[tokio::test]
async fn bytes_that_are_no_kv_cache_concern_one_session_only() {
    let (_server, client) = server().await;
    let mut other = client.open_session().await;
    let peer = client.network.peer_id();
    let mut session = client.open_session().await;
    let import = |session: &Session, link| SessionRequest::Import(Incoming { session: session.id, link });
    // No frame at all, a frame that announces too much, and none.
    for (link, bytes) in [(1, &[0xffu8; 64][..]), (2, &[1, 0, 0, 0, 0x63]), (3, &[])] {
        session.accept(Input::Import { peer, link }).await;
        let (mut stream, reply) = client.visit(import(&session, link)).await;
        assert_eq!(reply, SessionReply::Expected);
        match bytes {
            [] => drop(stream),
            bytes => {
                stream.send_bytes(bytes).await;
                stream.has_ended().await;
            }
        }
        session.is_quiet().await;
    }
    session.accept(Input::Owner).await;
    session.output(0, 2).await;
    // Pieces that are not what they say cost the session that was to get them.
    let whole = KvHeader { epoch: 1, position: 0, positions: 2, kv_bytes: 100, outputs: header(0) };
    let pieces = [
        (whole, vec![0; 100]),
        (KvHeader { position: 7, ..whole }, vec![0; 100]),
        (KvHeader { kv_bytes: 0, ..whole }, vec![]),
        (KvHeader { positions: u32::MAX, position: u32::MAX, ..whole }, vec![0; 100]),
        (KvHeader { outputs: header(1), ..whole }, vec![0; 100 + ROW]),
    ];
    for (piece, bytes) in pieces {
        let mut session = client.open_session().await;
        session.accept(Input::Import { peer, link: 1 }).await;
        let (mut stream, _) = client.visit(import(&session, 1)).await;
        stream.send_with(SessionRequest::Kv(piece), &bytes).await;
        stream.has_ended().await;
        let (reply, _) = session.next().await;
        assert!(matches!(reply, SessionReply::Closed(_)), "{piece:?}: {reply:?}");
    }
    other.output(0, 2).await;
    drop((session, other));
    client.wait_until_free().await;
}

/// The number of positions in a piece's header is not the number of positions in its bytes.
#[tokio::test]
async fn a_piece_that_claims_more_positions_than_it_has_is_not_believed() {
    let (_server, client) = server().await;
    let peer = client.network.peer_id();
    let mut session = client.open_session().await;
    session.accept(Input::Import { peer, link: 1 }).await;
    let (mut stream, _) = client.visit(SessionRequest::Import(Incoming { session: session.id, link: 1 })).await;
    let position = kv_bytes_per_position();
    let piece = KvHeader { epoch: 1, position: 0, positions: 3, kv_bytes: position, outputs: header(0) };
    stream.send_with(SessionRequest::Kv(piece), &vec![0; position as usize]).await;
    match session.next().await.0 {
        SessionReply::Closed(_) => {}
        SessionReply::Received { position } => panic!("{position} positions were stored out of one"),
        other => panic!("{other:?}"),
    }
}

/// Keys and values of one position in all blocks.
fn kv_bytes_per_position() -> u32 {
    let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
    let per_block = checkpoint.config().kv_bytes_per_token_block(checkpoint.native_format(), KvFormat::Activations);
    per_block as u32 * BLOCKS.parse::<BlockRange>().unwrap().len()
}
