//! The real binary on loopback, spoken to by the protocol's own driver.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chain;
mod hand_over;
mod next_hop;
mod support;

use std::time::{Duration, Instant};

use swarm_model::{Checkpoint, ModelSpec};
use swarm_protocol::PeerId;
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass, WeightFormat};
use swarm_protocol::p2p::StreamKind;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{
    CloseReason, ElementType, InfoReply, InfoRequest, LinkFormat, LinkFormats, Output, Refusal, RowEncoding,
    RowsHeader, SessionReply, SessionRequest, Step, StepError,
};

use support::{Client, HIDDEN, OWNER_LINK, ROW, Server, header, local, local_of, rows, soon};

const BLOCKS: &str = "0..6";

async fn server(more: &[&str]) -> (Server, Client) {
    let mut args = vec!["--model", "demo", "--block-range", BLOCKS];
    args.extend_from_slice(more);
    let server = Server::start(&args).await;
    let client = Client::of(&server).await;
    (server, client)
}

fn hosted() -> BlockRange {
    BLOCKS.parse().unwrap()
}

#[tokio::test]
async fn it_says_what_it_is_and_answers_pings() {
    let (server, client) = server(&["--name", "attic"]).await;
    let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
    assert_eq!(server.model, checkpoint.id(checkpoint.native_format()).to_string());
    let info = client.describe().await;
    assert_eq!(info.announcement.blocks, hosted());
    assert_eq!(info.announcement.peer, server.peer);
    assert_eq!(info.announcement.name.as_deref(), Some("attic"));
    assert_eq!(info.announcement.load.free_tokens, info.announcement.load.total_tokens);
    assert_eq!(info.digests.len(), 6);
    let (mut reader, mut writer) = client.stream(StreamKind::Info).await.into_frames::<InfoReply, InfoRequest>(0);
    for nonce in 0..3 {
        writer.send(&InfoRequest::Ping { nonce }, &[]).await.unwrap();
        assert_eq!(soon(reader.next()).await.unwrap().unwrap().0, InfoReply::Pong { nonce });
    }
}

