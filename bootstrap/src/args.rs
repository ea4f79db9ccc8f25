//! The command line. Every flag has an environment twin.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Parser;
use clap::builder::FalseyValueParser;
use swarm_protocol::p2p::{BootstrapPeer, DhtMode, Identity, NetworkConfig, StreamKind, SwarmKey, parse_address};
use swarm_protocol::swarm_name::{DEFAULT_SWARM, SwarmName};
use swarm_protocol::{Multiaddr, PeerId};
use swarm_telemetry::http;
use swarm_telemetry::logs::{LogFormat, check_filter};

/// An entry point to a swarm: other members join through it.
#[derive(Debug, Parser)]
#[command(
    name = "swarm-bootstrap",
    version,
    max_term_width = 100,
    after_help = "Examples:
  swarm-bootstrap
  swarm-bootstrap --identity bootstrap.key --swarm-key swarm.key \\
    --swarm our-lab --announce /dns4/swarm.example.org/tcp/4001"
)]
pub(crate) struct Args {
    /// An address to listen on (repeatable)
    #[arg(
        long,
        env = "SWARM_LISTEN",
        value_name = "MULTIADDR",
        value_delimiter = ',',
        value_parser = parse_address,
        default_value = "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1"
    )]
    listen: Vec<Multiaddr>,
    /// An address at which others can dial this machine, if it is not one it listens on (repeatable)
    #[arg(long, env = "SWARM_ANNOUNCE", value_name = "MULTIADDR", value_delimiter = ',', value_parser = parse_address)]
    announce: Vec<Multiaddr>,
    /// Another entry point of the swarm (repeatable)
    #[arg(
        long,
        alias = "initial-peers",
        env = "SWARM_BOOTSTRAP",
        value_name = "MULTIADDR/p2p/PEERID",
        value_delimiter = ','
    )]
    bootstrap: Vec<BootstrapPeer>,
    /// The key pair that the peer id is made of; made if there is none. Without it the id is new at each start
    #[arg(long, env = "SWARM_IDENTITY", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// The swarm's name
    #[arg(long, env = "SWARM_SWARM", value_name = "NAME", default_value = DEFAULT_SWARM)]
    pub(crate) swarm: SwarmName,
    /// The key of a private swarm; make one with `swarm-node keygen FILE`
    #[arg(long, env = "SWARM_SWARM_KEY", value_name = "FILE")]
    pub(crate) swarm_key: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Write how to join through this node to FILE, which `swarm-node --config FILE` reads
    #[arg(long, env = "SWARM_JOIN_FILE", value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    /// Where to answer HTTP: `/metrics` for Prometheus, `/health` and `/ready` [default: nowhere]
    #[arg(long, env = "SWARM_HTTP", value_name = "ADDRESS:PORT", value_parser = http::parse_address)]
    pub(crate) http: Option<SocketAddr>,
    /// What is logged on stderr: a level (error, warn, info, debug, trace), or target=level joined by commas [default: RUST_LOG,
    /// or warn]
    #[arg(long, env = "SWARM_LOG", value_name = "FILTER", value_parser = check_filter)]
    pub(crate) log: Option<String>,
    /// How it is logged: `text` for people, `json` for machines: one object a line, everything else on stderr included
    #[arg(long, env = "SWARM_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

impl Args {
    /// The part that this node takes in the swarm.
    ///
    /// # Errors
    /// If the identity or the swarm's key cannot be read, or an announced address names another peer.
    pub(crate) fn network_config(&self) -> anyhow::Result<NetworkConfig> {
        let identity = match &self.identity {
            Some(file) => Identity::load_or_create(file)?,
            None => Identity::ephemeral(),
        };
        let own = identity.peer_id();
        Ok(NetworkConfig {
            identity,
            swarm_key: self.swarm_key.as_deref().map(SwarmKey::read).transpose()?,
            listen: self.listen.clone(),
            announce: self.announce.iter().map(|address| without_peer(address, own)).collect::<Result<_, _>>()?,
            dht: DhtMode::Server,
            serve: vec![StreamKind::Info],
            ..NetworkConfig::client(self.swarm.clone(), self.bootstrap.clone())
        })
    }
}

/// An address as it is announced: whose it is goes without saying.
fn without_peer(address: &Multiaddr, own: PeerId) -> anyhow::Result<Multiaddr> {
    match address.to_string().parse::<BootstrapPeer>() {
        Ok(BootstrapPeer { peer, address }) if peer == own => Ok(address),
        Ok(_) => bail!("--announce {address} names another peer; this one is {own}"),
        Err(_) => Ok(address.clone()),
    }
}

#[cfg(test)]
mod tests {
    use clap::builder::ValueParser;
    use clap::{ArgAction, CommandFactory};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn switches_take_the_usual_words_from_the_environment() {
        // clap's own parser of switches takes `true` and `false` only, and refuses SWARM_JSON=1.
        let strict = format!("{:?}", ValueParser::bool());
        for flag in Args::command().get_arguments().filter(|flag| matches!(flag.get_action(), ArgAction::SetTrue)) {
            assert_ne!(format!("{:?}", flag.get_value_parser()), strict, "{}", flag.get_id());
        }
    }
}
