//! Blocks (transformer layers) and ranges of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most blocks a model may have; bounds every per-block allocation made for a peer's words.
/// Four times the deepest open model known (126 blocks).
pub const MAX_BLOCKS: u32 = 512;

/// One transformer layer, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockIndex(pub u32);

impl BlockIndex {
    /// The block's place in an array of all blocks.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Consecutive blocks `[start, end)`; never empty, never past [`MAX_BLOCKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct BlockRange {
    start: u32,
    end: u32,
}

/// Why two numbers are no range of blocks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeError {
    /// The range holds no block.
    #[error("the block range {0}..{1} is empty; write it as START..END with START below END, for example 0..8")]
    Empty(u32, u32),
    /// The range ends past the bound every peer keeps.
    #[error("the block range {0}..{1} ends past block {MAX_BLOCKS}, the most a model may have")]
    TooLong(u32, u32),
    /// The text is not `START..END`.
    #[error("\"{0}\" is no block range; write it as START..END, for example 0..8")]
    Syntax(String),
}

impl BlockRange {
    /// The blocks from `start` up to, but without, `end`.
    ///
    /// # Errors
    /// [`RangeError`] if the range is empty or ends past [`MAX_BLOCKS`].
    pub fn new(start: u32, end: u32) -> Result<Self, RangeError> {
        if start >= end {
            return Err(RangeError::Empty(start, end));
        }
        if end > MAX_BLOCKS {
            return Err(RangeError::TooLong(start, end));
        }
        Ok(Self { start, end })
    }

    /// The first block.
    pub fn start(self) -> u32 {
        self.start
    }

    /// The block after the last.
    pub fn end(self) -> u32 {
        self.end
    }

    /// The number of blocks, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    /// The blocks of the range in order.
    pub fn blocks(self) -> impl DoubleEndedIterator<Item = BlockIndex> + ExactSizeIterator {
        (self.start..self.end).map(BlockIndex)
    }

    /// Whether `block` lies in the range.
    pub fn contains(self, block: BlockIndex) -> bool {
        (self.start..self.end).contains(&block.0)
    }

    /// Whether every block of `inner` lies in the range.
    pub fn covers(self, inner: BlockRange) -> bool {
        self.start <= inner.start && inner.end <= self.end
    }

    /// The blocks both ranges hold, if any.
    pub fn intersection(self, other: BlockRange) -> Option<BlockRange> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }
}

impl TryFrom<(u32, u32)> for BlockRange {
    type Error = RangeError;

    fn try_from((start, end): (u32, u32)) -> Result<Self, RangeError> {
        Self::new(start, end)
    }
}

impl From<BlockRange> for (u32, u32) {
    fn from(range: BlockRange) -> Self {
        (range.start, range.end)
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl FromStr for BlockRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_string());
        let (start, end) = text.split_once("..").ok_or_else(syntax)?;
        let number = |part: &str| part.trim().parse::<u32>().map_err(|_| syntax());
        Self::new(number(start)?, number(end)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_never_empty_and_never_unbounded() {
        assert_eq!(BlockRange::new(3, 3), Err(RangeError::Empty(3, 3)));
        assert_eq!(BlockRange::new(0, MAX_BLOCKS + 1), Err(RangeError::TooLong(0, MAX_BLOCKS + 1)));
        assert!("8..4".parse::<BlockRange>().is_err());
        assert!("4-8".parse::<BlockRange>().is_err());
        assert_eq!("4..8".parse(), BlockRange::new(4, 8));
    }

    #[test]
    fn a_lying_range_does_not_decode() {
        let bytes = postcard::to_allocvec(&(9u32, 2u32)).unwrap();
        assert!(postcard::from_bytes::<BlockRange>(&bytes).is_err());
    }
}
