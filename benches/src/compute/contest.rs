//! One format's blocks, loaded by everybody who is compared.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use swarm_model::{Checkpoint, ComputePool, Tensor, activations};
use swarm_protocol::model_id::WeightFormat;

use super::candle::{self, Candle};
use super::candle_quantised::{self, CandleQuantised};
use super::llama_cpp::LlamaCpp;
use super::ours::{self, Ours};
use super::workloads::{WORKLOADS, Workload};

/// The file of a random checkpoint's weights.
const WEIGHTS: &str = "model.safetensors";

/// Rows up to which everybody makes a call once before it is timed, as a step of a text follows another: it wakes threads and finds
/// mapped weights again, which what others do in between may have put out of the processor's reach.
const MOST_WARM_ROWS: usize = 8;

/// The blocks in one format.
pub(crate) struct Loaded {
    pub(crate) format: WeightFormat,
    ours: Ours,
    dense: Option<Candle>,
    pub(crate) contests: Vec<Contest>,
}

/// One workload, ready to run.
pub(crate) struct Contest {
    pub(crate) workload: Workload,
    ours: ours::Prepared,
    dense: Option<candle::Prepared>,
    quantised: Option<candle_quantised::Prepared>,
    /// One for each round in which the workload was measured, the first of which found cold caches.
    pub(crate) times: Vec<Times>,
}

/// Milliseconds per block of one call of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) ours: f64,
    pub(crate) candle: Option<f64>,
    pub(crate) llama_cpp: Option<f64>,
}

impl Loaded {
    /// # Errors
    /// If the blocks cannot be loaded.
    pub(crate) fn load(directory: &Path, checkpoint: &Checkpoint, format: WeightFormat) -> Result<Self> {
        let ours = Ours::load(checkpoint, format)?;
        let weights = directory.join(WEIGHTS);
        let quantised = CandleQuantised::load(&weights, checkpoint.config(), format)?;
        let dense = match quantised {
            None => Some(Candle::load(&weights, checkpoint.config(), activations::dtype(format))?),
            Some(_) => None,
        };
        let edges = checkpoint.load_edges(format)?;
        let embed = |count: usize| {
            let vocab = checkpoint.config().vocab as u32;
            edges.embed(&(0..count as u32).map(|index| index % vocab).collect::<Vec<_>>())
        };
        let contest = |workload: Workload| {
            let input = embed(workload.all_rows())?;
            let past = embed(workload.past.max(1))?;
            Ok(Contest {
                workload,
                dense: dense.as_ref().map(|candle| candle.prepare(&workload, &past, &input)).transpose()?,
                quantised: quantised.as_ref().map(|model| model.prepare(&workload)).transpose()?.flatten(),
                ours: ours.prepare(&workload, input)?,
                times: Vec::new(),
            })
        };
        let contests = WORKLOADS.into_iter().map(contest).collect::<Result<_>>()?;
        Ok(Self { format, ours, dense, contests })
    }

    /// Measures the workloads whose turn it is.
    ///
    /// # Errors
    /// If anybody fails.
    pub(crate) fn round(
        &mut self,
        round: usize,
        pool: &ComputePool,
        mut llama_cpp: Option<&mut LlamaCpp>,
        blocks: f64,
    ) -> Result<()> {
        for contest in &mut self.contests {
            if round > 0 && !(round - 1).is_multiple_of(contest.workload.every) {
                continue;
            }
            let times = if contest.workload.all_rows() <= MOST_WARM_ROWS { 2 } else { 1 };
            let ours = || {
                contest.ours.rewind();
                self.ours.run(&mut contest.ours)
            };
            let ours = pool.run(|| last_of(times, ours))? / blocks;
            let candle = match (&self.dense, &contest.dense, &contest.quantised) {
                (Some(model), Some(prepared), _) => Some(pool.run(|| last_of(times, || model.run(prepared)))? / blocks),
                (_, _, Some(prepared)) => Some(pool.run(|| last_of(times, || prepared.run()))? / blocks),
                _ => None,
            };
            let llama_cpp = match &mut llama_cpp {
                Some(other) => other.measure(self.format, &contest.workload)?,
                None => None,
            };
            contest.times.push(Times { ours, candle, llama_cpp });
        }
        Ok(())
    }
}

/// Makes so many calls; the milliseconds of the last.
fn last_of(times: usize, mut call: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    (1..times).try_for_each(|_| call().map(|_| ()))?;
    let start = Instant::now();
    call()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
