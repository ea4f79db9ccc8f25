//! One honest forward pass before anybody is let in, which also measures the server.

use std::time::{Duration, Instant};

use swarm_model::{Blocks, DType, Device, KvCache, ModelError, Sequence, Tensor, activations};
use swarm_protocol::announcement::Rates;
use swarm_protocol::block::BlockRange;

use super::error::ServeError;

/// Rows of the prefill that is timed, through one block: enough for the matrix kernels to come near their speed, few enough
/// for two seconds on the largest blocks there are.
const PREFILL_ROWS: usize = 16;

/// Steps of a kind that are timed at most; quick ones are taken again, since others' work on the machine makes some of them slow.
const MOST_STEPS: usize = 32;

/// Quick steps are timed until so much time has gone.
const ENOUGH: Duration = Duration::from_millis(10);

/// Steps of a kind that are timed, if they take no longer together than `AT_MOST`: the first warms up caches.
const SOME_STEPS: usize = 5;

/// No further step is timed after this time: somebody waits for the server, and what takes so long needs no warming up.
const AT_MOST: Duration = Duration::from_millis(50);

/// Runs some decode steps through all of `blocks`, and a prefill through one, and looks at what comes out. The KV caches are
/// freed.
///
/// # Errors
/// [`ServeError`] if the blocks fail or give numbers that are none.
pub fn self_check(blocks: &Blocks) -> Result<Rates, ServeError> {
    let decode = decode(blocks)?;
    let prefill = prefill(blocks)?;
    let decode_us = (decode.as_micros() as u64) / u64::from(blocks.range().len());
    let prefill_ns = prefill.as_nanos() as u64 / PREFILL_ROWS as u64;
    let at_least_one = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).max(1);
    Ok(Rates { decode_us_per_block: at_least_one(decode_us), prefill_ns_per_token_block: at_least_one(prefill_ns) })
}

/// The time of a step through all blocks.
fn decode(blocks: &Blocks) -> Result<Duration, ServeError> {
    let range = blocks.range();
    let mut cache = blocks.new_cache(range, MOST_STEPS)?;
    fastest(|| step(blocks, range, &mut cache, 1))
}

/// The time of a prefill through the first block: all have one shape, and what their weights are, the decode steps have shown.
fn prefill(blocks: &Blocks) -> Result<Duration, ServeError> {
    let first = blocks.range().start();
    let first = BlockRange::new(first, first + 1).map_err(|error| ServeError::SelfCheck(error.to_string()))?;
    fastest(|| step(blocks, first, &mut blocks.new_cache(first, PREFILL_ROWS)?, PREFILL_ROWS))
}

/// The least time of some steps: what they take when nobody else works on the machine.
fn fastest(mut step: impl FnMut() -> Result<Duration, ServeError>) -> Result<Duration, ServeError> {
    let mut least = step()?;
    let (mut all, mut count) = (least, 1);
    while count < MOST_STEPS && (all < ENOUGH || (count < SOME_STEPS && all < AT_MOST)) {
        let took = step()?;
        (least, all, count) = (least.min(took), all + took, count + 1);
    }
    Ok(least)
}

fn step(blocks: &Blocks, range: BlockRange, cache: &mut KvCache, rows: usize) -> Result<Duration, ServeError> {
    let input = rows_like_embeddings(blocks, cache.len(), rows)?;
    let began = Instant::now();
    let output = blocks.forward(range, &input, &mut [Sequence { cache, rows }])?;
    let took = began.elapsed();
    let values = || -> Result<Vec<f32>, ModelError> { Ok(output.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?) };
    if values()?.iter().any(|value| !value.is_finite()) {
        return Err(ServeError::SelfCheck("the blocks give numbers that are not finite".to_string()));
    }
    Ok(took)
}

/// Rows of small numbers of either sign, the same on every machine.
fn rows_like_embeddings(blocks: &Blocks, position: usize, rows: usize) -> Result<Tensor, ModelError> {
    let hidden = blocks.config().hidden;
    // Multiplying by the golden ratio scatters neighbouring numbers.
    let scatter = |index: usize| (index as u32).wrapping_mul(2_654_435_769);
    let value = |index: usize| (scatter(index) as f32 / u32::MAX as f32 - 0.5) * 0.1;
    let first = position * hidden;
    let values: Vec<f32> = (first..first + rows * hidden).map(value).collect();
    let tensor = Tensor::from_vec(values, (rows, hidden), &Device::Cpu)?;
    Ok(tensor.to_dtype(activations::dtype(blocks.format()))?)
}

#[cfg(test)]
mod tests {
    use swarm_model::{Checkpoint, ModelSpec};

    use super::*;

    #[test]
    fn whole_weights_pass_and_are_measured() {
        let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
        let range = BlockRange::new(3, 5).unwrap();
        let blocks = checkpoint.load_blocks(range, checkpoint.native_format(), &mut |_| {}).unwrap();
        let rates = self_check(&blocks).unwrap();
        assert!(rates.decode_us_per_block > 0 && rates.prefill_ns_per_token_block > 0);
    }

    #[test]
    fn the_quickest_counts_and_slow_ones_are_not_taken_again() {
        let count = |times: &[u64]| {
            let mut taken = 0;
            let least = fastest(|| {
                taken += 1;
                Ok(Duration::from_micros(times[(taken - 1) % times.len()]))
            });
            (least.unwrap().as_micros() as u64, taken)
        };
        assert_eq!(count(&[900, 100, 500]), (100, 20));
        assert_eq!(count(&[1]), (1, MOST_STEPS));
        assert_eq!(count(&[9_000, 8_000]), (8_000, SOME_STEPS));
        assert_eq!(count(&[60_000, 1]), (60_000, 1));
    }
}
