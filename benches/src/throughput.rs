//! Many prompts through a pipeline of servers: tokens a second, against what the cores that the stages really have would give.

mod here;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use swarm_client::{GenerationConfig, Model, Prompt};
use swarm_model::synthetic::SyntheticSpec;

use self::here::{Here, parts};
use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::{Machine, cores};
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, even_ranges, one_billion_shape, some_ids};

/// Share of the ideal.
const GOAL_SHARE: f64 = 0.85;

/// How many prompts through how many stages.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Servers, with even ranges of the blocks.
    #[arg(long, default_value_t = 3)]
    stages: u32,
    /// Prompts, all of them at a time.
    #[arg(long, default_value_t = 16)]
    prompts: usize,
    /// Tokens of each prompt.
    #[arg(long, default_value_t = 16)]
    length: usize,
    /// Tokens that each prompt is continued by.
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Blocks of the shape of Llama 3.2 1B.
    #[arg(long, default_value_t = 6)]
    blocks: usize,
    /// Measurements of each kind, by turns.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Tokens a second.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    /// Cores that the stages can have at the same time, in units of a stage's threads.
    at_once: usize,
    swarm: Summary,
    ideal: Summary,
    /// The one over the other, round by round.
    share: Summary,
}

/// Measures.
///
/// # Errors
/// If a server does not start, or two texts differ.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let vocab = SyntheticSpec::default().vocab;
    let files = RandomModel::write(SyntheticSpec { vocab, ..one_billion_shape(settings.blocks) })?;
    let at_once = parts(settings.stages, settings.threads, cores());
    let here = Here::load(&files, at_once, settings.threads)?;
    let mut swarm = LocalSwarm::start().await?;
    for blocks in even_ranges(files.spec.blocks as u32, settings.stages)? {
        swarm.serve(files.path(), blocks, settings.threads).await?;
    }
    let client = swarm.join().await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    let mut rounds = Vec::new();
    // The first warms up and is left out.
    for _ in 0..=settings.rounds {
        rounds.push(round(&settings, &model, &here).await?);
    }
    client.leave().await;
    swarm.kill().await?;
    let all = |part: fn(&(f64, f64)) -> f64| Summary::of(rounds[1..].iter().map(part));
    let results = Results {
        model: format!("{} random weights in {} blocks, bf16", files.spec.parameters(), files.spec.blocks),
        at_once,
        swarm: all(|(swarm, _)| *swarm),
        ideal: all(|(_, ideal)| *ideal),
        share: all(|(swarm, ideal)| swarm / ideal),
    };
    let goals =
        vec![Goal::at_least("many prompts get", "of what the cores would give", GOAL_SHARE, results.share.median)];
    Ok(Report { benchmark: "pipeline", machine, settings, results, goals })
}

/// Tokens a second of the swarm, and of this process.
async fn round(settings: &Settings, model: &Model, here: &Here) -> Result<(f64, f64)> {
    let prompts = prompts(settings.prompts, settings.length);
    let (texts, took) = through_the_swarm(model, &prompts, settings.tokens).await?;
    let (ideal, ideally) = tokio::task::block_in_place(|| here.generate(&prompts, settings.tokens))?;
    ensure!(texts == ideal, "the swarm's texts are not those of this process");
    let rate = |took: Duration| (settings.prompts * settings.tokens) as f64 / took.as_secs_f64();
    Ok((rate(took), rate(ideally)))
}

/// Prompts of different tokens.
fn prompts(count: usize, length: usize) -> Vec<Vec<u32>> {
    let ids = some_ids(count * length);
    ids.chunks(length.max(1)).map(<[u32]>::to_vec).collect()
}

async fn through_the_swarm(model: &Model, prompts: &[Vec<u32>], tokens: usize) -> Result<(Vec<Vec<u32>>, Duration)> {
    let config = GenerationConfig { max_tokens: tokens, ..GenerationConfig::default() };
    let wanted = prompts.iter().map(|ids| Prompt { ids: ids.clone(), config: config.clone() });
    let start = Instant::now();
    let mut told: Vec<_> = model.generate_many(wanted, prompts.len()).collect().await;
    let took = start.elapsed();
    told.sort_by_key(|(place, _)| *place);
    let texts = told.into_iter().map(|(place, text)| {
        let summary = text.with_context(|| format!("prompt {place} has no text"))?;
        ensure!(summary.tokens.len() == tokens, "a text ended after {} tokens", summary.tokens.len());
        Ok(summary.tokens)
    });
    Ok((texts.collect::<Result<_>>()?, took))
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let row = |name: &str, number: Summary| vec![name.to_string(), number.to_string()];
        vec![Table {
            title: format!("Median (quartiles): {}; {} stages can compute at the same time", self.model, self.at_once),
            header: vec!["", ""],
            rows: vec![
                row("tokens a second through the stages", self.swarm),
                row("tokens a second of as many threads in this process", self.ideal),
                row("share", self.share),
            ],
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_of_one_length_and_differ() {
        let prompts = prompts(16, 16);
        assert_eq!((prompts.len(), prompts.iter().all(|prompt| prompt.len() == 16)), (16, true));
        let distinct: std::collections::HashSet<_> = prompts.iter().collect();
        assert_eq!(distinct.len(), 16);
    }
}
