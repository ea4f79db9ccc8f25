//! Peers that break the protocol, lie, or fall silent disturb nobody but themselves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_client::ClientConfig;
use swarm_model::ModelSpec;
use swarm_protocol::p2p::{Identity, JoinError, Network, NetworkConfig, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{
    Connect, HandOver, Incoming, InfoReply, InfoRequest, Input, Keep, KvHeader, Lane, MAX_HEADER_BYTES, MAX_KV_BYTES,
    MAX_PAGE_KEYS, MAX_STEP_ROWS, Next, Open, Output, PageKey, PageScope, Payload, Recall, RowEncoding, RowsHeader,
    ServerInfo, SessionReply, SessionRequest, Step, encode,
};
use swarm_protocol::{Multiaddr, PeerId};
use swarm_tests::harness::{
    Client, Impostor, Local, Manner, PROMPT, TestSwarm, eventually_async, greedy, range, ready,
};

/// Tokens of each text.
const TOKENS: usize = 24;

/// The swarm tells the known text.
async fn tells(client: &Client) {
    let told = client.tell(PROMPT, greedy(), TOKENS).await.unwrap();
    assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &greedy(), TOKENS).tokens);
    assert_eq!(told.lost, [], "an honest server was given up");
}

/// Tells the known text again and again until `attack` is over, and once more.
async fn tells_during(client: &Client, attack: impl Future<Output = ()>) {
    tokio::pin!(attack);
    loop {
        tokio::select! {
            () = &mut attack => break,
            () = tells(client) => {}
        }
    }
    tells(client).await;
}

/// Waits until the server has no session and all its room.
async fn is_idle(client: &Client, swarm: &TestSwarm) {
    for server in &swarm.servers {
        eventually_async("every session has been given back", || async {
            let load = client.info(server).await.ok()?.announcement.load;
            (load.sessions == 0 && load.free_tokens == load.total_tokens).then_some(())
        })
        .await;
    }
}

/// What any honest client asks for.
fn open(info: &ServerInfo) -> SessionRequest {
    SessionRequest::Open(Open {
        session: SessionId::random(&mut rand::rng()),
        model: info.announcement.model,
        class: info.announcement.class.clone(),
        blocks: info.announcement.blocks,
        tokens: TokenCount(100),
    })
}

fn step(position: u32, rows: u32, hidden: u32) -> SessionRequest {
    let rows = RowsHeader { rows, hidden, element: RowEncoding::Bf16 };
    SessionRequest::Step(Step { epoch: 0, position, rows, wanted_from: 0 })
}

fn frame(request: &SessionRequest) -> Vec<u8> {
    encode(request, &vec![0x41; request.payload_bytes().unwrap()]).unwrap()
}

/// A frame without its payload, whatever it claims.
fn lie(request: &SessionRequest) -> Vec<u8> {
    let header = postcard::to_allocvec(request).unwrap();
    [&(header.len() as u32).to_le_bytes()[..], &header].concat()
}

/// The owner's word that all output is to come back.
fn to_owner() -> SessionRequest {
    SessionRequest::Connect(Connect { lane: Lane::Main, link: 1, output: Output::Owner, position: 0 })
}

/// A server that is nowhere, as a hop is told of it.
fn nowhere(addresses: usize) -> Next {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let session = SessionId::random(&mut rand::rng());
    Next { peer: PeerId::random(), addresses: vec![address; addresses], session, max_rows: 0 }
}

fn to_next(next: Next, link: u32) -> SessionRequest {
    SessionRequest::Connect(Connect { lane: Lane::Mirror, link, output: Output::Next(next), position: u32::MAX })
}

fn piece(positions: u32, kv_bytes: u32, outputs: RowsHeader) -> SessionRequest {
    SessionRequest::Kv(KvHeader { epoch: 0, position: 0, positions, kv_bytes, outputs })
}

