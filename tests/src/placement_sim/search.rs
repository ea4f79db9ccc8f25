//! The best placement that a search finds which knows everything, moves everybody for nothing, and takes its time.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use swarm_protocol::block::BlockRange;

use super::Spec;

/// How often the search starts anew for small swarms, and for those of more than [`SMALL`] servers: there a single start
/// comes close to what is conceivable.
const RESTARTS: u64 = 12;
const FEW_RESTARTS: u64 = 3;
const SMALL: usize = 70;
const REACHABLE_RESTARTS: usize = 4;

/// Changes it tries for each level: some hundred for each server of a swarm that is too large for luck.
const TRIES: usize = 60_000;

/// Levels that differ by less are one.
const STEP: f64 = 1.01;

/// What worsening is accepted at first and at last, as shares of the mean rate of a server: at first nearly any, at last
/// none to speak of.
const HOT: f64 = 1.0;
const COLD: f64 = 0.01;

/// One change of so many is of two servers that change places, and one a shift by some blocks.
const SWAPS_ONE_OF: u32 = 4;
const SHIFTS_ONE_OF: u32 = 3;
const LONGEST_SHIFT: usize = 3;

/// No placement of `servers` has a higher throughput of the worst-served block than this: as if servers could be cut.
pub fn most_conceivable(blocks: u32, servers: &[Spec]) -> f64 {
    servers.iter().map(|server| server.rate * f64::from(server.blocks.min(blocks))).sum::<f64>() / f64::from(blocks)
}

/// The highest throughput of the worst-served block that was found.
///
/// From each start (all servers placed one by one in a random order, the hardest to place first or not, where blocks lack
/// most) it looks for the highest level that all blocks can be brought to, by bisection between the best one yet and the
/// highest conceivable. For each level it moves servers drawn at random to places drawn at random, or lets two change
/// places, as long as all blocks together lack less afterwards, or by luck (simulated annealing), until none lacks anything.
pub fn best_found(blocks: u32, servers: &[Spec], seed: u64) -> f64 {
    let restarts = if servers.len() < SMALL { RESTARTS } else { FEW_RESTARTS };
    (0..restarts).fold(0.0, |best, restart| {
        let rng = &mut StdRng::seed_from_u64(seed ^ (restart << 32));
        climb(blocks, servers, rng, restart == 0, best)
    })
}

/// The highest throughput of the worst-served block that was found in placements that can be *reached* from `placed`, one
/// move after another, while no server ever leaves a block without its last replica: what a swarm that goes on serving can
/// come to, however many moves it takes. (A swarm in which some block has no server is under no such rule.)
///
/// The same search, but it starts from `placed`, and every change that it accepts is such a move. They can all be taken
/// back (who has come to a block that others serve can go), so nothing is lost on the way to a level that is too high.
pub fn best_reachable(blocks: u32, servers: &[Spec], placed: &[BlockRange], seed: u64) -> f64 {
    let mut state = State::standing(blocks, servers, placed);
    let mut best = state.worst();
    if best <= 0.0 {
        return best_found(blocks, servers, seed);
    }
    let rng = &mut StdRng::seed_from_u64(!seed);
    for _ in 0..REACHABLE_RESTARTS {
        let mut high = most_conceivable(blocks, servers);
        while best * STEP <= high {
            state.level = (best * STEP).max((best + high) / 2.0);
            if state.reach(rng) {
                best = best.max(state.worst());
            } else {
                high = state.level / STEP;
            }
        }
    }
    best
}

/// The best of one start, if it is better than `best`.
fn climb(blocks: u32, servers: &[Spec], rng: &mut StdRng, largest_first: bool, best: f64) -> f64 {
    let mut order: Vec<&Spec> = servers.iter().collect();
    order.shuffle(rng);
    if largest_first {
        order.sort_by(|one, other| {
            (other.rate * f64::from(other.blocks)).total_cmp(&(one.rate * f64::from(one.blocks)))
        });
    }
    let mut high = most_conceivable(blocks, servers);
    let mut state = State::build(blocks, &order, high);
    let mut best = state.worst().max(best);
    // A block that has a server at all has as much as the slowest one.
    let slowest = servers.iter().map(|server| server.rate).fold(f64::MAX, f64::min);
    loop {
        let least = slowest.max(best * STEP);
        if least > high {
            return best;
        }
        state.level = least.max((best + high) / 2.0);
        if state.reach(rng) {
            best = best.max(state.worst());
        } else {
            high = state.level / STEP;
        }
    }
}

struct State<'a> {
    rates: Vec<f64>,
    placed: Vec<(&'a Spec, usize)>,
    /// Of those that may be moved, their place in `placed`.
    free: Vec<usize>,
    level: f64,
    /// How many servers serve each block, if none may be left without one.
    replicas: Option<Vec<u32>>,
}

