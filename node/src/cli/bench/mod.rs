//! `swarm-node bench`: what this machine could do for a swarm, in some seconds.

mod machine;
mod network;

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::{Value, json};
use swarm_model::{Checkpoint, ComputePool, ModelConfig, ModelSpec};
use swarm_node::serve::{DEFAULT_CACHE_TOKENS, available_memory, blocks_that_fit, default_threads, measure};
use swarm_protocol::announcement::Rates;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::session::TokenCount;

use self::machine::{MADE_UP, SHAPE, one_block};
use super::common::SwarmArgs;
use super::hub::{Bar, HubArgs, MODEL_HELP};
use super::output::{BadUsage, Printer};
use super::stop::or_interrupted;
use super::units::size;
use super::values::{at_least_one, threads};

/// A prompt that people have an idea of.
const PROMPT_TOKENS: u64 = 1000;

/// Measure what this machine could do for a swarm: it takes some twenty seconds, and announces nothing.
///
/// Without --model a block of the shape of a Llama of 1B parameters is made up. With --bootstrap the way to the swarm's servers is
/// measured as well.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node bench
  swarm-node bench --format q4_k
  swarm-node bench --model org/name --json \\
    --bootstrap /ip4/192.168.1.5/tcp/4001/p2p/12D3KooW...")]
pub(crate) struct BenchArgs {
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL", help = MODEL_HELP)]
    model: Option<ModelSpec>,
    /// The format the weights are held in [default: the checkpoint's]
    #[arg(long, env = "SWARM_FORMAT", value_name = "FORMAT")]
    format: Option<WeightFormat>,
    /// Threads to compute on [default: one for each core, less one for the network where there is more than one]
    #[arg(long, env = "SWARM_THREADS", value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// Room for tokens in the KV caches of all sessions together
    #[arg(long, env = "SWARM_CACHE_TOKENS", value_name = "N", default_value_t = DEFAULT_CACHE_TOKENS.0,
          allow_negative_numbers = true, value_parser = at_least_one::<u32>)]
    cache_tokens: u32,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// Print one JSON object
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// What was measured of a model.
struct Measured {
    name: String,
    config: ModelConfig,
    format: WeightFormat,
    rates: Rates,
}

/// Runs the command.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    or_interrupted(async {
        let printer = Printer::new(args.json);
        let threads = args.threads.map_or_else(default_threads, NonZeroUsize::get);
        let working = Bar::default();
        working.spin("reading memory");
        let bandwidth = tokio::task::spawn_blocking(move || machine::read_bandwidth(threads)).await?;
        working.done();
        printer.words(format_args!("memory    {}/s are read by {threads} threads", size(bandwidth)));
        working.spin("computing a block");
        let (spec, hub, format) = (args.model.clone(), args.hub.config(), args.format);
        let measured = tokio::task::spawn_blocking(move || {
            let (folder, checkpoint) = match spec {
                Some(spec) => (None, swarm_hub::open(&spec, &hub)?),
                None => machine::made_up().map(|(folder, checkpoint)| (Some(folder), checkpoint))?,
            };
            let mut measured = measured(&checkpoint, format, threads)?;
            if folder.is_some() {
                measured.name = MADE_UP.to_string();
                measured.config.blocks = SHAPE.blocks;
            }
            anyhow::Ok(measured)
        });
        let measured = measured.await?;
        working.done();
        let measured = measured?;
        printer.words(block_words(&measured));
        let hosts = hosts(&measured, TokenCount(args.cache_tokens));
        printer.words(hosts_words(&measured, hosts.as_ref()));
        let network = match args.swarm.bootstrap.is_empty() && !args.swarm.mdns {
            true => None,
            false => {
                working.spin("asking the swarm's servers");
                let network = network::measure(&args.swarm).await;
                working.done();
                Some(network?)
            }
        };
        if let Some(network) = &network {
            printer.words(network.words());
        }
        printer.event(&json!({
            "event": "bench",
            "threads": threads,
            "memory_bytes_per_second": bandwidth,
            "model": measured.name,
            "format": measured.format.to_string(),
            "block_bytes": measured.config.block_bytes(measured.format),
            "decode_us_per_block": measured.rates.decode_us_per_block,
            "prefill_ns_per_token_block": measured.rates.prefill_ns_per_token_block,
            "hosts": hosts.as_ref().ok().map(Hosts::json),
            "network": network.as_ref().map(network::Ways::json),
        }));
        Ok(())
    })
    .await
}

