use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_protocol::Keypair;
use swarm_protocol::announcement::{Announcement, Load, Rates, ServerState};
use swarm_protocol::model_id::ModelId;
use swarm_protocol::wire::{PageKey, ServerInfo};

use super::*;
use crate::finder::book::Outcome;

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn server(blocks: BlockRange, class: &str, digest: u8, free: u32) -> ServerInfo {
    let announcement = Announcement {
        peer: Keypair::generate_ed25519().public().to_peer_id(),
        instance: 1,
        sequence: 1,
        state: ServerState::Serving,
        addresses: vec![],
        model: ModelId([1; 32]),
        blocks,
        class: NumericClass::new(class).unwrap(),
        rates: Rates { decode_us_per_block: 100, prefill_ns_per_token_block: 1000 },
        load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(free), total_tokens: TokenCount(1000) },
        neighbours: vec![],
        ttl_seconds: 240,
        name: None,
        version: String::new(),
        edges: false,
    };
    let digests = vec![BlockDigest([digest; 32]); blocks.len() as usize];
    ServerInfo { announcement, digests, max_positions: 2048, uptime_seconds: 1, edges: None }
}

fn book(servers: &[&ServerInfo], now: Instant) -> PeerBook {
    let mut book = PeerBook::default();
    for server in servers {
        book.probed((*server).clone(), Duration::from_millis(10), now);
    }
    book
}

fn need(tokens: u32) -> Need {
    Need {
        range: range(0, 8),
        tokens: TokenCount(tokens),
        class: None,
        mixed: false,
        digests: BTreeMap::new(),
        avoid: HashSet::new(),
        expected: None,
    }
}

fn peers(plan: &Plan) -> Vec<PeerId> {
    plan.route.hops.iter().map(|hop| hop.peer).collect()
}

#[test]
fn a_route_stays_within_one_numeric_class() {
    let now = Instant::now();
    let servers =
        [server(range(0, 4), "a", 1, 500), server(range(4, 8), "b", 1, 500), server(range(0, 8), "c", 1, 500)];
    let plan = cheapest(&book(&servers.each_ref(), now), &need(10), now).unwrap();
    assert_eq!(peers(&plan), [servers[2].announcement.peer]);
    let halves = book(&[&servers[0], &servers[1]], now);
    assert!(matches!(cheapest(&halves, &need(10), now), Err(NoPlan::Unusable { .. })), "of another class");
    let plan = |book: &PeerBook, class: Option<&str>| {
        let class = class.map(|class| NumericClass::new(class).unwrap());
        cheapest(book, &Need { mixed: true, class, ..need(10) }, now).unwrap()
    };
    let mixed = plan(&halves, None);
    assert_eq!(peers(&mixed), [&servers[0], &servers[1]].map(|server| server.announcement.peer));
    let classes = mixed.route.hops.iter().map(|hop| mixed.classes[&hop.peer].as_str()).collect::<Vec<_>>();
    assert_eq!((mixed.class, classes), (None, vec!["a", "b"]));
    // Nobody mixes without need, nor leaves the class it has begun with.
    let whole = book(&servers.each_ref(), now);
    assert_eq!(plan(&whole, None).class.unwrap().as_str(), "c");
    assert_eq!(plan(&whole, Some("c")).class.unwrap().as_str(), "c");
    assert_eq!(peers(&plan(&whole, Some("a"))).len(), 1, "the class it has begun with has become too small");
}

#[test]
fn who_has_computed_the_beginning_before_is_taken_if_that_saves_more_than_it_costs() {
    let now = Instant::now();
    let servers = [server(range(0, 8), "a", 1, 500), server(range(0, 8), "a", 1, 500)];
    let mut book = book(&servers.each_ref(), now);
    let keys: Vec<PageKey> = (0..4).map(|page| PageKey([page; 32])).collect();
    let plan = |book: &PeerBook, answer: u32| {
        let expected = Some(Expected { keys: keys.as_slice().into(), answer: TokenCount(answer) });
        peers(&cheapest(book, &Need { expected, ..need(10) }, now).unwrap())[0]
    };
    let usual = plan(&book, 10);
    let other = servers.iter().map(|server| server.announcement.peer).find(|peer| *peer != usual).unwrap();
    book.kept.note(other, keys[3]);
    assert_eq!(plan(&book, 10), other);
    // Sessions of ours are there already: for a short answer the beginning counts more, for a long one they do.
    book.ours.insert(other, 4);
    assert_eq!([plan(&book, 1), plan(&book, 10_000)], [other, usual]);
}

