//! Keys and values of one sequence, in pages.

mod transfer;

use std::fmt;

use half::{bf16, f16};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

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

    fn page_elements(&self) -> usize {
        self.kv_heads * self.head_elements()
    }
}

/// Keys and values of [`PAGE_POSITIONS`] positions of one block, each `(kv_heads, PAGE_POSITIONS, head_dim)`.
#[derive(Debug, Clone)]
pub(crate) struct Page<E> {
    pub(crate) keys: Vec<E>,
    pub(crate) values: Vec<E>,
}

/// The pages of one block.
#[derive(Debug, Clone)]
pub(crate) enum BlockPages {
    F32(Vec<Page<f32>>),
    F16(Vec<Page<f16>>),
    Bf16(Vec<Page<bf16>>),
}

/// An element type that pages exist for.
pub(crate) trait Cached: Element {
    fn pages(pages: &BlockPages) -> Option<&Vec<Page<Self>>>;
    fn pages_mut(pages: &mut BlockPages) -> Option<&mut Vec<Page<Self>>>;
}

macro_rules! cached {
    ($type:ty, $variant:ident) => {
        impl Cached for $type {
            fn pages(pages: &BlockPages) -> Option<&Vec<Page<Self>>> {
                match pages {
                    BlockPages::$variant(pages) => Some(pages),
                    _ => None,
                }
            }

            fn pages_mut(pages: &mut BlockPages) -> Option<&mut Vec<Page<Self>>> {
                match pages {
                    BlockPages::$variant(pages) => Some(pages),
                    _ => None,
                }
            }
        }
    };
}

cached!(f32, F32);
cached!(f16, F16);
cached!(bf16, Bf16);

impl BlockPages {
    fn new(element: ElementType) -> Self {
        match element {
            ElementType::F32 => Self::F32(Vec::new()),
            ElementType::F16 => Self::F16(Vec::new()),
            ElementType::Bf16 => Self::Bf16(Vec::new()),
        }
    }

    fn resize(&mut self, count: usize, shape: &KvShape) {
        fn resize<E: Element>(pages: &mut Vec<Page<E>>, count: usize, elements: usize) {
            pages.truncate(count);
            pages
                .resize_with(count, || Page { keys: vec![E::zeroed(); elements], values: vec![E::zeroed(); elements] });
        }
        let elements = shape.page_elements();
        match self {
            Self::F32(pages) => resize(pages, count, elements),
            Self::F16(pages) => resize(pages, count, elements),
            Self::Bf16(pages) => resize(pages, count, elements),
        }
    }
}

/// Keys and values of one sequence for a range of blocks; made by [`crate::Blocks::new_cache`]. Pages are allocated as
/// the sequence grows and freed by [`KvCache::truncate`].
#[derive(Clone)]
pub struct KvCache {
    range: BlockRange,
    shape: KvShape,
    max_tokens: usize,
    len: usize,
    blocks: Vec<BlockPages>,
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
    pub(crate) fn new(range: BlockRange, shape: KvShape, max_tokens: usize) -> Self {
        Self {
            range,
            shape,
            max_tokens,
            len: 0,
            blocks: range.blocks().map(|_| BlockPages::new(shape.element)).collect(),
        }
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

    /// Bytes of the pages allocated now.
    pub fn bytes(&self) -> u64 {
        let pages = self.len.div_ceil(PAGE_POSITIONS) * self.blocks.len();
        (2 * pages * self.shape.page_elements() * self.shape.element.bytes()) as u64
    }

    /// Forgets all positions from `len` on and frees their pages; longer than held is no change.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.fit_pages(len);
        }
    }

    pub(crate) fn shape(&self) -> KvShape {
        self.shape
    }

    pub(crate) fn pages(&self, block: usize) -> &BlockPages {
        &self.blocks[block]
    }

    pub(crate) fn pages_mut(&mut self, block: usize) -> &mut BlockPages {
        &mut self.blocks[block]
    }

    /// Whether `rows` more positions fit.
    pub(crate) fn check_room(&self, rows: usize) -> Result<(), ModelError> {
        let needed = self.len.saturating_add(rows);
        if needed > self.max_tokens {
            return Err(ModelError::CacheFull { needed, max_tokens: self.max_tokens });
        }
        Ok(())
    }

    /// Allocates the pages for `rows` more positions.
    pub(crate) fn grow(&mut self, rows: usize) {
        self.fit_pages(self.len + rows);
    }

    /// Counts `rows` more positions as held, once every block has stored them.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
    }

    fn fit_pages(&mut self, positions: usize) {
        let count = positions.div_ceil(PAGE_POSITIONS);
        let shape = self.shape;
        self.blocks.iter_mut().for_each(|pages| pages.resize(count, &shape));
    }
}
