//! How fast blocks compute: milliseconds per block beside candle-transformers' Llama and the machine's read bandwidth, all
//! on the same weights and threads.

mod bandwidth;
mod candle;
mod ours;
mod workloads;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use swarm_model::{Checkpoint, ComputePool, ModelSpec, Tensor, activations};
use swarm_protocol::model_id::WeightFormat;
use tokio::sync::oneshot;

use self::bandwidth::Bandwidth;
use self::candle::Candle;
use self::ours::Ours;
use self::workloads::{WORKLOADS, Workload};
use crate::goal::Goal;
use crate::machine::{Machine, cores};
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, one_billion_shape};

/// candle splits some of its work by this variable, which is read once.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16];

/// The file of a random checkpoint's weights.
const WEIGHTS: &str = "model.safetensors";

/// How much, how often, and on how many threads.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Blocks that a call goes through.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Rounds; in each, everything that is compared runs once.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Threads; one for each core if not given.
    #[arg(long, default_value_t = cores())]
    threads: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    read_gb_per_second: Summary,
    rows: Vec<Row>,
}

/// One format under one workload.
#[derive(Debug, Serialize)]
struct Row {
    format: &'static str,
    workload: Workload,
    /// Milliseconds per block.
    ours: Summary,
    /// Milliseconds per block.
    candle: Summary,
    /// Milliseconds in which the block's weights can be read.
    read_ms: f64,
}

/// Measures all formats under all workloads.
///
/// # Errors
/// If the blocks cannot be loaded.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    with_threads_variable(settings.threads)?;
    let machine = Machine::here();
    let model = RandomModel::write(one_billion_shape(settings.blocks))?;
    let (weights, directory) = (model.block_weights(), model.path().to_path_buf());
    let (done, results) = oneshot::channel();
    let (rounds, threads) = (settings.rounds, settings.threads);
    // A thread of its own, which nobody waits for when this process is told to stop.
    std::thread::spawn(move || {
        // Then nobody is there to be told.
        let _ = done.send(measure(&directory, weights, rounds, threads));
    });
    let results = results.await??;
    let goals = results.goals();
    Ok(Report { benchmark: "compute", machine, settings, results, goals })
}

fn measure(directory: &Path, weights: usize, rounds: usize, threads: usize) -> Result<Results> {
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.to_path_buf()))?;
    let pool = ComputePool::new(threads)?;
    let load = |format| pool.run(|| Loaded::load(directory, &checkpoint, format));
    let mut formats = FORMATS.into_iter().map(load).collect::<Result<Vec<_>>>()?;
    let bandwidth = Bandwidth::new(threads);
    let mut reads = Vec::new();
    for _ in 0..=rounds {
        reads.push(bandwidth.measure());
        pool.run(|| formats.iter_mut().try_for_each(Loaded::round))?;
    }
    let read_gb_per_second = Summary::of(reads);
    let read_ms = |format| (weights * activations::element_bytes(format)) as f64 / 1e6 / read_gb_per_second.median;
    let blocks = checkpoint.config().blocks;
    let rows = formats.iter().flat_map(|loaded| loaded.rows(blocks, read_ms(loaded.format))).collect();
    let model = format!("{blocks} blocks of {weights} random weights, the shape of Llama 3.2 1B");
    Ok(Results { model, read_gb_per_second, rows })
}

/// Starts this program anew with the variable set, unless it is.
fn with_threads_variable(threads: usize) -> Result<()> {
    let threads = threads.to_string();
    if std::env::var(THREADS_VARIABLE).is_ok_and(|set| set == threads) {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(THREADS_VARIABLE, threads).exec().into())
}

/// The blocks in one format, loaded by both.
struct Loaded {
    format: WeightFormat,
    ours: Ours,
    candle: Candle,
    contests: Vec<Contest>,
}

/// One workload, ready to run.
struct Contest {
    workload: Workload,
    ours: ours::Prepared,
    candle: candle::Prepared,
    /// Milliseconds of a call.
    times: Vec<(f64, f64)>,
}

impl Loaded {
    fn load(directory: &Path, checkpoint: &Checkpoint, format: WeightFormat) -> Result<Self> {
        let ours = Ours::load(checkpoint, format)?;
        let candle = Candle::load(&directory.join(WEIGHTS), checkpoint.config(), activations::dtype(format))?;
        let edges = checkpoint.load_edges(format)?;
        let embed = |count: usize| {
            let vocab = checkpoint.config().vocab as u32;
            edges.embed(&(0..count as u32).map(|index| index % vocab).collect::<Vec<_>>())
        };
        let contest = |workload: Workload| {
            let past = embed(workload.past.max(1))?;
            let input = embed(workload.sequences * workload.rows)?;
            let candle = candle.prepare(&workload, &past, &input)?;
            Ok(Contest { workload, ours: ours.prepare(&workload, &past, input)?, candle, times: Vec::new() })
        };
        let contests = WORKLOADS.into_iter().map(contest).collect::<Result<_>>()?;
        Ok(Self { format, ours, candle, contests })
    }

    fn round(&mut self) -> Result<()> {
        for contest in &mut self.contests {
            contest.ours.rewind();
            let ours = timed(|| self.ours.run(&mut contest.ours))?;
            let candle = timed(|| self.candle.run(&contest.candle))?;
            contest.times.push((ours, candle));
        }
        Ok(())
    }

    /// The first round found cold caches and is left out.
    fn rows(&self, blocks: u32, read_ms: f64) -> impl Iterator<Item = Row> {
        self.contests.iter().map(move |contest| {
            let times = contest.times.iter().skip(1);
            let per_block = |time: f64| time / f64::from(blocks);
            Row {
                format: self.format.name(),
                workload: contest.workload,
                ours: Summary::of(times.clone().map(|(ours, _)| per_block(*ours))),
                candle: Summary::of(times.map(|(_, candle)| per_block(*candle))),
                read_ms,
            }
        })
    }
}

fn timed(call: impl FnOnce() -> Result<Tensor>) -> Result<f64> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

impl Results {
    /// bf16 must not be slower than f32, of which it reads half the bytes.
    fn goals(&self) -> Vec<Goal> {
        let median = |format: WeightFormat, workload: &Workload| {
            let found = self.rows.iter().find(|row| row.format == format.name() && row.workload.name == workload.name);
            found.map_or(f64::NAN, |row| row.ours.median)
        };
        let goal = |workload: &Workload| {
            let ratio = median(WeightFormat::Bf16, workload) / median(WeightFormat::F32, workload);
            Goal::new(format!("bf16's time for {} over f32's", workload.name), "times", 1.0, ratio)
        };
        WORKLOADS.iter().map(goal).collect()
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |row: &Row| {
            vec![
                format!("{} {}", row.format, row.workload.name),
                row.ours.to_string(),
                row.candle.to_string(),
                format!("{:.1}x", row.candle.median / row.ours.median),
                format!("{:.2}", row.read_ms),
            ]
        };
        let title = format!(
            "Milliseconds per block, median (quartiles): {}; memory is read at {:.1} GB/s",
            self.model, self.read_gb_per_second
        );
        let header = vec!["workload", "swarm-model", "candle-transformers", "ratio", "reading the weights"];
        vec![Table { title, header, rows: self.rows.iter().map(row).collect() }]
    }
}
