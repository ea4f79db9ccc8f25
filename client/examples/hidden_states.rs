//! Hidden states instead of text: push embeddings through the blocks of a swarm, look at the state between them, undo a
//! step, and compute logits.
//!
//! `cargo run --release -p swarm-client --example hidden_states -- MULTIADDR/p2p/PEERID [MODEL]`

use std::io::Write;

use anyhow::{Context, Result};
use swarm_client::{ClientConfig, Swarm};
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::NetworkConfig;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("usage: hidden_states MULTIADDR/p2p/PEERID [MODEL]")?.parse()?;
    let model = arguments.next().unwrap_or_else(|| "demo".to_string());

    let swarm = Swarm::join(NetworkConfig::client("public".parse()?, vec![bootstrap]), ClientConfig::default()).await?;
    let model = swarm.open_model(&model.parse()?, None).await?;
    let all = model.config().all_blocks()?;
    let middle = all.end() / 2;
    let mut out = std::io::stdout();

    // Two sessions, one after the other: the state between them is ours to look at, or to change.
    let mut lower = model.session(BlockRange::new(0, middle)?, 64).await?;
    let mut upper = model.session(BlockRange::new(middle, all.end())?, 64).await?;
    let ids = model.encode("Once upon a time, there was a")?;
    let between = lower.forward(&model.embed(&ids).await?).await?;
    writeln!(out, "after block {middle}: {:?}, {:?}", between.dims(), between.dtype())?;
    let logits = model.logits(&upper.forward(&between).await?).await?;

    let last = logits.last().context("no logits")?;
    let mut ranked: Vec<usize> = (0..last.len()).collect();
    ranked.sort_by(|&one, &other| last[other].total_cmp(&last[one]));
    for &id in &ranked[..5] {
        let mut decoder = model.decoder();
        let piece = decoder.push(id as u32)?.or(decoder.flush()?).unwrap_or_default();
        writeln!(out, "{:8.3}  {piece:?}", last[id])?;
    }

    // Back by two positions on both sessions: the KV caches forget them, and other tokens can follow.
    let position = lower.position() - 2;
    lower.truncate(position);
    upper.truncate(position);
    writeln!(out, "rewound to position {} of {}", lower.position(), ids.len())?;
    for (name, session) in [("lower", &lower), ("upper", &upper)] {
        for hop in session.route() {
            writeln!(out, "{name}: blocks {} on {}", hop.blocks, hop.peer)?;
        }
    }
    swarm.leave().await;
    Ok(())
}