#[tokio::test]
async fn steps_give_the_models_bits_whatever_their_cut() {
    let (_server, client) = server(&[]).await;
    let expected = local(BlockRange::new(1, 4).unwrap(), 8);
    let row = |from: usize, to: usize| &expected[from * ROW..to * ROW];
    let mut open = client.open_request().await;
    open.blocks = BlockRange::new(1, 4).unwrap();
    let mut session = client.open(open).await.unwrap();
    session.connect(OWNER_LINK, Output::Owner, 0).await;
    assert_eq!(session.output(0, 5).await, row(0, 5));
    assert_eq!(session.output(5, 1).await, row(5, 6));
    // Two steps on the way at once, and a ping behind them.
    session.send_step(6, 1, 6).await;
    session.send_step(7, 1, 6).await;
    session.send(SessionRequest::Ping { nonce: 7 }).await;
    let (mut rows, mut done, mut pongs) = (Vec::new(), Vec::new(), 0);
    while done.len() < 2 || pongs < 1 {
        match session.next().await {
            (SessionReply::Output(_), bytes) => rows.extend(bytes),
            (SessionReply::Done(step), _) => done.push(step.position),
            (SessionReply::Pong { nonce: 7 }, _) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((rows.as_slice(), done), (row(6, 8), vec![6, 7]));
    // Rewound, the same rows give the same bits; of a replay none are wanted.
    session.send_step(2, 3, 5).await;
    assert!(session.computed(2, 3, 5).await.is_empty());
    assert_eq!(session.output(5, 3).await, row(5, 8));
    // Of a chunk, only the last row may be wanted.
    session.send_step(3, 5, 7).await;
    assert_eq!(session.computed(3, 5, 7).await, row(7, 8));
}

#[tokio::test]
async fn steps_that_do_not_fit_fail_and_the_session_lives_on() {
    let (_server, client) = server(&[]).await;
    let mut open = client.open_request().await;
    open.tokens = TokenCount(8);
    let mut session = client.open(open).await.unwrap();
    session.connect(OWNER_LINK, Output::Owner, 0).await;
    session.output(0, 3).await;
    assert_eq!(session.failure(4, 1).await, StepError::Gap { have: 3 });
    assert_eq!(session.failure(3, 6).await, StepError::PastReservation { reserved: TokenCount(8) });
    let narrow = RowsHeader { hidden: 64, ..header(1) };
    session.send_rows(Step { epoch: 1, position: 3, rows: narrow, wanted_from: 3 }, &[0; 128]).await;
    let (reply, _) = session.next().await;
    assert!(matches!(reply, SessionReply::Failed { error: StepError::BadRows(_), .. }), "{reply:?}");
    session.output(3, 5).await;
}

#[tokio::test]
async fn rows_come_and_go_in_the_formats_that_were_agreed_upon() {
    let (_server, client) = server(&[]).await;
    let (rounded, exact) = (LinkFormat::Int8, LinkFormat::Exact);
    let bf16 = |bytes: Vec<u8>| ActivationRows::new(WeightFormat::Bf16, HIDDEN as u32, bytes).unwrap();
    for formats in [LinkFormats { input: rounded, output: exact }, LinkFormats { input: exact, output: rounded }] {
        let mut session = client.open_quiet().await;
        session.send(SessionRequest::Links(formats)).await;
        assert_eq!(session.next().await.0, SessionReply::Agreed);
        session.connect(OWNER_LINK, Output::Owner, 0).await;
        let input = bf16(rows(0, 3)).on_link(formats.input);
        let wrong = bf16(rows(0, 3)).on_link(if formats.input == exact { rounded } else { exact });
        for sent in [&wrong, &input] {
            session.send_rows(Step { epoch: 1, position: 0, rows: sent.header(), wanted_from: 0 }, sent.bytes()).await;
        }
        let (reply, _) = session.next().await;
        assert!(matches!(reply, SessionReply::Failed { error: StepError::BadRows(_), .. }), "{reply:?}");
        let expected = local_of(hosted(), &input.off_link(ElementType::Bf16)).on_link(formats.output);
        match session.next().await {
            (SessionReply::Output(output), bytes) => {
                assert_eq!((output.rows, &bytes[..]), (expected.header(), expected.bytes()));
            }
            other => panic!("{other:?}"),
        }
        // It is too late to change anything.
        session.send(SessionRequest::Links(LinkFormats::default())).await;
        loop {
            match session.next().await.0 {
                SessionReply::Done(_) => {}
                SessionReply::Closed(CloseReason::Protocol(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        session.has_ended().await;
    }
    client.wait_until_free().await;
}

#[tokio::test]
async fn packed_rows_are_the_same_rows() {
    let (_server, client) = server(&[]).await;
    let bf16 = |bytes: Vec<u8>| ActivationRows::new(WeightFormat::Bf16, HIDDEN as u32, bytes).unwrap();
    let mut session = client.open_quiet().await;
    let formats = LinkFormats { input: LinkFormat::Exact, output: LinkFormat::Packed };
    session.send(SessionRequest::Links(formats)).await;
    assert_eq!(session.next().await.0, SessionReply::Agreed);
    session.connect(OWNER_LINK, Output::Owner, 0).await;
    // Whoever takes exact rows takes packed ones, but none of another type, and no lies.
    let (header, packed) = bf16(rows(0, 3)).into_packed();
    let RowEncoding::Packed { bytes, .. } = header.element else { panic!("{header:?} is not packed") };
    assert!(packed.len() < rows(0, 3).len());
    let step = |rows| Step { epoch: 1, position: 0, rows, wanted_from: 0 };
    let other = RowsHeader { element: RowEncoding::Packed { element: ElementType::F16, bytes }, ..header };
    let fewer = RowsHeader { rows: 2, ..header };
    for wrong in [other, fewer] {
        session.send_rows(step(wrong), &packed).await;
        let (reply, _) = session.next().await;
        assert!(matches!(reply, SessionReply::Failed { error: StepError::BadRows(_), .. }), "{reply:?}");
    }
    session.send_rows(step(header), &packed).await;
    let expected = local_of(hosted(), &bf16(rows(0, 3)));
    match session.next().await {
        (SessionReply::Output(output), bytes) => {
            assert!(matches!(output.rows.element, RowEncoding::Packed { .. }), "{output:?}");
            assert_eq!(ActivationRows::unpacked(output.rows, bytes), Some(expected));
        }
        other => panic!("{other:?}"),
    }
    drop(session);
    client.wait_until_free().await;
}

#[tokio::test]
async fn what_is_not_here_is_refused_with_its_reason() {
    let (_server, client) = server(&["--cache-tokens", "190"]).await;
    let good = client.open_request().await;
    let refused = async |change: &dyn Fn(&mut swarm_protocol::wire::Open)| {
        let mut open = good.clone();
        open.session = client.new_session();
        change(&mut open);
        client.open(open).await.err().expect("a refusal")
    };
    assert_eq!(refused(&|open| open.model = ModelId([9; 32])).await, Refusal::WrongModel { serves: good.model });
    assert_eq!(
        refused(&|open| open.class = NumericClass::new("other").unwrap()).await,
        Refusal::WrongClass { serves: good.class.clone() }
    );
    assert_eq!(
        refused(&|open| open.blocks = BlockRange::new(4, 8).unwrap()).await,
        Refusal::NotHosted { hosted: hosted() }
    );
    // Room is counted in whole pages of 64 tokens.
    assert_eq!(refused(&|open| open.tokens = TokenCount(193)).await, Refusal::TooLong { most: TokenCount(192) });
    let _session = client.open(good.clone()).await.unwrap();
    let no_room = refused(&|open| open.tokens = TokenCount(150)).await;
    assert!(matches!(no_room, Refusal::NoRoom { free: TokenCount(128), .. }), "{no_room:?}");
    assert!(no_room.retry_after_ms().unwrap() > 0);
    let twice = refused(&|open| open.session = good.session).await;
    assert!(matches!(twice, Refusal::BadRequest(_)), "{twice:?}");
}

/// A frame that is no first message.
const PING: [u8; 6] = [2, 0, 0, 0, 2, 1];

#[tokio::test]
async fn garbage_closes_one_session_and_harms_no_other() {
    let (_server, client) = server(&[]).await;
    let mut honest = client.open_session().await;
    let garbage: [&[u8]; 4] = [
        // A header that no honest peer sends, a header that decodes to nothing, a first message that is no Open, noise.
        &[0xff, 0xff, 0xff, 0xff],
        &[2, 0, 0, 0, 0xee, 0xee],
        &PING,
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in garbage {
        let mut stranger = client.session_stream().await;
        stranger.send_bytes(bytes).await;
        let (reply, _) = stranger.next().await;
        assert!(matches!(reply, SessionReply::Refused(Refusal::BadRequest(_))), "{bytes:?}: {reply:?}");
        let mut opened = client.open_session().await;
        opened.send_bytes(bytes).await;
        let (reply, _) = opened.next().await;
        let expected_pong = bytes == PING;
        match reply {
            SessionReply::Closed(CloseReason::Protocol(_)) => assert!(!expected_pong),
            SessionReply::Pong { .. } => assert!(expected_pong),
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    honest.output(0, 2).await;
    drop(honest);
    client.wait_until_free().await;
}

#[tokio::test]
async fn room_comes_back_when_a_client_is_gone() {
    let (server, client) = server(&["--idle-timeout", "1s"]).await;
    // Closed, cut off in the middle of a frame, gone with its connection, and silent.
    let mut polite = client.open_session().await;
    polite.send(SessionRequest::Close).await;
    let mut cut = client.open_session().await;
    cut.send_bytes(&[9, 0]).await;
    drop(cut);
    client.wait_until_free().await;
    let other = Client::of(&server).await;
    let mut lost = other.open_session().await;
    lost.output(0, 4).await;
    assert_eq!(client.describe().await.announcement.load.sessions, 1);
    other.network.shut_down().await;
    client.wait_until_free().await;
    let mut silent = client.open_session().await;
    assert_eq!(silent.next().await.0, SessionReply::Closed(CloseReason::Idle));
    client.wait_until_free().await;
}

#[tokio::test]
async fn told_to_stop_it_tells_its_sessions_and_ends() {
    let (mut server, client) = server(&["--drain-timeout", "1s"]).await;
    let mut session = client.open_session().await;
    session.output(0, 4).await;
    server.terminate();
    let (reply, _) = session.next().await;
    assert!(matches!(reply, SessionReply::Leaving { within_ms } if within_ms <= 1000), "{reply:?}");
    assert_eq!(client.open(client.open_request().await).await.err(), Some(Refusal::Leaving));
    session.output(4, 1).await;
    assert_eq!(session.next().await.0, SessionReply::Closed(CloseReason::Left));
    assert_eq!(soon(server.child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn told_twice_it_does_not_wait_for_sessions() {
    let (mut server, client) = server(&["--drain-timeout", "5m"]).await;
    let mut session = client.open_session().await;
    server.terminate();
    let (reply, _) = session.next().await;
    assert!(matches!(reply, SessionReply::Leaving { .. }), "{reply:?}");
    server.terminate();
    assert_eq!(soon(server.child.wait()).await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let (mut server, _client) = server(&[]).await;
    let began = Instant::now();
    server.terminate();
    assert_eq!(soon(server.child.wait()).await.unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn servers_that_join_together_cover_the_model() {
    let first = Server::start(&["--model", "demo", "--blocks", "4"]).await;
    let join = ["--model", "demo", "--blocks", "4", "--bootstrap", first.address.as_str()];
    let (second, third) = tokio::join!(Server::start(&join), Server::start(&join));
    let mut ranges = [&first, &second, &third].map(|server| server.blocks);
    ranges.sort_unstable();
    let expected = [(0, 4), (4, 8), (8, 12)].map(|(start, end)| BlockRange::new(start, end).unwrap());
    assert_eq!(ranges, expected);
}

#[tokio::test]
async fn failures_are_one_line_with_their_cause_and_their_code() {
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", PeerId::random());
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--model", "demo", "--block-range", "4..40"], 1, "the model has blocks 0..12"),
        (&["--model", "./nowhere"], 2, "there is no directory"),
        (&["--model", "demo", "--format", "q3_k"], 2, "use bf16, f16, f32, q8_0, q4_0, q4_k, or gguf"),
        (&["--model", "demo", "--blocks", "2", "--block-range", "0..2"], 2, "cannot be used with"),
        (&["--model", "demo", "--bootstrap", "127.0.0.1:4001"], 2, "is no bootstrap address"),
        (&["--model", "demo", "--blocks", "2", "--bootstrap", &nobody], 1, "cannot be reached"),
    ];
    for (args, code, says) in cases {
        let output = Server::command(args).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{stderr}");
        assert!(lines[0].contains(says), "{args:?}: {stderr}");
    }
}
