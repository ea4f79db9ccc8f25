//! swarm-model's blocks.

use anyhow::Result;
use swarm_model::{Blocks, Checkpoint, KvCache, Sequence, Tensor};
use swarm_protocol::model_id::WeightFormat;

use super::workloads::Workload;

/// What keys and values before the measured call consist of: a small number in every type that they are held in.
const PAST_BYTE: u8 = 0x3D;

/// Loaded blocks.
pub(crate) struct Ours {
    blocks: Blocks,
}

/// A workload's sequences, each at the position where the measured call begins.
pub(crate) struct Prepared {
    caches: Vec<KvCache>,
    past: usize,
    input: Tensor,
}

impl Ours {
    pub(crate) fn load(checkpoint: &Checkpoint, format: WeightFormat) -> Result<Self> {
        let all = checkpoint.config().all_blocks()?;
        Ok(Self { blocks: checkpoint.load_blocks(all, format, &mut |_| ())? })
    }

    /// `input` is `(sequences * rows, hidden)`.
    pub(crate) fn prepare(&self, workload: &Workload, input: Tensor) -> Result<Prepared> {
        let mut cache = self.blocks.new_cache(self.blocks.range(), workload.past + workload.rows)?;
        if workload.past > 0 {
            cache.import(0, &vec![PAST_BYTE; workload.past * cache.bytes_per_position()])?;
        }
        // A clone would share its pages, and several sequences would read the same ones.
        let copies = (0..workload.sequences).map(|_| self.copy(&cache));
        Ok(Prepared { caches: copies.collect::<Result<_>>()?, past: workload.past, input })
    }

    /// The same keys and values in pages of their own.
    fn copy(&self, cache: &KvCache) -> Result<KvCache> {
        let mut copy = self.blocks.new_cache(cache.range(), cache.max_tokens())?;
        if !cache.is_empty() {
            copy.import(0, &cache.export(0..cache.len())?)?;
        }
        Ok(copy)
    }

    pub(crate) fn run(&self, prepared: &mut Prepared) -> Result<Tensor> {
        let rows = prepared.input.dims()[0] / prepared.caches.len();
        let mut sequences: Vec<Sequence<'_>> =
            prepared.caches.iter_mut().map(|cache| Sequence { cache, rows }).collect();
        Ok(self.blocks.forward(self.blocks.range(), &prepared.input, &mut sequences)?)
    }
}

impl Prepared {
    /// Back to where the measured call begins.
    pub(crate) fn rewind(&mut self) {
        self.caches.iter_mut().for_each(|cache| cache.truncate(self.past));
    }
}
