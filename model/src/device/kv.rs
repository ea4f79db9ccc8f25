//! Keys and values of one sequence in a device's memory.
//!
//! Those of one block lie in one piece, `(kv_heads, positions, head_dim)`, so that attention is two matrix products. It
//! grows and shrinks by whole pages; a page more costs one copy of what is held, every [`PAGE_POSITIONS`] steps.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::activations;
use crate::error::ModelError;
use crate::kv::{KvShape, PAGE_POSITIONS, rows_after};

/// Keys and values of a sequence for a range of blocks. A clone shares memory with it until one of them grows.
#[derive(Debug, Clone)]
pub(crate) struct DeviceKv {
    range: BlockRange,
    shape: KvShape,
    /// The activations' type, which keys and values are in here.
    element: ElementType,
    max_tokens: usize,
    len: usize,
    device: Device,
    blocks: Vec<BlockKv>,
}

/// Keys and values of one block; none while nothing is held.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockKv(Option<Arc<Memory>>);

/// Each `(kv_heads, capacity, head_dim)` in the activation type.
#[derive(Debug)]
struct Memory {
    keys: Tensor,
    values: Tensor,
}

impl BlockKv {
    fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.keys.dims()[1])
    }

    /// Makes room of its own for `capacity` positions, and keeps the first `kept`.
    fn resize(
        &mut self,
        shape: &KvShape,
        element: ElementType,
        capacity: usize,
        kept: usize,
        device: &Device,
    ) -> Result<(), ModelError> {
        let shared = self.0.as_ref().is_some_and(|held| Arc::strong_count(held) > 1);
        if capacity == self.capacity() && !shared {
            return Ok(());
        }
        if capacity == 0 {
            self.0 = None;
            return Ok(());
        }
        let moved = |held: Option<&Tensor>| -> Result<Tensor, ModelError> {
            let room =
                Tensor::zeros((shape.kv_heads, capacity, shape.head_dim), activations::dtype(element.into()), device)?;
            if let Some(held) = held.filter(|_| kept > 0) {
                room.slice_set(&held.narrow(1, 0, kept)?.contiguous()?, 1, 0)?;
            }
            Ok(room)
        };
        let held = self.0.as_ref();
        let (keys, values) = (moved(held.map(|held| &held.keys))?, moved(held.map(|held| &held.values))?);
        self.0 = Some(Arc::new(Memory { keys, values }));
        Ok(())
    }

    /// Stores `(kv_heads, rows, head_dim)` of each, in the activation type, from `position` on; there must be room, and
    /// nobody else who holds it: see [`DeviceKv::grow`].
    pub(super) fn store(&self, keys: &Tensor, values: &Tensor, position: usize) -> Result<(), ModelError> {
        let held = self.held()?;
        held.keys.slice_set(keys, 1, position)?;
        held.values.slice_set(values, 1, position)?;
        Ok(())
    }

    /// Keys and values of `positions`, each `(kv_heads, positions, head_dim)`.
    pub(super) fn read(&self, positions: Range<usize>) -> Result<(Tensor, Tensor), ModelError> {
        let held = self.held()?;
        let part = |held: &Tensor| held.narrow(1, positions.start, positions.len());
        Ok((part(&held.keys)?, part(&held.values)?))
    }

    fn held(&self) -> Result<&Memory, ModelError> {
        self.0.as_deref().ok_or_else(|| candle_core::Error::Msg("the KV cache holds nothing".into()).into())
    }
}

impl DeviceKv {
    pub(crate) fn new(
        range: BlockRange,
        shape: KvShape,
        element: ElementType,
        max_tokens: usize,
        device: Device,
    ) -> Self {
        let blocks = range.blocks().map(|_| BlockKv::default()).collect();
        Self { range, shape, element, max_tokens, len: 0, device, blocks }
    }

    pub(crate) fn range(&self) -> BlockRange {
        self.range
    }

    pub(crate) fn shape(&self) -> KvShape {
        self.shape
    }

