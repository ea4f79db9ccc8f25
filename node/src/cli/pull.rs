//! `swarm-node pull`: fetches a model before it is needed.

use anyhow::Result;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_model::{ModelPart, ModelSpec};
use swarm_protocol::block::BlockRange;

use super::hub::{Bar, HubArgs};
use super::output::Printer;
use super::units::size;

/// Fetch a model of the Hugging Face hub, or a part of it, before it is needed.
///
/// What is cached already is not fetched again, and what was interrupted goes on where it stopped. A model that is there as a
/// whole can be used by all tools that share the cache (HF_HOME).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node pull org/name
  swarm-node pull org/name --blocks 0..16
  swarm-node pull org/name@v1.0 --edges
  swarm-node pull org/name-GGUF:name.Q4_K_M.gguf")]
pub(crate) struct PullArgs {
    /// org/name[@revision], or org/name[@revision]:FILE.gguf
    #[arg(value_name = "MODEL")]
    model: ModelSpec,
    /// Only what a server of these blocks needs
    // Neither this nor the next is heard from the environment: there SWARM_BLOCKS is a server's, and a number.
    #[arg(long, value_name = "A..B", conflicts_with = "edges")]
    blocks: Option<BlockRange>,
    /// Only what a client needs: embedding, final norm, head and tokenizer
    #[arg(long)]
    edges: bool,
    #[command(flatten)]
    hub: HubArgs,
    /// Print one JSON object
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: PullArgs) -> Result<()> {
    let part = args.blocks.map(ModelPart::Blocks).or_else(|| args.edges.then_some(ModelPart::Edges));
    let (spec, config, bar) = (args.model.clone(), args.hub.config(), Bar::default());
    let shown = bar.clone();
    bar.spin("asking the hub");
    let pulled = tokio::task::spawn_blocking(move || {
        swarm_hub::pull(&spec, &config, part, &mut |done, all| shown.show("fetching", done, all))
    });
    let pulled = pulled.await;
    bar.done();
    let pulled = pulled??;
    let event = json!({
        "event": "pulled",
        "model": args.model.to_string(),
        "commit": pulled.commit,
        "fetched_bytes": pulled.fetched,
        "bytes": pulled.wanted,
    });
    let words = format!("{} is here: {}, of which {} came now", args.model, size(pulled.wanted), size(pulled.fetched));
    Printer::new(args.json).result(&event, words);
    Ok(())
}