fn measured(checkpoint: &Checkpoint, format: Option<WeightFormat>, threads: usize) -> Result<Measured> {
    let format = format.unwrap_or_else(|| checkpoint.native_format());
    let config = checkpoint.config().clone();
    let block = one_block(&config)?;
    let pool = ComputePool::new(threads)?;
    let rates = pool.run(|| -> Result<Rates> {
        let loaded = checkpoint.load_blocks(block, format, &mut |_| {}).map_err(|error| match error {
            error @ swarm_model::ModelError::NoGguf { .. } => BadUsage(error.into()).into(),
            error => anyhow::Error::from(error),
        })?;
        Ok(measure(&loaded)?)
    })?;
    Ok(Measured { name: checkpoint.name().to_string(), config, format, rates })
}

fn block_words(measured: &Measured) -> String {
    let Measured { name, config, format, rates } = measured;
    let bytes = config.block_bytes(*format);
    let seconds = f64::from(rates.decode_us_per_block) / 1e6;
    format!(
        "block     of {name} ({format}, {}): {} a token ({}/s of weights), {} a token of a prompt",
        size(bytes),
        millis(seconds),
        size((bytes as f64 / seconds) as u64),
        millis(f64::from(rates.prefill_ns_per_token_block) / 1e9),
    )
}

/// What this machine could host of the model.
struct Hosts {
    blocks: u32,
    of: u32,
    token_seconds: f64,
    prompt_seconds: f64,
}

impl Hosts {
    fn json(&self) -> Value {
        json!({
            "blocks": self.blocks,
            "of": self.of,
            "seconds_per_token": self.token_seconds,
            "tokens_per_second": 1.0 / self.token_seconds,
            "seconds_per_1000_prompt_tokens": self.prompt_seconds,
        })
    }
}

fn hosts(measured: &Measured, cache: TokenCount) -> Result<Hosts, String> {
    let Measured { config, format, rates, .. } = measured;
    let available = available_memory().ok_or("this system does not tell how much memory is free")?;
    let blocks = blocks_that_fit(config, *format, swarm_model::KvFormat::default(), cache, available);
    let blocks = blocks.map_err(|error| error.to_string())?;
    let per_block = f64::from(rates.decode_us_per_block) / 1e6;
    let per_prompt_token = f64::from(rates.prefill_ns_per_token_block) / 1e9;
    Ok(Hosts {
        blocks,
        of: config.blocks,
        token_seconds: per_block * f64::from(blocks),
        prompt_seconds: per_prompt_token * f64::from(blocks) * PROMPT_TOKENS as f64,
    })
}

fn hosts_words(measured: &Measured, hosts: Result<&Hosts, &String>) -> String {
    match hosts {
        Ok(hosts) => format!(
            "hosts     about {} of the {} blocks of {}; a token through them takes {} ({:.1} tokens/s alone), a prompt of \
             {PROMPT_TOKENS} tokens {:.1} s",
            hosts.blocks,
            hosts.of,
            measured.name,
            millis(hosts.token_seconds),
            1.0 / hosts.token_seconds,
            hosts.prompt_seconds,
        ),
        Err(reason) => format!("hosts     nothing: {reason}; try --format q4_k or fewer --cache-tokens"),
    }
}

pub(super) fn millis(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    if millis < 1.0 { format!("{millis:.3} ms") } else { format!("{millis:.1} ms") }
}

/// A range of one block from the middle of a model: the first ones may differ.
pub(super) fn middle(blocks: u32) -> Result<BlockRange> {
    let middle = blocks / 2;
    BlockRange::new(middle, middle + 1).context("the model has no blocks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hosted_follows_from_what_was_measured() {
        let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
        let rates = Rates { decode_us_per_block: 500, prefill_ns_per_token_block: 2_000 };
        let (config, format) = (checkpoint.config().clone(), checkpoint.native_format());
        let measured = Measured { name: "demo".to_string(), config, format, rates };
        let hosts = hosts(&measured, TokenCount(1000)).unwrap();
        assert_eq!((hosts.blocks, hosts.of), (12, 12), "the demo model fits anywhere");
        assert!((hosts.token_seconds - 0.006).abs() < 1e-9 && (hosts.prompt_seconds - 0.024).abs() < 1e-9);
        assert!(hosts_words(&measured, Ok(&hosts)).contains("6.0 ms (166.7 tokens/s alone)"));
        assert_eq!(SHAPE.blocks, 16);
    }
}
