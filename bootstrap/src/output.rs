//! What a person or a script sees: results on stdout, the rest on stderr.

use std::fmt;
use std::io::Write;

use serde_json::json;
use swarm_protocol::p2p::{Network, join_flags, pasteable};
use swarm_telemetry::logs;
use tracing::Level;

use super::args::Args;

/// Prints where the node listens and how others join through it.
pub(crate) fn print_listening(args: &Args, network: &Network) {
    let dialable = network.dialable_addresses();
    // Whoever started it may know a way that it cannot see, for example through a forwarded port.
    let shown = if dialable.is_empty() { network.listening() } else { dialable.clone() };
    let addresses: Vec<String> = shown.iter().map(|address| pasteable(address, network)).collect();
    let peer_id = network.peer_id().to_string();
    if dialable.is_empty() {
        note(
            "warning: none of this machine's addresses can be dialled by the other members of this swarm; pass \
             --announce with an address at which others reach this machine.",
        );
    }
    if args.json {
        for address in addresses {
            result(json!({ "event": "listening", "peer_id": peer_id, "address": address }));
        }
        return;
    }
    result(format_args!("peer id   {peer_id}"));
    addresses.iter().for_each(|address| result(format_args!("listening {address}")));
    if dialable.is_empty() {
        return;
    }
    if args.identity.is_none() {
        note("note: without --identity FILE the peer id, and so the lines below, are new at each start.");
    }
    if let Some(address) = addresses.first() {
        let flags = join_flags(address, &args.swarm, args.swarm_key.as_deref());
        result(format_args!(
            "To join with a server:\n  swarm-node serve --model demo {flags}\n\
             To use a model:\n  swarm-node generate --model demo {flags} --prompt \"Once upon a time\""
        ));
    }
}

/// Prints an error in one line: its causes, without those that the one before already quotes.
pub(crate) fn print_error(error: &anyhow::Error) {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if parts.last().is_none_or(|last| !last.contains(&cause)) {
            parts.push(cause);
        }
    }
    logs::say(Level::ERROR, format_args!("error: {}", parts.join(": ")));
}

pub(crate) fn result(what: impl fmt::Display) {
    line(std::io::stdout(), what);
}

fn note(what: impl fmt::Display) {
    let what = what.to_string();
    let level = if what.starts_with("warning: ") { Level::WARN } else { Level::INFO };
    logs::say(level, what);
}

/// Whoever reads may have gone; that ends nothing here.
fn line(mut to: impl Write, what: impl fmt::Display) {
    let _ = writeln!(to, "{what}");
    let _ = to.flush();
}
