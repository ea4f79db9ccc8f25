//! The command line. Every flag has an environment twin; results go to stdout, everything else to stderr.

mod api;
mod batch;
mod bench;
mod bootstrap_peer;
mod chat;
mod common;
mod completions;
mod config;
mod config_file;
mod control;
mod demo;
mod doctor;
mod drain;
mod formats;
mod generate;
mod hub;
mod keygen;
mod models;
mod otlp;
mod output;
mod peers;
mod probe;
mod pull;
mod rm;
mod sampling;
mod serve;
mod server_page;
mod status;
mod status_screen;
#[cfg(test)]
mod status_testing;
mod status_view;
mod stop;
mod text_view;
mod trace;
mod units;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use swarm_client::{ClientError, SessionError};
use swarm_model::ModelError;
use swarm_protocol::p2p::SwarmKeyError;
use swarm_telemetry::logs::{self, Collector, LogFormat, check_filter};

use self::config_file::{ConfigFile, Line};
use self::otlp::{Endpoint, Sending, ratio};

/// What is printed when nothing is asked for.
const INTRODUCTION: &str = "\
swarm-node runs a language model over many machines: each serves some of its blocks, together they answer.

Watch a swarm on this machine lose a server and finish its text:
  swarm-node demo
Serve a model; it prints how others join, and how to use it:
  swarm-node serve --model demo
Generate text through a swarm:
  swarm-node generate --model demo --bootstrap MULTIADDR/p2p/PEERID \\
    --prompt \"Once upon a time\"

All commands: swarm-node --help";

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  swarm-node demo
  swarm-node serve --model demo
  swarm-node generate --model demo --bootstrap MULTIADDR/p2p/PEERID \\
    --prompt \"Once upon a time\"

Every flag has a variable, SWARM_<FLAG>, and can stand in a file: swarm-node config --help";

/// The exit code for a command line that cannot be obeyed; clap's too.
const BAD_USAGE: u8 = 2;

/// Serve blocks of a model to a swarm, and use models that a swarm serves.
#[derive(Debug, Parser)]
#[command(name = "swarm-node", version, max_term_width = 100)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    general: GeneralArgs,
}

/// What holds for every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "General options")]
struct GeneralArgs {
    /// A TOML file with more flags, which hold where the command line and the environment are silent (see `swarm-node config
    /// --help`); empty for none [default: swarm-node/config.toml in $XDG_CONFIG_HOME or ~/.config, if it is there]
    #[arg(long, env = "SWARM_CONFIG", value_name = "FILE", global = true,
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    config: Option<PathBuf>,
    /// What is logged on stderr: a level (error, warn, info, debug, trace), or target=level joined by commas [default: RUST_LOG,
    /// or warn]
    #[arg(long, env = "SWARM_LOG", value_name = "FILTER", global = true, value_parser = check_filter)]
    log: Option<String>,
    /// How it is logged: `text` for people, `json` for machines: one object a line, everything else on stderr included
    #[arg(long, env = "SWARM_LOG_FORMAT", value_name = "FORMAT", global = true, default_value = "text")]
    log_format: LogFormat,
    /// Send the spans of requests to an OpenTelemetry collector there, by OTLP over HTTP, for example http://127.0.0.1:4318; serve,
    /// generate, chat and api do. Empty for nowhere [default: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    /// OTEL_EXPORTER_OTLP_ENDPOINT, or nowhere]
    #[arg(long, env = "SWARM_OTLP_ENDPOINT", value_name = "URL", global = true, value_parser = Endpoint::parse)]
    otlp_endpoint: Option<Endpoint>,
    /// The part of the requests that begin here whose spans are sent, from 0 to 1. For requests that are a part of something larger
    /// whoever began that has decided
    #[arg(long, env = "SWARM_TRACE_SAMPLE", value_name = "RATIO", global = true, default_value = "1", value_parser = ratio)]
    trace_sample: f64,
}

