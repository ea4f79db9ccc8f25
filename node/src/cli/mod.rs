//! The command line. Every flag has an environment twin; results go to stdout, everything else to stderr.

mod batch;
mod bootstrap_peer;
mod chat;
mod common;
mod control;
mod demo;
mod drain;
mod formats;
mod generate;
mod keygen;
mod output;
mod peers;
mod serve;
mod status;
mod status_view;
mod stop;
mod text_view;
mod trace;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use swarm_client::ClientError;

/// What is printed when nothing is asked for.
const INTRODUCTION: &str = "\
swarm-node runs a language model over many machines: each serves some of its blocks, together they answer.

Watch a swarm on this machine lose a server and finish its text:
  swarm-node demo
Serve a model; it prints how others join, and how to use it:
  swarm-node serve --model demo
Generate text through a swarm:
  swarm-node generate --model demo --bootstrap MULTIADDR/p2p/PEERID --prompt \"Once upon a time\"

All commands: swarm-node --help";

/// The exit code for a command line that cannot be obeyed; clap's too.
const BAD_USAGE: u8 = 2;

/// Serve blocks of a model to a swarm, and use models that a swarm serves.
#[derive(Debug, Parser)]
#[command(name = "swarm-node", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve blocks of a model
    Serve(serve::ServeArgs),
    /// Generate text from a prompt
    Generate(generate::GenerateArgs),
    /// Chat with a model
    Chat(chat::ChatArgs),
    /// Let a server on this machine leave its swarm
    Drain(drain::DrainArgs),
    /// Show who serves what in a swarm
    Status(status::StatusArgs),
    /// Show where the time of a generated text went
    Trace(trace::TraceArgs),
    /// Watch a whole swarm on this machine lose a server and tell its story to the end
    Demo,
    /// Make the key of a private swarm
    Keygen(keygen::KeygenArgs),
    /// Run a bootstrap peer (as swarm-bootstrap does)
    #[command(hide = true)]
    BootstrapPeer(bootstrap_peer::BootstrapPeerArgs),
}

/// Parses the command line and runs what it asks for. Bad usage gives code 2, most of it here.
pub(crate) fn main() -> ExitCode {
    let Some(command) = Cli::parse().command else {
        output::Printer::new(false).note(INTRODUCTION);
        return ExitCode::from(BAD_USAGE);
    };
    output::init_logs();
    let done = match command {
        Command::Serve(args) => run(serve::serve(args)),
        Command::Generate(args) => run(generate::run(args)),
        Command::Chat(args) => run(chat::run(args)),
        Command::Drain(args) => run(drain::run(args)),
        Command::Status(args) => run(status::run(args)),
        Command::Trace(args) => trace::run(&args),
        Command::Demo => run(stop::or_interrupted(demo::run())),
        Command::Keygen(args) => keygen::keygen(&args),
        Command::BootstrapPeer(args) => run(bootstrap_peer::bootstrap_peer(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            if is_bad_usage(&error) { ExitCode::from(BAD_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn is_bad_usage(error: &anyhow::Error) -> bool {
    error.is::<output::BadUsage>() || matches!(error.downcast_ref(), Some(ClientError::NoEntryPoint))
}

/// Runs a command that needs the network.
fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // Threads that still read a checkpoint are not waited for.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::builder::ValueParser;
    use clap::{ArgAction, CommandFactory};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_twin() {
        let check = |command: &clap::Command| {
            for flag in command.get_arguments() {
                let Some(long) = flag.get_long().filter(|long| !["help", "version"].contains(long)) else {
                    continue;
                };
                let twin = format!("SWARM_{}", long.to_uppercase().replace('-', "_"));
                let env = flag.get_env().and_then(|env| env.to_str()).unwrap_or_default();
                assert_eq!(env, twin, "{} --{long}", command.get_name());
                // clap's own parser of switches takes `true` and `false` only.
                let of_switches = matches!(flag.get_action(), ArgAction::SetTrue);
                let strict = format!("{:?}", flag.get_value_parser()) == format!("{:?}", ValueParser::bool());
                assert!(!(of_switches && strict), "{twin}=1 would be refused");
            }
        };
        Cli::command().get_subcommands().for_each(check);
    }
}
