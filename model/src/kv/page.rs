//! One page: keys and values of some positions in all blocks of a range, in one piece of memory that caches may share.

use std::fmt;
use std::sync::Arc;

use bytemuck::cast_slice;
use swarm_protocol::block::BlockRange;

use super::arena::{KvArena, Leased};
use super::shape::{KvShape, Side};
use crate::error::ModelError;
use crate::kernels::Stored;

/// Positions in one page: attention adds page by page, so this is part of the numeric class.
pub const PAGE_POSITIONS: usize = 64;

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
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Keys or values of one head in block `block` (counted within the range): `(PAGE_POSITIONS, head_dim)` and, if they
    /// have any, the scale of each position.
    pub(crate) fn head<E: Stored>(&self, block: usize, side: Side, kv_head: usize) -> (&[E], &[f32]) {
        let shape = self.0.shape;
        let bytes = &self.side_bytes(block, side)[kv_head * shape.head_bytes()..][..shape.head_bytes()];
        let (runs, scales) = bytes.split_at(PAGE_POSITIONS * shape.run_bytes());
        (cast_slice(runs), cast_slice(scales))
    }

    /// Keys or values of all heads in block `block`, each [`KvShape::head_bytes`] long.
    pub(super) fn side_bytes(&self, block: usize, side: Side) -> &[u8] {
        &self.0.leased.memory.bytes()[self.0.shape.side(block, side)]
    }

    /// The same, to be written.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] if somebody else holds the page.
    pub(crate) fn side_bytes_mut(&mut self, block: usize, side: Side) -> Result<&mut [u8], ModelError> {
        let held = self.own()?;
        Ok(&mut held.leased.memory.bytes_mut()[held.shape.side(block, side)])
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
