//! Rows of activations whose content shows all they were made of.

use std::ops::Range;

use swarm_protocol::block::BlockRange;

/// Mixes two words into one.
pub(super) fn mix(one: u64, two: u64) -> u64 {
    let mixed = (one ^ two.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 31)
}

/// The row that a token is embedded as.
pub(super) fn embed(token: u64) -> u64 {
    mix(token, 0xe3bed)
}

/// One word per row.
pub type Activations = Vec<u64>;

/// The KV caches of a range of blocks: per block and position, a hash of the block and all its input rows so far, which
/// is also the block's output row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv {
    blocks: BlockRange,
    rows: Vec<Vec<u64>>,
}

impl Kv {
    /// Nothing was fed yet.
    pub fn new(blocks: BlockRange) -> Self {
        Self { blocks, rows: vec![Vec::new(); blocks.len() as usize] }
    }

    /// How many positions it holds.
    pub fn len(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// Whether nothing was fed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every position from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.rows.iter_mut().for_each(|rows| rows.truncate(length));
    }

    /// Feeds the next rows and says the output rows.
    pub fn feed(&mut self, mut input: Vec<u64>) -> Vec<u64> {
        for (block, rows) in self.blocks.blocks().zip(&mut self.rows) {
            for row in &mut input {
                let before = rows.last().copied().unwrap_or_else(|| mix(u64::from(block.0), 0xb10c));
                *row = mix(before, *row);
                rows.push(*row);
            }
        }
        input
    }

    /// What is held of these positions, block by block; `None` if not all of it is there.
    pub fn export(&self, positions: Range<usize>) -> Option<Vec<Vec<u64>>> {
        self.rows.iter().map(|rows| rows.get(positions.clone()).map(<[u64]>::to_vec)).collect()
    }

    /// Adds what another cache of the same blocks held from `position` on; `None` if that is not where this one ends.
    pub fn import(&mut self, position: usize, piece: &[Vec<u64>]) -> Option<()> {
        if position != self.len() || piece.len() != self.rows.len() {
            return None;
        }
        self.rows.iter_mut().zip(piece).for_each(|(rows, more)| rows.extend(more));
        Some(())
    }

    /// The output row of a position.
    pub fn output(&self, position: usize) -> Option<u64> {
        self.rows.last()?.get(position).copied()
    }

    /// Whether this holds, for its own blocks, what `whole` holds for them, of the first `length` positions as far as both
    /// reach.
    pub fn agrees_with(&self, whole: &Self, length: usize) -> bool {
        let skipped = self.blocks.start().saturating_sub(whole.blocks.start()) as usize;
        let mut pairs = self.rows.iter().zip(whole.rows.iter().skip(skipped));
        pairs.all(|(mine, theirs)| mine.iter().zip(theirs).take(length).all(|(mine, theirs)| mine == theirs))
    }
}
