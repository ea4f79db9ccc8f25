//! The random models that are measured.

use std::path::Path;

use anyhow::Result;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, ModelSpec};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use tempfile::TempDir;

/// A random checkpoint on disk; it goes away with the value.
pub(crate) struct RandomModel {
    pub(crate) spec: SyntheticSpec,
    directory: TempDir,
}

impl RandomModel {
    /// Writes the checkpoint.
    ///
    /// # Errors
    /// If the temporary directory cannot hold it.
    pub(crate) fn write(spec: SyntheticSpec) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("swarm-bench-").tempdir()?;
        spec.write(directory.path())?;
        Ok(Self { spec, directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// # Errors
    /// If it cannot be read.
    pub(crate) fn open(&self) -> Result<Checkpoint> {
        Ok(Checkpoint::open(&ModelSpec::Directory(self.path().to_path_buf()))?)
    }

    pub(crate) fn block_weights(&self) -> usize {
        (self.spec.parameters() - self.edge_weights()) / self.spec.blocks
    }

    /// Weights of embedding, final norm and head.
    pub(crate) fn edge_weights(&self) -> usize {
        SyntheticSpec { blocks: 0, ..self.spec.clone() }.parameters()
    }
}

/// 194M weights in 16 blocks of bf16, with the demo model's vocabulary: a few tens of milliseconds a token on one core, so
/// that a millisecond a hop can be seen.
pub(crate) fn small_llama() -> SyntheticSpec {
    SyntheticSpec {
        hidden: 1024,
        intermediate: 3072,
        blocks: 16,
        heads: 16,
        kv_heads: 4,
        head_dim: 64,
        dtype: WeightFormat::Bf16,
        ..SyntheticSpec::default()
    }
}

/// Blocks of the shape of Llama 3.2 1B, 60.8M weights each, larger than the processor's caches; next to no vocabulary.
pub(crate) fn one_billion_shape(blocks: usize) -> SyntheticSpec {
    SyntheticSpec {
        hidden: 2048,
        intermediate: 8192,
        blocks,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        vocab: 64,
        dtype: WeightFormat::Bf16,
        ..SyntheticSpec::default()
    }
}

/// `blocks` blocks in `parts` ranges as equal as can be.
///
/// # Errors
/// If there are fewer blocks than parts.
pub(crate) fn even_ranges(blocks: u32, parts: u32) -> Result<Vec<BlockRange>> {
    let cut = |part: u32| blocks * part / parts;
    (0..parts).map(|part| Ok(BlockRange::new(cut(part), cut(part + 1))?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_even_and_cover_everything() -> Result<()> {
        let ranges: Vec<String> = even_ranges(16, 3)?.iter().map(BlockRange::to_string).collect();
        assert_eq!(ranges, ["0..5", "5..10", "10..16"]);
        Ok(())
    }
}
