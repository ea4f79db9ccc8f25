//! The hub of the tests by hand: it serves directories as repositories on loopback until its stdin closes; see
//! `swarm_tests::hub_server`. The first line it prints is for `export`.
//!
//! `cargo run --bin swarm-test-hub -- org/demo=model/demo --mbit 20 --rule safetensors=429`

use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use swarm_tests::hub_server::{Fault, HubServer, Rule};

/// Bytes a second of a megabit a second.
const MEGABIT: f64 = 1e6 / 8.0;

/// A hub on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// The most that it sends, over all connections together, in Mbit/s; without it there is no limit.
    #[arg(long)]
    mbit: Option<f64>,

    /// What to refuse (repeatable): requests whose path contains PATH get STATUS, and CODE for the hub's word for it, such as
    /// `/=401:GatedRepo`. `PATH=cut:BYTES` cuts connections.
    #[arg(long = "rule", value_name = "PATH=STATUS[:CODE]")]
    rules: Vec<Misrule>,

    /// What to serve.
    #[arg(required = true, value_name = "ORG/NAME=DIRECTORY")]
    repositories: Vec<Repository>,
}

#[derive(Debug, Clone)]
struct Repository {
    name: String,
    directory: PathBuf,
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, directory) = text.split_once('=').ok_or("write ORG/NAME=DIRECTORY")?;
        Ok(Self { name: name.to_string(), directory: directory.into() })
    }
}

#[derive(Debug, Clone)]
struct Misrule(Rule);

impl FromStr for Misrule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, fault) = text.split_once('=').ok_or("write PATH=STATUS[:CODE] or PATH=cut:BYTES")?;
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
        let fault = match fault.split_once(':') {
            Some(("cut", bytes)) => Fault::Cut(number(bytes)?),
            other => {
                let (status, code) = other.unwrap_or((fault, ""));
                let status = status.parse().map_err(|_| format!("{status} is no status"))?;
                // It lives as long as the process.
                Fault::Refuse { status, code: code.to_string().leak(), retry_after: None }
            }
        };
        Ok(Self(Rule::always(path, fault)))
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let hub = HubServer::start();
    for Repository { name, directory } in &options.repositories {
        hub.add(name, directory);
    }
    for Misrule(rule) in options.rules {
        hub.rule(rule);
    }
    hub.throttle(options.mbit.map_or(0, |mbit| (mbit * MEGABIT) as u64));
    writeln!(stdout(), "HF_ENDPOINT={}", hub.endpoint())?;
    std::io::copy(&mut stdin(), &mut std::io::sink())?;
    for asked in hub.asked() {
        writeln!(stdout(), "{} {} {:?}", asked.method, asked.path, asked.range)?;
    }
    writeln!(stdout(), "{} bytes sent", hub.sent())?;
    Ok(())
}
