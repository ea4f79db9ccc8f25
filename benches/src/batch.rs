//! What many clients get of a swarm together, against one alone: servers compute steps that wait at the same time in one pass.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::future::try_join_all;
use serde::Serialize;
use swarm_client::{GenerationConfig, GenerationEvent, Model, Swarm, TextSession};
use swarm_model::synthetic::SyntheticSpec;
use tokio::sync::Barrier;

use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::report::{Report, Tables};
use crate::stats::{Summary, milliseconds};
use crate::table::Table;
use crate::workload::{RandomModel, even_ranges, one_billion_shape, some_ids};

/// How many times the tokens of one client all of them get together.
const GOAL_TIMES: f64 = 3.0;

/// What the slowest client gets of the mean.
const GOAL_SHARE: f64 = 0.7;

/// Tokens of the prompt of those who decode.
const PROMPT: usize = 8;

/// How many clients, and what they ask for.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Clients that generate at the same time.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Tokens that each generates.
    #[arg(long, default_value_t = 40)]
    tokens: usize,
    /// Tokens of the prompt of somebody who comes while the others generate.
    #[arg(long, default_value_t = 128)]
    newcomer: usize,
    /// Servers, with even ranges of the blocks.
    #[arg(long, default_value_t = 2)]
    servers: u32,
    /// Blocks of the shape of Llama 3.2 1B.
    #[arg(long, default_value_t = 8)]
    blocks: usize,
    /// Measurements of each kind, by turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Tokens a second, and milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    /// Tokens a second of one client.
    alone: Summary,
    /// Tokens a second of all clients, while all of them decode.
    together: Summary,
    /// Their share of what one gets, round by round.
    times: Summary,
    /// The slowest client's tokens a second, as a share of the mean.
    slowest: Summary,
    /// Milliseconds to a newcomer's first token, while nobody else is there.
    newcomer_alone: Summary,
    /// The same while all others generate.
    newcomer_beside: Summary,
}

/// What one round measured.
struct Round {
    alone: f64,
    together: f64,
    slowest: f64,
    newcomer_alone: Duration,
    newcomer_beside: Duration,
}

/// Measures.
///
/// # Errors
/// If a server does not start, or two texts differ.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    // With tokens to speak in.
    let vocab = SyntheticSpec::default().vocab;
    let files = RandomModel::write(SyntheticSpec { vocab, ..one_billion_shape(settings.blocks) })?;
    let mut swarm = LocalSwarm::start().await?;
    for blocks in even_ranges(files.spec.blocks as u32, settings.servers)? {
        swarm.serve(files.path(), blocks, settings.threads).await?;
    }
    let clients = try_join_all((0..=settings.clients).map(|_| join(&swarm, &files))).await?;
    let mut rounds = Vec::new();
    // The first warms up and is left out.
    for _ in 0..=settings.rounds {
        rounds.push(round(&settings, &clients).await?);
    }
    for (client, _) in clients {
        client.leave().await;
    }
    swarm.kill().await?;
    let model = format!("{} random weights in {} blocks, bf16", files.spec.parameters(), files.spec.blocks);
    let results = Results::of(&rounds[1..], model);
    let goals = results.goals(&settings);
    Ok(Report { benchmark: "batch", machine, settings, results, goals })
}

async fn join(swarm: &LocalSwarm, files: &RandomModel) -> Result<(Swarm, Model)> {
    let client = swarm.join().await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    Ok((client, model))
}

async fn round(settings: &Settings, clients: &[(Swarm, Model)]) -> Result<Round> {
    let (newcomer, others) = clients.split_last().context("no clients")?;
    let first = &others.first().context("no clients")?.1;
    let alone = tell(first, settings.tokens, &Barrier::new(1)).await?;
    let newcomer_alone = first_token(&newcomer.1, settings.newcomer).await?;
    let told = all(others, settings.tokens, &Barrier::new(others.len())).await?;
    ensure!(told.iter().all(|one| one.tokens == alone.tokens), "a text differs in company");
    let (together, slowest) = rates(&told)?;
    // The others have begun before the newcomer comes.
    let start = Barrier::new(others.len() + 1);
    let joining = async {
        start.wait().await;
        first_token(&newcomer.1, settings.newcomer).await
    };
    let (_, newcomer_beside) = tokio::try_join!(all(others, settings.tokens, &start), joining)?;
    Ok(Round { alone: alone.rate(), together, slowest, newcomer_alone, newcomer_beside })
}

