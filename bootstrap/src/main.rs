//! `swarm-bootstrap`: an entry point to a swarm. It keeps the DHT and runs no model code.

mod args;
mod http;
mod join_file;
mod output;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use swarm_protocol::p2p::{Network, addresses_settled, answer_as_bootstrap};

use self::args::Args;
use self::output::{print_error, print_listening};

fn main() -> ExitCode {
    let args = Args::parse();
    swarm_telemetry::logs::init(args.log.as_deref(), args.log_format, None);
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let (network, inbound) = Network::start(args.network_config()?).await?;
        addresses_settled(&network).await;
        print_listening(args, &network);
        if let Some(path) = &args.join_file {
            join_file::write(args, path, &network)?;
        }
        let _watched = match args.http {
            Some(address) => Some(http::Watched::start(args, address, &network).await?),
            None => None,
        };
        // Other entry points may come later; this one answers without them.
        tokio::select! {
            () = answer_as_bootstrap(inbound) => {}
            stopped = told_to_stop() => stopped.context("listening for signals")?,
        }
        network.shut_down().await;
        Ok(())
    })
}

/// Resolves on Ctrl-C and SIGTERM. What is left to do then takes milliseconds, so a second one needs no care.
#[cfg(unix)]
async fn told_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn told_to_stop() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
