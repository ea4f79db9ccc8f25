//! The best placement that a search finds which knows everything, moves everybody for nothing, and takes its time.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use swarm_protocol::block::BlockRange;

use super::Spec;

/// How often the search starts anew.
const RESTARTS: u64 = 3;

/// Changes it tries for each level: some hundred for each server of a swarm that is too large for luck.
const TRIES: usize = 60_000;

/// By how much each level is higher than the one before.
const STEP: f64 = 1.01;

/// No placement of `servers` has a higher throughput of the worst-served block than this: as if servers could be cut.
pub fn most_conceivable(blocks: u32, servers: &[Spec]) -> f64 {
    servers.iter().map(|server| server.rate * f64::from(server.blocks.min(blocks))).sum::<f64>() / f64::from(blocks)
}

/// The highest throughput of the worst-served block that was found.
///
/// From each start (all servers placed one by one in a random order, the hardest to place first or not, where blocks lack
/// most) it raises the level it aims at by a percent, and then moves servers drawn at random to places drawn at random
/// whenever all blocks together lack less afterwards, or not much more (threshold accepting), until none lacks anything.
pub fn best_found(blocks: u32, servers: &[Spec], seed: u64) -> f64 {
    let climb = |restart| climb(blocks, servers, &mut StdRng::seed_from_u64(seed ^ (restart << 32)), restart == 0);
    (0..RESTARTS).map(climb).fold(0.0, f64::max)
}

fn climb(blocks: u32, servers: &[Spec], rng: &mut StdRng, largest_first: bool) -> f64 {
    let mut order: Vec<&Spec> = servers.iter().collect();
    order.shuffle(rng);
    if largest_first {
        order.sort_by(|one, other| {
            (other.rate * f64::from(other.blocks)).total_cmp(&(one.rate * f64::from(one.blocks)))
        });
    }
    let mut state = State::build(blocks, &order, most_conceivable(blocks, servers));
    let mut best = state.worst();
    loop {
        state.level = best.max(f64::MIN_POSITIVE) * STEP;
        if best == 0.0 {
            state.level = servers.iter().map(|server| server.rate).fold(f64::MAX, f64::min);
        }
        if !state.reach(rng) {
            return best;
        }
        best = state.worst();
    }
}

struct State<'a> {
    rates: Vec<f64>,
    placed: Vec<(&'a Spec, usize)>,
    /// Of those that may be moved, their place in `placed`.
    free: Vec<usize>,
    level: f64,
}

impl<'a> State<'a> {
    fn build(blocks: u32, order: &[&'a Spec], level: f64) -> Self {
        let mut state = Self { rates: vec![0.0; blocks as usize], placed: Vec::new(), free: Vec::new(), level };
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
        let mut lacks = self.lacks();
        for attempt in 0..TRIES {
            if lacks <= 1e-6 {
                return true;
            }
            let Some(&index) = self.free.get(rng.random_range(0..self.free.len().max(1))) else {
                return false;
            };
            let (spec, from) = self.placed[index];
            let to = rng.random_range(0..=self.rates.len() - self.size(spec));
            self.add(spec, from, -spec.rate);
            self.add(spec, to, spec.rate);
            let (after, patience) = (self.lacks(), 1.0 - attempt as f64 / TRIES as f64);
            if after <= lacks + 0.2 * spec.rate * patience * rng.random::<f64>() {
                self.placed[index].1 = to;
                lacks = after;
            } else {
                self.add(spec, to, -spec.rate);
                self.add(spec, from, spec.rate);
            }
        }
        false
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