impl<'a> State<'a> {
    fn build(blocks: u32, order: &[&'a Spec], level: f64) -> Self {
        let mut state =
            Self { rates: vec![0.0; blocks as usize], placed: Vec::new(), free: Vec::new(), level, replicas: None };
        for spec in order {
            let start = spec.pinned.map_or_else(|| state.neediest(spec), |range| range.start() as usize);
            state.add(spec, start, spec.rate);
            if spec.pinned.is_none() {
                state.free.push(state.placed.len());
            }
            state.placed.push((spec, start));
        }
        state
    }

    /// Servers that must go on serving, from where they are.
    fn standing(blocks: u32, servers: &'a [Spec], placed: &[BlockRange]) -> Self {
        let mut state = Self::build(blocks, &[], 0.0);
        let mut replicas = vec![0; blocks as usize];
        for (index, (spec, at)) in servers.iter().zip(placed).enumerate() {
            let start = at.start() as usize;
            state.add(spec, start, spec.rate);
            replicas[start..start + state.size(spec)].iter_mut().for_each(|count| *count += 1);
            state.placed.push((spec, start));
            if spec.pinned.is_none() {
                state.free.push(index);
            }
        }
        state.replicas = Some(replicas);
        state
    }

    /// Whether a server leaves no block without its last replica.
    fn may_go(&self, index: usize) -> bool {
        let (spec, start) = self.placed[index];
        let others = |replicas: &Vec<u32>| replicas[start..start + self.size(spec)].iter().all(|count| *count > 1);
        self.replicas.as_ref().is_none_or(others)
    }

    fn size(&self, spec: &Spec) -> usize {
        (spec.blocks as usize).min(self.rates.len())
    }

    fn neediest(&self, spec: &Spec) -> usize {
        let gain = |start: usize| -> f64 {
            let window = &self.rates[start..start + self.size(spec)];
            window.iter().map(|rate| (self.level - rate).clamp(0.0, spec.rate)).sum()
        };
        let starts = 0..=self.rates.len() - self.size(spec);
        starts.max_by(|one, other| gain(*one).total_cmp(&gain(*other))).unwrap_or(0)
    }

    fn add(&mut self, spec: &Spec, start: usize, rate: f64) {
        let end = start + self.size(spec);
        self.rates[start..end].iter_mut().for_each(|sum| *sum += rate);
    }

    fn worst(&self) -> f64 {
        // Sums that went up and down may be a hair off.
        self.rates.iter().copied().fold(f64::MAX, f64::min).max(1e-9) - 1e-9
    }

    fn lacks(&self) -> f64 {
        self.rates.iter().map(|rate| (self.level - rate).max(0.0)).sum()
    }

    /// Changes the placement until no block lacks anything; false if that does not come about.
    fn reach(&mut self, rng: &mut StdRng) -> bool {
        let mean = self.placed.iter().map(|(spec, _)| spec.rate).sum::<f64>() / self.placed.len().max(1) as f64;
        let mut lacks = self.lacks();
        for attempt in 0..TRIES {
            if lacks <= 1e-6 {
                return true;
            }
            if self.free.is_empty() {
                return false;
            }
            let changes = self.draw(rng);
            if changes.iter().any(|(index, ..)| !self.may_go(*index)) {
                continue;
            }
            changes.iter().for_each(|change| self.shift(*change));
            let after = self.lacks();
            let heat = mean * HOT * (COLD / HOT).powf(attempt as f64 / TRIES as f64);
            if after <= lacks - heat * rng.random_range(f64::MIN_POSITIVE..1.0).ln() {
                lacks = after;
            } else {
                changes.iter().rev().for_each(|(index, from, to)| self.shift((*index, *to, *from)));
            }
        }
        false
    }

    /// A server and its start before and after; or two.
    fn draw(&self, rng: &mut StdRng) -> Vec<(usize, usize, usize)> {
        let any = |rng: &mut StdRng| self.free[rng.random_range(0..self.free.len())];
        let index = any(rng);
        let (spec, from) = self.placed[index];
        let last = self.rates.len() - self.size(spec);
        if self.replicas.is_none() && rng.random_ratio(1, SWAPS_ONE_OF) {
            let other = any(rng);
            let (with, start) = self.placed[other];
            let back = from.min(self.rates.len() - self.size(with));
            return vec![(index, from, start.min(last)), (other, start, back)];
        }
        let to = if rng.random_ratio(1, SHIFTS_ONE_OF) {
            rng.random_range(from.saturating_sub(LONGEST_SHIFT)..=(from + LONGEST_SHIFT).min(last))
        } else {
            rng.random_range(0..=last)
        };
        vec![(index, from, to)]
    }

    fn shift(&mut self, (index, from, to): (usize, usize, usize)) {
        let spec = self.placed[index].0;
        self.add(spec, from, -spec.rate);
        self.add(spec, to, spec.rate);
        self.placed[index].1 = to;
        let size = self.size(spec);
        if let Some(replicas) = &mut self.replicas {
            replicas[from..from + size].iter_mut().for_each(|count| *count -= 1);
            replicas[to..to + size].iter_mut().for_each(|count| *count += 1);
        }
    }
}

/// The throughput of the worst-served block of a placement.
pub(super) fn worst(blocks: u32, placed: impl Iterator<Item = (BlockRange, f64)>) -> f64 {
    let mut rates = vec![0.0; blocks as usize];
    for (range, rate) in placed {
        range.blocks().for_each(|block| rates[block.as_usize()] += rate);
    }
    rates.into_iter().fold(f64::MAX, f64::min)
}
