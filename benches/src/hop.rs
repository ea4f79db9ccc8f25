//! What a hop costs: decode steps of one row through servers on loopback against the same blocks in this process.
//!
//! The servers of a chain compute one after the other, so that all of them together compute as much as this process does.

mod in_process;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_client::{HiddenSession, Model};
use swarm_model::Tensor;

use self::in_process::InProcess;
use crate::bare::{BareChain, Shape, StepTimes};
use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::report::{Report, Tables};
use crate::stats::{Summary, median, milliseconds};
use crate::table::Table;
use crate::workload::{RandomModel, even_ranges, same, small_llama};

/// What a hop may add to a token on loopback.
const GOAL_MS: f64 = 0.5;

/// Positions before the first step that counts.
const PREFIX: usize = 16;

/// What is measured, and how often.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Measure chains of 1 to this many servers.
    #[arg(long, default_value_t = 4)]
    servers: u32,
    /// Rounds of runs; in each, everything that is compared runs once.
    #[arg(long, default_value_t = 32)]
    rounds: usize,
    /// Tokens of a run.
    #[arg(long, default_value_t = 4)]
    tokens: usize,
    /// Compute threads of each server, and of this process.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Settings {
    fn positions(&self) -> usize {
        PREFIX + self.rounds * self.tokens
    }
}

/// Milliseconds, for chains of 1, 2, … servers.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    chains: Vec<Chain>,
}

/// Milliseconds of one chain.
#[derive(Debug, Serialize)]
struct Chain {
    servers: u32,
    /// A token through the blocks in this process.
    in_process: Summary,
    /// A token through the client library.
    client: Summary,
    /// A token through bare streams.
    bare: Summary,
    /// What the client library's token takes longer than this process's in the same round, for each hop.
    overhead_per_hop: Summary,
    /// What the client library's token takes longer than the servers' compute threads for the same step, for each hop.
    /// Free of differences between two computations of the same blocks, which are larger than what a hop adds.
    outside_compute_per_hop: Summary,
    /// Where that comes from, for each hop. Each part is a median, so they do not add up exactly.
    parts: Parts,
}

#[derive(Debug, Serialize)]
struct Parts {
    /// Computing in the servers beyond computing here.
    compute: f64,
    /// Waiting for the servers' compute threads.
    queue: f64,
    /// Everything else on the way there and back.
    transport: f64,
    /// The client library beyond bare streams.
    client: f64,
    /// A ping on the same streams, right after another.
    ping: f64,
    /// A ping after a pause as long as a step: what waking everybody costs.
    ping_after_pause: f64,
}

/// Measures all chains.
///
/// # Errors
/// If a server does not start, or the outputs of servers and of this process differ.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let model = RandomModel::write(small_llama())?;
    let mut local = InProcess::load(&model.open()?, settings.positions(), settings.threads)?;
    let mut chains = Vec::new();
    for servers in 1..=settings.servers {
        chains.push(measure(&settings, &model, &mut local, servers).await?);
    }
    let goals = chains.iter().flat_map(Chain::goals).collect();
    let model = format!("{} random weights in {} blocks, bf16", model.spec.parameters(), model.spec.blocks);
    Ok(Report { benchmark: "hop", machine, settings, results: Results { model, chains }, goals })
}

async fn measure(settings: &Settings, files: &RandomModel, local: &mut InProcess, servers: u32) -> Result<Chain> {
    let mut swarm = LocalSwarm::start().await?;
    for blocks in even_ranges(files.spec.blocks as u32, servers)? {
        swarm.serve(files.path(), blocks, settings.threads).await?;
    }
    let client = swarm.join().await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    let contenders = Contenders::open(&client, &model, local, settings, servers).await?;
    let rounds = contenders.run(&model, settings).await?;
    client.leave().await;
    swarm.kill().await?;
    Ok(Chain::of(&rounds, servers))
}

/// What is compared, all at the same position of the same sequence.
struct Contenders<'a> {
    local: &'a mut InProcess,
    client: HiddenSession,
    bare: BareChain,
}

/// What one round measured.
struct Round {
    in_process: Vec<f64>,
    client: Vec<f64>,
    bare: Vec<StepTimes>,
    pings: Vec<f64>,
    pings_after_pause: Vec<f64>,
}

impl<'a> Contenders<'a> {
    async fn open(
        swarm: &swarm_client::Swarm,
        model: &Model,
        local: &'a mut InProcess,
        settings: &Settings,
        servers: u32,
    ) -> Result<Self> {
        let tokens = settings.positions();
        let client = model.session(model.config().all_blocks()?, tokens).await?;
        let route = client.route();
        ensure!(route.len() == servers as usize, "the route has {} hops instead of {servers}", route.len());
        let bare = BareChain::open(swarm, model, &route, tokens as u32, Shape::Ring).await?;
        local.clear();
        Ok(Self { local, client, bare })
    }

    async fn run(mut self, model: &Model, settings: &Settings) -> Result<Vec<Round>> {
        let prefix: Vec<u32> = (0..PREFIX as u32).collect();
        let prefix = model.embed(&prefix).await?;
        let here = self.local.forward(&prefix)?;
        same(&here, &self.client.forward(&prefix).await?)?;
        same(&here, &self.bare.forward(&prefix).await?.0)?;
        let mut rounds = Vec::new();
        for round in 0..settings.rounds {
            let row = model.embed(&[(PREFIX + round) as u32]).await?;
            rounds.push(self.round(&row, settings.tokens, round % 2 == 0).await?);
        }
        Ok(rounds)
    }

