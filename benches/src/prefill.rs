//! How near a long prompt comes to perfect pipelining: the time to its first token over three far servers, against the time
//! that its chunks would take if every link and every server were always busy with the next chunk there is.
//!
//! What a chunk computes is what servers of the same blocks report while nobody else computes; perfect pipelining shares
//! this machine's cores among the servers that compute at the same time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, HopInfo, Model, Swarm};
use swarm_model::Tensor;
use swarm_tests::wan::Link;

use crate::bare::{BareChain, Shape};
use crate::far_hosts::{FarHosts, SERVERS};
use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::{Machine, cores};
use crate::pipeline::{Stage, makespan};
use crate::report::{Report, Tables};
use crate::stats::{Summary, milliseconds};
use crate::table::Table;
use crate::workload::{RandomModel, even_ranges, long_context, some_ids};

/// How much of the time to the first token perfect pipelining would take.
const GOAL_PERCENT: f64 = 85.0;

/// Bytes of an activation.
const ELEMENT_BYTES: usize = 2;

/// How much, how far, and how often.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// Milliseconds from any host to any other.
    #[arg(long, default_value_t = 25)]
    delay_ms: u64,
    /// Megabits a second that each link takes.
    #[arg(long, default_value_t = 100.0)]
    megabits: f64,
    /// Blocks of the model, over three servers.
    #[arg(long, default_value_t = 3)]
    blocks: usize,
    /// Prompts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Settings {
    /// The links that these settings ask for.
    pub(crate) fn link(&self) -> Link {
        Link::of_delay(Duration::from_millis(self.delay_ms)).with_rate(self.megabits)
    }
}

/// Milliseconds to the first token.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    chunk_rows: usize,
    /// When every connection was up to speed before.
    first_token: Summary,
    /// Right after the session was opened.
    first_token_cold: Summary,
    /// What perfect pipelining takes by the computing and transfer measured in the same round.
    ideal: Summary,
    /// A chunk on a server while no other computes.
    chunk_compute: Summary,
    /// A chunk on a link, without the delay.
    chunk_transfer: Summary,
    /// The ideal's share of what it took, in percent.
    percent_of_ideal: Summary,
}

/// What one round measured.
struct Round {
    first_token: Duration,
    first_token_cold: Duration,
    ideal: Duration,
    /// For each server, for each chunk.
    compute: Vec<Vec<Duration>>,
    transfer: Duration,
}

/// Measures prompts on `hosts`.
///
/// # Errors
/// If a server does not start, or gives no output.
pub(crate) async fn run(settings: Settings, hosts: &FarHosts) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let files = RandomModel::write(long_context(settings.blocks))?;
    let near = Near::start(&files, &settings).await?;
    let swarm = hosts.swarm(&files, settings.threads).await?;
    let (client, model) = join(&swarm, &files).await?;
    let mut rounds = Vec::new();
    // The first warms up and is left out.
    for _ in 0..=settings.rounds {
        rounds.push(round(&settings, hosts, &near, &model).await?);
    }
    client.leave().await;
    swarm.kill().await?;
    near.end().await?;
    let model = format!("{} random weights in {} blocks, bf16", files.spec.parameters(), files.spec.blocks);
    let results = Results::of(&rounds[1..], model);
    let goals = vec![results.goal(&settings)];
    Ok(Report { benchmark: "prefill", machine, settings, results, goals })
}

async fn join(swarm: &LocalSwarm, files: &RandomModel) -> Result<(Swarm, Model)> {
    let client = swarm.join().await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    Ok((client, model))
}

async fn round(settings: &Settings, hosts: &FarHosts, near: &Near, model: &Model) -> Result<Round> {
    let compute = near.compute(settings.tokens).await?;
    let chunk_bytes = chunk_rows() * model.config().hidden * ELEMENT_BYTES;
    let transfer = hosts.transfer_time(chunk_bytes)?;
    let one_way = Duration::from_secs_f64(hosts.delays()?.ring_ms / 1e3 / (SERVERS.len() + 1) as f64);
    let first_token_cold = first_token(model, settings.tokens, false).await?;
    let first_token = first_token(model, settings.tokens, true).await?;
    let of_rows = |rows: usize| transfer.mul_f64(rows as f64 / chunk_rows() as f64);
    let transfers: Vec<Duration> = chunks(settings.tokens).map(|(_, rows)| of_rows(rows)).collect();
    let stage =
        |compute: &Vec<Duration>| Stage { delay: one_way, transfer: transfers.clone(), compute: compute.clone() };
    let stages: Vec<Stage> = compute.iter().map(stage).collect();
    // The last row travels back.
    let ideal = makespan(&stages, cores()) + of_rows(1) + one_way;
    Ok(Round { first_token, first_token_cold, ideal, compute, transfer })
}

