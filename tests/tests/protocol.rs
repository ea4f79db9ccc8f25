//! What a server answers to a session's owner and to other servers, message by message.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use swarm_protocol::p2p::{FrameReader, FrameWriter, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{
    Incoming, Input, MAX_STEP_ROWS, Open, Payload, RowEncoding, RowsHeader, ServerInfo, SessionReply, SessionRequest,
    Step,
};
use swarm_tests::harness::{Client, Server, TestSwarm};

/// Longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// One end of a session's stream.
struct Stream {
    reader: FrameReader<SessionReply>,
    writer: FrameWriter<SessionRequest>,
}

impl Stream {
    async fn to(client: &Client, server: &Server) -> Self {
        let addresses = std::slice::from_ref(&server.address);
        let stream = client.swarm.network().open(server.peer, addresses, StreamKind::Session).await.unwrap();
        let (reader, writer) = stream.into_frames(16 << 20);
        Self { reader, writer }
    }

    async fn say(&mut self, request: SessionRequest) {
        self.writer.send(&request, &vec![0; request.payload_bytes().unwrap()]).await.unwrap();
    }

    async fn hear(&mut self) -> SessionReply {
        let heard = tokio::time::timeout(DEADLINE, self.reader.next()).await.expect("an answer");
        heard.unwrap().expect("the stream goes on").0
    }
}

/// A session on the server, opened by the client; its id, the most rows of a step, and the most steps that are taken in.
async fn opened(client: &Client, server: &Server, info: &ServerInfo) -> (Stream, SessionId, u32, u32) {
    let (session, about) = (SessionId::random(&mut rand::rng()), &info.announcement);
    let mut owner = Stream::to(client, server).await;
    let (model, class, blocks) = (about.model, about.class.clone(), about.blocks);
    owner.say(SessionRequest::Open(Open { session, model, class, blocks, tokens: TokenCount(MAX_STEP_ROWS) })).await;
    let SessionReply::Opened { max_step_rows, max_steps, .. } = owner.hear().await else { panic!("it was not opened") };
    (owner, session, max_step_rows, max_steps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_while_steps_wait() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let (client, server) = (Client::of(&swarm).await, &swarm.servers[0]);
    let info = client.info(server).await.unwrap();
    let (mut owner, _, most, steps) = opened(&client, server, &info).await;
    let hidden = client.model.config().hidden as u32;
    // The first takes so long that all others have come before it is computed; the last one waits for its turn.
    let counts = || std::iter::once(most).chain((0..steps).map(|_| 1));
    for count in counts() {
        let rows = RowsHeader { rows: count, hidden, element: RowEncoding::Bf16 };
        owner.say(SessionRequest::Step(Step { epoch: 0, position: 0, rows, wanted_from: 0 })).await;
    }
    owner.say(SessionRequest::Ping { nonce: 7 }).await;
    let first = owner.hear().await;
    assert_eq!(first, SessionReply::Pong { nonce: 7 }, "it said nothing until it had computed something");
    for count in counts() {
        let done = owner.hear().await;
        assert!(matches!(&done, SessionReply::Done(done) if done.rows == count), "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_early_displaces_nobody() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let (client, server) = (Client::of(&swarm).await, &swarm.servers[0]);
    let info = client.info(server).await.unwrap();
    let (mut owner, session, ..) = opened(&client, server, &info).await;
    let peer = client.swarm.network().peer_id();
    let (mut feeds, mut imports) = (Stream::to(&client, server).await, Stream::to(&client, server).await);
    feeds.say(SessionRequest::Feed(Incoming { session, link: 5 })).await;
    imports.say(SessionRequest::Import(Incoming { session, link: 6 })).await;
    // So that both have come before the owner's word about them, as a rule.
    for nonce in 0..20 {
        owner.say(SessionRequest::Ping { nonce }).await;
        assert_eq!(owner.hear().await, SessionReply::Pong { nonce });
    }
    owner.say(SessionRequest::Accept(Input::Upstream { peer, link: 5 })).await;
    assert_eq!(feeds.hear().await, SessionReply::Expected);
    owner.say(SessionRequest::Accept(Input::Import { peer, link: 6 })).await;
    assert_eq!(imports.hear().await, SessionReply::Expected);
}
