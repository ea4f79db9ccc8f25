//! Benchmarks of swarm-node: what a hop costs, also over far links, what a lost server costs, how fast things start, how fast
//! blocks compute. See `benches/README.md`.
//!
//! Every number is a median of interleaved measurements of one run; numbers of different runs are not compared.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod api;
mod aside;
mod bare;
mod batch;
mod compute;
mod failover;
mod far_hosts;
mod gguf;
mod goal;
mod hop;
mod idle_client;
mod load;
mod local_swarm;
mod long;
mod machine;
mod memory;
mod pipeline;
mod prefill;
mod process;
mod report;
mod start;
mod stats;
mod table;
mod throughput;
mod wan;
mod wire;
mod workload;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::far_hosts::FarHosts;

/// Benchmarks of swarm-node.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,

    /// Print one JSON object instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// What the HTTP API adds to the client library.
    Api(api::Settings),
    /// Time that each server of a chain adds to a token, against the same blocks in this process.
    Hop(hop::Settings),
    /// Time to start a server and to get a first token, and memory while idle.
    Start(start::Settings),
    /// Time and bytes from an empty cache to a server of eight blocks, from a hub on this machine.
    Load(load::Settings),
    /// Time of a token over three far servers (takes root: the hosts are network namespaces).
    Wan(wan::Settings),
    /// Time to the first token of a long prompt over three far servers, against perfect pipelining (takes root).
    Prefill(prefill::Settings),
    /// Tokens a second in each wire format over slow and fast links (takes root).
    Wire(wire::Settings),
    /// What the loss of a server costs a session.
    Failover(failover::Settings),
    /// What many clients get of two servers together, against one alone.
    Batch(batch::Settings),
    /// Block compute beside candle-transformers, llama.cpp, and the machine's read bandwidth and arithmetic.
    Compute(compute::Settings),
    /// Decoding far into a text, beside what reading weights, keys and values takes.
    Long(long::Settings),
    /// Blocks out of a GGUF file beside the same format quantised at load.
    Gguf(gguf::Settings),
    /// What three servers get done of many prompts at once, beside what their cores could.
    Pipeline(throughput::Settings),
    /// The process whose start and memory `start` measures.
    #[command(hide = true)]
    IdleClient(idle_client::Settings),
}

fn main() -> Result<()> {
    let Cli { benchmark, json } = Cli::parse();
    match benchmark {
        Benchmark::Api(settings) => stoppable(api::run(settings))?.print(json),
        Benchmark::Batch(settings) => stoppable(batch::run(settings))?.print(json),
        Benchmark::Compute(settings) => stoppable(compute::run(settings))?.print(json),
        Benchmark::Failover(settings) => stoppable(failover::run(settings))?.print(json),
        Benchmark::Gguf(settings) => stoppable(gguf::run(settings))?.print(json),
        Benchmark::Hop(settings) => stoppable(hop::run(settings))?.print(json),
        Benchmark::Load(settings) => stoppable(load::run(settings))?.print(json),
        Benchmark::Long(settings) => stoppable(long::run(settings))?.print(json),
        Benchmark::Pipeline(settings) => stoppable(throughput::run(settings))?.print(json),
        Benchmark::Prefill(settings) => {
            let hosts = FarHosts::enter(settings.link())?;
            stoppable(prefill::run(settings, &hosts))?.print(json)
        }
        Benchmark::Wan(settings) => {
            let hosts = FarHosts::enter(settings.link())?;
            stoppable(wan::run(settings, &hosts))?.print(json)
        }
        Benchmark::Wire(settings) => {
            let hosts = FarHosts::enter(settings.link())?;
            stoppable(wire::run(settings, hosts))?.print(json)
        }
        Benchmark::Start(settings) => stoppable(start::run(settings))?.print(json),
        Benchmark::IdleClient(settings) => stoppable(idle_client::run(settings)),
    }
}

/// Runs a benchmark. Its future owns the processes and files that it makes, so they go away however it ends, also when it
/// is dropped because this process is told to stop.
fn stoppable<T>(benchmark: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = benchmark => result,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}