    /// The type of keys and values.
    pub(super) fn element(&self) -> ElementType {
        self.element
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    pub(super) fn block(&self, block: usize) -> &BlockKv {
        &self.blocks[block]
    }

    /// Bytes of the pages allocated now.
    pub(crate) fn bytes(&self) -> u64 {
        let positions: usize = self.blocks.iter().map(BlockKv::capacity).sum();
        (positions * self.bytes_per_position() / self.blocks.len()) as u64
    }

    /// Forgets all positions from `len` on. If the device cannot make the smaller copy, the pages stay until it can.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            // Nothing that counts depends on it: `bytes` says what is allocated, whatever that is.
            let _ = self.fit_pages(len);
        }
    }

    pub(crate) fn check_room(&self, rows: usize) -> Result<(), ModelError> {
        let needed = self.len.saturating_add(rows);
        match needed > self.max_tokens {
            true => Err(ModelError::CacheFull { needed, max_tokens: self.max_tokens }),
            false => Ok(()),
        }
    }

    /// Allocates the pages for `rows` more positions, which no clone holds.
    pub(crate) fn grow(&mut self, rows: usize) -> Result<(), ModelError> {
        self.fit_pages(self.len + rows)
    }

    /// Counts `rows` more positions as held, once every block has stored them.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
    }

    fn fit_pages(&mut self, positions: usize) -> Result<(), ModelError> {
        let capacity = positions.next_multiple_of(PAGE_POSITIONS);
        let (shape, element, kept) = (self.shape, self.element, self.len.min(positions));
        self.blocks.iter_mut().try_for_each(|block| block.resize(&shape, element, capacity, kept, &self.device))
    }

    /// Elements of the keys of one position in one block.
    fn width(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }

    /// See [`crate::KvCache::bytes_per_position`].
    pub(crate) fn bytes_per_position(&self) -> usize {
        self.blocks.len() * 2 * self.width() * self.element.bytes()
    }

    /// See [`crate::KvCache::export`]; the bytes are those of a cache of our kernels.
    pub(crate) fn export(&self, positions: Range<usize>) -> Result<Vec<u8>, ModelError> {
        if positions.start > positions.end || positions.end > self.len {
            return Err(ModelError::PositionsNotHeld { asked: positions, len: self.len });
        }
        let mut out = Vec::with_capacity(positions.len() * self.bytes_per_position());
        if positions.is_empty() {
            return Ok(out);
        }
        for block in &self.blocks {
            let (keys, values) = block.read(positions.clone())?;
            let both = Tensor::cat(&[keys.transpose(0, 1)?, values.transpose(0, 1)?], 1)?;
            out.extend(activations::to_bytes(&both.to_device(&Device::Cpu)?)?);
        }
        Ok(out)
    }

    /// See [`crate::KvCache::import`].
    pub(crate) fn import(&mut self, position: usize, bytes: &[u8]) -> Result<usize, ModelError> {
        let rows = self.check_import(position, bytes)?;
        self.grow(rows)?;
        let (heads, dim, width) = (self.shape.kv_heads, self.shape.head_dim, self.width());
        let format = WeightFormat::from(self.element);
        for (block, bytes) in self.blocks.iter().zip(bytes.chunks_exact(bytes.len() / self.blocks.len())) {
            let both = activations::from_bytes(format, rows, 2 * width, bytes)?.to_device(&self.device)?;
            let both = both.reshape((rows, 2 * heads, dim))?;
            let side = |first| -> Result<Tensor, ModelError> {
                Ok(both.narrow(1, first, heads)?.transpose(0, 1)?.contiguous()?)
            };
            block.store(&side(0)?, &side(heads)?, position)?;
        }
        self.advance(rows);
        Ok(rows)
    }

    fn check_import(&self, position: usize, bytes: &[u8]) -> Result<usize, ModelError> {
        let rows = rows_after(self.len, position, bytes, self.bytes_per_position())?;
        self.check_room(rows).map(|()| rows)
    }
}
