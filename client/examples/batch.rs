//! Many prompts at once: each text as soon as it is complete, and how many tokens a second all of them got together.
//!
//! `cargo run --release -p swarm-client --example batch -- MULTIADDR/p2p/PEERID MODEL PROMPT...`

use std::io::Write;
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use swarm_client::{ClientConfig, GenerationConfig, Prompt, Swarm};
use swarm_model::SamplingConfig;
use swarm_protocol::p2p::NetworkConfig;

/// Texts at a time: some eight for each hop of the route keep every server busy.
const PARALLEL: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let usage = "usage: batch MULTIADDR/p2p/PEERID MODEL PROMPT...";
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context(usage)?.parse()?;
    let model = arguments.next().context(usage)?;
    let prompts: Vec<String> = arguments.collect();
    ensure!(!prompts.is_empty(), usage);

    let swarm = Swarm::join(NetworkConfig::client("public".parse()?, vec![bootstrap]), ClientConfig::default()).await?;
    let model = swarm.open_model(&model.parse()?, None).await?;
    // Sampled, and yet the same texts at each run: each prompt has a seed of its own.
    let wanted = prompts.iter().zip(0..).map(|(prompt, seed)| {
        let sampling = SamplingConfig { temperature: Some(0.7), seed, ..SamplingConfig::default() };
        let config = GenerationConfig { max_tokens: 48, sampling, ..GenerationConfig::default() };
        Ok(Prompt { ids: model.encode(prompt)?, config })
    });
    let wanted = wanted.collect::<Result<Vec<_>>>()?;

    let (mut out, began, mut tokens) = (std::io::stdout(), Instant::now(), 0);
    let mut texts = pin!(model.generate_many(wanted, PARALLEL));
    while let Some((place, told)) = texts.next().await {
        match told {
            Ok(summary) => {
                tokens += summary.tokens.len();
                writeln!(out, "{place}: {}{}\n", prompts[place], summary.text)?;
            }
            // The others go on.
            Err(error) => writeln!(out, "{place}: {error}\n")?,
        }
    }
    writeln!(out, "{tokens} tokens, {:.0} a second", tokens as f64 / began.elapsed().as_secs_f64())?;
    swarm.leave().await;
    Ok(())
}
