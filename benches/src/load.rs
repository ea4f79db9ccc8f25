//! What it takes to serve a model that is only a name: from an empty cache to `ready`, beside what the link would take for
//! the bytes of the blocks alone.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use swarm_model::ModelPart;
use swarm_model::synthetic::SyntheticSpec;
use swarm_protocol::block::BlockRange;
use swarm_tests::hub_server::HubServer;

use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::process::Process;
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, small_llama};

/// Bytes that come, for each byte of the blocks.
const GOAL_BYTES: f64 = 1.02;
/// Of the link's speed.
const GOAL_SPEED: f64 = 0.9;

/// Blocks of the model.
const BLOCKS: usize = 32;
/// Blocks of the server: in the middle.
const SERVED: (u32, u32) = (8, 16);
/// The repository's name.
const NAME: &str = "bench/model";
/// Bytes a second of a megabit a second.
const MEGABIT: f64 = 1e6 / 8.0;

/// How fast, and how often.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Servers started, one after the other, each with an empty cache.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// The link from the hub, in Mbit/s.
    #[arg(long, default_value_t = 200.0)]
    mbit: f64,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Seconds, bytes, and how they compare.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    /// Bytes of the blocks in the checkpoint.
    block_bytes: u64,
    /// What the link takes for them.
    link_s: f64,
    /// From starting the server to `ready`.
    ready_s: Summary,
    /// Bytes of bodies that the hub sent.
    sent_bytes: Summary,
}

/// Starts and measures servers, one after the other.
///
/// # Errors
/// If something does not start.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let model = RandomModel::write(SyntheticSpec { blocks: BLOCKS, ..small_llama() })?;
    let blocks = BlockRange::new(SERVED.0, SERVED.1)?;
    let ranges = model.open()?.byte_ranges(ModelPart::Blocks(blocks));
    let block_bytes: u64 = ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum();
    let hub = HubServer::start();
    hub.add(NAME, model.path());
    hub.throttle((settings.mbit * MEGABIT) as u64);
    let (mut ready, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..settings.repetitions {
        let before = hub.sent();
        ready.push(serve(&hub, blocks, settings.threads).await?);
        sent.push((hub.sent() - before) as f64);
    }
    let results = Results {
        model: format!("{} random weights in {BLOCKS} blocks, bf16", model.spec.parameters()),
        block_bytes,
        link_s: block_bytes as f64 / (settings.mbit * MEGABIT),
        ready_s: Summary::of(ready),
        sent_bytes: Summary::of(sent),
    };
    let goals = results.goals();
    Ok(Report { benchmark: "load", machine, settings, results, goals })
}

/// Starts a server with an empty cache; the seconds until it is ready.
async fn serve(hub: &HubServer, blocks: BlockRange, threads: usize) -> Result<f64> {
    let swarm = LocalSwarm::start().await?;
    let home = tempfile::Builder::new().prefix("swarm-bench-").tempdir()?;
    let command = command(&swarm, hub, home.path(), blocks, threads);
    let start = Instant::now();
    let mut server = Process::start("the server", command)?;
    server.event_of(&["ready"]).await.context("a server of a name")?;
    let took = start.elapsed().as_secs_f64();
    server.kill().await?;
    swarm.kill().await?;
    Ok(took)
}

fn command(swarm: &LocalSwarm, hub: &HubServer, home: &Path, blocks: BlockRange, threads: usize) -> Command {
    let mut command = Command::new(swarm.program());
    command.args(["serve", "--json", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0", "--model", NAME]);
    command.args(["--block-range", &blocks.to_string(), "--threads", &threads.to_string()]);
    command.args(swarm.join_arguments());
    hub.point(&mut command, home);
    command
}

impl Results {
    fn bytes(&self) -> f64 {
        self.sent_bytes.median / self.block_bytes as f64
    }

    fn speed(&self) -> f64 {
        self.link_s / self.ready_s.median
    }

    fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::new("bytes that come for each byte of the blocks:", "", GOAL_BYTES, self.bytes()),
            Goal::at_least("from an empty cache to ready, of the link's speed:", "", GOAL_SPEED, self.speed()),
        ]
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let megabytes = |bytes: f64| format!("{:.1}", bytes / 1e6);
        vec![Table {
            title: format!("8 of {BLOCKS} blocks from an empty cache, median (quartiles): {}", self.model),
            header: vec!["", "of the blocks", "measured", "ratio"],
            rows: vec![
                vec![
                    "MB".to_string(),
                    megabytes(self.block_bytes as f64),
                    megabytes(self.sent_bytes.median),
                    format!("{:.4}", self.bytes()),
                ],
                vec![
                    "seconds to ready".to_string(),
                    format!("{:.2}", self.link_s),
                    self.ready_s.to_string(),
                    format!("{:.2}", 1.0 / self.speed()),
                ],
            ],
        }]
    }
}
