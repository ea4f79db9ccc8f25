//! A swarm of real processes on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::BootstrapPeer;
use swarm_protocol::{Multiaddr, PeerId};
use tempfile::TempDir;

use super::process::{Exit, Process};
use super::{generate::Generating, program, range};
use crate::wan::Place;

/// The running `swarm-bootstrap`.
pub struct Bootstrap {
    /// The process.
    pub process: Process,
    /// What others pass to `--bootstrap`.
    pub address: String,
}

/// A running `swarm-node serve` that has said it is ready.
pub struct Server {
    /// The process.
    pub process: Process,
    /// Its id.
    pub peer: PeerId,
    /// Where it listens.
    pub address: Multiaddr,
    /// What it hosts.
    pub blocks: BlockRange,
    /// The model's id as it printed it.
    pub model_id: String,
}

/// A bootstrap peer and servers of one model.
pub struct TestSwarm {
    /// The entry point.
    pub bootstrap: Bootstrap,
    /// The servers, in the order they were asked for.
    pub servers: Vec<Server>,
    model: String,
    /// What every member is started with.
    common: Vec<String>,
    identities: usize,
    /// Last, so that it outlives the processes.
    folder: TempDir,
}

impl TestSwarm {
    /// A swarm of the demo model with a server for each of `blocks`, all of them ready.
    pub fn demo(blocks: &[(u32, u32)]) -> Self {
        Self::of("demo", blocks)
    }

    /// A swarm of `model`.
    pub fn of(model: &str, blocks: &[(u32, u32)]) -> Self {
        let mut swarm = Self::empty(model, &[]);
        swarm.serve(blocks, &[]);
        swarm
    }

    /// A bootstrap peer alone; every member will be started with the options `common`.
    pub fn empty(model: &str, common: &[&str]) -> Self {
        Self::empty_at(&Place::loopback(), model, common)
    }

    /// The same with the bootstrap peer at that place.
    pub fn empty_at(place: &Place, model: &str, common: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bootstrap = bootstrap(folder.path(), place, common);
        let common = common.iter().map(ToString::to_string).collect();
        Self { bootstrap, servers: Vec::new(), model: model.to_string(), common, identities: 0, folder }
    }

    /// Where logs and identities of its processes are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The entry point.
    pub fn entry(&self) -> BootstrapPeer {
        self.bootstrap.address.parse().expect("a bootstrap address")
    }

    /// Adds a server for each of `blocks`, all with `options`; returns when they are ready.
    pub fn serve(&mut self, blocks: &[(u32, u32)], options: &[&str]) -> &mut [Server] {
        let here = blocks.iter().map(|blocks| (Place::loopback(), *blocks));
        self.serve_at(&here.collect::<Vec<_>>(), options)
    }

    /// The same at those places.
    pub fn serve_at(&mut self, blocks: &[(Place, (u32, u32))], options: &[&str]) -> &mut [Server] {
        let first = self.servers.len();
        let started: Vec<_> = blocks
            .iter()
            .map(|(place, (start, end))| {
                let identity = self.new_identity();
                let mut command = self.serve_command_at(place, &identity, &format!("{start}..{end}"));
                command.args(options);
                self.start(&format!("serve-{start}-{end}"), command)
            })
            .collect();
        self.servers.extend(started.into_iter().map(ready));
        &mut self.servers[first..]
    }

    /// `swarm-node serve` of those blocks, with an identity of its own, to be given more options.
    pub fn serve_command(&mut self, blocks: &str) -> Command {
        let identity = self.new_identity();
        self.serve_command_as(&identity, blocks)
    }

    /// The same with that identity.
    pub fn serve_command_as(&self, identity: &Path, blocks: &str) -> Command {
        self.serve_command_at(&Place::loopback(), identity, blocks)
    }

    /// The same at that place.
    pub fn serve_command_at(&self, place: &Place, identity: &Path, blocks: &str) -> Command {
        self.serve_hosting(place, identity, &["--block-range", blocks])
    }

    /// `swarm-node serve` of so many blocks, wherever the swarm needs them.
    pub fn serve_command_of(&mut self, count: u32) -> Command {
        let identity = self.new_identity();
        self.serve_hosting(&Place::loopback(), &identity, &["--blocks", &count.to_string()])
    }

    fn serve_hosting(&self, place: &Place, identity: &Path, blocks: &[&str]) -> Command {
        let mut command = self.node("serve");
        command.args(["--model", &self.model, "--listen", &place.listen(), "--threads", "1"]).args(blocks);
        // A test that is killed takes its servers with it.
        command.arg("--identity").arg(identity).args(["--until-stdin-closes", "--json"]);
        place.command(&command)
    }

    /// A path that no member has used for its identity.
    pub fn new_identity(&mut self) -> PathBuf {
        self.identities += 1;
        self.folder.path().join(format!("identity-{}.key", self.identities))
    }

    /// `swarm-node` with a sub-command and what every member is given, the bootstrap peer included.
    pub fn node(&self, sub_command: &str) -> Command {
        let mut command = self.outsider(sub_command);
        command.args(&self.common);
        command
    }

    /// `swarm-node` with a sub-command and the bootstrap peer, but without what every member is given.
    pub fn outsider(&self, sub_command: &str) -> Command {
        let mut command = Command::new(program("swarm-node"));
        command.args([sub_command, "--bootstrap", &self.bootstrap.address]);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, name: &str, command: Command) -> Exit {
        self.start(name, command).exit()
    }

    /// Starts a process whose log is kept with the swarm's.
    pub fn start(&self, name: &str, command: Command) -> Process {
        Process::start(name, command, self.folder.path())
    }

    /// Starts `swarm-node generate --json` for the swarm's model.
    pub fn generate(&self, options: &[&str]) -> Generating {
        let mut command = self.node("generate");
        command.args(["--model", &self.model, "--json"]).args(options);
        Generating::new(self.start("generate", command))
    }

    /// The server with that id.
    pub fn server(&mut self, peer: PeerId) -> &mut Server {
        self.servers.iter_mut().find(|server| server.peer == peer).expect("a server of this swarm")
    }
}

/// Starts a bootstrap peer.
fn bootstrap(folder: &Path, place: &Place, options: &[&str]) -> Bootstrap {
    let mut command = Command::new(program("swarm-bootstrap"));
    command.args(["--listen", &place.listen(), "--json", "--identity"]);
    command.arg(folder.join("bootstrap.key")).args(options);
    let mut process = Process::start("bootstrap", place.command(&command), folder);
    let listening = process.event("listening");
    Bootstrap { process, address: pasteable(&listening) }
}

/// Waits until a `serve --json` is ready.
pub fn ready(mut process: Process) -> Server {
    let listening = process.event("listening");
    let ready = process.event("ready");
    let entry: BootstrapPeer = pasteable(&listening).parse().expect("an address with a peer id");
    let blocks = &ready["blocks"];
    let block = |index: usize| blocks[index].as_u64().expect("a block") as u32;
    Server {
        process,
        peer: entry.peer,
        address: entry.address,
        blocks: range(block(0), block(1)),
        model_id: ready["model_id"].as_str().expect("a model id").to_string(),
    }
}

/// The address of a `listening` event with its peer id.
fn pasteable(listening: &Value) -> String {
    let text = |key: &str| listening[key].as_str().unwrap_or_else(|| panic!("{listening} lacks {key}")).to_string();
    let (address, peer) = (text("address"), text("peer_id"));
    if address.ends_with(&format!("/p2p/{peer}")) { address } else { format!("{address}/p2p/{peer}") }
}