    /// Whoever is second finds the servers awake, so they take turns.
    async fn round(&mut self, row: &Tensor, tokens: usize, client_first: bool) -> Result<Round> {
        let (here, in_process) = self.local.run(row, tokens)?;
        let (client, bare) = if client_first {
            let client = self.run_client(row, tokens, &here).await?;
            (client, self.run_bare(row, tokens, &here).await?)
        } else {
            let bare = self.run_bare(row, tokens, &here).await?;
            (self.run_client(row, tokens, &here).await?, bare)
        };
        let pings = self.run_pings(tokens, Duration::ZERO).await?;
        let step = bare.first().map_or(Duration::ZERO, |times| times.compute);
        let pings_after_pause = self.run_pings(tokens, step).await?;
        Ok(Round { in_process, client, bare, pings, pings_after_pause })
    }

    async fn run_client(&mut self, row: &Tensor, tokens: usize, expected: &Tensor) -> Result<Vec<f64>> {
        let (mut times, mut output) = (Vec::new(), row.clone());
        for _ in 0..tokens {
            let start = Instant::now();
            output = self.client.forward(row).await?;
            times.push(milliseconds(start.elapsed()));
        }
        same(expected, &output)?;
        Ok(times)
    }

    async fn run_bare(&mut self, row: &Tensor, tokens: usize, expected: &Tensor) -> Result<Vec<StepTimes>> {
        let (mut times, mut output) = (Vec::new(), row.clone());
        for _ in 0..tokens {
            let step;
            (output, step) = self.bare.forward(row).await?;
            times.push(step);
        }
        same(expected, &output)?;
        Ok(times)
    }

    async fn run_pings(&mut self, count: usize, pause: Duration) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for _ in 0..count {
            tokio::time::sleep(pause).await;
            times.push(milliseconds(self.bare.ping().await?));
        }
        Ok(times)
    }
}

impl Chain {
    fn of(rounds: &[Round], servers: u32) -> Self {
        let bare = |part: fn(&StepTimes) -> Duration| {
            Summary::of(rounds.iter().flat_map(|round| &round.bare).map(|times| milliseconds(part(times))))
        };
        let all = |part: fn(&Round) -> &Vec<f64>| Summary::of(rounds.iter().flat_map(part).copied());
        // Compared round by round: what others do on this machine changes slower than that.
        let per_hop = |difference: fn(&Round) -> f64| {
            Summary::of(rounds.iter().map(|round| difference(round) / f64::from(servers)))
        };
        Self {
            servers,
            in_process: all(|round| &round.in_process),
            client: all(|round| &round.client),
            bare: bare(|times| times.total),
            overhead_per_hop: per_hop(|round| median(&round.client) - median(&round.in_process)),
            outside_compute_per_hop: per_hop(|round| median(&round.client) - round.bare_median(|times| times.compute)),
            parts: Parts {
                compute: per_hop(|round| round.bare_median(|times| times.compute) - median(&round.in_process)).median,
                queue: per_hop(|round| round.bare_median(|times| times.queue)).median,
                transport: per_hop(|round| round.bare_median(StepTimes::transport)).median,
                client: per_hop(|round| median(&round.client) - round.bare_median(|times| times.total)).median,
                ping: all(|round| &round.pings).median,
                ping_after_pause: all(|round| &round.pings_after_pause).median,
            },
        }
    }
}

impl Round {
    fn bare_median(&self, part: fn(&StepTimes) -> Duration) -> f64 {
        Summary::of(self.bare.iter().map(|times| milliseconds(part(times)))).median
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let tokens = Table {
            title: format!("Milliseconds a token, median (quartiles): {}", self.model),
            header: vec!["servers", "in process", "client library", "bare streams", "added per hop", "outside compute"],
            rows: self.chains.iter().map(Chain::times).collect(),
        };
        let parts = Table {
            title: "Milliseconds per hop".to_string(),
            header: vec!["servers", "compute", "queue", "transport", "client library", "ping", "ping after pause"],
            rows: self.chains.iter().map(Chain::parts).collect(),
        };
        vec![tokens, parts]
    }
}

impl Chain {
    fn goals(&self) -> [Goal; 2] {
        let goal = |what: &str, measured: Summary| {
            Goal::new(format!("a hop of {} adds {what}", self.servers), "ms", GOAL_MS, measured.median)
        };
        [
            goal("to the blocks in this process", self.overhead_per_hop),
            goal("to its own computing", self.outside_compute_per_hop),
        ]
    }

    fn times(&self) -> Vec<String> {
        vec![
            self.servers.to_string(),
            self.in_process.to_string(),
            self.client.to_string(),
            self.bare.to_string(),
            self.overhead_per_hop.to_string(),
            self.outside_compute_per_hop.to_string(),
        ]
    }

    fn parts(&self) -> Vec<String> {
        let Parts { compute, queue, transport, client, ping, ping_after_pause } = self.parts;
        let numbers = [compute, queue, transport, client, ping, ping_after_pause].map(|part| format!("{part:.3}"));
        [self.servers.to_string()].into_iter().chain(numbers).collect()
    }
}
