//! Blocks out of a GGUF file beside the same format quantised at load: a step of one row and of eight.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use swarm_model::synthetic::{GgufTypes, gguf_of, write_gguf};
use swarm_model::{Checkpoint, ComputePool, ModelSpec};
use swarm_protocol::model_id::WeightFormat;

use crate::aside::aside;
use crate::compute::ours::{Ours, Prepared};
use crate::compute::workloads::{BEFORE, Workload};
use crate::goal::Goal;
use crate::machine::{Machine, cores};
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, one_billion_shape};

/// A step of a file's blocks over one of the same blocks quantised at load.
const GOAL_TIMES: f64 = 1.1;

/// Positions before each step, as in `compute`.
const PAST: usize = BEFORE;

/// How often, and on how many threads.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Blocks that a step goes through.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Rounds; in each, everything that is compared takes one step.
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// Threads; one for each core if not given.
    #[arg(long, default_value_t = cores())]
    threads: usize,
}

/// Milliseconds per block.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    at_load: Summary,
    in_file: Summary,
    /// The one over the other, round by round.
    times: Summary,
}

/// Measures.
///
/// # Errors
/// If the blocks cannot be loaded.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let model = RandomModel::write(one_billion_shape(settings.blocks))?;
    let directory = model.path().to_path_buf();
    let measured = settings.clone();
    let results = aside(move || measure(&directory, &measured)).await?;
    let goal = |row: &Row| {
        let what = format!("{} of a Q4_K GGUF file takes", row.what);
        Goal::new(what, "times what it takes quantised at load", GOAL_TIMES, row.times.median)
    };
    let goals = results.rows.iter().map(goal).collect();
    Ok(Report { benchmark: "gguf", machine, settings, results, goals })
}

/// The blocks of one source, and what is measured of them.
struct Contender {
    ours: Ours,
    /// For each workload a sequence or several, and milliseconds per block.
    runs: Vec<(Prepared, Vec<f64>)>,
}

impl Contender {
    fn load(checkpoint: &Checkpoint, format: WeightFormat, workloads: &[Workload]) -> Result<Self> {
        let ours = Ours::load(checkpoint, format)?;
        let edges = checkpoint.load_edges(format)?;
        let prepare = |workload: &Workload| {
            let ids = vec![0; workload.sequences * workload.rows];
            Ok((ours.prepare(workload, edges.embed(&ids)?)?, Vec::new()))
        };
        let runs = workloads.iter().map(prepare).collect::<Result<_>>()?;
        Ok(Self { ours, runs })
    }

    fn round(&mut self, blocks: f64) -> Result<()> {
        for (prepared, times) in &mut self.runs {
            prepared.rewind();
            let start = Instant::now();
            self.ours.run(prepared)?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / blocks);
        }
        Ok(())
    }
}

fn measure(directory: &Path, settings: &Settings) -> Result<Results> {
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.to_path_buf()))?;
    let file = directory.join("model.gguf");
    write_gguf(&gguf_of(&checkpoint, &GgufTypes::all("q4_k", "f16"))?, &file, 1)?;
    let gguf = Checkpoint::open(&ModelSpec::Gguf(file))?;
    let workload = |name, sequences| Workload { name, sequences, rows: 1, past: PAST, every: 1 };
    let workloads = [workload("one row", 1), workload("eight rows", 8)];
    let (pool, blocks) = (ComputePool::new(settings.threads)?, f64::from(checkpoint.config().blocks));
    let load = |checkpoint, format| pool.run(|| Contender::load(checkpoint, format, &workloads));
    let (mut at_load, mut in_file) = (load(&checkpoint, WeightFormat::Q4K)?, load(&gguf, WeightFormat::Gguf)?);
    // The first finds cold caches and is left out.
    for _ in 0..=settings.rounds {
        pool.run(|| at_load.round(blocks))?;
        pool.run(|| in_file.round(blocks))?;
    }
    let pairs = workloads.iter().zip(at_load.runs.iter().zip(&in_file.runs));
    let rows = pairs.map(|(workload, ((_, at_load), (_, in_file)))| Row {
        what: workload.name,
        at_load: Summary::of(at_load[1..].iter().copied()),
        in_file: Summary::of(in_file[1..].iter().copied()),
        times: Summary::of(at_load[1..].iter().zip(&in_file[1..]).map(|(at_load, in_file)| in_file / at_load)),
    });
    let model = format!("{blocks} random blocks, the shape of Llama 3.2 1B, Q4_K");
    Ok(Results { model, rows: rows.collect() })
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |row: &Row| {
            vec![row.what.to_string(), row.at_load.to_string(), row.in_file.to_string(), row.times.to_string()]
        };
        vec![Table {
            title: format!("Milliseconds per block, median (quartiles): {}", self.model),
            header: vec!["a step of", "quantised at load", "GGUF file", "times"],
            rows: self.rows.iter().map(row).collect(),
        }]
    }
}
