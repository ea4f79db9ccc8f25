//! The same texts computed in this process by as many threads as the stages can have cores: the ideal.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use swarm_model::{Blocks, ComputePool, Edges, History, KvCache, Sampler, SamplingConfig, Sequence, Tensor};

use crate::workload::RandomModel;

/// All blocks, embedding and head, and threads for each part of the texts.
pub(crate) struct Here {
    blocks: Blocks,
    edges: Edges,
    pools: Vec<ComputePool>,
}

/// Parts into which the texts are divided, each computed at the same time as the others: one for each stage, as far as there
/// are cores for the stages' threads.
pub(crate) fn parts(stages: u32, threads: usize, cores: usize) -> usize {
    (cores / threads.max(1)).clamp(1, stages as usize)
}

impl Here {
    /// # Errors
    /// If the model cannot be loaded.
    pub(crate) fn load(files: &RandomModel, parts: usize, threads: usize) -> Result<Self> {
        let checkpoint = files.open()?;
        let (format, all) = (checkpoint.native_format(), checkpoint.config().all_blocks()?);
        let pools = (0..parts).map(|_| Ok(ComputePool::new(threads)?)).collect::<Result<_>>()?;
        let blocks = checkpoint.load_blocks(all, format, &mut |_| ())?;
        Ok(Self { blocks, edges: checkpoint.load_edges(format)?, pools })
    }

    /// Continues each prompt by `tokens` tokens: every part computes its prompts one after the other and then decodes them in
    /// one pass a token. Gives the texts in order, and the time until the last is complete.
    ///
    /// # Errors
    /// The model's.
    pub(crate) fn generate(&self, prompts: &[Vec<u32>], tokens: usize) -> Result<(Vec<Vec<u32>>, Duration)> {
        let share = prompts.len().div_ceil(self.pools.len());
        let start = Instant::now();
        let texts: Vec<_> = std::thread::scope(|scope| {
            let parts = self.pools.iter().zip(prompts.chunks(share));
            let threads: Vec<_> =
                parts.map(|(pool, prompts)| scope.spawn(|| pool.run(|| self.part(prompts, tokens)))).collect();
            let joined =
                threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread has panicked"))?);
            joined.collect::<Result<Vec<_>>>()
        })?;
        Ok((texts.into_iter().flatten().collect(), start.elapsed()))
    }

    fn part(&self, prompts: &[Vec<u32>], tokens: usize) -> Result<Vec<Vec<u32>>> {
        let mut texts = prompts.iter().map(|prompt| self.begin(prompt, tokens)).collect::<Result<Vec<_>>>()?;
        for _ in 1..tokens {
            let ids = texts.iter().filter_map(|text| text.tokens.last().copied()).collect::<Vec<_>>();
            let mut sequences: Vec<_> =
                texts.iter_mut().map(|text| Sequence { cache: &mut text.cache, rows: 1 }).collect();
            let output = self.blocks.forward(self.blocks.range(), &self.edges.embed(&ids)?, &mut sequences)?;
            for (row, text) in texts.iter_mut().enumerate() {
                text.tokens.push(self.next(&output.narrow(0, row, 1)?)?);
            }
        }
        Ok(texts.into_iter().map(|text| text.tokens).collect())
    }

    fn begin(&self, prompt: &[u32], tokens: usize) -> Result<Text> {
        let mut cache = self.blocks.new_cache(self.blocks.range(), prompt.len() + tokens)?;
        let mut sequence = [Sequence { cache: &mut cache, rows: prompt.len() }];
        let output = self.blocks.forward(self.blocks.range(), &self.edges.embed(prompt)?, &mut sequence)?;
        let last = prompt.len().checked_sub(1).context("an empty prompt")?;
        let first = self.next(&output.narrow(0, last, 1)?)?;
        Ok(Text { cache, tokens: vec![first] })
    }

    /// The token after a row, which the client works out for each text by itself.
    fn next(&self, row: &Tensor) -> Result<u32> {
        let logits = self.edges.logits(row)?.squeeze(0)?;
        Ok(Sampler::new(&SamplingConfig::default())?.sample(&logits, &History::default())?)
    }
}

/// A text that is being written.
struct Text {
    cache: KvCache,
    tokens: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use swarm_model::synthetic::SyntheticSpec;

    use super::*;
    use crate::workload::some_ids;

    #[test]
    fn stages_share_the_cores_there_are() {
        assert_eq!([parts(3, 1, 2), parts(3, 1, 8), parts(3, 4, 2), parts(3, 2, 4)], [2, 3, 1, 2]);
    }

    #[test]
    fn a_text_is_the_same_however_the_prompts_are_divided() -> Result<()> {
        let files = RandomModel::write(SyntheticSpec::default())?;
        let prompts: Vec<Vec<u32>> = (1..6).map(some_ids).collect();
        let (texts, _) = Here::load(&files, 1, 1)?.generate(&prompts, 4)?;
        assert_eq!(texts, Here::load(&files, 2, 1)?.generate(&prompts, 4)?.0);
        assert!(texts.iter().all(|text| text.len() == 4));
        Ok(())
    }
}
