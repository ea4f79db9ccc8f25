//! The blocks a server hosts.

use candle_core::{Device, Tensor};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{BlockDigest, NumericClass, WeightFormat};

use crate::activations;
use crate::block::{Block, Step};
use crate::cache::{KvCache, Part};
use crate::config::ModelConfig;
use crate::device::{ComputeDevice, DeviceBlocks, DeviceKv};
use crate::error::ModelError;
use crate::kv::{self, KvArena, KvFormat, KvShape};
use crate::pool::awake;
use crate::rope::Frequencies;

/// A range of blocks in memory; made by [`crate::Checkpoint::load_blocks`].
#[derive(Debug)]
pub struct Blocks {
    config: ModelConfig,
    range: BlockRange,
    format: WeightFormat,
    kv_format: KvFormat,
    hosted: Hosted,
    digests: Vec<BlockDigest>,
    frequencies: Frequencies,
    numeric_class: NumericClass,
    /// Where caches come from whose memory nobody counts.
    uncounted: KvArena,
}

/// The blocks, and what computes with them.
#[derive(Debug)]
pub(crate) enum Hosted {
    /// Our kernels, on the CPU.
    Host(Vec<Block>),
    /// candle, on one of its devices.
    Device(DeviceBlocks),
}

/// One sequence's part in a call of [`Blocks::forward`].
#[derive(Debug)]
pub struct Sequence<'a> {
    /// Its keys and values so far; its rows start at the position [`KvCache::len`].
    pub cache: &'a mut KvCache,
    /// How many rows of the call are its own.
    pub rows: usize,
}

impl Blocks {
    pub(crate) fn new(
        config: ModelConfig,
        range: BlockRange,
        format: WeightFormat,
        numeric_class: NumericClass,
        hosted: Hosted,
        digests: Vec<BlockDigest>,
    ) -> Self {
        let frequencies = Frequencies::new(&config);
        let (kv_format, uncounted) = (KvFormat::default(), KvArena::unlimited());
        Self { config, range, format, kv_format, hosted, digests, frequencies, numeric_class, uncounted }
    }

    /// The same blocks with KV caches in `kv_format` from now on, which makes their numeric class another.
    ///
    /// # Errors
    /// [`ModelError::KvFormatOfDevice`] if the blocks are on an accelerator, where keys and values are in the activations' type.
    pub fn with_kv_format(self, kv_format: KvFormat) -> Result<Self, ModelError> {
        if kv_format == self.kv_format {
            return Ok(self);
        }
        if matches!(self.hosted, Hosted::Device(_)) {
            return Err(ModelError::KvFormatOfDevice);
        }
        let numeric_class = ComputeDevice::cpu().numeric_class(self.format, kv_format)?;
        Ok(Self { numeric_class, kv_format, ..self })
    }

    /// The blocks hosted.
    pub fn range(&self) -> BlockRange {
        self.range
    }