/// All clients' texts at the same time.
async fn all(clients: &[(Swarm, Model)], tokens: usize, start: &Barrier) -> Result<Vec<Told>> {
    try_join_all(clients.iter().map(|(_, model)| tell(model, tokens, start))).await
}

/// The tokens a second of all together while all of them decode, and the slowest one's share of the mean.
fn rates(told: &[Told]) -> Result<(f64, f64)> {
    let began = told.iter().filter_map(|one| one.times.first()).max().context("no tokens")?;
    let ended = told.iter().filter_map(|one| one.times.last()).min().context("no tokens")?;
    ensure!(began < ended, "there was no moment at which all clients decoded; ask for more --tokens");
    let seconds = ended.duration_since(*began).as_secs_f64();
    let within = |one: &Told| one.times.iter().filter(|time| *time > began && *time <= ended).count() as f64;
    let rates: Vec<f64> = told.iter().map(|one| within(one) / seconds).collect();
    let sum: f64 = rates.iter().sum();
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    Ok((sum, slowest * rates.len() as f64 / sum))
}

/// A text and when its tokens came.
struct Told {
    tokens: Vec<u32>,
    times: Vec<Instant>,
}

impl Told {
    /// Tokens a second after the first.
    fn rate(&self) -> f64 {
        let took = self.times.last().zip(self.times.first()).map(|(last, first)| last.duration_since(*first));
        took.map_or(0.0, |took| (self.tokens.len() - 1) as f64 / took.as_secs_f64())
    }
}

/// One client's text; all begin when all are ready.
async fn tell(model: &Model, tokens: usize, start: &Barrier) -> Result<Told> {
    let mut session = model.text_session(PROMPT + tokens).await?;
    start.wait().await;
    let mut told = Vec::new();
    let mut times = Vec::new();
    generate(&mut session, PROMPT, tokens, |id| {
        told.push(id);
        times.push(Instant::now());
    })
    .await?;
    ensure!(told.len() == tokens, "the text ended after {} tokens", told.len());
    Ok(Told { tokens: told, times })
}

async fn first_token(model: &Model, prompt: usize) -> Result<Duration> {
    let mut session = model.text_session(prompt + 1).await?;
    let start = Instant::now();
    generate(&mut session, prompt, 1, |_| {}).await?;
    Ok(start.elapsed())
}

async fn generate(session: &mut TextSession, prompt: usize, tokens: usize, mut came: impl FnMut(u32)) -> Result<()> {
    let config = GenerationConfig { max_tokens: tokens, ..GenerationConfig::default() };
    let mut generation = session.generate(&some_ids(prompt), config)?;
    loop {
        match generation.next().await?.context("the text has no end")? {
            GenerationEvent::Token { id, .. } => came(id),
            GenerationEvent::Done(_) => return Ok(()),
            GenerationEvent::Route { .. } | GenerationEvent::Reroute { .. } | GenerationEvent::Trace(_) => {}
        }
    }
}

impl Results {
    fn of(rounds: &[Round], model: String) -> Self {
        let all = |part: fn(&Round) -> f64| Summary::of(rounds.iter().map(part));
        Self {
            model,
            alone: all(|round| round.alone),
            together: all(|round| round.together),
            times: all(|round| round.together / round.alone),
            slowest: all(|round| round.slowest),
            newcomer_alone: all(|round| milliseconds(round.newcomer_alone)),
            newcomer_beside: all(|round| milliseconds(round.newcomer_beside)),
        }
    }

    fn goals(&self, settings: &Settings) -> Vec<Goal> {
        let clients = settings.clients;
        vec![
            Goal::at_least(format!("{clients} clients get"), "times the tokens of one", GOAL_TIMES, self.times.median),
            Goal::at_least("the slowest client gets", "of the mean", GOAL_SHARE, self.slowest.median),
        ]
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |name: &str, number: Summary| vec![name.to_string(), format!("{number:.2}")];
        vec![Table {
            title: format!("Median (quartiles): {}", self.model),
            header: vec!["", ""],
            rows: vec![
                row("tokens a second, one client", self.alone),
                row("tokens a second, all clients together", self.together),
                row("times as many", self.times),
                row("the slowest client's share of the mean", self.slowest),
                row("ms to a newcomer's first token, nobody else there", self.newcomer_alone),
                row("ms to a newcomer's first token, while all generate", self.newcomer_beside),
            ],
        }]
    }
}
