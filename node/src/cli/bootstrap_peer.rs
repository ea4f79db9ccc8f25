//! `swarm-node bootstrap-peer`: what `swarm-bootstrap` is, from this binary.

use clap::Args;
use clap::builder::FalseyValueParser;
use swarm_protocol::p2p::StreamKind;
use swarm_protocol::p2p::{Network, addresses_settled, answer_as_bootstrap};

use super::common::{
    ListenArgs, SwarmArgs, best_address, print_how_to_join, print_listening, shown_addresses, warn_unreachable,
};
use super::output::Printer;
use super::stop::{Stop, with_stdin};

/// The port that people expect a libp2p peer at.
const DEFAULT_PORT: u16 = 4001;

#[derive(Debug, Args)]
pub(crate) struct BootstrapPeerArgs {
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    listen: ListenArgs,
    /// End when stdin closes: whoever started this process is gone
    #[arg(long, env = "SWARM_UNTIL_STDIN_CLOSES", value_parser = FalseyValueParser::new(), hide = true)]
    until_stdin_closes: bool,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Runs until told to stop.
pub(crate) async fn bootstrap_peer(args: BootstrapPeerArgs) -> anyhow::Result<()> {
    let printer = Printer::new(args.json);
    let stop = Stop::on_signals()?;
    if args.until_stdin_closes {
        with_stdin();
    }
    let config = args.listen.listening(args.swarm.network_config()?, DEFAULT_PORT, &[StreamKind::Info])?;
    let (network, inbound) = Network::start(config).await?;
    addresses_settled(&network).await;
    print_listening(printer, network.peer_id(), &shown_addresses(&network));
    match best_address(&network) {
        Some(address) => print_how_to_join(printer, &args.swarm, &address, "demo"),
        None => warn_unreachable(printer),
    }
    // Other entry points may come later; this one answers without them.
    tokio::select! {
        () = answer_as_bootstrap(inbound) => {}
        () = stop.wait() => {}
    }
    network.shut_down().await;
    Ok(())
}
