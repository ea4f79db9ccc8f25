//! The blocks of a whole model in this process: what a chain of servers is compared with.

use std::time::Instant;

use anyhow::Result;
use swarm_model::{Blocks, Checkpoint, ComputePool, KvCache, Sequence, Tensor};

use crate::stats::milliseconds;

/// All blocks and one sequence.
pub(crate) struct InProcess {
    blocks: Blocks,
    cache: KvCache,
    pool: ComputePool,
}

impl InProcess {
    /// Loads the blocks, with room for `tokens` positions.
    pub(crate) fn load(checkpoint: &Checkpoint, tokens: usize, threads: usize) -> Result<Self> {
        let all = checkpoint.config().all_blocks()?;
        let blocks = checkpoint.load_blocks(all, checkpoint.native_format(), &mut |_| ())?;
        let cache = blocks.new_cache(all, tokens)?;
        Ok(Self { blocks, cache, pool: ComputePool::new(threads)? })
    }

    /// Forgets the sequence.
    pub(crate) fn clear(&mut self) {
        self.cache.truncate(0);
    }

    pub(crate) fn forward(&mut self, input: &Tensor) -> Result<Tensor> {
        let Self { blocks, cache, pool } = self;
        pool.run(|| step(blocks, cache, input))
    }

    /// Takes `count` steps of the same rows: the last output, and each step's milliseconds.
    pub(crate) fn run(&mut self, input: &Tensor, count: usize) -> Result<(Tensor, Vec<f64>)> {
        let Self { blocks, cache, pool } = self;
        pool.run(|| {
            let mut output = input.clone();
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                output = step(blocks, cache, input)?;
                times.push(milliseconds(start.elapsed()));
            }
            Ok((output, times))
        })
    }
}

fn step(blocks: &Blocks, cache: &mut KvCache, input: &Tensor) -> Result<Tensor> {
    let rows = input.dims()[0];
    Ok(blocks.forward(blocks.range(), input, &mut [Sequence { cache, rows }])?)
}
