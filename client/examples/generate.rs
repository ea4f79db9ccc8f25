//! Text as a stream of tokens, with the route it took and why.
//!
//! `cargo run --release -p swarm-client --example generate -- MULTIADDR/p2p/PEERID [MODEL] [PROMPT]`

use std::io::Write;

use anyhow::{Context, Result};
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Swarm};
use swarm_protocol::p2p::NetworkConfig;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("usage: generate MULTIADDR/p2p/PEERID [MODEL] [PROMPT]")?.parse()?;
    let model = arguments.next().unwrap_or_else(|| "demo".to_string());
    let prompt = arguments.next().unwrap_or_else(|| "Once upon a time, there was a brave fox named Luna.".to_string());

    let network = NetworkConfig::client("public".parse()?, vec![bootstrap]);
    let swarm = Swarm::join(network, ClientConfig::default()).await?;
    let model = swarm.open_model(&model.parse()?, None).await?;
    let plan = model.plan(model.config().all_blocks()?, 512).await?;
    let mut out = std::io::stdout();
    writeln!(out, "Why this route:\n{}\n", plan.route)?;

    let ids = model.encode(&prompt)?;
    let mut session = model.text_session(512.min(model.max_positions())).await?;
    let mut generation = session.generate(&ids, GenerationConfig::default())?;
    write!(out, "{prompt}")?;
    while let Some(event) = generation.next().await? {
        match event {
            GenerationEvent::Token { text, .. } => write!(out, "{text}")?,
            GenerationEvent::Reroute { lost, reason, .. } => write!(out, "\n[lost {lost}: {reason}]\n")?,
            GenerationEvent::Route { .. } | GenerationEvent::Trace(_) => {}
            GenerationEvent::Done(summary) => {
                writeln!(
                    out,
                    "{}\n\n{:.0} tokens/s, {} reroutes",
                    summary.tail, summary.tokens_per_second, summary.reroutes
                )?;
            }
        }
        out.flush()?;
    }
    swarm.leave().await;
    Ok(())
}
