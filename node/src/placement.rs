//! Which blocks a server hosts when its user left the choice to it.
//!
//! The throughput of a swarm is that of its worst-served block. A joining server takes the consecutive blocks that
//! leave, in this order:
//! 1. the fewest further servers of its own size until every block is served better than the worst-served one is now;
//! 2. the highest throughput of the worst-served block, then of the second worst, and so on (leximin);
//! 3. the fewest separate runs of worst-served blocks, since holes in one piece suit servers of every size;
//!
//! and among equals one at random, so that servers which decide alone spread. Rule 1 comes first because it keeps holes
//! whole: of twelve unserved blocks a server of four takes an end or the middle third, never blocks 3 to 6, after which
//! two more such servers would not do.

mod annealing;
mod joiners;
mod patience;
mod rank;
mod rebalance;
#[cfg(test)]
mod rebalance_tests;
mod sequence;
#[cfg(test)]
mod tests;

use rand::Rng;
use rand::seq::IndexedRandom;
use swarm_protocol::block::{BlockIndex, BlockRange};

pub use joiners::{Claim, Standing, concede, is_rival, is_senior, rechoose};
pub use patience::Patience;
pub use rebalance::{Move, Plan, WORTHWHILE_PERCENT, plan, still_right};

use rank::Rank;

/// Millionths of a token per second: integers, so that sums do not depend on the order of the addends.
type Micros = u64;

/// What the servers of a model deliver together, per block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    model: BlockRange,
    /// One entry per block of the model, from block 0.
    rates: Vec<Micros>,
}

impl Coverage {
    /// A model without servers. `model` is all its blocks, `0..n`.
    pub fn none(model: BlockRange) -> Self {
        Self { model, rates: vec![0; model.end() as usize] }
    }

    /// Adds a server: its blocks, and how many tokens per second it computes on each of them. Blocks that the model
    /// lacks are ignored; a rate that is no positive number counts as the smallest there is.
    pub fn add(&mut self, blocks: BlockRange, tokens_per_second: f64) {
        self.add_micros(blocks, micros(tokens_per_second));
    }

    fn add_micros(&mut self, blocks: BlockRange, rate: Micros) {
        for block in blocks.blocks() {
            if let Some(sum) = self.rates.get_mut(block.as_usize()) {
                *sum = sum.saturating_add(rate);
            }
        }
    }

    /// The throughput of one block in tokens per second; 0 where nobody serves it.
    pub fn rate(&self, block: BlockIndex) -> f64 {
        self.at(block) as f64 / 1e6
    }

    fn at(&self, block: BlockIndex) -> Micros {
        self.rates.get(block.as_usize()).copied().unwrap_or(0)
    }

    /// The throughput of the worst-served block in tokens per second.
    pub fn bottleneck(&self) -> f64 {
        self.worst() as f64 / 1e6
    }

    fn worst(&self) -> Micros {
        self.rates.iter().copied().min().unwrap_or(0)
    }

    fn mean(&self) -> Micros {
        let sum = self.rates.iter().fold(0, |sum: Micros, &rate| sum.saturating_add(rate));
        sum / (self.rates.len() as Micros).max(1)
    }

    /// What the blocks lack up to `level`, all of them together.
    fn lacks(&self, level: Micros) -> Micros {
        self.rates.iter().fold(0, |sum: Micros, &rate| sum.saturating_add(level.saturating_sub(rate)))
    }

    /// Every range of `count` consecutive blocks; of all blocks, if the model has no more.
    fn windows(&self, count: u32) -> impl Iterator<Item = BlockRange> {
        let blocks = self.model.end();
        let count = count.clamp(1, blocks);
        (0..=blocks - count).filter_map(move |start| BlockRange::new(start, start + count).ok())
    }
}

/// More is not believed: a million tokens a second, announced as a microsecond each. Sums over any swarm stay exact.
const MOST_MICROS: Micros = 1_000_000_000_000;

/// A float cast saturates: what is negative or no number becomes 0, and then the smallest rate.
fn micros(tokens_per_second: f64) -> Micros {
    ((tokens_per_second * 1e6) as Micros).clamp(1, MOST_MICROS)
}

/// The `count` consecutive blocks that help the swarm most; all blocks, if the model has no more than `count`.
/// `others` is what the other servers deliver, `tokens_per_second` what this one would on each of its blocks.
///
/// Takes O(blocks²·log blocks) time.
pub fn choose(others: &Coverage, count: u32, tokens_per_second: f64, rng: &mut impl Rng) -> BlockRange {
    let ranked = others.windows(count).map(|blocks| (Rank::of(others, blocks, tokens_per_second), blocks));
    let mut best: Option<Rank> = None;
    let mut choices: Vec<BlockRange> = Vec::new();
    for (rank, blocks) in ranked {
        if best.as_ref().is_none_or(|best| rank < *best) {
            best = Some(rank);
            choices = vec![blocks];
        } else if best.as_ref() == Some(&rank) {
            choices.push(blocks);
        }
    }
    choices.choose(rng).copied().unwrap_or(others.model)
}
