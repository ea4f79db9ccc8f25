//! A server feeds a hop that is played here.

use swarm_protocol::p2p::{FrameReader, FrameWriter, InboundStreams, Network, NetworkConfig, StreamKind};
use swarm_protocol::session::SessionId;
use swarm_protocol::swarm_name::SwarmName;
use swarm_protocol::wire::{Connect, Incoming, Lane, Next, Output, Refusal, SessionReply, SessionRequest, StepError};

use crate::support::{Client, PAYLOAD_LIMIT, ROW, Server, local, soon};

/// Sessions here are all the same one.
const SESSION: SessionId = SessionId([0x5e; 16]);

struct NextHop {
    network: Network,
    streams: InboundStreams,
}

/// A stream by which the server feeds this hop.
struct Fed {
    reader: FrameReader<SessionRequest>,
    writer: FrameWriter<SessionReply>,
}

impl NextHop {
    async fn start() -> Self {
        let config = NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            serve: StreamKind::ALL.to_vec(),
            ..NetworkConfig::client(SwarmName::default(), Vec::new())
        };
        let (network, streams) = Network::start(config).await.unwrap();
        Self { network, streams }
    }

    fn as_next(&self, max_rows: u32) -> Output {
        let (peer, addresses) = (self.network.peer_id(), self.network.listening());
        Output::Next(Next { peer, addresses, session: SESSION, max_rows })
    }

    /// The server comes over that link; it is answered with `reply`.
    async fn visited(&mut self, link: u32, reply: SessionReply) -> Fed {
        let inbound = soon(self.streams.recv()).await.expect("a stream");
        let (mut reader, mut writer) = inbound.stream.into_frames::<SessionRequest, SessionReply>(PAYLOAD_LIMIT);
        let (first, _) = soon(reader.next()).await.unwrap().unwrap();
        assert_eq!(first, SessionRequest::Feed(Incoming { session: SESSION, link }));
        writer.send(&reply, &[]).await.unwrap();
        Fed { reader, writer }
    }
}

impl Fed {
    async fn say(&mut self, reply: SessionReply) {
        self.writer.send(&reply, &[]).await.unwrap();
    }

    /// The rows of `[position, position + count)`, in frames of at most `most`.
    async fn rows(&mut self, position: u32, count: u32, most: u32) -> Vec<u8> {
        let mut outputs = Vec::new();
        while outputs.len() < count as usize * ROW {
            match soon(self.reader.next()).await.unwrap().unwrap() {
                (SessionRequest::Step(step), rows) => {
                    assert_eq!(step.position as usize, position as usize + outputs.len() / ROW);
                    assert!(step.rows.rows <= most, "{step:?}");
                    outputs.extend(rows);
                    self.say(SessionReply::Received { position: step.position + step.rows.rows }).await;
                }
                (SessionRequest::Warm(_), _) => self.say(SessionReply::Received { position: 0 }).await,
                (other, _) => panic!("{other:?}"),
            }
        }
        outputs
    }

    async fn has_ended(&mut self) {
        while let Ok(Some(_)) = soon(self.reader.next()).await {}
    }
}

async fn server() -> (Server, Client) {
    let server = Server::start(&["--model", "demo", "--block-range", "0..6"]).await;
    let client = Client::of(&server).await;
    (server, client)
}

