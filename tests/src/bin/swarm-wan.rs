//! The hub of a wide-area network on one machine; see `swarm_tests::wan`. It prints `ok` once the network stands, and runs
//! until its stdin closes. Orders are lines on stdin: `cut A [B]`, `heal A [B]`, `link A B rate=1mbit …`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use swarm_tests::wan::{HubConfig, Link, run};

/// The hub of a wide-area network of network namespaces.
#[derive(Debug, Parser)]
struct Options {
    /// Namespaces are called PREFIX-HOST, and host number N (from 1) has the address 10.77.0.N.
    #[arg(long, default_value = "wan")]
    prefix: String,

    /// The link between any two hosts.
    #[arg(long, default_value = "delay=25ms")]
    link: Link,

    /// Seed of jitter and loss; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,

    /// Names of the hosts.
    #[arg(required = true)]
    hosts: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let Options { prefix, link, seed, hosts } = Options::parse();
    let drawn = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seed = seed.unwrap_or_else(drawn);
    Ok(run(HubConfig { prefix, hosts, link, seed })?)
}
