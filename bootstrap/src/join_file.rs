//! `--join-file`: a configuration file for `swarm-node` with which members on other machines or in other containers join.

use std::path::Path;

use anyhow::Context;
use swarm_protocol::p2p::{Network, pasteable};

use super::args::Args;

/// Writes the file; whoever reads it meanwhile finds the old one or the new one whole.
///
/// # Errors
/// If it cannot be written, or there is nothing to join through.
pub(crate) fn write(args: &Args, path: &Path, network: &Network) -> anyhow::Result<()> {
    let addresses: Vec<String> =
        network.dialable_addresses().iter().map(|address| pasteable(address, network)).collect();
    anyhow::ensure!(
        !addresses.is_empty(),
        "there is no address for {}: others cannot dial this machine; pass --announce",
        path.display()
    );
    let unwritable = || format!("cannot write {}; name a file in a folder you may write to", path.display());
    let beside = path.with_extension("part");
    std::fs::write(&beside, text(&addresses, args.swarm.as_str())).with_context(unwritable)?;
    std::fs::rename(&beside, path).with_context(unwritable)
}

/// Neither addresses nor a swarm's name have characters that TOML would take for others.
fn text(addresses: &[String], swarm: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("  \"{address}\",\n")).collect();
    format!("# Written by swarm-bootstrap: how to join.\nbootstrap = [\n{}]\nswarm = \"{swarm}\"\n", addresses.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_toml() {
        let text = text(&["/ip4/127.0.0.1/tcp/1/p2p/a".to_string()], "lab");
        assert!(text.ends_with("bootstrap = [\n  \"/ip4/127.0.0.1/tcp/1/p2p/a\",\n]\nswarm = \"lab\"\n"), "{text}");
    }
}
