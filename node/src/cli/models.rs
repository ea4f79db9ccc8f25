//! `swarm-node models`: what is cached here, and what a swarm serves.

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::{Value, json};
use swarm_client::ClientConfig;
use swarm_hub::{CachedModel, HubConfig};
use swarm_protocol::announcement::DirectoryEntry;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;

use super::common::{SwarmArgs, join};
use super::hub::Bar;
use super::output::{Printer, plain};
use super::units::size;

/// Characters of a commit that are shown.
const SHORT_COMMIT: usize = 8;

/// List the models that are cached on this machine; with --bootstrap also those that a swarm serves.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node models
  swarm-node models --json \\
    --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...")]
pub(crate) struct ModelsArgs {
    #[command(flatten)]
    swarm: SwarmArgs,
    /// Print one JSON object
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// A model of the swarm.
type Served = (ModelId, DirectoryEntry);

/// Runs the command.
pub(crate) async fn run(args: ModelsArgs) -> Result<()> {
    let cached = tokio::task::spawn_blocking(|| swarm_hub::list(&HubConfig::of_environment())).await?;
    let asked = !args.swarm.bootstrap.is_empty() || args.swarm.mdns;
    let served = if asked { Some(served(&args.swarm).await?) } else { None };
    let json = json!({
        "cached": cached.iter().map(cached_json).collect::<Vec<_>>(),
        "served": served.as_ref().map(|models| models.iter().map(served_json).collect::<Vec<_>>()),
    });
    Printer::new(args.json).result(&json, text(&cached, served.as_deref()).trim_end());
    Ok(())
}

async fn served(args: &SwarmArgs) -> Result<Vec<Served>> {
    let swarm = join(args.network_config()?, ClientConfig::default()).await?;
    let asking = Bar::default();
    asking.spin("asking which models there are");
    let models = swarm.models().await.into_iter().collect();
    asking.done();
    swarm.leave().await;
    Ok(models)
}

fn cached_json(model: &CachedModel) -> Value {
    let parts = model.parts.as_ref();
    json!({
        "repository": model.repository,
        "file": model.file,
        "revisions": model.revisions,
        "commit": model.commit,
        "format": model.format,
        "bytes": model.bytes,
        "all_bytes": model.all_bytes,
        "blocks": parts.map(|parts| parts.blocks),
        "complete": parts.map(|parts| parts.complete.iter().map(|range| [range.start(), range.end()]).collect::<Vec<_>>()),
        "edges": parts.map(|parts| parts.edges),
    })
}

fn served_json((id, entry): &Served) -> Value {
    json!({ "model_id": id.to_string(), "name": entry.name, "blocks": entry.blocks })
}

fn text(cached: &[CachedModel], served: Option<&[Served]>) -> String {
    let mut text = String::new();
    if cached.is_empty() {
        text.push_str("no model of the hub is cached; `swarm-node pull org/name` fetches one\n");
    }
    for model in cached {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line(model));
    }
    for (id, entry) in served.unwrap_or_default() {
        let _ = writeln!(text, "served    {} ({}), {}", plain(&entry.name), id.short(), blocks(entry.blocks));
    }
    if served.is_some_and(<[Served]>::is_empty) {
        text.push_str("the swarm serves no model\n");
    }
    text
}

fn blocks(number: u32) -> String {
    if number == 1 { "1 block".to_string() } else { format!("{number} blocks") }
}

fn line(model: &CachedModel) -> String {
    let named = |revision: &String| format!("@{revision}");
    let revisions: String = model.revisions.iter().filter(|name| *name != "main").map(named).collect();
    let commit = model.commit.get(..SHORT_COMMIT).unwrap_or_default();
    let format = model.format.as_deref().map(|format| format!(", {format}")).unwrap_or_default();
    let of = match model.all_bytes {
        Some(all) if all != model.bytes => format!(" of {}", size(all)),
        _ => String::new(),
    };
    let parts = model.parts.as_ref().map(|parts| {
        let whole = |range: &BlockRange| range.start() == 0 && range.end() == parts.blocks;
        let complete = match parts.complete.as_slice() {
            [] => format!("none of {}", blocks(parts.blocks)),
            [range] if whole(range) => format!("all {}", blocks(parts.blocks)),
            ranges => {
                let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                format!("blocks {} of {}", ranges.join(", "), parts.blocks)
            }
        };
        format!(", {complete}{}", if parts.edges { " and edges" } else { "" })
    });
    let parts = parts.unwrap_or_default();
    let file = model.file.as_deref().map(|file| format!(":{file}")).unwrap_or_default();
    format!("cached    {}{revisions}{file} ({commit}{format}), {}{of}{parts}", model.repository, size(model.bytes))
}
