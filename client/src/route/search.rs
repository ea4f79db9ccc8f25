//! The dynamic program: from the last block to the first, the cheapest rest of the way per (block, server).

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::{BlockIndex, BlockRange};

use super::{Candidate, Cost, HANDLING, Links, NoRoute, Route, RouteHop};

/// Time first, number of hops second. Nanoseconds in 64 bits last for 584 years; sums saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Price {
    nanos: u64,
    hops: u32,
}

impl Price {
    fn plus(self, time: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(nanos(time)), hops: self.hops }
    }

    fn another_hop(self) -> Self {
        Self { hops: self.hops + 1, ..self }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What is left to pay for a server about to compute a block (its queue is paid), and who computes the next one.
#[derive(Debug, Clone, Copy)]
struct Rest {
    server: usize,
    price: Price,
    next: Option<usize>,
}

/// The best rest of the way of every server of one block, in the order of peers.
type Stage = Vec<Rest>;

struct Search<'a> {
    /// In the order of peers, so that the first of equal choices is the smallest peer.
    servers: Vec<&'a Candidate>,
    range: BlockRange,
    links: &'a Links,
}

pub(super) fn cheapest(candidates: &[Candidate], range: BlockRange, links: &Links) -> Result<Route, NoRoute> {
    let missing = unserved(candidates, range);
    if !missing.is_empty() {
        return Err(NoRoute { missing });
    }
    let search = Search { servers: one_per_peer(candidates), range, links };
    let stages = search.stages();
    search.walk(&stages).ok_or_else(|| NoRoute { missing: vec![range] })
}

/// The parts of `range` that no candidate hosts, in order.
fn unserved(candidates: &[Candidate], range: BlockRange) -> Vec<BlockRange> {
    let mut missing: Vec<BlockRange> = Vec::new();
    for block in range.blocks() {
        if candidates.iter().any(|server| server.blocks.contains(block)) {
            continue;
        }
        let start = match missing.last() {
            Some(run) if run.end() == block.0 => missing.pop().map_or(block.0, BlockRange::start),
            _ => block.0,
        };
        missing.extend(BlockRange::new(start, block.0 + 1));
    }
    missing
}

fn one_per_peer(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut by_peer: BTreeMap<PeerId, &Candidate> = BTreeMap::new();
    for server in candidates {
        by_peer.entry(server.peer).or_insert(server);
    }
    by_peer.into_values().collect()
}

impl Search<'_> {
    /// One stage per block of the range, first block first.
    fn stages(&self) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::with_capacity(self.range.len() as usize);
        for block in self.range.blocks().rev() {
            let stage = match stages.last() {
                None => self.last_stage(block),
                Some(after) => self.stage(block, after),
            };
            stages.push(stage);
        }
        stages.reverse();
        stages
    }

    fn hosts(&self, block: BlockIndex) -> impl Iterator<Item = usize> {
        let hosting = move |(index, server): (usize, &&Candidate)| server.blocks.contains(block).then_some(index);
        self.servers.iter().enumerate().filter_map(hosting)
    }

    fn last_stage(&self, block: BlockIndex) -> Stage {
        let rest = |server: usize| {
            let candidate = self.servers[server];
            let home = Price { nanos: 0, hops: 1 }.plus(candidate.rtt / 2);
            Rest { server, price: home.plus(candidate.block_time), next: None }
        };
        self.hosts(block).map(rest).collect()
    }

    fn stage(&self, block: BlockIndex, after: &Stage) -> Stage {
        self.hosts(block).filter_map(|server| self.best_rest(server, after)).collect()
    }

    /// Staying wins over moving at the same price, and the smaller peer over the larger.
    fn best_rest(&self, server: usize, after: &Stage) -> Option<Rest> {
        let staying = after.iter().find(|rest| rest.server == server).map(|rest| rest.price);
        let moving = after.iter().filter(|rest| rest.server != server);
        let mut best = staying.map(|price| (price, server));
        for (price, next) in moving.map(|rest| (self.price_of_moving(server, rest), rest.server)) {
            if best.is_none_or(|(least, _)| price < least) {
                best = Some((price, next));
            }
        }
        let block_time = self.servers[server].block_time;
        best.map(|(price, next)| Rest { server, price: price.plus(block_time), next: Some(next) })
    }

    fn price_of_moving(&self, from: usize, to: &Rest) -> Price {
        let (from, next) = (self.servers[from], self.servers[to.server]);
        to.price.plus(self.links.one_way(from, next)).plus(next.queue).plus(HANDLING).another_hop()
    }

    /// Follows the best choices from the client on.
    fn walk(&self, stages: &[Stage]) -> Option<Route> {
        let entry = |rest: &&Rest| {
            let first = self.servers[rest.server];
            rest.price.plus(first.rtt / 2).plus(first.queue).plus(HANDLING)
        };
        let mut server = stages.first()?.iter().min_by_key(entry)?.server;
        let (mut hops, mut start) = (Vec::new(), self.range.start());
        for (block, stage) in self.range.blocks().zip(stages) {
            let next = stage.iter().find(|rest| rest.server == server)?.next;
            if next != Some(server) {
                let blocks = BlockRange::new(start, block.0 + 1).ok()?;
                hops.push((server, blocks));
                start = block.0 + 1;
            }
            server = next.unwrap_or(server);
        }
        Some(self.priced(&hops))
    }

    fn priced(&self, hops: &[(usize, BlockRange)]) -> Route {
        let mut before: Option<&Candidate> = None;
        let mut route = Route { hops: Vec::with_capacity(hops.len()), back: Duration::ZERO };
        for &(server, blocks) in hops {
            let server = self.servers[server];
            let link = before.map_or(server.rtt / 2, |from| self.links.one_way(from, server));
            let compute = server.block_time.saturating_mul(blocks.len());
            let cost = Cost { link, handling: HANDLING, queue: server.queue, compute };
            route.hops.push(RouteHop { peer: server.peer, blocks, cost });
            route.back = server.rtt / 2;
            before = Some(server);
        }
        route
    }
}
