//! Moves that help only together, one after another: what small swarms need.
//!
//! Where a dozen servers of unequal sizes host a model, most blocks have one or two replicas, and no single move raises the
//! throughput of the worst-served block, though three in a row might. A *beam search* finds them: of all placements that
//! one more move leads to it goes on from those that lack least up to the level that is aimed at, up to
//! [`LONGEST`] moves far.
//!
//! Every server searches from the placement it sees, and what it finds after the first moves of a sequence is the rest of
//! it: levels are parts of what the swarm delivers on average, which moves do not change, and from a placement on the way
//! there are fewer others to compete with. So nobody has to remember what has been begun.

use std::collections::{BinaryHeap, HashSet};

use swarm_protocol::block::BlockRange;

use super::rebalance::Move;
use super::{Claim, Coverage, Micros, Standing, annealing, micros};

/// After each move the search goes on from so many placements, divided by the number of servers: so its time does not grow
/// with it.
const WIDTH: usize = 384;
const LEAST_WIDTH: usize = 8;
const MOST_WIDTH: usize = 32;

/// So many times as many candidates are kept for them: different moves lead to one placement.
const SPARE: usize = 3;

/// The longest sequence: a quarter of a small swarm, and minutes each.
const LONGEST: usize = 10;

/// How often one server moves in a sequence: one that makes room for another may have to go on.
const MOST_MOVES: usize = 2;

/// What every further move must bring, as a part of what the swarm delivers on average.
const PRICE_ONE_OF: Micros = 300;

/// Levels are so many parts of what the swarm delivers on average.
const LEVELS: Micros = 40;

/// Moves in the order in which they are safe, and what the worst-served block has after them.
pub(super) struct Sequence {
    pub(super) moves: Vec<Move>,
    pub(super) reached: Micros,
}

/// The sequence that brings most after the price of its moves, if the worst-served block gains as much as `least`.
///
/// Takes O([`WIDTH`] · [`LONGEST`] · blocks) time for each of at most six levels: [`WIDTH`] is divided by the servers.
pub(super) fn levelling(
    model: BlockRange,
    claims: &[Claim],
    may_move: impl FnMut(&Claim) -> bool,
    least: impl Fn(Micros) -> Micros,
) -> Option<Sequence> {
    let field = Field::new(model, claims, may_move, true);
    let (worst, mean) = (field.start.rates.worst(), field.start.rates.mean());
    let price = (mean / PRICE_ONE_OF).max(1);
    let aim = |level: Micros| {
        // More moves would cost more than this level is worth, as long as it is not passed by more than one.
        let gain = (level + mean / LEVELS).saturating_sub(least(worst));
        let most = (gain / price + 1) as usize;
        let found = field.reach(level, most.min(LONGEST)).or_else(|| annealing::reach(&field, level, most))?;
        let cost = price * (found.moves.len() as Micros - 1);
        (found.reached >= least(worst).saturating_add(cost)).then(|| (found.reached - cost, found))
    };
    let (mut low, mut high) = (least(worst).saturating_mul(LEVELS).div_ceil(mean.max(1)), LEVELS + 1);
    let mut best: Option<(Micros, Sequence)> = None;
    while low < high {
        let part = (low + high) / 2;
        match aim(mean * part / LEVELS) {
            Some(found) => {
                low = part + 1;
                if best.as_ref().is_none_or(|(value, _)| found.0 > *value) {
                    best = Some(found);
                }
            }
            None => high = part,
        }
    }
    best.map(|(_, sequence)| sequence)
}

/// The shortest sequence found after which every block has a server, whatever is left for it: for a model that is of no use
/// as it is.
pub(super) fn rebuilding(
    model: BlockRange,
    claims: &[Claim],
    may_move: impl FnMut(&Claim) -> bool,
) -> Option<Sequence> {
    Field::new(model, claims, may_move, false).reach(1, LONGEST)
}

/// What does not change during a search.
pub(super) struct Field {
    servers: Vec<Server>,
    start: Placement,
    /// Whether the last replica of a block stays.
    keeps: bool,
}

struct Server {
    claim: Claim,
    rate: Micros,
}

#[derive(Clone)]
pub(super) struct Placement {
    pub(super) rates: Coverage,
    /// How many servers serve each block or are about to.
    pub(super) replicas: Vec<u32>,
    /// By server, its first block.
    pub(super) starts: Vec<u32>,
    /// The server, and its first block before and after.
    moves: Vec<(usize, u32, u32)>,
    /// The same for all ways that lead here.
    fingerprint: u64,
    lacks: Micros,
}

/// A move that leads on from a placement: what is lacking after it, the fingerprint after it, the placement's index, the
/// server's, and the first block.
type Candidate = (Micros, u64, usize, usize, u32);

impl Field {
    fn new(model: BlockRange, claims: &[Claim], mut may_move: impl FnMut(&Claim) -> bool, keeps: bool) -> Self {
        let mut rates = Coverage::none(model);
        let mut replicas = vec![0; rates.rates.len()];
        let mut servers = Vec::new();
        for claim in claims {
            rates.add(claim.blocks, claim.tokens_per_second);
            let hosted = claim.blocks.intersection(model);
            hosted.into_iter().flat_map(BlockRange::blocks).for_each(|block| replicas[block.as_usize()] += 1);
            if claim.standing == Standing::Serving && model.covers(claim.blocks) && may_move(claim) {
                servers.push(Server { claim: claim.clone(), rate: micros(claim.tokens_per_second) });
            }
        }
        let starts = servers.iter().map(|server| server.claim.blocks.start()).collect();
        let start = Placement { rates, replicas, starts, moves: Vec::new(), fingerprint: 0, lacks: 0 };
        Self { servers, start, keeps }
    }

