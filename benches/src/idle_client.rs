//! A client that starts cold, gets one token, and then does nothing until it is killed.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Model};

use crate::local_swarm::join;

/// Room for the prompt and its answer.
const TOKENS: usize = 64;

/// Said once the first token is there.
pub(crate) const FIRST_TOKEN: &str = "first_token";

/// Said once the session has ended.
pub(crate) const IDLE: &str = "idle";

/// Which swarm, which model.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[arg(long)]
    model: String,
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    swarm: String,
    #[arg(long)]
    prompt: String,
}

/// Says when there is a token and when it idles; ends with its stdin.
///
/// # Errors
/// If there is no token to be had.
pub(crate) async fn run(settings: Settings) -> Result<()> {
    let swarm = join(&settings.bootstrap, &settings.swarm, ClientConfig::default()).await?;
    let model = swarm.open_model(&settings.model.parse()?, None).await?;
    first_token(&model, &settings.prompt).await?;
    say(IDLE)?;
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    swarm.leave().await;
    Ok(())
}

async fn first_token(model: &Model, prompt: &str) -> Result<()> {
    let mut session = model.text_session(TOKENS).await?;
    let config = GenerationConfig { max_tokens: 1, ..GenerationConfig::default() };
    let mut generation = session.generate(&model.encode(prompt)?, config)?;
    loop {
        match generation.next().await?.context("no token came")? {
            // A random model may end its text with the first token.
            GenerationEvent::Token { .. } | GenerationEvent::Done(_) => return say(FIRST_TOKEN),
            GenerationEvent::Route { .. } | GenerationEvent::Reroute { .. } | GenerationEvent::Trace(_) => {}
        }
    }
}

fn say(event: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", json!({ "event": event }))?;
    Ok(out.flush()?)
}
