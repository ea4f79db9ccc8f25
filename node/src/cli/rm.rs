//! `swarm-node rm`: deletes what is cached of a model.

use anyhow::Result;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_hub::HubConfig;
use swarm_model::ModelSpec;

use super::output::Printer;
use super::units::size;

/// Delete what is cached of a model of the Hugging Face hub, whoever fetched it.
///
/// Nothing is asked. What a running swarm-node uses is not deleted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node rm org/name
  swarm-node rm org/name@v1.0
  swarm-node rm org/name-GGUF:name.Q4_K_M.gguf")]
pub(crate) struct RmArgs {
    /// org/name, with all its revisions and files; org/name@revision; or one file of either, org/name:FILE.gguf
    #[arg(value_name = "MODEL")]
    model: ModelSpec,
    /// Print one JSON object
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &RmArgs) -> Result<()> {
    let freed = swarm_hub::remove(&HubConfig::of_environment(), &args.model)?;
    let event = json!({ "event": "removed", "model": args.model.to_string(), "freed_bytes": freed });
    Printer::new(args.json).result(&event, format_args!("{} is gone; {} are free again", args.model, size(freed)));
    Ok(())
}