    /// The shortest sequence found that brings every block to `level`.
    fn reach(&self, level: Micros, longest: usize) -> Option<Sequence> {
        let width = (WIDTH / self.servers.len().max(1)).clamp(LEAST_WIDTH, MOST_WIDTH);
        let strongest = self.servers.iter().map(|server| server.rate * Micros::from(server.len())).max()?;
        let mut start = self.start.clone();
        start.lacks = start.rates.lacks(level);
        let mut known = HashSet::from([start.fingerprint]);
        let mut beam = vec![start];
        for left in (0..longest).rev() {
            let mut candidates = BinaryHeap::new();
            for (index, placement) in beam.iter().enumerate() {
                self.lead_on(index, placement, level, width * SPARE, &mut candidates);
            }
            let mut best = candidates.into_sorted_vec();
            best.retain(|(_, fingerprint, ..)| known.insert(*fingerprint));
            best.truncate(width);
            beam = best.into_iter().map(|candidate| self.follow(&beam, candidate)).collect();
            let first = beam.first()?;
            if first.lacks == 0 {
                return Some(self.sequence(&first.moves, first.rates.worst()));
            }
            if first.lacks > strongest.saturating_mul(left as Micros) {
                return None;
            }
        }
        None
    }

    /// All moves of one more server.
    fn lead_on(
        &self,
        index: usize,
        placement: &Placement,
        level: Micros,
        most: usize,
        candidates: &mut BinaryHeap<Candidate>,
    ) {
        let rates = &placement.rates.rates;
        let deficient = rates.iter().filter(|rate| **rate < level).count();
        let deepest = level.saturating_sub(placement.rates.worst());
        let mut values = vec![0; rates.len()];
        for (number, server) in self.servers.iter().enumerate() {
            let (len, start) = (server.len() as usize, placement.starts[number] as usize);
            let own = start..start + len;
            let moves = placement.moves.iter().filter(|(moved, ..)| *moved == number).count();
            let is_sole = |block: usize| placement.replicas[block] < 2;
            if moves == MOST_MOVES || (self.keeps && own.clone().any(is_sole)) {
                continue;
            }
            // What each block lacks less when the server hosts it.
            let value = |without: Micros| level.saturating_sub(without).min(server.rate);
            let lost: Micros = rates[own.clone()].iter().map(|rate| value(rate - server.rate)).sum();
            let without = placement.lacks + lost;
            let too_much = |lacks: Micros, candidates: &BinaryHeap<Candidate>| {
                candidates.len() >= most && candidates.peek().is_some_and(|worst| lacks > worst.0)
            };
            // No place brings more than this: what it leaves, or the most deficient blocks.
            let at_best = server.rate.min(deepest) * deficient.min(len) as Micros + lost;
            if too_much(without.saturating_sub(at_best), candidates) {
                continue;
            }
            values.iter_mut().zip(rates).for_each(|(sum, rate)| *sum = value(*rate));
            own.clone().for_each(|block| values[block] = value(rates[block] - server.rate));
            let mut sum: Micros = values[..len].iter().sum();
            for first in 0..=values.len() - len {
                if first > 0 {
                    sum = sum + values[first + len - 1] - values[first - 1];
                }
                let lacks = without - sum;
                if first == start || too_much(lacks, candidates) {
                    continue;
                }
                let fingerprint =
                    placement.fingerprint.wrapping_sub(mixed(number, start)).wrapping_add(mixed(number, first));
                candidates.push((lacks, fingerprint, index, number, first as u32));
                if candidates.len() > most {
                    candidates.pop();
                }
            }
        }
    }

    fn follow(&self, beam: &[Placement], (lacks, fingerprint, index, number, first): Candidate) -> Placement {
        let mut next = beam[index].clone();
        let server = &self.servers[number];
        let from = std::mem::replace(&mut next.starts[number], first);
        for block in from as usize..(from + server.len()) as usize {
            next.rates.rates[block] -= server.rate;
            next.replicas[block] -= 1;
        }
        for block in first as usize..(first + server.len()) as usize {
            next.rates.rates[block] += server.rate;
            next.replicas[block] += 1;
        }
        next.moves.push((number, from, first));
        (next.lacks, next.fingerprint) = (lacks, fingerprint);
        next
    }

    /// `moves`, by the server and its first block before and after, and what the worst-served block has after them.
    pub(super) fn sequence(&self, moves: &[(usize, u32, u32)], reached: Micros) -> Sequence {
        let named = |(number, from, to): &(usize, u32, u32)| {
            let server = &self.servers[*number];
            let range = |start: u32| BlockRange::new(start, start + server.len()).ok();
            Some(Move { peer: server.claim.peer, from: range(*from)?, to: range(*to)? })
        };
        Sequence { moves: moves.iter().filter_map(named).collect(), reached }
    }

    /// Where the servers stand.
    pub(super) fn start(&self) -> &Placement {
        &self.start
    }

    pub(super) fn rate(&self, server: usize) -> Micros {
        self.servers[server].rate
    }

    pub(super) fn len(&self, server: usize) -> usize {
        self.servers[server].len() as usize
    }
}

impl Server {
    fn len(&self) -> u32 {
        self.claim.blocks.len()
    }
}

/// A number for a move that looks drawn at random (SplitMix64), and is the same on every machine.
fn mixed(server: usize, first: usize) -> u64 {
    let mut bits = (((server as u64) << 32) | first as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
