//! Keys and values of one sequence, in pages that sequences may share.

mod arena;
mod int8;
mod page;
mod shape;
#[cfg(test)]
mod tests;
mod transfer;

use std::fmt;

pub use arena::KvArena;
pub(crate) use int8::quantise;
pub use page::{KvPage, PAGE_POSITIONS};
pub use shape::KvFormat;
pub(crate) use shape::{KvElement, KvShape, Side};
use swarm_protocol::block::BlockRange;
pub(crate) use transfer::rows_after;

use crate::error::ModelError;

/// Keys and values of one sequence for a range of blocks; made by [`crate::Blocks::new_cache`]. Pages are allocated as
/// the sequence grows and let go by [`KvCache::truncate`]. A clone shares them: whoever writes into a page that somebody
/// else holds writes into a copy of it.
#[derive(Clone)]
pub struct KvCache {
    arena: KvArena,
    range: BlockRange,
    shape: KvShape,
    max_tokens: usize,
    len: usize,
    pages: Vec<KvPage>,
}

/// Pages for rows to come, as [`KvCache::plan`] has got them: none of them is anybody else's.
pub(crate) struct Growth {
    /// Which page of the cache the first of them becomes.
    first: usize,
    pages: Vec<KvPage>,
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvCache")
            .field("range", &self.range)
            .field("len", &self.len)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

impl KvCache {
    pub(crate) fn new(arena: KvArena, range: BlockRange, shape: KvShape, max_tokens: usize) -> Self {
        Self { arena, range, shape, max_tokens, len: 0, pages: Vec::new() }
    }

    /// The blocks whose keys and values it holds.
    pub fn range(&self) -> BlockRange {
        self.range
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most positions it may hold.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Bytes of the pages it holds now, shared ones included.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().map(KvPage::bytes).sum()
    }

    /// Forgets all positions from `len` on and lets go of their pages; longer than held is no change.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.shrink();
        }
    }

    /// Another reference to page `index`, which holds positions `index * PAGE_POSITIONS` and on; `None` if not all of its
    /// positions are held.
    pub fn page(&self, index: usize) -> Option<KvPage> {
        let full = index < self.len / PAGE_POSITIONS;
        self.pages.get(index).filter(|_| full).cloned()
    }

    /// Appends whole pages of another cache, which both hold from then on; returns how many positions were added. The
    /// pages must belong to the positions at which they are appended, after the same positions before: nothing in them
    /// could tell. On an error nothing has changed.
    ///
    /// # Errors
    /// - [`ModelError::WrongPosition`] if the cache does not end at a page boundary;
    /// - [`ModelError::WrongCache`] if a page is for other blocks or of another shape;
    /// - [`ModelError::CacheFull`] if they do not fit.
    pub fn attach(&mut self, pages: &[KvPage]) -> Result<usize, ModelError> {
        if !self.len.is_multiple_of(PAGE_POSITIONS) {
            return Err(ModelError::WrongPosition {
                position: self.len.next_multiple_of(PAGE_POSITIONS),
                len: self.len,
            });
        }
        pages.iter().try_for_each(|page| self.check_kind(page.range(), page.shape()))?;
        let positions = pages.len().saturating_mul(PAGE_POSITIONS);
        self.check_room(positions)?;
        self.pages.extend_from_slice(pages);
        self.len += positions;
        Ok(positions)
    }

    /// Bytes of the pages that `rows` more positions would take now.
    pub fn growth_bytes(&self, rows: usize) -> u64 {
        let new = (self.len + rows).div_ceil(PAGE_POSITIONS) - self.len.div_ceil(PAGE_POSITIONS);
        let copied = self.copied(rows).map_or(0, |_| 1);
        (new + copied) as u64 * self.shape.page_bytes(self.range)
    }

    /// The page that `rows` more positions begin in, if they need a copy of it.
    fn copied(&self, rows: usize) -> Option<&KvPage> {
        self.pages.get(self.len / PAGE_POSITIONS).filter(|page| rows > 0 && page.is_shared())
    }

    /// Whether keys and values of `shape` for blocks `range` are what it holds.
    pub(crate) fn check_kind(&self, range: BlockRange, shape: KvShape) -> Result<(), ModelError> {
        if self.range == range && self.shape == shape {
            return Ok(());
        }
        Err(ModelError::WrongCache {
            cache: format!("blocks {} as {:?}", self.range, self.shape),
            asked: format!("blocks {range} as {shape:?}"),
        })
    }

    /// Whether `rows` more positions fit.
    pub(crate) fn check_room(&self, rows: usize) -> Result<(), ModelError> {
        let needed = self.len.saturating_add(rows);
        if needed > self.max_tokens {
            return Err(ModelError::CacheFull { needed, max_tokens: self.max_tokens });
        }
        Ok(())
    }

    /// Allocates pages for `rows` more positions, and a copy of the last page if that is shared and has room left.
    pub(crate) fn plan(&self, rows: usize) -> Result<Growth, ModelError> {
        let held = self.len.div_ceil(PAGE_POSITIONS);
        let needed = (self.len + rows).div_ceil(PAGE_POSITIONS);
        let copy = self.copied(rows).map(|page| page.copy(&self.arena));
        let first = held - usize::from(copy.is_some());
        let new = (held..needed).map(|_| KvPage::new(&self.arena, self.range, self.shape));
        Ok(Growth { first, pages: copy.into_iter().chain(new).collect::<Result<_, _>>()? })
    }

    /// Takes the pages of a plan made since the cache last changed.
    pub(crate) fn grow(&mut self, growth: Growth) {
        self.pages.truncate(growth.first);
        self.pages.extend(growth.pages);
    }

    /// Counts `rows` more positions as held, once every block has stored them.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
    }

    /// Lets go of pages that hold no position.
    pub(crate) fn shrink(&mut self) {
        self.pages.truncate(self.len.div_ceil(PAGE_POSITIONS));
    }

    pub(crate) fn shape(&self) -> KvShape {
        self.shape
    }

    pub(crate) fn pages(&self) -> &[KvPage] {
        &self.pages
    }

    pub(crate) fn pages_mut(&mut self) -> &mut [KvPage] {
        &mut self.pages
    }
}
