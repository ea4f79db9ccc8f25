//! How likely each token of an answer was, and what else the model might have said.
//!
//! `cargo run --release -p swarm-client --example logprobs -- MULTIADDR/p2p/PEERID [MODEL] [PROMPT]`

use std::io::Write;

use anyhow::{Context, Result};
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Model, Swarm};
use swarm_protocol::p2p::NetworkConfig;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("usage: logprobs MULTIADDR/p2p/PEERID [MODEL] [PROMPT]")?.parse()?;
    let model = arguments.next().unwrap_or_else(|| "demo".to_string());
    let prompt = arguments.next().unwrap_or_else(|| "Once upon a time, there was a".to_string());

    let swarm = Swarm::join(NetworkConfig::client("public".parse()?, vec![bootstrap]), ClientConfig::default()).await?;
    let model = swarm.open_model(&model.parse()?, None).await?;
    let ids = model.encode(&prompt)?;
    let config = GenerationConfig { max_tokens: 12, probabilities: Some(3), ..GenerationConfig::default() };
    let mut session = model.text_session(ids.len() + config.max_tokens).await?;
    let mut generation = session.generate(&ids, config)?;

    let (mut out, mut sum, mut count) = (std::io::stdout(), 0.0, 0_u32);
    writeln!(out, "{prompt}")?;
    while let Some(event) = generation.next().await? {
        let GenerationEvent::Token { id, probabilities: Some(likely), .. } = event else {
            continue;
        };
        sum += f64::from(likely.chosen);
        count += 1;
        write!(out, "{:6.3} {:16}", likely.chosen, format!("{:?}", piece(&model, id)?))?;
        for (other, logprob) in likely.top {
            write!(out, "  {:?} {:.2}", piece(&model, other)?, logprob.exp())?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "mean log-probability {:.3}, perplexity {:.2}",
        sum / f64::from(count),
        (-sum / f64::from(count)).exp()
    )?;
    swarm.leave().await;
    Ok(())
}

/// A token's own text; for part of a character, a replacement mark.
fn piece(model: &Model, id: u32) -> Result<String> {
    let mut decoder = model.decoder();
    Ok(decoder.push(id)?.or(decoder.flush()?).unwrap_or_default())
}
