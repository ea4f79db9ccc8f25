//! The demo's swarm: a bootstrap peer and three servers as processes of their own, on loopback.

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use swarm_client::HopInfo;
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::BootstrapPeer;

use super::process::Process;
use super::view::View;

/// The servers: who hosts which of the 12 blocks. The last two can stand in for one another.
const SERVERS: [(&str, &str); 3] = [("attic", "0..6"), ("garage", "6..12"), ("cellar", "6..12")];

/// Only this machine, any free port.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

/// One server of the demo.
pub(crate) struct Server {
    /// Its name.
    pub(crate) name: &'static str,
    /// The blocks it hosts.
    pub(crate) blocks: BlockRange,
    /// Its id.
    pub(crate) peer: PeerId,
    /// Whether it was killed.
    pub(crate) dead: bool,
    process: Process,
}

/// The processes. Dropping it ends them all.
pub(crate) struct Stage {
    _bootstrap: Process,
    entry_point: BootstrapPeer,
    servers: Vec<Server>,
}

impl Stage {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// If a process does not start.
    pub(crate) async fn set(view: &mut View) -> Result<Self> {
        let arguments = ["bootstrap-peer", "--listen", LISTEN, "--swarm", "demo"].map(String::from);
        let mut bootstrap = Process::start("the bootstrap peer", &arguments)?;
        let listening = bootstrap.event("listening").await?;
        let entry_point: BootstrapPeer = listening["address"].as_str().context("no address was printed")?.parse()?;
        view.bootstrap(&entry_point, bootstrap.id());
        let started = SERVERS.into_iter().map(|(name, blocks)| Server::start(name, blocks, &entry_point));
        let servers = try_join_all(started).await?;
        for server in &servers {
            view.server(server);
        }
        Ok(Self { _bootstrap: bootstrap, entry_point, servers })
    }

    /// Where to join.
    pub(crate) fn entry_point(&self) -> BootstrapPeer {
        self.entry_point.clone()
    }

    /// The servers.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Kills the server of `hop` with SIGKILL.
    ///
    /// # Errors
    /// If it is none of the demo's, or cannot be killed.
    pub(crate) async fn kill(&mut self, hop: &HopInfo, view: &mut View) -> Result<()> {
        let Some(server) = self.servers.iter_mut().find(|server| server.peer == hop.peer) else {
            bail!("the route led through a server that is not the demo's");
        };
        let id = server.process.id();
        server.process.kill().await?;
        server.dead = true;
        view.killed(server, id);
        Ok(())
    }
}

impl Server {
    async fn start(name: &'static str, blocks: &str, entry_point: &BootstrapPeer) -> Result<Self> {
        let entry_point = entry_point.to_string();
        let arguments = [
            "serve",
            "--model",
            "demo",
            "--swarm",
            "demo",
            "--threads",
            "1",
            "--listen",
            LISTEN,
            "--name",
            name,
            "--block-range",
            blocks,
            "--bootstrap",
            &entry_point,
        ];
        let mut process = Process::start(name, &arguments.map(String::from))?;
        let listening = process.event("listening").await?;
        let peer = listening["peer_id"].as_str().context("no peer id was printed")?.parse()?;
        process.event("ready").await?;
        Ok(Self { name, blocks: blocks.parse()?, peer, dead: false, process })
    }

    /// The process id, while it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.id()
    }
}
