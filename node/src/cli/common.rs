//! The flags that all commands share which take part in a swarm.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_client::{ClientConfig, ClientError, Swarm};
use swarm_protocol::p2p::{
    BootstrapPeer, DhtMode, Identity, Network, NetworkConfig, StreamKind, SwarmKey, join_flags, pasteable,
};
use swarm_protocol::swarm_name::{DEFAULT_SWARM, SwarmName};
use swarm_protocol::{Multiaddr, PeerId};

use super::hub::Bar;
use super::output::Printer;

/// Which swarm, through whom, and as whom.
#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    /// A member to join through, as it printed it (repeatable)
    #[arg(
        long,
        alias = "initial-peers",
        env = "SWARM_BOOTSTRAP",
        value_name = "MULTIADDR/p2p/PEERID",
        value_delimiter = ','
    )]
    pub(crate) bootstrap: Vec<BootstrapPeer>,
    /// The swarm's name
    #[arg(long, env = "SWARM_SWARM", value_name = "NAME", default_value = DEFAULT_SWARM)]
    pub(crate) swarm: SwarmName,
    /// The key of a private swarm; make one with `swarm-node keygen FILE`
    #[arg(long, env = "SWARM_SWARM_KEY", value_name = "FILE")]
    pub(crate) swarm_key: Option<PathBuf>,
    /// The key pair that the peer id is made of; made if there is none. Without it the id is new at each start
    #[arg(long, env = "SWARM_IDENTITY", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Look for members on the local network
    #[arg(long, env = "SWARM_MDNS", value_parser = FalseyValueParser::new())]
    pub(crate) mdns: bool,
}

impl SwarmArgs {
    /// A client's part in the swarm: it listens nowhere and asks only.
    ///
    /// # Errors
    /// If the identity or the swarm's key cannot be read.
    pub(crate) fn network_config(&self) -> anyhow::Result<NetworkConfig> {
        let identity = match &self.identity {
            Some(file) => Identity::load_or_create(file)?,
            None => Identity::ephemeral(),
        };
        Ok(NetworkConfig {
            identity,
            swarm_key: self.swarm_key.as_deref().map(SwarmKey::read).transpose()?,
            mdns: self.mdns,
            ..NetworkConfig::client(self.swarm.clone(), self.bootstrap.clone())
        })
    }
}

/// Where a member that others dial listens, and what it tells them.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// An address to listen on (repeatable) [default: any interface, any port]
    #[arg(long, env = "SWARM_LISTEN", value_name = "MULTIADDR", value_delimiter = ',', value_parser = swarm_protocol::p2p::parse_address)]
    pub(crate) listen: Vec<Multiaddr>,
    /// An address at which others can dial this machine, if it is not one it listens on (repeatable)
    #[arg(long, env = "SWARM_ANNOUNCE", value_name = "MULTIADDR", value_delimiter = ',', value_parser = swarm_protocol::p2p::parse_address)]
    pub(crate) announce: Vec<Multiaddr>,
}

impl ListenArgs {
    /// `config` as that of a member that keeps the DHT and answers streams of the kinds in `serve`; listens on `port`
    /// unless told where.
    ///
    /// # Errors
    /// If an announced address names another peer.
    pub(crate) fn listening(
        &self,
        config: NetworkConfig,
        port: u16,
        serve: &[StreamKind],
    ) -> anyhow::Result<NetworkConfig> {
        let peer = config.identity.peer_id();
        let listen = match self.listen.is_empty() {
            false => self.listen.clone(),
            true => {
                vec![format!("/ip4/0.0.0.0/tcp/{port}").parse()?, format!("/ip4/0.0.0.0/udp/{port}/quic-v1").parse()?]
            }
        };
        let announce = self.announce.iter().map(|address| without_peer(address, peer)).collect::<Result<_, _>>()?;
        Ok(NetworkConfig { listen, announce, dht: DhtMode::Server, serve: serve.to_vec(), ..config })
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

/// Becomes a client of a swarm; who waits at a terminal sees that.
///
/// # Errors
/// Those of [`Swarm::join`].
pub(crate) async fn join(network: NetworkConfig, config: ClientConfig) -> Result<Swarm, ClientError> {
    let joining = Bar::default();
    joining.spin("joining the swarm");
    let swarm = Swarm::join(network, config).await;
    joining.done();
    swarm
}

/// Says where a member listens: for scripts each address, for people who it is.
pub(crate) fn print_listening(printer: Printer, peer: PeerId, addresses: &[Multiaddr]) {
    printer.words(format_args!("peer id   {peer}"));
    for address in addresses {
        let address = format!("{address}/p2p/{peer}");
        let event = json!({ "event": "listening", "peer_id": peer.to_string(), "address": address });
        printer.result(&event, format_args!("listening {address}"));
    }
}

/// Says loudly that nobody can dial this member.
pub(crate) fn warn_unreachable(printer: Printer) {
    printer.note(
        "warning: none of this machine's addresses can be dialled by the other members of this swarm: only relayed and \
         local peers can reach it.\n\
         warning: forward a port, or pass --announce with an address at which others reach this machine.",
    );
}

/// The lines with which others join through this member; `model` is what follows `--model`.
pub(crate) fn print_how_to_join(printer: Printer, args: &SwarmArgs, address: &str, model: &str) {
    let flags = join_flags(address, &args.swarm, args.swarm_key.as_deref());
    printer.words(format_args!(
        "To join with another server:\n  swarm-node serve --model {model} {flags}\n\
         To use the model:\n  swarm-node generate --model {model} {flags} --prompt \"Once upon a time\""
    ));
}

/// Everybody should know, once, who can read what.
pub(crate) fn warn_of_readers(printer: Printer, args: &SwarmArgs) {
    if args.swarm_key.is_none() {
        printer.note(
            "note: this swarm has no --swarm-key, so anybody can join it. Servers can read the prompts of those who use \
             them: do not send secrets.",
        );
    }
}

/// Where a member can be dialled; where it listens, if nobody else can dial it.
pub(crate) fn shown_addresses(network: &Network) -> Vec<Multiaddr> {
    let dialable = network.dialable_addresses();
    if dialable.is_empty() { network.listening() } else { dialable }
}

/// The address that others are best told, with the peer id.
pub(crate) fn best_address(network: &Network) -> Option<String> {
    network.dialable_addresses().first().map(|address| pasteable(address, network))
}
