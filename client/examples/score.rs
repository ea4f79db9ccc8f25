//! Which of several endings a model finds most likely: the log-probability of given texts, not of generated ones. The rows
//! come out of the last block (`HiddenSession`), the logits are computed here.
//!
//! `cargo run --release -p swarm-client --example score -- MULTIADDR/p2p/PEERID MODEL BEGINNING ENDING...`

use std::io::Write;

use anyhow::{Context, Result, ensure};
use swarm_client::{ClientConfig, Model, Swarm};
use swarm_protocol::p2p::NetworkConfig;

#[tokio::main]
async fn main() -> Result<()> {
    let usage = "usage: score MULTIADDR/p2p/PEERID MODEL BEGINNING ENDING...";
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context(usage)?.parse()?;
    let (model, beginning) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let endings: Vec<String> = arguments.collect();
    ensure!(!endings.is_empty(), usage);

    let swarm = Swarm::join(NetworkConfig::client("public".parse()?, vec![bootstrap]), ClientConfig::default()).await?;
    let model = swarm.open_model(&model.parse()?, None).await?;
    let mut scored = Vec::new();
    for ending in &endings {
        scored.push((score(&model, &beginning, ending).await?, ending));
    }
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut out = std::io::stdout();
    for (score, ending) in scored {
        writeln!(out, "{score:8.3}  {ending:?}")?;
    }
    swarm.leave().await;
    Ok(())
}

/// The log-probability of `ending` behind `beginning`: the sum over its tokens.
async fn score(model: &Model, beginning: &str, ending: &str) -> Result<f64> {
    let given = model.encode(beginning)?;
    let ids = model.encode(&format!("{beginning}{ending}"))?;
    ensure!(ids.len() > given.len() && ids.starts_with(&given), "{ending:?} changes the tokens before it");
    let mut session = model.session(model.config().all_blocks()?, ids.len()).await?;
    let rows = session.forward(&model.embed(&ids).await?).await?;
    let logits = model.logits(&rows).await?;
    // Row i says what may follow token i.
    Ok((given.len()..ids.len()).map(|at| log_probability(&logits[at - 1], ids[at] as usize)).sum())
}

fn log_probability(logits: &[f32], id: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    f64::from(logits[id] - most) - sum.ln()
}
