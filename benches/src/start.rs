//! How long it takes to start, and what idling costs: a server of eight large blocks, and clients that want one token.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use swarm_model::synthetic::SyntheticSpec;
use swarm_protocol::block::BlockRange;

use crate::goal::Goal;
use crate::idle_client::{FIRST_TOKEN, IDLE};
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::memory::Resident;
use crate::process::Process;
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, one_billion_shape};

const GOAL_READY_S: f64 = 0.5;
const GOAL_FIRST_TOKEN_S: f64 = 2.0;
const GOAL_IDLE_MB: f64 = 100.0;

/// Blocks of the server.
const BLOCKS: usize = 8;

const PROMPT: &str = "Once upon a time, there was a brave fox named Luna.";

/// How often, and on how many threads.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Swarms started, one after the other.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Cold clients in each swarm.
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Seconds and megabytes (10⁶ bytes).
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    /// From starting a server of eight blocks to `ready`.
    server_ready_s: Summary,
    /// From starting `swarm-node generate` to its first token.
    first_token_s: Summary,
    server_memory: Memory,
    client_memory: Memory,
}

/// Megabytes of an idle process.
#[derive(Debug, Serialize)]
struct Memory {
    /// With what is mapped: weights lie in the page cache.
    resident_mb: Summary,
    /// Its own; no KV cache is held.
    anonymous_mb: Summary,
}

impl Memory {
    fn of(samples: &[Resident]) -> Self {
        Self {
            resident_mb: Summary::of(samples.iter().map(|resident| megabytes(resident.total))),
            anonymous_mb: Summary::of(samples.iter().map(|resident| megabytes(resident.anonymous))),
        }
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[derive(Default)]
struct Samples {
    ready: Vec<Duration>,
    first_token: Vec<Duration>,
    servers: Vec<Resident>,
    clients: Vec<Resident>,
}

/// Starts and measures swarms, one after the other.
///
/// # Errors
/// If something does not start.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    // With tokens to speak in.
    let vocab = SyntheticSpec::default().vocab;
    let model = RandomModel::write(SyntheticSpec { vocab, ..one_billion_shape(BLOCKS) })?;
    // Brings the files into the page cache.
    repeat(&settings, &model, &mut Samples::default()).await?;
    let mut samples = Samples::default();
    for _ in 0..settings.repetitions {
        repeat(&settings, &model, &mut samples).await?;
    }
    let results = Results {
        model: format!("{} random weights in {} blocks, bf16", model.spec.parameters(), model.spec.blocks),
        server_ready_s: seconds(&samples.ready),
        first_token_s: seconds(&samples.first_token),
        server_memory: Memory::of(&samples.servers),
        client_memory: Memory::of(&samples.clients),
    };
    let goals = results.goals();
    Ok(Report { benchmark: "start", machine, settings, results, goals })
}

fn seconds(samples: &[Duration]) -> Summary {
    Summary::of(samples.iter().map(Duration::as_secs_f64))
}

async fn repeat(settings: &Settings, model: &RandomModel, samples: &mut Samples) -> Result<()> {
    let mut swarm = LocalSwarm::start().await?;
    let blocks = BlockRange::new(0, BLOCKS as u32)?;
    samples.ready.push(swarm.serve(model.path(), blocks, settings.threads).await?);
    for _ in 0..settings.clients {
        samples.first_token.push(first_token(&swarm, model.path()).await?);
        samples.clients.push(idle_client(&swarm, model.path()).await?);
    }
    // After sessions have come and gone: what they leave behind is part of idling.
    for server in swarm.server_ids()? {
        samples.servers.push(Resident::of(server)?);
    }
    swarm.kill().await
}

/// Starts `swarm-node generate`; the time to its first token.
async fn first_token(swarm: &LocalSwarm, model: &Path) -> Result<Duration> {
    let start = Instant::now();
    let mut client = start_client(swarm, swarm.program(), &["generate", "--json", "--max-tokens", "1"], model)?;
    // A random model may end its text with the first token: `token` or `done`, whichever is first.
    client.event_of(&["token", "done"]).await?;
    let took = start.elapsed();
    client.kill().await?;
    Ok(took)
}

/// The memory of a client that has generated a token and idles.
async fn idle_client(swarm: &LocalSwarm, model: &Path) -> Result<Resident> {
    let mut client = start_client(swarm, &std::env::current_exe()?, &["idle-client"], model)?;
    client.event_of(&[FIRST_TOKEN]).await?;
    client.event_of(&[IDLE]).await?;
    let resident = Resident::of(client.id()?)?;
    client.kill().await?;
    Ok(resident)
}

fn start_client(swarm: &LocalSwarm, program: &Path, command: &[&str], model: &Path) -> Result<Process> {
    let model = model.to_str().context("the directory's name is no text")?;
    let own = ["--model", model, "--prompt", PROMPT];
    let arguments: Vec<&str> = command.iter().copied().chain(own).chain(swarm.join_arguments()).collect();
    Process::spawn("the client", program, &arguments)
}

impl Results {
    fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::new("a server of 8 blocks is ready after", "s", GOAL_READY_S, self.server_ready_s.median),
            Goal::new("a cold client's first token after", "s", GOAL_FIRST_TOKEN_S, self.first_token_s.median),
            Goal::new("an idle server's own memory is", "MB", GOAL_IDLE_MB, self.server_memory.anonymous_mb.median),
            Goal::new("an idle client's own memory is", "MB", GOAL_IDLE_MB, self.client_memory.anonymous_mb.median),
        ]
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let memory = |name: &str, memory: &Memory| {
            vec![name.to_string(), format!("{:.0}", memory.resident_mb), format!("{:.0}", memory.anonymous_mb)]
        };
        let times = Table {
            title: format!("Seconds, median (quartiles): {}", self.model),
            header: vec!["from start to", "seconds", "samples"],
            rows: [("server of 8 blocks ready", self.server_ready_s), ("client's first token", self.first_token_s)]
                .map(|(name, time)| vec![name.to_string(), time.to_string(), time.samples.to_string()])
                .to_vec(),
        };
        let memory = Table {
            title: "Megabytes while idle, median (quartiles)".to_string(),
            header: vec!["process", "resident", "of that its own"],
            rows: vec![memory("server", &self.server_memory), memory("client", &self.client_memory)],
        };
        vec![times, memory]
    }
}
