//! How good it would be for the swarm if a server hosted some blocks.

use std::cmp::Reverse;

use swarm_protocol::block::BlockRange;

use super::{Coverage, Micros};

/// Smaller is better; the order of the fields is the order of the rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Further servers of the same size until no block is as badly served as the worst one was before.
    further_servers: u32,
    /// The throughput of every block, the worst first.
    throughput: Reverse<Vec<Micros>>,
    /// Separate runs of blocks that stay as badly served as the worst one was.
    runs: usize,
}

impl Rank {
    pub(super) fn of(others: &Coverage, blocks: BlockRange, tokens_per_second: f64) -> Self {
        let mut joined = others.clone();
        joined.add(blocks, tokens_per_second);
        let worst = others.worst();
        let runs = joined.rates.chunk_by(|one, next| (*one > worst) == (*next > worst));
        let holes: Vec<u32> = runs.filter(|run| run[0] <= worst).map(|run| run.len() as u32).collect();
        let further_servers = holes.iter().map(|hole| hole.div_ceil(blocks.len())).sum();
        joined.rates.sort_unstable();
        Self { further_servers, throughput: Reverse(joined.rates), runs: holes.len() }
    }

    /// Whether the swarm itself is better off, by more than the shape of its holes.
    pub(super) fn helps_more_than(&self, other: &Self) -> bool {
        let weight = |rank: &Self| (rank.further_servers, rank.throughput.clone());
        weight(self) < weight(other)
    }
}
