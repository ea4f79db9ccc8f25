//! Keys and values of one sequence, wherever its blocks compute.

use std::fmt;
use std::ops::Range;

use swarm_protocol::block::BlockRange;

use crate::device::DeviceKv;
use crate::error::ModelError;
use crate::kv::{self, KvPage, KvShape};

/// Keys and values of one sequence for a range of blocks, in the memory of what computes them; made by
/// [`crate::Blocks::new_cache`]. Pages are allocated as the sequence grows and freed by [`KvCache::truncate`].
#[derive(Clone)]
pub struct KvCache(Held);

#[derive(Clone)]
enum Held {
    Host(kv::KvCache),
    Device(DeviceKv),
}

/// One sequence's part in a call, with a cache of the kind that the blocks compute with.
pub(crate) struct Part<'a, C> {
    pub(crate) cache: &'a mut C,
    pub(crate) rows: usize,
}

macro_rules! of_both {
    ($held:expr, $cache:ident => $body:expr) => {
        match $held {
            Held::Host($cache) => $body,
            Held::Device($cache) => $body,
        }
    };
}

impl KvCache {
    pub(crate) fn host(cache: kv::KvCache) -> Self {
        Self(Held::Host(cache))
    }

    pub(crate) fn device(cache: DeviceKv) -> Self {
        Self(Held::Device(cache))
    }

    pub(crate) fn as_host(&mut self) -> Option<&mut kv::KvCache> {
        match &mut self.0 {
            Held::Host(cache) => Some(cache),
            Held::Device(_) => None,
        }
    }

    pub(crate) fn as_device(&mut self) -> Option<&mut DeviceKv> {
        match &mut self.0 {
            Held::Host(_) => None,
            Held::Device(cache) => Some(cache),
        }
    }

    /// The blocks whose keys and values it holds.
    pub fn range(&self) -> BlockRange {
        of_both!(&self.0, cache => cache.range())
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        of_both!(&self.0, cache => cache.len())
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        of_both!(&self.0, cache => cache.is_empty())
    }

    /// The most positions it may hold.
    pub fn max_tokens(&self) -> usize {
        of_both!(&self.0, cache => cache.max_tokens())
    }

    /// Bytes of the pages allocated now.
    pub fn bytes(&self) -> u64 {
        of_both!(&self.0, cache => cache.bytes())
    }

    /// Forgets all positions from `len` on and frees their pages; longer than held is no change.
    pub fn truncate(&mut self, len: usize) {
        of_both!(&mut self.0, cache => cache.truncate(len));
    }

    /// Another reference to page `index`, which holds positions `index * PAGE_POSITIONS` and on; `None` if not all of its
    /// positions are held, or they lie in an accelerator's memory, where sequences do not share pages.
    pub fn page(&self, index: usize) -> Option<KvPage> {
        match &self.0 {
            Held::Host(cache) => cache.page(index),
            Held::Device(_) => None,
        }
    }

    /// Appends whole pages of another cache, which both hold from then on; returns how many positions were added. The
    /// pages must belong to the positions at which they are appended, after the same positions before: nothing in them
    /// could tell. On an error nothing has changed.
    ///
    /// # Errors
    /// - [`ModelError::WrongPosition`] if the cache does not end at a page boundary;
    /// - [`ModelError::WrongCache`] if a page is for other blocks or of another shape, or the cache is on an accelerator;
    /// - [`ModelError::CacheFull`] if they do not fit.
    pub fn attach(&mut self, pages: &[KvPage]) -> Result<usize, ModelError> {
        match &mut self.0 {
            Held::Host(cache) => cache.attach(pages),
            Held::Device(_) => Err(ModelError::WrongCache {
                cache: "keys and values on an accelerator".into(),
                asked: "pages in the system's memory".into(),
            }),
        }
    }

    /// Bytes of the arena's pages that `rows` more positions would take now: none on an accelerator.
    pub fn growth_bytes(&self, rows: usize) -> u64 {
        match &self.0 {
            Held::Host(cache) => cache.growth_bytes(rows),
            Held::Device(_) => 0,
        }
    }

    /// Bytes of the keys and values of one position in all blocks, as exported.
    pub fn bytes_per_position(&self) -> usize {
        of_both!(&self.0, cache => cache.bytes_per_position())
    }

    /// The keys and values of `positions`: for each block in order, for each position in order, the keys
    /// `(kv_heads, head_dim)`, then the values, little-endian. An empty range has no bytes.
    ///
    /// # Errors
    /// [`ModelError::PositionsNotHeld`] if not all of `positions` are held, or they end before they start.
    pub fn export(&self, positions: Range<usize>) -> Result<Vec<u8>, ModelError> {
        of_both!(&self.0, cache => cache.export(positions))
    }

    /// Appends exported keys and values whose first position is `position`; returns how many positions were added.
    /// The bytes must come from a cache for the same blocks of the same model in the same numeric class: nothing in
    /// them could tell. On an error nothing has changed.
    ///
    /// # Errors
    /// - [`ModelError::WrongPosition`] if `position` is not where the cache ends;
    /// - [`ModelError::WrongKvBytes`] if the bytes are not one or more whole positions;
    /// - [`ModelError::CacheFull`] if they do not fit;
    /// - [`ModelError::Tensor`] if a device has no memory left for them.
    pub fn import(&mut self, position: usize, bytes: &[u8]) -> Result<usize, ModelError> {
        of_both!(&mut self.0, cache => cache.import(position, bytes))
    }

    /// Whether keys and values of `shape` for blocks `range` are what it holds.
    pub(crate) fn check_kind(&self, range: BlockRange, shape: KvShape) -> Result<(), ModelError> {
        if self.range() == range && of_both!(&self.0, cache => cache.shape()) == shape {
            return Ok(());
        }
        Err(ModelError::WrongCache {
            cache: format!("blocks {} as {:?}", self.range(), of_both!(&self.0, cache => cache.shape())),
            asked: format!("blocks {range} as {shape:?}"),
        })
    }

    /// Whether `rows` more positions fit.
    pub(crate) fn check_room(&self, rows: usize) -> Result<(), ModelError> {
        of_both!(&self.0, cache => cache.check_room(rows))
    }
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvCache")
            .field("range", &self.range())
            .field("len", &self.len())
            .field("max_tokens", &self.max_tokens())
            .finish_non_exhaustive()
    }
}
