//! A swarm of real processes, on loopback or on the hosts of a network of namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use swarm_client::{ClientConfig, Swarm};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::NetworkConfig;
use swarm_tests::wan::Place;

use crate::process::{Process, swarm_node};

/// So that nothing outlives this process, however it ends.
const UNTIL_STDIN_CLOSES: &str = "--until-stdin-closes";

/// A bootstrap peer and servers; all are killed when it is dropped.
pub(crate) struct LocalSwarm {
    program: PathBuf,
    name: String,
    /// The bootstrap peer's address with its peer id.
    entry: String,
    bootstrap: Process,
    servers: Vec<Server>,
}

/// A server that is ready.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) peer: PeerId,
    pub(crate) blocks: BlockRange,
}

impl LocalSwarm {
    /// Starts the bootstrap peer.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_at(&Place::loopback()).await
    }

    /// Starts the bootstrap peer at that place.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn start_at(place: &Place) -> Result<Self> {
        let program = swarm_node().await?;
        let name = format!("bench-{}", std::process::id());
        let mut command = Command::new(&program);
        command.args(["bootstrap-peer", "--listen", &place.listen(), "--swarm", &name, "--json", UNTIL_STDIN_CLOSES]);
        let mut bootstrap = Process::start("the bootstrap peer", place.command(&command))?;
        let listening = bootstrap.event_of(&["listening"]).await?;
        let (address, peer) = (text(&listening, "address")?, text(&listening, "peer_id")?);
        let entry = if address.contains("/p2p/") { address } else { format!("{address}/p2p/{peer}") };
        Ok(Self { program, name, entry, bootstrap, servers: Vec::new() })
    }

    /// Starts a server of `blocks` that computes on `threads` threads; the time until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn serve(&mut self, model: &Path, blocks: BlockRange, threads: usize) -> Result<Duration> {
        self.serve_at(&Place::loopback(), model, blocks, threads).await
    }

    /// The same at that place.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn serve_at(
        &mut self,
        place: &Place,
        model: &Path,
        blocks: BlockRange,
        threads: usize,
    ) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--json", UNTIL_STDIN_CLOSES, "--listen", &place.listen(), "--model"]).arg(model);
        command.args(["--block-range", &blocks.to_string(), "--threads", &threads.to_string()]);
        command.args(self.join_arguments());
        let start = Instant::now();
        let mut process = Process::start(&format!("the server of blocks {blocks}"), place.command(&command))?;
        let listening = process.event_of(&["listening"]).await?;
        process.event_of(&["ready"]).await?;
        let took = start.elapsed();
        let peer = text(&listening, "peer_id")?.parse()?;
        self.servers.push(Server { process, peer, blocks });
        Ok(took)
    }

    /// The servers.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Kills a server, whatever state it is in, and waits until it is gone.
    ///
    /// # Errors
    /// If there is none of that id, or the system's.
    pub(crate) async fn remove(&mut self, peer: PeerId) -> Result<()> {
        let place = self.servers.iter().position(|server| server.peer == peer).context("no such server")?;
        self.servers.remove(place).process.kill().await
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
        self.join_with(ClientConfig::default()).await
    }

    /// The same with settings of its own.
    ///
    /// # Errors
    /// If the bootstrap peer does not let it in.
    pub(crate) async fn join_with(&self, config: ClientConfig) -> Result<Swarm> {
        join(&self.entry, &self.name, config).await
    }

    /// Process ids of the servers.
    ///
    /// # Errors
    /// If one has ended.
    pub(crate) fn server_ids(&self) -> Result<Vec<u32>> {
        self.servers.iter().map(|server| server.process.id()).collect()
    }

    /// Kills everything and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn kill(self) -> Result<()> {
        let servers = self.servers.into_iter().map(|server| server.process);
        for process in servers.chain([self.bootstrap]) {
            process.kill().await?;
        }
        Ok(())
    }
}

fn text(event: &Value, key: &str) -> Result<String> {
    event[key].as_str().map(str::to_string).with_context(|| format!("{event} has no {key}"))
}

/// Joins swarm `name` through `entry` as a client.
///
/// # Errors
/// If `entry` does not let it in.
pub(crate) async fn join(entry: &str, name: &str, config: ClientConfig) -> Result<Swarm> {
    let entry = entry.parse().map_err(|error| anyhow!("{entry}: {error}"))?;
    let network = NetworkConfig::client(name.parse()?, vec![entry]);
    Ok(Swarm::join(network, config).await?)
}