#[tokio::test]
async fn a_hop_that_lacks_positions_is_sent_them_again() {
    let (_server, client) = server().await;
    let (mut session, mut hop) = (client.open_quiet().await, NextHop::start().await);
    let expected = local("0..6".parse().unwrap(), 8);
    session.send_step(0, 7, 0).await;
    session.computed(0, 7, 0).await;
    session.connect(1, hop.as_next(3), 2).await;
    let mut fed = hop.visited(1, SessionReply::Expected).await;
    assert_eq!(fed.rows(2, 5, 3).await, expected[2 * ROW..7 * ROW]);
    fed.say(SessionReply::Failed { epoch: 1, position: 2, error: StepError::Gap { have: 1 } }).await;
    assert_eq!(fed.rows(1, 6, 3).await, expected[ROW..7 * ROW]);
    session.send_step(7, 1, 7).await;
    session.computed(7, 1, 7).await;
    assert_eq!(fed.rows(7, 1, 3).await, expected[7 * ROW..]);
    // The owner may send the link elsewhere, and all of it again.
    session.connect(2, hop.as_next(64), 0).await;
    fed.has_ended().await;
    let mut again = hop.visited(2, SessionReply::Expected).await;
    assert_eq!(again.rows(0, 8, 64).await, expected);
    session.connect(3, Output::Nobody, 0).await;
    again.has_ended().await;
    drop(session);
    client.wait_until_free().await;
}

#[tokio::test]
async fn a_mirror_gets_the_same_and_may_take_the_main_way() {
    let (_server, client) = server().await;
    let (mut session, mut hop) = (client.open_quiet().await, NextHop::start().await);
    let expected = local("0..6".parse().unwrap(), 5);
    session.connect(1, hop.as_next(64), 0).await;
    let mut main = hop.visited(1, SessionReply::Expected).await;
    session.send_step(0, 3, 0).await;
    session.computed(0, 3, 0).await;
    assert_eq!(main.rows(0, 3, 64).await, expected[..3 * ROW]);
    let connect =
        |lane, position| SessionRequest::Connect(Connect { lane, link: 2, output: hop.as_next(64), position });
    let (beside, instead) = (connect(Lane::Mirror, 0), connect(Lane::Main, 0));
    session.send(beside).await;
    let mut mirror = hop.visited(2, SessionReply::Expected).await;
    assert_eq!(mirror.rows(0, 3, 64).await, expected[..3 * ROW]);
    session.send_step(3, 1, 3).await;
    session.computed(3, 1, 3).await;
    assert_eq!(main.rows(3, 1, 64).await, expected[3 * ROW..4 * ROW]);
    assert_eq!(mirror.rows(3, 1, 64).await, expected[3 * ROW..4 * ROW]);
    // It goes on where it is, over the stream that stands.
    session.send(instead).await;
    main.has_ended().await;
    session.send_step(4, 1, 4).await;
    session.computed(4, 1, 4).await;
    assert_eq!(mirror.rows(4, 1, 64).await, expected[4 * ROW..]);
}

#[tokio::test]
async fn whatever_a_next_hop_does_its_link_ends_and_the_session_goes_on() {
    let (_server, client) = server().await;
    let (mut session, mut hop) = (client.open_quiet().await, NextHop::start().await);
    session.send_step(0, 2, 0).await;
    session.computed(0, 2, 0).await;
    let answers = [
        SessionReply::Refused(Refusal::NotExpected),
        SessionReply::Leaving { within_ms: 1 },
        SessionReply::Expected,
        SessionReply::Expected,
        SessionReply::Expected,
    ];
    for (link, answer) in (1..).zip(answers) {
        session.connect(link, hop.as_next(64), 0).await;
        let expected = answer == SessionReply::Expected;
        let mut fed = hop.visited(link, answer).await;
        match link {
            // Rows come, and then garbage, or another word than there is, or the end.
            3 => fed.writer.send_bytes(&[0xee; 64]).await.unwrap(),
            4 => fed.say(SessionReply::Pong { nonce: 1 }).await,
            5 => fed.writer.close().await.unwrap(),
            _ => assert!(!expected),
        }
        let (reply, _) = session.next().await;
        assert!(matches!(&reply, SessionReply::Unlinked { link: of, .. } if *of == link), "{link}: {reply:?}");
    }
    session.connect(9, Output::Relay, 0).await;
    assert_eq!(session.rows_of(9, 0, 2).await, local("0..6".parse().unwrap(), 2));
}
