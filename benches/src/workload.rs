//! The random models that are measured.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, ModelSpec, Tensor, activations};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use tempfile::TempDir;

/// Ordinary tokens of the demo's vocabulary: the first, and how many there are at least.
const FIRST_ID: u32 = 8;
const IDS: u32 = 1000;

/// Coprime to [`IDS`], so that all of them come before one comes again.
const ID_STEP: u32 = 7;

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
        without_end(&directory.path().join("config.json"))?;
        out_of_cache(directory.path())?;
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
}

/// Drops files from the page cache, so that whoever reads them first brings them there in its own way: so they come on a server,
/// while those that were just written lie there in pages of any size. Does nothing where files are in memory only.
fn out_of_cache(directory: &Path) -> Result<()> {
    for file in fs::read_dir(directory)? {
        let file = File::open(file?.path())?;
        file.sync_all()?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Takes away the tokens that end a text: a random model would end it anywhere.
fn without_end(config: &Path) -> Result<()> {
    let mut values: Value = serde_json::from_slice(&fs::read(config)?)?;
    values["eos_token_id"] = json!([]);
    Ok(fs::write(config, serde_json::to_vec_pretty(&values)?)?)
}

/// `count` token ids of a model of the demo's vocabulary, all different from their neighbours.
pub(crate) fn some_ids(count: usize) -> Vec<u32> {
    (0..count as u32).map(|index| FIRST_ID + index * ID_STEP % IDS).collect()
}

/// What computes the same must give the same bits, or its time means nothing.
///
/// # Errors
/// If they differ.
pub(crate) fn same(one: &Tensor, other: &Tensor) -> Result<()> {
    let equal = activations::to_bytes(one)? == activations::to_bytes(other)?;
    ensure!(equal, "two computations of the same outputs differ");
    Ok(())
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

/// Blocks whose activations are as wide as those of the largest models and whose arithmetic is small: a step is travelling.
/// A row of `hidden` 8192 is 16 KiB of bf16, as in Llama 3.1 70B; 16384, as in its 405B, 32 KiB.
pub(crate) fn wide_and_thin(hidden: usize, blocks: usize) -> SyntheticSpec {
    SyntheticSpec {
        hidden,
        intermediate: 256,
        blocks,
        heads: 4,
        kv_heads: 1,
        head_dim: 64,
        vocab: 64,
        dtype: WeightFormat::Bf16,
        ..SyntheticSpec::default()
    }
}

/// Blocks of 0.5M weights with one head for long prompts: so small that three servers and the network between them fit on
/// two cores, while 100 Mbit/s links are busy.
pub(crate) fn long_context(blocks: usize) -> SyntheticSpec {
    SyntheticSpec {
        hidden: 1024,
        intermediate: 64,
        blocks,
        heads: 1,
        kv_heads: 1,
        head_dim: 64,
        max_positions: 4096,
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

/// Formats in a report's settings: their names.
pub(crate) fn format_names<S: serde::Serializer>(
    formats: &[WeightFormat],
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
    to.collect_str(&names.join(","))
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
