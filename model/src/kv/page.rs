//! One page: keys and values of some positions in all blocks of a range, in one piece of memory that caches may share.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::cast_slice;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use super::arena::{KvArena, Leased};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::kernels::Element;

/// Positions in one page: attention adds page by page, so this is part of the numeric class.
pub const PAGE_POSITIONS: usize = 64;

/// What keys and values look like: two caches of one shape hold the same model's sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) element: ElementType,
}

impl KvShape {
    pub(crate) fn new(config: &ModelConfig, format: WeightFormat) -> Self {
        Self { kv_heads: config.kv_heads, head_dim: config.head_dim, element: format.into() }
    }

    /// Elements of the keys (or values) of one head in one page.
    pub(crate) fn head_elements(&self) -> usize {
        PAGE_POSITIONS * self.head_dim
    }

    /// Bytes of a page for the blocks of `range`.
    pub(crate) fn page_bytes(&self, range: BlockRange) -> u64 {
        (range.len() as usize * 2 * self.side_bytes()) as u64
    }

    /// Bytes of the keys (or values) of one block in one page.
    fn side_bytes(&self) -> usize {
        self.kv_heads * self.head_elements() * self.element.bytes()
    }

    /// Where the keys (or values) of a block lie in a page: one block after the other, keys before values.
    fn place(&self, block: usize, side: Side) -> Range<usize> {
        let start = (2 * block + side as usize) * self.side_bytes();
        start..start + self.side_bytes()
    }
}

/// What of a position is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Keys = 0,
    Values = 1,
}

/// Keys and values of [`PAGE_POSITIONS`] positions in all blocks of a cache's range. A clone is another reference to the
/// same memory, which nobody changes while there is more than one.
#[derive(Clone)]
pub struct KvPage(Arc<Held>);

struct Held {
    range: BlockRange,
    shape: KvShape,
    leased: Leased,
}

impl KvPage {
    /// A page out of `arena`, which may hold what another left behind.
    ///
    /// # Errors
    /// [`ModelError::KvBudget`] if the arena has no room for it.
    pub(super) fn new(arena: &KvArena, range: BlockRange, shape: KvShape) -> Result<Self, ModelError> {
        let leased = arena.take(shape.page_bytes(range))?;
        Ok(Self(Arc::new(Held { range, shape, leased })))
    }

    /// A page out of `arena` with the same keys and values.
    pub(super) fn copy(&self, arena: &KvArena) -> Result<Self, ModelError> {
        let mut copy = Self::new(arena, self.0.range, self.0.shape)?;
        copy.own()?.leased.memory.bytes_mut().copy_from_slice(self.0.leased.memory.bytes());
        Ok(copy)
    }

    /// The blocks whose keys and values it holds.
    pub fn range(&self) -> BlockRange {
        self.0.range
    }

    /// Its bytes, as its arena counts them.
    pub fn bytes(&self) -> u64 {
        self.0.leased.bytes()
    }

    pub(crate) fn shape(&self) -> KvShape {
        self.0.shape
    }

    /// Whether somebody else holds it too.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Keys or values `(kv_heads, PAGE_POSITIONS, head_dim)` of block `block`, counted within the range.
    pub(crate) fn side<E: Element>(&self, block: usize, side: Side) -> &[E] {
        cast_slice(self.side_bytes(block, side))
    }

    /// The bytes of [`KvPage::side`].
    pub(super) fn side_bytes(&self, block: usize, side: Side) -> &[u8] {
        &self.0.leased.memory.bytes()[self.0.shape.place(block, side)]
    }

    /// Keys and values of block `block` as bytes, to be written.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] if somebody else holds the page.
    pub(crate) fn sides_mut(&mut self, block: usize) -> Result<(&mut [u8], &mut [u8]), ModelError> {
        let held = self.own()?;
        let keys = held.shape.place(block, Side::Keys);
        let both = &mut held.leased.memory.bytes_mut()[keys.start..held.shape.place(block, Side::Values).end];
        Ok(both.split_at_mut(keys.len()))
    }

    fn own(&mut self) -> Result<&mut Held, ModelError> {
        // Pages that others hold are copied before rows are computed: to find one here is a bug.
        let shared = || candle_core::Error::Msg("keys and values that others hold were about to be written".into());
        Arc::get_mut(&mut self.0).ok_or_else(|| shared().into())
    }

    /// Which memory it is.
    #[cfg(test)]
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl fmt::Debug for KvPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPage").field("range", &self.0.range).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
