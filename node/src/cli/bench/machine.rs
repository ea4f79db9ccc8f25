//! Memory, and a block that nobody has to fetch.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, Family, ModelConfig, ModelSpec};
use swarm_protocol::block::BlockRange;
use tempfile::TempDir;

/// Bytes that are read: more than any processor's cache holds.
const READ_BYTES: usize = 256 << 20;

/// How often; the best counts, since others' work on the machine makes some slow.
const ROUNDS: usize = 3;

/// The shape of Llama 3.2 1B, whose blocks everybody can host.
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) blocks: u32,
}

/// Its name for people.
pub(super) const MADE_UP: &str = "a made-up Llama of 1B";

pub(super) const SHAPE: Shape =
    Shape { hidden: 2048, intermediate: 8192, heads: 32, kv_heads: 8, head_dim: 64, blocks: 16 };

/// Bytes a second that `threads` threads read together from memory.
pub(super) fn read_bandwidth(threads: usize) -> u64 {
    let words = vec![1u64; READ_BYTES / size_of::<u64>()];
    let part = words.len().div_ceil(threads.max(1));
    let round = || {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for words in words.chunks(part) {
                scope.spawn(move || black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))));
            }
        });
        began.elapsed()
    };
    let best = (0..ROUNDS).map(|_| round()).min().unwrap_or_default();
    (READ_BYTES as f64 / best.as_secs_f64().max(1e-9)) as u64
}

/// A checkpoint of the shape with random weights, of which one block is there; gone with its folder.
pub(super) fn made_up() -> Result<(TempDir, Checkpoint)> {
    let folder =
        tempfile::tempdir().context("cannot make a folder for a made-up model; set TMPDIR to one you may write to")?;
    let Shape { hidden, intermediate, heads, kv_heads, head_dim, .. } = SHAPE;
    let spec = SyntheticSpec {
        family: Family::Llama,
        hidden,
        intermediate,
        heads,
        kv_heads,
        head_dim,
        blocks: 1,
        ..SyntheticSpec::default()
    };
    spec.write(folder.path())?;
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(folder.path().to_path_buf()))?;
    Ok((folder, checkpoint))
}

/// The block that is measured: the last of the first half, or the only one.
pub(super) fn one_block(config: &ModelConfig) -> Result<BlockRange> {
    super::middle(config.blocks)
}
