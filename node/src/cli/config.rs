//! `swarm-node config`: where settings are looked for, and what they are.

use anyhow::Result;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;

use super::config_file::{ConfigFile, default_path};
use super::output::Printer;

/// Show which configuration file is used, and what it sets.
///
/// A flag on the command line goes before its variable (SWARM_<FLAG>), and that before the file. The file is TOML with the
/// flags' long names as keys: those at the top are for all commands that have the flag, those in a table ([serve], [api], ...) for
/// one command. It is named with --config FILE or SWARM_CONFIG (empty for none), or is $XDG_CONFIG_HOME/swarm-node/config.toml
/// (~/.config/swarm-node/config.toml), if there is one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node config
  swarm-node config --config ./lab.toml

A file:
  bootstrap = [\"/ip4/192.168.1.5/tcp/4001/p2p/12D3KooW...\"]
  swarm-key = \"/home/me/swarm.key\"

  [serve]
  model = \"demo\"
  blocks = 8
  name = \"attic\"")]
pub(crate) struct ConfigArgs {
    /// Print one JSON object
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Runs the command; what is wrong with the file was said before.
pub(crate) fn run(args: &ConfigArgs, file: Option<&ConfigFile>) -> Result<()> {
    let printer = Printer::new(args.json);
    let default = default_path().map(|path| path.display().to_string());
    let event = json!({
        "event": "config",
        "file": file.map(|file| file.path.display().to_string()),
        "default": default,
        "settings": file.map(ConfigFile::lines),
    });
    let words = match (file, &default) {
        (Some(file), _) => [vec![format!("file      {}", file.path.display())], file.lines()].concat().join("\n"),
        (None, Some(default)) => {
            format!("no file   {default} would be read if it were there; `--help` shows what one looks like")
        }
        (None, None) => "no file   there is neither XDG_CONFIG_HOME nor HOME; name one with --config FILE".to_string(),
    };
    printer.result(&event, words);
    Ok(())
}
