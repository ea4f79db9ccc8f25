//! How fast blocks compute: milliseconds per block beside what the machine's memory and arithmetic allow, candle-transformers'
//! Llamas, and llama.cpp, all on the same shape and threads.

mod candle;
mod candle_quantised;
mod contest;
pub(crate) mod limits;
mod llama_cpp;
pub(crate) mod ours;
mod results;
pub(crate) mod workloads;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use swarm_model::{Checkpoint, ComputePool, ModelSpec};
use swarm_protocol::model_id::WeightFormat;

use self::contest::Loaded;
use self::limits::Limits;
use self::llama_cpp::LlamaCpp;
use self::results::{Results, Row};
use crate::aside::aside;
use crate::machine::{Machine, cores};
use crate::report::Report;
use crate::stats::Summary;
use crate::workload::{RandomModel, format_names, one_billion_shape};

/// candle splits some of its work by this variable, which is read once.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// How much, how often, and on how many threads.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Blocks that a call goes through.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Rounds; in each, everything that is compared runs once. Prompts take part in every fifth.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Threads; one for each core if not given.
    #[arg(long, default_value_t = cores())]
    threads: usize,
    /// Weight formats.
    #[arg(long, value_delimiter = ',', default_values_t = WeightFormat::CONVERTED)]
    #[serde(serialize_with = "format_names")]
    formats: Vec<WeightFormat>,
    /// A Python with `llama-cpp-python` and `numpy`: measure llama.cpp as well.
    #[arg(long, value_name = "PYTHON")]
    llama_cpp: Option<PathBuf>,
}

/// Measures all formats under all workloads.
///
/// # Errors
/// If the blocks cannot be loaded, or llama.cpp does not run.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    with_threads_variable(settings.threads)?;
    let machine = Machine::here();
    let model = RandomModel::write(one_billion_shape(settings.blocks))?;
    let directory = model.path().to_path_buf();
    let measured = settings.clone();
    let results = aside(move || measure(&directory, &measured)).await?;
    let goals = results.goals();
    Ok(Report { benchmark: "compute", machine, settings, results, goals })
}

fn measure(directory: &Path, settings: &Settings) -> Result<Results> {
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.to_path_buf()))?;
    let pool = ComputePool::new(settings.threads)?;
    let load = |format: &WeightFormat| pool.run(|| Loaded::load(directory, &checkpoint, *format));
    let mut formats = settings.formats.iter().map(load).collect::<Result<Vec<_>>>()?;
    let start = |python: &PathBuf| LlamaCpp::start(python, directory, &settings.formats, settings.threads);
    let mut llama_cpp = settings.llama_cpp.as_ref().map(start).transpose()?;
    let limits = Limits::new(settings.threads)?;
    let blocks = f64::from(checkpoint.config().blocks);
    let (mut reads, mut multiply_adds) = (Vec::new(), Vec::new());
    for round in 0..=settings.rounds {
        reads.push(limits.read_rate());
        multiply_adds.push(limits.multiply_add_rate());
        formats.iter_mut().try_for_each(|loaded| loaded.round(round, &pool, llama_cpp.as_mut(), blocks))?;
    }
    let (read, multiply_add) = (Summary::of(reads), Summary::of(multiply_adds));
    let config = checkpoint.config();
    let weights = config.block_bytes(WeightFormat::F32) as f64 / 4.0;
    let mut rows = Vec::new();
    for loaded in &formats {
        let read_ms = config.block_bytes(loaded.format) as f64 / 1e6 / read.median;
        for contest in &loaded.contests {
            let operations = 2.0 * weights * contest.workload.all_rows() as f64;
            rows.push(Row::of(loaded, contest, read_ms, operations / 1e6 / multiply_add.median));
        }
    }
    Ok(Results {
        model: format!("{blocks} blocks of {weights:.0} random weights, the shape of Llama 3.2 1B"),
        llama_cpp: llama_cpp.map(|other| other.about.clone()),
        read_gb_per_second: read,
        multiply_add_gf_per_second: multiply_add,
        rows,
    })
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
