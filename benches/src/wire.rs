//! What each wire format makes of slow links: a long prompt, then decoding, over three far servers.
//!
//! The blocks compute little, so that what counts is travelling: a prompt then goes as fast as its rows cross one link, since
//! all links are busy at once, and a token as fast as its rows cross all of them, one after the other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, PrefixReuse, Summary as Told, Wire};
use swarm_model::synthetic::SyntheticSpec;
use swarm_tests::wan::Link;

use crate::far_hosts::{FarHosts, SERVERS};
use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, long_context, some_ids};

/// Width of the activations: that of models of 8B weights, 8 KiB of bf16 a row.
const HIDDEN: usize = 4096;

/// Blocks, one for each server.
const BLOCKS: usize = SERVERS.len();

/// What the links take, in megabits a second.
const RATES: [f64; 3] = [10.0, 100.0, 1000.0];

/// The formats, and their names.
const FORMATS: [(Wire, &str); 3] = [(Wire::Exact, "exact"), (Wire::Auto, "auto"), (Wire::Int8, "int8")];

/// How many times as fast as exact rows a prompt of rounded ones should be over the slowest links: they have 53 % of the
/// bytes.
const GOAL_TIMES: f64 = 1.6;

/// How much, how far, and how often.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens of the answer.
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Milliseconds from any host to any other.
    #[arg(long, default_value_t = 10)]
    delay_ms: u64,
    /// Texts in each format over links of each rate.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Settings {
    /// The links at first.
    pub(crate) fn link(&self) -> Link {
        self.link_of(RATES[0])
    }

    fn link_of(&self, megabits: f64) -> Link {
        Link::of_delay(Duration::from_millis(self.delay_ms)).with_rate(megabits)
    }
}

/// What was measured, for each rate and format.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    ways: Vec<Way>,
}

#[derive(Debug, Serialize)]
struct Way {
    megabits: f64,
    format: &'static str,
    /// On each link.
    bytes_per_token: u32,
    /// Of the prompt, a second until the first token of the answer.
    prompt: Summary,
    /// After the first, a second.
    decode: Summary,
}

/// Measures every format over links of every rate.
///
/// # Errors
/// If a server does not start, or a text differs from one round to the next.
pub(crate) async fn run(settings: Settings, mut hosts: FarHosts) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let files = RandomModel::write(SyntheticSpec { hidden: HIDDEN, ..long_context(BLOCKS) })?;
    let swarm = hosts.swarm(&files, settings.threads).await?;
    let mut ways = Vec::new();
    for megabits in RATES {
        hosts.relink(settings.link_of(megabits))?;
        let mut texts: Vec<Vec<Told>> = vec![Vec::new(); FORMATS.len()];
        for _ in 0..settings.rounds {
            for ((wire, _), texts) in FORMATS.iter().zip(&mut texts) {
                texts.push(text(&swarm, &files, &settings, *wire).await?);
            }
        }
        for ((_, format), texts) in FORMATS.into_iter().zip(&texts) {
            ways.push(Way::of(megabits, format, texts)?);
        }
    }
    swarm.kill().await?;
    let model = format!("{} random weights in {BLOCKS} blocks, bf16, {HIDDEN} wide", files.spec.parameters());
    let results = Results { model, ways };
    let goals = results.goal().into_iter().collect();
    Ok(Report { benchmark: "wire", machine, settings, results, goals })
}

/// One text in a format, in a session whose connections were brought up to speed before.
async fn text(swarm: &LocalSwarm, files: &RandomModel, settings: &Settings, wire: Wire) -> Result<Told> {
    // The prompt is computed anew each time.
    let config = ClientConfig { wire, prefixes: PrefixReuse::Off, ..ClientConfig::default() };
    let client = swarm.join_with(config).await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    let mut session = model.text_session(settings.prompt + settings.tokens).await?;
    ensure!(session.route().len() == SERVERS.len(), "the route has {} hops", session.route().len());
    session.warm_up().await?;
    let config = GenerationConfig { max_tokens: settings.tokens, ..GenerationConfig::default() };
    let mut generation = session.generate(&some_ids(settings.prompt), config)?;
    let told = loop {
        if let GenerationEvent::Done(told) = generation.next().await?.context("a text without end")? {
            break told;
        }
    };
    client.leave().await;
    Ok(told)
}

impl Way {
    fn of(megabits: f64, format: &'static str, texts: &[Told]) -> Result<Self> {
        let first = texts.first().context("at least one round")?;
        ensure!(texts.iter().all(|text| text.tokens == first.tokens), "two texts in {format} differ");
        let prompt = texts.iter().map(|text| text.prompt_tokens as f64 / text.time_to_first_token.as_secs_f64());
        Ok(Self {
            megabits,
            format,
            bytes_per_token: first.route.first().map_or(0, |hop| hop.bytes_in),
            prompt: Summary::of(prompt),
            decode: Summary::of(texts.iter().map(|text| text.tokens_per_second)),
        })
    }
}

impl Results {
    fn goal(&self) -> Option<Goal> {
        let of = |format: &str| self.ways.iter().find(|way| way.format == format).map(|way| way.prompt.median);
        let (exact, int8) = (of("exact")?, of("int8")?);
        let what = format!("over {} Mbit/s a prompt in int8 is as many times as fast", RATES[0]);
        Some(Goal::at_least(what, "times", GOAL_TIMES, int8 / exact))
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let cells = |way: &Way| {
            vec![
                format!("{}", way.megabits),
                way.format.to_string(),
                format!("{}", way.bytes_per_token),
                way.prompt.to_string(),
                way.decode.to_string(),
            ]
        };
        let measured = Table {
            title: format!("Tokens a second over {} links, median (quartiles): {}", SERVERS.len() + 1, self.model),
            header: vec!["Mbit/s", "format", "bytes a token and link", "prompt, tokens/s", "decode, tokens/s"],
            rows: self.ways.iter().map(cells).collect(),
        };
        vec![measured]
    }
}
