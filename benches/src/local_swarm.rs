//! A swarm of real processes on loopback.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use swarm_client::{ClientConfig, Swarm};
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::NetworkConfig;

use crate::process::{Process, swarm_node};

/// So that nothing outlives this process, however it ends.
const UNTIL_STDIN_CLOSES: &str = "--until-stdin-closes";

/// Any free TCP port.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

/// A bootstrap peer and servers; all are killed when it is dropped.
pub(crate) struct LocalSwarm {
    program: PathBuf,
    name: String,
    /// The bootstrap peer's address with its peer id.
    entry: String,
    bootstrap: Process,
    servers: Vec<Process>,
}

impl LocalSwarm {
    /// Starts the bootstrap peer.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn start() -> Result<Self> {
        let program = swarm_node().await?;
        let name = format!("bench-{}", std::process::id());
        let arguments = ["bootstrap-peer", "--listen", LISTEN, "--swarm", &name, "--json", UNTIL_STDIN_CLOSES];
        let mut bootstrap = Process::spawn("the bootstrap peer", &program, &arguments)?;
        let listening = bootstrap.event_of(&["listening"]).await?;
        let text = |key: &str| listening[key].as_str().map(str::to_string).with_context(|| format!("no {key}"));
        let (address, peer) = (text("address")?, text("peer_id")?);
        let entry = if address.contains("/p2p/") { address } else { format!("{address}/p2p/{peer}") };
        Ok(Self { program, name, entry, bootstrap, servers: Vec::new() })
    }

    /// Starts a server of `blocks` that computes on `threads` threads; the time until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn serve(&mut self, model: &Path, blocks: BlockRange, threads: usize) -> Result<Duration> {
        let model = model.to_str().context("the directory's name is no text")?;
        let (range, threads) = (blocks.to_string(), threads.to_string());
        let place = ["--model", model, "--block-range", &range, "--threads", &threads, "--listen", LISTEN];
        let arguments: Vec<&str> =
            ["serve", "--json", UNTIL_STDIN_CLOSES].into_iter().chain(place).chain(self.join_arguments()).collect();
        let start = Instant::now();
        let mut server = Process::spawn(&format!("the server of blocks {blocks}"), &self.program, &arguments)?;
        server.event_of(&["ready"]).await?;
        let took = start.elapsed();
        self.servers.push(server);
        Ok(took)
    }

    /// The arguments with which another process joins.
    pub(crate) fn join_arguments(&self) -> [&str; 4] {
        ["--bootstrap", &self.entry, "--swarm", &self.name]
    }

    /// The `swarm-node` binary its members run.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Joins as a client.
    ///
    /// # Errors
    /// If the bootstrap peer does not let it in.
    pub(crate) async fn join(&self) -> Result<Swarm> {
        join(&self.entry, &self.name).await
    }

    /// Process ids of the servers.
    ///
    /// # Errors
    /// If one has ended.
    pub(crate) fn server_ids(&self) -> Result<Vec<u32>> {
        self.servers.iter().map(Process::id).collect()
    }

    /// Kills everything and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn kill(self) -> Result<()> {
        for process in self.servers.into_iter().chain([self.bootstrap]) {
            process.kill().await?;
        }
        Ok(())
    }
}

/// Joins swarm `name` through `entry` as a client.
///
/// # Errors
/// If `entry` does not let it in.
pub(crate) async fn join(entry: &str, name: &str) -> Result<Swarm> {
    let entry = entry.parse().map_err(|error| anyhow!("{entry}: {error}"))?;
    let network = NetworkConfig::client(name.parse()?, vec![entry]);
    Ok(Swarm::join(network, ClientConfig::default()).await?)
}