async fn first_token(model: &Model, tokens: usize, warm: bool) -> Result<Duration> {
    let mut session = model.text_session(tokens + 1).await?;
    ensure!(session.route().len() == SERVERS.len(), "the route has {} hops", session.route().len());
    if warm {
        session.warm_up().await?;
    }
    let config = GenerationConfig { max_tokens: 1, ..GenerationConfig::default() };
    let mut generation = session.generate(&some_ids(tokens), config)?;
    loop {
        match generation.next().await?.context("no token came")? {
            GenerationEvent::Token { at, .. } => return Ok(at),
            GenerationEvent::Done(_) => anyhow::bail!("the text ended before its first token"),
            GenerationEvent::Route { .. } | GenerationEvent::Reroute { .. } | GenerationEvent::Trace(_) => {}
        }
    }
}

fn chunk_rows() -> usize {
    ClientConfig::default().prefill_chunk.as_usize()
}

/// Where each chunk of a prompt begins, and its rows.
fn chunks(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tokens).step_by(chunk_rows()).map(move |start| (start, chunk_rows().min(tokens - start)))
}

/// The same blocks on servers on loopback, where nothing travels.
struct Near {
    swarm: LocalSwarm,
    client: Swarm,
    model: Model,
}

impl Near {
    async fn start(files: &RandomModel, settings: &Settings) -> Result<Self> {
        let mut swarm = LocalSwarm::start().await?;
        for blocks in even_ranges(files.spec.blocks as u32, SERVERS.len() as u32)? {
            swarm.serve(files.path(), blocks, settings.threads).await?;
        }
        let (client, model) = join(&swarm, files).await?;
        // A session finds and probes the servers.
        drop(model.session(model.config().all_blocks()?, settings.tokens).await?);
        Ok(Self { swarm, client, model })
    }

    /// How long each server computes on each chunk of a prompt, one server after the other.
    async fn compute(&self, tokens: usize) -> Result<Vec<Vec<Duration>>> {
        let rows = self.model.embed(&some_ids(tokens)).await?;
        let mut times = Vec::new();
        for server in self.swarm.servers() {
            let hop = HopInfo { peer: server.peer, blocks: server.blocks, bytes_in: 0, bytes_out: 0 };
            times.push(self.alone(hop, &rows).await?);
        }
        Ok(times)
    }

    async fn alone(&self, hop: HopInfo, rows: &Tensor) -> Result<Vec<Duration>> {
        let tokens = rows.dims()[0];
        let mut chain = BareChain::open(&self.client, &self.model, &[hop], tokens as u32, Shape::Ring).await?;
        let mut times = Vec::new();
        for (start, count) in chunks(tokens) {
            times.push(chain.forward(&rows.narrow(0, start, count)?).await?.1.compute);
        }
        Ok(times)
    }

    async fn end(self) -> Result<()> {
        self.client.leave().await;
        self.swarm.kill().await
    }
}

impl Results {
    fn of(rounds: &[Round], model: String) -> Self {
        let all = |part: fn(&Round) -> Duration| Summary::of(rounds.iter().map(|round| milliseconds(part(round))));
        let computes = rounds.iter().flat_map(|round| round.compute.iter().flatten());
        let percent = |round: &Round| 100.0 * round.ideal.as_secs_f64() / round.first_token.as_secs_f64();
        Self {
            model,
            chunk_rows: chunk_rows(),
            first_token: all(|round| round.first_token),
            first_token_cold: all(|round| round.first_token_cold),
            ideal: all(|round| round.ideal),
            chunk_compute: Summary::of(computes.copied().map(milliseconds)),
            chunk_transfer: all(|round| round.transfer),
            percent_of_ideal: Summary::of(rounds.iter().map(percent)),
        }
    }

    fn goal(&self, settings: &Settings) -> Goal {
        let what = format!("a prompt of {} tokens is pipelined to", settings.tokens);
        Goal::at_least(what, "% of the ideal", GOAL_PERCENT, self.percent_of_ideal.median)
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |name: &str, number: Summary| vec![name.to_string(), format!("{number:.1}")];
        let times = Table {
            title: format!("Milliseconds, median (quartiles): {}; chunks of {} rows", self.model, self.chunk_rows),
            header: vec!["", "milliseconds"],
            rows: vec![
                row("time to first token, warm", self.first_token),
                row("time to first token, cold", self.first_token_cold),
                row("perfect pipelining", self.ideal),
                row("a chunk on a server, alone", self.chunk_compute),
                row("a chunk on a link", self.chunk_transfer),
            ],
        };
        vec![times]
    }
}