#[test]
fn servers_with_other_weights_are_left_out() {
    let now = Instant::now();
    let servers =
        [server(range(0, 8), "a", 7, 500), server(range(0, 8), "a", 7, 500), server(range(0, 8), "a", 9, 500)];
    let book = book(&servers.each_ref(), now);
    let plan = cheapest(&book, &need(10), now).unwrap();
    assert!(peers(&plan)[0] != servers[2].announcement.peer, "two of three hold other weights");
    let begun = Need { digests: [(BlockIndex(0), BlockDigest([9; 32]))].into(), ..need(10) };
    assert!(
        matches!(cheapest(&book, &begun, now), Err(NoPlan::Unusable { .. })),
        "the session began with weights of which only one block is pinned; the rest still goes by majority"
    );
    let all = range(0, 8).blocks().map(|block| (block, BlockDigest([9; 32]))).collect();
    let plan = cheapest(&book, &Need { digests: all, ..need(10) }, now).unwrap();
    assert_eq!(peers(&plan), [servers[2].announcement.peer]);
}

#[test]
fn no_room_is_told_from_no_server() {
    let now = Instant::now();
    let servers = [server(range(0, 4), "a", 1, 500), server(range(4, 8), "a", 1, 40)];
    let book = book(&servers.each_ref(), now);
    assert!(cheapest(&book, &need(40), now).is_ok());
    let no_room = NoPlan::NoRoom { missing: vec![range(4, 8)], needed: TokenCount(41), free: TokenCount(40) };
    assert_eq!(cheapest(&book, &need(41), now).unwrap_err(), no_room);
    let beyond = Need { range: range(0, 12), ..need(10) };
    let no_route = NoPlan::from(NoRoute { missing: vec![range(8, 12)] });
    assert_eq!(cheapest(&book, &beyond, now).unwrap_err(), no_route);
}

#[test]
fn who_finds_no_server_is_told_how_to_start_one_and_whom_the_flags_leave_out() {
    let none = NoPlan::from(NoRoute { missing: vec![range(4, 8), range(10, 12)] });
    let told = none.to_string();
    assert!(told.contains("blocks 4..8, 10..12; start one with `swarm-node serve --model MODEL --block-range 4..8`"));
    assert!(told.contains("--bootstrap") && !told.contains("--allow-peer"), "{told}");
    let demo: Arc<str> = "demo --format q8_0".into();
    let told = none.clone().of_model(&demo, &[range(0, 4)]).to_string();
    assert!(told.contains("`swarm-node serve --model demo --format q8_0 --block-range 4..8`"), "{told}");
    assert!(!told.contains("--allow-peer"), "a server of other blocks is no reason: {told}");
    let told = none.of_model(&demo, &[range(0, 5), range(11, 12)]).to_string();
    assert!(told.contains("--allow-peer") && told.contains("--block-peer") && told.contains(" 2 that"), "{told}");
}

#[test]
fn a_failed_server_is_avoided_ever_longer_and_forgiven() {
    let mut now = Instant::now();
    let only = server(range(0, 8), "a", 1, 500);
    let peer = only.announcement.peer;
    let mut book = book(&[&only], now);
    let mut rng = StdRng::seed_from_u64(3);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        book.report(peer, &Outcome::Failed { reason: "reset".to_string() }, now, &mut rng);
        let start = now;
        assert!(cheapest(&book, &need(1), now).is_err());
        while cheapest(&book, &need(1), now).is_err() {
            now += Duration::from_millis(50);
        }
        pauses.push(now - start);
    }
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
    book.probed(only.clone(), Duration::from_millis(10), now);
    let stepped = Outcome::Stepped { block_time: Duration::from_micros(90), rtt: Duration::from_millis(9) };
    book.report(peer, &stepped, now, &mut rng);
    book.report(peer, &Outcome::Failed { reason: "reset".to_string() }, now, &mut rng);
    assert!(cheapest(&book, &need(1), now + Duration::from_millis(1300)).is_ok(), "forgiven after a good step");
}