impl GeneralArgs {
    /// Begins to send spans, if the command makes any and somebody collects them.
    fn start_spans(&self, command: &Command) -> anyhow::Result<Option<(Collector, Sending)>> {
        match command.traced() {
            Some(name) => otlp::start(self.otlp_endpoint.clone(), self.trace_sample, name),
            None => Ok(None),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve blocks of a model
    Serve(serve::ServeArgs),
    /// Generate text from a prompt
    Generate(generate::GenerateArgs),
    /// Chat with a model
    Chat(chat::ChatArgs),
    /// Serve OpenAI's HTTP API from the models of a swarm
    Api(api::ApiArgs),
    /// Let a server on this machine leave its swarm
    Drain(drain::DrainArgs),
    /// Show who serves what in a swarm
    Status(status::StatusArgs),
    /// List the models that are cached here, and those a swarm serves
    Models(models::ModelsArgs),
    /// Fetch a model of the Hugging Face hub, or a part of it, before it is needed
    Pull(pull::PullArgs),
    /// Delete what is cached of a model
    Rm(rm::RmArgs),
    /// Look at what keeps this machine from taking part in a swarm
    Doctor(doctor::DoctorArgs),
    /// Measure what this machine could do for a swarm
    Bench(bench::BenchArgs),
    /// Show where the time of a generated text went
    Trace(trace::TraceArgs),
    /// Watch a whole swarm on this machine lose a server and tell its story to the end
    #[command(after_help = "Examples:\n  swarm-node demo")]
    Demo,
    /// Make the key of a private swarm
    Keygen(keygen::KeygenArgs),
    /// Ask a running program whether it lives or is ready, for health checks
    Probe(probe::ProbeArgs),
    /// Show which configuration file is used, and what it sets
    Config(config::ConfigArgs),
    /// Print what a shell needs to complete commands and flags
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(completions::ManArgs),
    /// Run a bootstrap peer (as swarm-bootstrap does)
    #[command(hide = true)]
    BootstrapPeer(bootstrap_peer::BootstrapPeerArgs),
}

impl Command {
    /// The name under which it sends spans, if it makes any.
    fn traced(&self) -> Option<&'static str> {
        match self {
            Self::Serve(_) => Some("serve"),
            Self::Generate(_) => Some("generate"),
            Self::Chat(_) => Some("chat"),
            Self::Api(_) => Some("api"),
            _ => None,
        }
    }
}

/// Parses the command line and runs what it asks for. Bad usage gives code 2, most of it here.
pub(crate) fn main() -> ExitCode {
    let line = match Line::of(std::env::args_os().collect(), Cli::command()) {
        Ok(line) => line,
        Err(error) => {
            output::print_error(&error);
            return ExitCode::from(BAD_USAGE);
        }
    };
    let mut program = line.heard_by(Cli::command());
    let parsed = program.try_get_matches_from_mut(&line.arguments).and_then(|found| {
        let cli = Cli::from_arg_matches(&found);
        cli.map_err(|error| error.format(&mut program))
    });
    let Cli { command, general } = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout; its reader may have seen enough.
            let _ = error.print();
            if let Some(origin) = line.origin(&error) {
                output::Printer::new(false).note(origin);
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_USAGE));
        }
    };
    let Some(command) = command else {
        output::Printer::new(false).note(INTRODUCTION);
        return ExitCode::from(BAD_USAGE);
    };
    logs::set_format(general.log_format);
    let (collector, sending) = match general.start_spans(&command) {
        Ok(started) => started.unzip(),
        Err(error) => return failure(&error),
    };
    logs::init(general.log.as_deref(), general.log_format, collector);
    let done = match command {
        Command::Serve(args) => run(serve::serve(args)),
        Command::Generate(args) => run(generate::run(args)),
        Command::Chat(args) => run(chat::run(args)),
        Command::Api(args) => run(api::run(args)),
        Command::Drain(args) => run(drain::run(args)),
        Command::Status(args) => run(status::run(args)),
        Command::Models(args) => run(stop::or_interrupted(models::run(args))),
        Command::Pull(args) => run(stop::or_interrupted(pull::run(args))),
        Command::Rm(args) => rm::run(&args),
        Command::Doctor(args) => run(doctor::run(args)),
        Command::Bench(args) => run(bench::run(args)),
        Command::Trace(args) => trace::run(&args),
        Command::Demo => run(stop::or_interrupted(demo::run())),
        Command::Keygen(args) => keygen::keygen(&args),
        Command::Probe(args) => run(probe::run(args)),
        Command::Config(args) => show_config(&args, &general),
        Command::Completions(args) => completions::completions(&args, Cli::command()),
        Command::Man(args) => completions::man(&args, Cli::command()),
        Command::BootstrapPeer(args) => run(bootstrap_peer::bootstrap_peer(args)),
    };
    if let Some(sending) = sending {
        sending.finish();
    }
    done.map_or_else(|error| failure(&error), |()| ExitCode::SUCCESS)
}