    /// The format the weights are held in.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// How its KV caches hold keys and values.
    pub fn kv_format(&self) -> KvFormat {
        self.kv_format
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// One digest for each hosted block, over its tensors as stored in the checkpoint.
    pub fn digests(&self) -> &[BlockDigest] {
        &self.digests
    }

    /// What the bits of a result depend on besides weights and input.
    pub fn numeric_class(&self) -> &NumericClass {
        &self.numeric_class
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        match &self.hosted {
            Hosted::Host(_) => &Device::Cpu,
            Hosted::Device(blocks) => &blocks.device,
        }
    }

    /// An empty KV cache for blocks `range` and at most `max_tokens` positions, in as much memory as it takes.
    ///
    /// # Errors
    /// [`ModelError::RangeNotLoaded`] if not all blocks of `range` are hosted.
    pub fn new_cache(&self, range: BlockRange, max_tokens: usize) -> Result<KvCache, ModelError> {
        self.new_cache_in(&self.uncounted, range, max_tokens)
    }

    /// The same with pages out of `arena`.
    ///
    /// # Errors
    /// [`ModelError::RangeNotLoaded`] if not all blocks of `range` are hosted.
    pub fn new_cache_in(&self, arena: &KvArena, range: BlockRange, max_tokens: usize) -> Result<KvCache, ModelError> {
        self.check_hosted(range)?;
        let shape = self.kv_shape();
        Ok(match &self.hosted {
            Hosted::Host(_) => KvCache::host(kv::KvCache::new(arena.clone(), range, shape, max_tokens)),
            Hosted::Device(blocks) => {
                let element = self.format.into();
                KvCache::device(DeviceKv::new(range, shape, element, max_tokens, blocks.device.clone()))
            }
        })
    }

    /// Bytes of one page ([`crate::PAGE_POSITIONS`] positions) of a KV cache for blocks `range`.
    pub fn page_bytes(&self, range: BlockRange) -> u64 {
        self.kv_shape().page_bytes(range)
    }

    fn kv_shape(&self) -> KvShape {
        KvShape::new(&self.config, self.format, self.kv_format)
    }

    /// Pushes rows through blocks `range` and adds them to the sequences' KV caches.
    ///
    /// `hidden` is `(rows, hidden)` in the activation type: the sequences' rows one after the other, each sequence's
    /// at positions `cache.len()` and on. So is the result. With our kernels a row's result is the same, bit for bit,
    /// whatever else shares the call; on an accelerator up to rounding. On an error no cache has advanced.
    ///
    /// # Errors
    /// [`ModelError`] if blocks, caches, rows or shapes do not fit, or a cache or its arena has no room left.
    pub fn forward(
        &self,
        range: BlockRange,
        hidden: &Tensor,
        sequences: &mut [Sequence<'_>],
    ) -> Result<Tensor, ModelError> {
        self.check_hosted(range)?;
        self.check_input(hidden, sequences)?;
        sequences.iter().try_for_each(|sequence| self.check_cache(range, sequence))?;
        let first = (range.start() - self.range.start()) as usize;
        let asked = first..first + range.len() as usize;
        let hidden = hidden.contiguous()?;
        match &self.hosted {
            Hosted::Host(blocks) => {
                let mut parts = self.parts(sequences, KvCache::as_host)?;
                self.forward_here(&blocks[asked], hidden, &mut parts)
            }
            Hosted::Device(blocks) => {
                let mut parts = self.parts(sequences, KvCache::as_device)?;
                blocks.forward(asked, &self.config, &self.frequencies, &hidden, &mut parts)
            }
        }
    }

    fn forward_here(
        &self,
        blocks: &[Block],
        hidden: Tensor,
        sequences: &mut [Part<'_, kv::KvCache>],
    ) -> Result<Tensor, ModelError> {
        let plans = sequences.iter().map(|sequence| sequence.cache.plan(sequence.rows));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        sequences.iter_mut().zip(plans).for_each(|(sequence, plan)| sequence.cache.grow(plan));
        let result = self.compute_here(blocks, hidden, sequences);
        for sequence in sequences {
            match result {
                Ok(_) => sequence.cache.advance(sequence.rows),
                Err(_) => sequence.cache.shrink(),
            }
        }
        result
    }

    /// Our kernels, with everything checked and pages for all rows.
    fn compute_here(
        &self,
        blocks: &[Block],
        mut hidden: Tensor,
        sequences: &mut [Part<'_, kv::KvCache>],
    ) -> Result<Tensor, ModelError> {
        let positions = sequences.iter().flat_map(|s| s.cache.len()..s.cache.len() + s.rows);
        let turns = self.frequencies.turns(positions)?;
        let step = Step { config: &self.config, shape: self.kv_shape(), turns };
        awake(|| {
            for (index, block) in blocks.iter().enumerate() {
                hidden = block.forward(&step, &hidden, index, sequences)?;
            }
            Ok(hidden)
        })
    }

    /// The sequences with their caches as `kind` of cache.
    fn parts<'a, C>(
        &self,
        sequences: &'a mut [Sequence<'_>],
        kind: impl Fn(&mut KvCache) -> Option<&mut C>,
    ) -> Result<Vec<Part<'a, C>>, ModelError> {
        let part = |sequence: &'a mut Sequence<'_>| {
            let cache = kind(sequence.cache).ok_or_else(|| ModelError::WrongCache {
                cache: "keys and values of another device".into(),
                asked: format!("those of {}", self.numeric_class),
            })?;
            Ok(Part { cache, rows: sequence.rows })
        };
        sequences.iter_mut().map(part).collect()
    }

    fn check_hosted(&self, asked: BlockRange) -> Result<(), ModelError> {
        if self.range.covers(asked) {
            return Ok(());
        }
        let hosted = self.range;
        Err(ModelError::RangeNotLoaded { asked, hosted })
    }

    fn check_input(&self, hidden: &Tensor, sequences: &[Sequence<'_>]) -> Result<(), ModelError> {
        let add = |sum: usize, sequence: &Sequence<'_>| sum.saturating_add(sequence.rows);
        let rows = sequences.iter().fold(0, add);
        let empty = sequences.is_empty() || sequences.iter().any(|sequence| sequence.rows == 0);
        let dtype = activations::dtype(self.format);
        let fits = hidden.dims() == [rows, self.config.hidden] && hidden.dtype() == dtype;
        if fits && !empty && hidden.device().is_cpu() {
            return Ok(());
        }
        Err(ModelError::BadInput {
            found: format!("{:?} {:?} for {rows} rows", hidden.dtype(), hidden.dims()),
            expected: format!("{dtype:?} ({rows}, {}), a row or more for each sequence", self.config.hidden),
        })
    }

    fn check_cache(&self, range: BlockRange, sequence: &Sequence<'_>) -> Result<(), ModelError> {
        sequence.cache.check_kind(range, self.kv_shape())?;
        sequence.cache.check_room(sequence.rows)
    }
}
