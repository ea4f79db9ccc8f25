//! Decoding far into a text: a step reads the weights and all keys and values of the sequence.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, ComputePool, KvFormat, ModelSpec};
use swarm_protocol::model_id::WeightFormat;

use crate::aside::aside;
use crate::compute::limits::Limits;
use crate::compute::ours::{Ours, Prepared};
use crate::compute::workloads::Workload;
use crate::goal::Goal;
use crate::machine::{Machine, cores};
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, format_names, one_billion_shape};

/// A step's time over the time in which what it reads can be read.
const GOAL_TIMES: f64 = 1.3;

/// How far, how often, and on how many threads.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Positions that the step sees, its own among them.
    #[arg(long, default_value_t = 8192)]
    context: usize,
    /// Blocks that a step goes through.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Rounds; in each, every format takes one step.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Threads; one for each core if not given.
    #[arg(long, default_value_t = cores())]
    threads: usize,
    /// Weight formats.
    #[arg(long, value_delimiter = ',', default_values_t = WeightFormat::CONVERTED)]
    #[serde(serialize_with = "format_names")]
    formats: Vec<WeightFormat>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    context: usize,
    read_gb_per_second: Summary,
    rows: Vec<Row>,
}

/// One format; milliseconds per block.
#[derive(Debug, Serialize)]
struct Row {
    format: &'static str,
    step: Summary,
    /// In which the block's weights can be read.
    weights_ms: f64,
    /// In which the sequence's keys and values of the block can be read.
    kv_ms: f64,
}

impl Row {
    fn times(&self) -> f64 {
        self.step.median / (self.weights_ms + self.kv_ms)
    }
}

/// Measures all formats.
///
/// # Errors
/// If the blocks cannot be loaded.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let max_positions = settings.context;
    let model = RandomModel::write(SyntheticSpec { max_positions, ..one_billion_shape(settings.blocks) })?;
    let directory = model.path().to_path_buf();
    let measured = settings.clone();
    let results = aside(move || measure(&directory, &measured)).await?;
    let goals = results.goals();
    Ok(Report { benchmark: "long", machine, settings, results, goals })
}

/// One format's blocks and a sequence.
struct Loaded {
    format: WeightFormat,
    ours: Ours,
    sequence: Prepared,
    /// Milliseconds per block; the first found cold caches.
    times: Vec<f64>,
}

impl Loaded {
    fn load(checkpoint: &Checkpoint, format: WeightFormat, past: usize) -> Result<Self> {
        let ours = Ours::load(checkpoint, format)?;
        let step = Workload { name: "", sequences: 1, rows: 1, past, every: 1 };
        let sequence = ours.prepare(&step, checkpoint.load_edges(format)?.embed(&[0])?)?;
        Ok(Self { format, ours, sequence, times: Vec::new() })
    }

    fn step(&mut self) -> Result<f64> {
        self.sequence.rewind();
        let start = Instant::now();
        self.ours.run(&mut self.sequence)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

fn measure(directory: &Path, settings: &Settings) -> Result<Results> {
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.to_path_buf()))?;
    let (config, pool) = (checkpoint.config(), ComputePool::new(settings.threads)?);
    let past = settings.context.checked_sub(1).context("a step sees its own position at least: --context 1 or more")?;
    let load = |format: &WeightFormat| pool.run(|| Loaded::load(&checkpoint, *format, past));
    let mut formats = settings.formats.iter().map(load).collect::<Result<Vec<_>>>()?;
    let limits = Limits::new(settings.threads)?;
    let mut reads = Vec::new();
    for _ in 0..=settings.rounds {
        reads.push(limits.read_rate());
        for loaded in &mut formats {
            let time = pool.run(|| loaded.step())? / f64::from(config.blocks);
            loaded.times.push(time);
        }
    }
    let read = Summary::of(reads);
    let row = |loaded: &Loaded| Row {
        format: loaded.format.name(),
        step: Summary::of(loaded.times.iter().skip(1).copied()),
        weights_ms: config.block_bytes(loaded.format) as f64 / 1e6 / read.median,
        kv_ms: (config.kv_bytes_per_token_block(loaded.format, KvFormat::Activations) * settings.context as u64) as f64
            / 1e6
            / read.median,
    };
    Ok(Results {
        model: format!("{} random blocks, the shape of Llama 3.2 1B", config.blocks),
        context: settings.context,
        read_gb_per_second: read,
        rows: formats.iter().map(row).collect(),
    })
}

impl Results {
    fn goals(&self) -> Vec<Goal> {
        let goal = |row: &Row| {
            let what = format!("{}'s step that sees {} positions takes", row.format, self.context);
            Goal::new(what, "times what reading takes", GOAL_TIMES, row.times())
        };
        self.rows.iter().map(goal).collect()
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |row: &Row| {
            vec![
                row.format.to_string(),
                row.step.to_string(),
                format!("{:.2}", row.weights_ms),
                format!("{:.2}", row.kv_ms),
                format!("{:.2}x", row.times()),
            ]
        };
        vec![Table {
            title: format!(
                "Milliseconds per block, median (quartiles): {}, {} positions seen; memory is read at {:.1} GB/s",
                self.model, self.context, self.read_gb_per_second
            ),
            header: vec!["format", "a step", "reading the weights", "reading keys and values", "over reading"],
            rows: self.rows.iter().map(row).collect(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_held_against_weights_and_keys_and_values_together() {
        let one = Summary::of([1.0]);
        let row = Row { format: "bf16", step: Summary::of([5.2]), weights_ms: 3.0, kv_ms: 1.0 };
        let results = Results { model: String::new(), context: 8192, read_gb_per_second: one, rows: vec![row] };
        let goals: Vec<String> = results.goals().iter().map(ToString::to_string).collect();
        let text =
            "bf16's step that sees 8192 positions takes 1.30 times what reading takes, goal at most 1.3 times what";
        assert_eq!(goals, [format!("met: {text} reading takes")]);
    }
}