/// Says what went wrong.
fn failure(error: &anyhow::Error) -> ExitCode {
    output::print_error(error);
    if is_bad_usage(error) { ExitCode::from(BAD_USAGE) } else { ExitCode::FAILURE }
}

fn show_config(args: &config::ConfigArgs, general: &GeneralArgs) -> anyhow::Result<()> {
    let mut program = Cli::command();
    program.build();
    let file = ConfigFile::load(general.config.as_deref(), &program)?;
    if let Some(file) = &file {
        file.check_values(&program)?;
    }
    config::run(args, file.as_ref())
}

/// Whether the command line alone shows what is wrong: what depends on the model, the machine or the swarm is a failure.
fn is_bad_usage(error: &anyhow::Error) -> bool {
    let of_constraint = |error: &SessionError| {
        matches!(error, SessionError::ConstraintElsewhere | SessionError::Model(ModelError::BadConstraint { .. }))
    };
    let of_key = |error: &SwarmKeyError| matches!(error, SwarmKeyError::Read { .. } | SwarmKeyError::Malformed(_));
    error.is::<output::BadUsage>()
        || matches!(error.downcast_ref(), Some(ClientError::NoEntryPoint))
        || error.downcast_ref().is_some_and(of_constraint)
        || error.downcast_ref().is_some_and(of_key)
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
    fn every_command_shows_examples() {
        let program = Cli::command();
        for command in
            std::iter::once(&program).chain(program.get_subcommands()).filter(|command| !command.is_hide_set())
        {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example =
                format!("  swarm-node {}", if command.get_name() == "swarm-node" { "" } else { command.get_name() });
            let shown = help.contains("Examples:") && help.contains(&example);
            assert!(shown, "`{}` shows no example of itself: {help:?}", command.get_name());
        }
    }

    #[test]
    fn every_flag_has_an_environment_twin() {
        let check = |command: &clap::Command| {
            for flag in command.get_arguments() {
                let Some(long) = flag.get_long().filter(|long| !["help", "version"].contains(long)) else {
                    continue;
                };
                // What `serve` calls so is another thing, and its variables are set on servers.
                if command.get_name() == "pull" && ["blocks", "edges"].contains(&long) {
                    assert_eq!(flag.get_env(), None);
                    continue;
                }
                let twin = format!("SWARM_{}", long.to_uppercase().replace('-', "_"));
                let env = flag.get_env().and_then(|env| env.to_str()).unwrap_or_default();
                assert_eq!(env, twin, "{} --{long}", command.get_name());
                // clap's own parser of switches takes `true` and `false` only.
                let of_switches = matches!(flag.get_action(), ArgAction::SetTrue);
                let strict = format!("{:?}", flag.get_value_parser()) == format!("{:?}", ValueParser::bool());
                assert!(!(of_switches && strict), "{twin}=1 would be refused");
            }
        };
        check(&Cli::command());
        Cli::command().get_subcommands().for_each(check);
    }
}