/// What is said on a session stream that no honest client says.
fn attacks(info: &ServerInfo, hidden: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut random = vec![0; 4096];
    StdRng::seed_from_u64(1).fill(&mut random[..]);
    let opened = |more: Vec<u8>| [frame(&open(info)), more].concat();
    let wrong_blocks = |request: &mut Open| request.blocks = range(0, 500);
    let row = RowsHeader { rows: 1, hidden, element: RowEncoding::Bf16 };
    let largest = RowsHeader { rows: MAX_STEP_ROWS, hidden: 65_536, ..row };
    let nobodys = Incoming { session: SessionId::random(&mut rand::rng()), link: 1 };
    let (feed, import) = (frame(&SessionRequest::Feed(nobodys)), frame(&SessionRequest::Import(nobodys)));
    let unreachable = |link| frame(&to_next(nowhere(8), link));
    let hand_over = |link| frame(&SessionRequest::HandOver(HandOver { link, to: nowhere(1) }));
    let accept = |link| {
        frame(&SessionRequest::Accept(match link % 3 {
            0 => Input::Owner,
            1 => Input::Upstream { peer: info.announcement.peer, link },
            _ => Input::Import { peer: info.announcement.peer, link },
        }))
    };
    let unread = frame(&step(0, 100, hidden)).repeat(200);
    let keys = |count: usize| (0..count).map(|key| PageKey([key as u8; 32])).collect::<Vec<_>>();
    let recall =
        |count| frame(&SessionRequest::Recall(Recall { epoch: 0, scope: PageScope::Shared, keys: keys(count) }));
    let keep = |first, count| {
        frame(&SessionRequest::Keep(Keep { epoch: 0, scope: PageScope::Shared, first, keys: keys(count) }))
    };
    let changed = |change: &dyn Fn(&mut Open)| {
        let SessionRequest::Open(mut request) = open(info) else { unreachable!() };
        change(&mut request);
        frame(&SessionRequest::Open(request))
    };
    vec![
        ("nothing", vec![]),
        ("random bytes", random.clone()),
        ("a header of 4 GiB", u32::MAX.to_le_bytes().to_vec()),
        ("a header just too long", (MAX_HEADER_BYTES as u32 + 1).to_le_bytes().to_vec()),
        ("an empty header", vec![0; 4]),
        ("half a frame", frame(&open(info))[..9].to_vec()),
        ("a step before opening", frame(&step(0, 1, hidden))),
        ("blocks that are not there", changed(&wrong_blocks)),
        ("no room at all", changed(&|request| request.tokens = TokenCount(0))),
        ("all the room there could be", changed(&|request| request.tokens = TokenCount(u32::MAX))),
        ("opened twice", opened(frame(&open(info)))),
        ("opened, then random bytes", opened(random.clone())),
        ("rows of another width", opened(frame(&step(0, 1, hidden + 1)))),
        ("far too many rows", opened(lie(&step(0, u32::MAX, hidden)))),
        ("rows that overflow", opened(lie(&step(0, u32::MAX, u32::MAX)))),
        ("positions that are missing", opened(frame(&step(50, 1, hidden)))),
        ("past the reservation", opened([frame(&step(0, 100, hidden)), frame(&step(100, 1, hidden))].concat())),
        ("a position that overflows", opened(frame(&step(u32::MAX, 2, hidden)))),
        ("half the rows", opened(frame(&step(0, 8, hidden))[..40].to_vec())),
        ("a thousand pings", opened(frame(&SessionRequest::Ping { nonce: 1 }).repeat(1000))),
        ("more to warm up than fits", opened(lie(&SessionRequest::Warm(largest)))),
        ("warming up for ever", opened(frame(&SessionRequest::Warm(row)).repeat(2000))),
        ("more pages asked for than may be", opened(recall(MAX_PAGE_KEYS + 1))),
        ("pages asked for, again and again", opened(recall(MAX_PAGE_KEYS).repeat(200))),
        ("more pages kept than may be", opened(keep(0, MAX_PAGE_KEYS + 1))),
        ("pages kept at the end of numbers", opened(keep(u32::MAX, 2))),
        ("pages kept that nobody computed", opened(keep(0, MAX_PAGE_KEYS).repeat(200))),
        ("a page kept and asked for once more", opened([frame(&step(0, 64, hidden)), keep(0, 1), recall(1)].concat())),
        ("a feed to oneself", opened(frame(&SessionRequest::Feed(nobodys)))),
        ("a piece of a KV cache to oneself", opened(frame(&piece(1, 4, row)))),
        ("a next hop with too many addresses", opened(frame(&to_next(nowhere(9), 1)))),
        ("a next hop that is nowhere, again and again", opened((0..500).flat_map(unreachable).collect())),
        ("a hand-over to nowhere, again and again", opened((0..500).flat_map(hand_over).collect())),
        ("fed by whoever, again and again", opened((0..2000).flat_map(accept).collect())),
        ("a feed for a session that is not", frame(&SessionRequest::Feed(nobodys))),
        ("a hand-over for a session that is not", frame(&SessionRequest::Import(nobodys))),
        ("a feed that goes on without an answer", [feed.clone(), frame(&step(0, 4, hidden))].concat()),
        ("a hand-over that goes on without an answer", [import.clone(), frame(&piece(4, 100, row))].concat()),
        ("a hand-over of far too much", [import, lie(&piece(u32::MAX, u32::MAX, largest))].concat()),
        ("a feed and random bytes", [feed, random].concat()),
        ("a first message that is none", frame(&piece(1, MAX_KV_BYTES, row))),
        ("steps whose answers nobody reads", opened([frame(&to_owner()), unread].concat())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_protocol_on_a_session_stream_concerns_nobody_else() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let honest = Client::of(&swarm).await;
    let attacker = Client::of(&swarm).await;
    let hidden = attacker.model.config().hidden as u32;
    let server = &swarm.servers[0];
    let info = attacker.info(server).await.unwrap();
    let attack = async {
        for (name, bytes) in attacks(&info, hidden) {
            let addresses = std::slice::from_ref(&server.address);
            let network = attacker.swarm.network();
            let stream = network.open(server.peer, addresses, StreamKind::Session).await.unwrap();
            let (mut reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(16 << 20);
            // The server may hang up before it has read everything, or stop reading.
            let _ = tokio::time::timeout(Duration::from_secs(2), writer.send_bytes(&bytes)).await;
            if name.starts_with("steps whose") {
                continue;
            }
            let _ = tokio::time::timeout(Duration::from_secs(2), writer.close()).await;
            // Whatever it answers, it comes to an end.
            let end = async { while let Ok(Some(_)) = reader.next().await {} };
            let ended = tokio::time::timeout(Duration::from_secs(30), end).await;
            assert!(ended.is_ok(), "{name}: the server keeps the stream open");
        }
    };
    tells_during(&honest, attack).await;
    is_idle(&honest, &swarm).await;
    assert!(swarm.servers[0].process.is_running());
    assert!(!swarm.servers[0].process.stderr().contains("panicked"), "{}", swarm.servers[0].process.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_protocol_on_an_info_stream_concerns_nobody_else() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let honest = Client::of(&swarm).await;
    let attacker = Client::of(&swarm).await;
    let server = &swarm.servers[0];
    let addresses = std::slice::from_ref(&server.address);
    let many = encode(&InfoRequest::Describe, &[]).unwrap().repeat(2000);
    let attack = async {
        for bytes in [vec![9; 5000], u32::MAX.to_le_bytes().to_vec(), vec![1, 0, 0, 0, 77], vec![1, 0], many] {
            let network = attacker.swarm.network();
            let stream = network.open(server.peer, addresses, StreamKind::Info).await.unwrap();
            let (_, mut writer) = stream.into_frames::<InfoReply, InfoRequest>(0);
            let _ = tokio::time::timeout(Duration::from_secs(2), writer.send_bytes(&bytes)).await;
        }
        // More streams than anybody needs, all of them silent.
        let mut held = Vec::new();
        for _ in 0..200 {
            held.extend(attacker.swarm.network().open(server.peer, addresses, StreamKind::Info).await.ok());
        }
        tells(&honest).await;
    };
    attack.await;
    tells(&honest).await;
    assert!(swarm.servers[0].process.is_running());
}

/// The port of `/ip4/127.0.0.1/tcp/PORT`.
fn port(address: &Multiaddr) -> u16 {
    address.to_string().rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_handshake_concern_nobody() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let honest = Client::of(&swarm).await;
    let mut rng = StdRng::seed_from_u64(2);
    let mut held = Vec::new();
    for port in [port(&swarm.servers[0].address), port(&swarm.entry().address)] {
        for size in [0, 1, 19, 20, 100, 5000, 70_000].into_iter().cycle().take(60) {
            let mut bytes = vec![0; size];
            rng.fill(&mut bytes[..]);
            if size == 20 {
                bytes = b"\x13/multistream/1.0.0\n".to_vec();
            }
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            // It may hang up on the first byte.
            let _ = socket.write_all(&bytes);
            held.push(socket);
        }
        tells(&honest).await;
    }
    tells(&Client::of(&swarm).await).await;
    drop(held);
    is_idle(&honest, &swarm).await;
    assert!(swarm.bootstrap.process.is_running() && swarm.servers[0].process.is_running());
}

/// What a server may do that computes the whole model, and so is fed by its client.
const ALONE: [Manner; 17] = [
    Manner::Silent,
    Manner::PongsOnly,
    Manner::WrongShape,
    Manner::Garbage,
    Manner::Oversized,
    Manner::WrongPosition,
    Manner::Fails,
    Manner::Forgetful,
    Manner::HangsUp,
    Manner::Refuses,
    Manner::NeverOpens,
    Manner::DoneOnly,
    Manner::FloodsDone,
    Manner::FloodsStrayOutputs,
    Manner::FloodsReceived,
    Manner::FloodsUnlinked,
    Manner::Unlinks,
];

/// What a server may do that stands between two honest ones.
const BETWEEN: [Manner; 14] = [
    Manner::Silent,
    Manner::PongsOnly,
    Manner::Garbage,
    Manner::Fails,
    Manner::Forgetful,
    Manner::HangsUp,
    Manner::DoneOnly,
    Manner::FloodsDone,
    Manner::FloodsOutputs,
    Manner::FloodsStrayOutputs,
    Manner::FloodsReceived,
    Manner::FloodsUnlinked,
    Manner::Unlinks,
    Manner::Intrudes,
];

/// How often an impostor gets its chance.
const MOST_TRIES: u32 = 4;

/// A client that gives servers up quickly.
async fn impatient(swarm: &TestSwarm) -> Client {
    let config = ClientConfig {
        open_timeout: Duration::from_secs(2),
        step_timeout: Duration::from_secs(3),
        ..ClientConfig::default()
    };
    Client::with(swarm, &ModelSpec::Demo, None, config).await
}

/// Tells the known text through a swarm with an impostor, which must be the only one that is given up.
async fn tells_despite(swarm: &TestSwarm, like: &ServerInfo, manner: Manner) {
    let impostor = Impostor::start(swarm, like, manner).await;
    let opens = !matches!(manner, Manner::Refuses | Manner::NeverOpens);
    // On a busy machine another server may be quicker to open the session: then the impostor was not tried.
    let mut tries = 0;
    let lost = loop {
        tries += 1;
        let client = impatient(swarm).await;
        let told = client.tell(PROMPT, greedy(), TOKENS).await.unwrap_or_else(|error| panic!("{manner:?}: {error}"));
        assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &greedy(), TOKENS).tokens, "{manner:?}");
        if !told.lost.is_empty() || !opens || tries == MOST_TRIES {
            break told.lost;
        }
    };
    let peers: Vec<PeerId> = lost.iter().map(|(peer, _)| *peer).collect();
    match opens {
        false => assert_eq!(peers, [], "{manner:?} never had the session"),
        true => assert_eq!(peers, [impostor.peer()], "{manner:?}: {lost:?}"),
    }
    if manner == Manner::Intrudes {
        assert!(impostor.visits.sent_away() > 0, "it went nowhere");
        assert_eq!(impostor.visits.welcomed(), 0, "it was let into a session that it was not named for");
    }
    impostor.network.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_only_pretend_are_given_up() {
    // One hop instead of three: an impostor of the whole model is preferred.
    let swarm = TestSwarm::demo(&[(0, 4), (4, 8), (8, 12)]);
    let honest = Client::of(&swarm).await;
    let mut like = honest.info(&swarm.servers[0]).await.unwrap();
    like.announcement.blocks = range(0, 12);
    like.digests = Vec::new();
    for server in &swarm.servers {
        like.digests.extend(honest.info(server).await.unwrap().digests);
    }
    for manner in ALONE {
        tells_despite(&swarm, &like, manner).await;
    }
    // All of them are still announced, and none is there.
    tells(&Client::of(&swarm).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_only_pretend_between_honest_ones_are_given_up() {
    let swarm = TestSwarm::demo(&[(0, 4), (4, 8), (8, 12)]);
    let honest = Client::of(&swarm).await;
    let like = honest.info(&swarm.servers[1]).await.unwrap();
    for manner in BETWEEN {
        tells_despite(&swarm, &like, manner).await;
    }
    tells(&Client::of(&swarm).await).await;
    is_idle(&honest, &swarm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_word_counts_whatever_the_clock_says() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let client = Client::of(&swarm).await;
    let like = client.info(&swarm.servers[0]).await.unwrap();
    let (model, all) = (like.announcement.model, range(0, 12));
    let behind = Impostor::start(&swarm, &like, Manner::Refuses).await;
    let ahead = Impostor::start(&swarm, &like, Manner::Refuses).await;
    let sequence = |peer| {
        let view = client.swarm.look_up(model, all);
        async move { view.await.get(peer).map(|found| found.sequence) }
    };
    // One clock is decades behind, the other centuries ahead: each is compared with itself only.
    ahead.announce(u64::MAX - 2).await;
    eventually_async("the word from the future", || async {
        (sequence(ahead.peer()).await == Some(u64::MAX - 2)).then_some(())
    })
    .await;
    assert_eq!(sequence(behind.peer()).await, Some(1));
    behind.announce(2).await;
    eventually_async("the word from the past", || async { (sequence(behind.peer()).await == Some(2)).then_some(()) })
        .await;
    ahead.announce(u64::MAX - 1).await;
    eventually_async("a newer word from the future", || async {
        (sequence(ahead.peer()).await == Some(u64::MAX - 1)).then_some(())
    })
    .await;
    assert!(sequence(swarm.servers[0].peer).await.is_some(), "the honest server is still there");
    tells(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_on_above_the_words_of_its_former_life() {
    let mut swarm = TestSwarm::demo(&[(0, 6)]);
    let file = swarm.new_identity();
    let client = Client::of(&swarm).await;
    let like = client.info(&swarm.servers[0]).await.unwrap();
    // Its clock was ten thousand years ahead then.
    let ahead = like.announcement.sequence.saturating_mul(10_000);
    {
        let former = Impostor::with_identity(&swarm, Identity::load_or_create(&file).unwrap(), &like).await;
        former.announce(ahead).await;
        former.network.shut_down().await;
    }
    let server = ready(swarm.start("returned", swarm.serve_command_as(&file, "6..12")));
    let view = client.swarm.look_up(like.announcement.model, range(0, 12)).await;
    let found = view.get(server.peer).expect("the server is announced");
    assert!(found.sequence > ahead && found.blocks == range(6, 12), "{found:?}");
    tells(&Client::of(&swarm).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_swarm_stays_outside() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let foreign = NetworkConfig {
        identity: Identity::ephemeral(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        dht: swarm_protocol::p2p::DhtMode::Server,
        serve: StreamKind::ALL.to_vec(),
        ..NetworkConfig::client("foreign".parse().unwrap(), vec![swarm.entry()])
    };
    let (network, _inbound) = Network::start(foreign).await.unwrap();
    let refused = network.join(&[swarm.entry()]).await;
    assert!(matches!(refused, Err(JoinError::OtherSwarm { .. })), "{refused:?}");
    let client = Client::of(&swarm).await;
    let server = &swarm.servers[0];
    let opened = network.open(server.peer, std::slice::from_ref(&server.address), StreamKind::Info).await;
    assert!(opened.is_err(), "a stream of another swarm was opened");
    tells(&client).await;
}
