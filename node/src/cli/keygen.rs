//! `swarm-node keygen`: the key of a private swarm.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_protocol::p2p::SwarmKey;

use super::output::Printer;

/// Make the key of a private swarm: whoever has a copy of the file is let in, and nobody else.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node keygen swarm.key
  swarm-node serve --model demo --swarm-key swarm.key --swarm our-lab")]
pub(crate) struct KeygenArgs {
    /// Where to write the key; never overwritten
    file: PathBuf,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Writes a fresh key.
pub(crate) fn keygen(args: &KeygenArgs) -> anyhow::Result<()> {
    let key = SwarmKey::generate();
    key.write_new(&args.file)?;
    let (file, fingerprint) = (args.file.display().to_string(), key.fingerprint());
    let words = format!(
        "wrote a key to {file} (fingerprint {fingerprint}, the same for all who hold it)\n\
         Give every member a copy, over a channel you trust, and pass --swarm-key {file} everywhere."
    );
    Printer::new(args.json).result(&json!({ "event": "key", "file": file, "fingerprint": fingerprint }), words);
    Ok(())
}
