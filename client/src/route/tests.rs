use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_protocol::PeerId;
use swarm_protocol::block::{BlockIndex, BlockRange};

use super::*;

/// Random swarms compared with the enumeration of every assignment of blocks to servers.
const SWARMS: u64 = 4000;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 2, 1, number]).unwrap()
}

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn server(number: u8, blocks: BlockRange, [rtt, queue, block_time]: [u64; 3]) -> Candidate {
    let [rtt, queue, block_time] = [rtt, queue, block_time].map(Duration::from_millis);
    Candidate { peer: peer(number), blocks, rtt, queue, block_time }
}

/// Small numbers, so that equal prices are common.
fn random_swarm(rng: &mut StdRng, blocks: u32) -> (Vec<Candidate>, Links) {
    let servers: Vec<Candidate> = (0..rng.random_range(1..=4u8))
        .map(|number| {
            let start = rng.random_range(0..blocks);
            let hosted = range(start, rng.random_range(start + 1..=blocks));
            server(number, hosted, [(); 3].map(|()| rng.random_range(0..4) * 2))
        })
        .collect();
    if rng.random() {
        return (servers, Links::ViaClient);
    }
    let mut rtts = HashMap::new();
    for _ in 0..rng.random_range(0..8) {
        let pair = (peer(rng.random_range(0..4)), peer(rng.random_range(0..4)));
        rtts.insert(pair, Duration::from_millis(rng.random_range(0..4) * 2));
    }
    (servers, Links::Direct(rtts))
}

/// What the documentation of [`find`] orders routes by.
fn order(route: &[(Candidate, u32)], links: &Links) -> (Duration, usize, Vec<(bool, PeerId)>) {
    let mut hops: Vec<&Candidate> = Vec::new();
    let mut choices = Vec::new();
    let mut time = route[0].0.rtt / 2 + route[route.len() - 1].0.rtt / 2;
    for (server, _) in route {
        let before = hops.last().copied();
        let moved = before.is_none_or(|before| before.peer != server.peer);
        choices.push((moved, server.peer));
        time += server.block_time;
        if moved {
            time += HANDLING + server.queue + before.map_or(Duration::ZERO, |before| links.one_way(before, server));
            hops.push(server);
        }
    }
    (time, hops.len(), choices)
}

fn every_assignment(servers: &[Candidate], blocks: BlockRange) -> Vec<Vec<(Candidate, u32)>> {
    let mut routes = vec![vec![]];
    for block in blocks.blocks() {
        let hosts: Vec<_> = servers.iter().filter(|server| server.blocks.contains(block)).collect();
        let longer = |route: Vec<(Candidate, u32)>| {
            hosts.iter().map(move |&host| [route.clone(), vec![(host.clone(), block.0)]].concat()).collect::<Vec<_>>()
        };
        routes = routes.into_iter().flat_map(longer).collect();
    }
    routes
}

fn block_by_block(route: &Route, servers: &[Candidate]) -> Vec<(Candidate, u32)> {
    let host = |hop: &RouteHop| servers.iter().find(|server| server.peer == hop.peer).unwrap().clone();
    let blocks = |hop: &RouteHop| hop.blocks.blocks().map(|block| block.0).collect::<Vec<_>>();
    route.hops.iter().flat_map(|hop| blocks(hop).into_iter().map(|block| (host(hop), block))).collect()
}

#[test]
fn the_route_is_the_best_of_all() {
    for seed in 0..SWARMS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let blocks = rng.random_range(1..=5);
        let (mut servers, links) = random_swarm(rng, blocks);
        let start = rng.random_range(0..blocks);
        let wanted = range(start, rng.random_range(start + 1..=blocks));
        let best = every_assignment(&servers, wanted).into_iter().min_by_key(|route| order(route, &links));
        let found = find(&servers, wanted, &links);
        servers.reverse();
        assert_eq!(found, find(&servers, wanted, &links), "seed {seed}: the order of candidates must not matter");
        match (found, best) {
            (Ok(found), Some(best)) => {
                assert_eq!(block_by_block(&found, &servers), best, "seed {seed}");
                assert_eq!(found.cost().total(), order(&best, &links).0, "seed {seed}");
            }
            (Err(none), None) => assert_unserved(&none, &servers, wanted),
            (found, best) => panic!("seed {seed}: found {found:?}, best {best:?}"),
        }
    }
}

fn assert_unserved(none: &NoRoute, servers: &[Candidate], wanted: BlockRange) {
    let named = |block: BlockIndex| none.missing.iter().any(|run| run.contains(block));
    let served = |block: BlockIndex| servers.iter().any(|server| server.blocks.contains(block));
    assert!(wanted.blocks().all(|block| named(block) != served(block)), "{none:?} of {servers:?}");
    assert!(none.missing.windows(2).all(|pair| pair[0].end() < pair[1].start()), "runs are merged and in order");
}

#[test]
fn the_error_names_the_holes() {
    let servers = [server(1, range(0, 2), [1; 3]), server(2, range(4, 5), [1; 3])];
    let none = find(&servers, range(0, 8), &Links::ViaClient).unwrap_err();
    assert_eq!(none.missing, [range(2, 4), range(5, 8)]);
    assert_eq!(none.to_string(), "no server serves blocks 2..4, 5..8");
}

#[test]
fn an_unknown_link_is_not_free() {
    let servers =
        [server(1, range(0, 4), [100, 0, 1]), server(2, range(4, 8), [100, 0, 1]), server(3, range(4, 8), [100, 0, 2])];
    let known = HashMap::from([((peer(3), peer(1)), Duration::from_millis(10))]);
    let route = find(&servers, range(0, 8), &Links::Direct(known)).unwrap();
    assert_eq!(route.hops[1].peer, peer(3), "5 ms are known, 100 ms are the estimate");
    let star = find(&servers, range(0, 8), &Links::ViaClient).unwrap();
    assert_eq!(star.hops[1].peer, peer(2));
    assert_eq!(star.cost().link, Duration::from_millis(200));
}

#[test]
fn a_server_may_serve_two_parts() {
    let servers = [server(1, range(0, 9), [0, 0, 5]), server(2, range(3, 6), [0, 0, 1])];
    let route = find(&servers, range(0, 9), &Links::ViaClient).unwrap();
    let hops: Vec<_> = route.hops.iter().map(|hop| (hop.peer, hop.blocks)).collect();
    assert_eq!(hops, [(peer(1), range(0, 3)), (peer(2), range(3, 6)), (peer(1), range(6, 9))]);
}

#[test]
fn a_person_can_read_why() {
    let servers = [server(1, range(0, 4), [20, 3, 2])];
    let lines = find(&servers, range(0, 4), &Links::ViaClient).unwrap().explain();
    let first = format!("blocks 0..4 on {}: 10.0 ms link + 0.2 ms handling + 3.0 ms queue + 8.0 ms compute", peer(1));
    assert_eq!(
        lines,
        [
            first.as_str(),
            "10.0 ms back to the client",
            "31.2 ms a step: 20.0 ms link + 0.2 ms handling + 3.0 ms queue + 8.0 ms compute",
        ]
    );
}