#[test]
fn one_death_reported_by_many_sessions_counts_once_and_an_answer_ends_it() {
    let now = Instant::now();
    let only = server(range(0, 8), "a", 1, 500);
    let mut book = book(&[&only], now);
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..20 {
        book.report(only.announcement.peer, &Outcome::Failed { reason: "reset".to_string() }, now, &mut rng);
    }
    let unusable = cheapest(&book, &need(1), now).unwrap_err();
    assert!(unusable.to_string().contains("reset"), "{unusable}");
    assert!(cheapest(&book, &need(1), now + Duration::from_millis(1300)).is_ok(), "one pause for one death");
    book.probed(only.clone(), Duration::from_millis(10), now);
    assert!(cheapest(&book, &need(1), now).is_ok(), "it answered");
}

#[test]
fn a_full_server_stays_full_when_it_is_probed() {
    let now = Instant::now();
    let only = server(range(0, 8), "a", 1, 500);
    let mut book = book(&[&only], now);
    let full = Outcome::Full { retry_after: Duration::from_secs(5), free: TokenCount(500) };
    book.report(only.announcement.peer, &full, now, &mut StdRng::seed_from_u64(3));
    book.probed(only.clone(), Duration::from_millis(10), now);
    assert!(matches!(cheapest(&book, &need(1), now), Err(NoPlan::NoRoom { .. })));
    assert!(cheapest(&book, &need(1), now + Duration::from_secs(6)).is_ok());
}

#[test]
fn a_server_that_is_no_longer_heard_is_no_longer_used() {
    let now = Instant::now();
    let only = server(range(0, 8), "a", 1, 500);
    let mut book = book(&[&only], now);
    let later = now + Duration::from_secs(200);
    assert!(matches!(cheapest(&book, &need(1), later), Err(NoPlan::Unusable { .. })));
    book.forget_silent(now + Duration::from_secs(700));
    assert_eq!(book.known().count(), 0);
}

#[test]
fn servers_that_could_not_reach_one_another_are_as_far_apart_as_by_way_of_the_client() {
    let now = Instant::now();
    let (mut first, near) = (server(range(0, 4), "a", 1, 500), server(range(4, 8), "a", 1, 500));
    let farther = server(range(4, 8), "a", 1, 500);
    let [one, two, three] = [&first, &near, &farther].map(|server| server.announcement.peer);
    first.announcement.neighbours = vec![(two, 1000), (three, 2000)];
    let mut book = book(&[&first, &near, &farther], now);
    assert_eq!(peers(&cheapest(&book, &need(10), now).unwrap()), [one, two]);
    book.apart.note(one, two, now);
    let plan = cheapest(&book, &need(10), now).unwrap();
    assert_eq!((peers(&plan), plan.apart), (vec![one, three], [(one, two)].into()));
}

#[test]
fn sessions_of_one_client_spread_over_equal_servers_and_by_rate_over_others() {
    let now = Instant::now();
    let mut servers = [server(range(0, 8), "a", 1, 500), server(range(0, 8), "a", 1, 500)];
    // The second is half as fast.
    servers[1].announcement.rates.decode_us_per_block = 200;
    let mut book = book(&servers.each_ref(), now);
    let places = |book: &mut PeerBook| {
        let plan = cheapest(book, &need(1), now).unwrap();
        let peer = peers(&plan)[0];
        *book.ours.entry(peer).or_default() += 1;
        usize::from(peer == servers[1].announcement.peer)
    };
    let chosen: Vec<usize> = (0..24).map(|_| places(&mut book)).collect();
    let slower: usize = chosen.iter().sum();
    assert_eq!(chosen[0], 0, "the faster one first");
    assert!((5..9).contains(&slower), "a third or less: {chosen:?}");
}
