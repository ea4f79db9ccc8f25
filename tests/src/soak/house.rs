//! The servers: some stay, some are killed and come back.

use std::fmt;
use std::path::PathBuf;

use swarm_model::{Checkpoint, KvFormat, ModelSpec, activations};
use swarm_protocol::announcement::Load;
use swarm_protocol::p2p::BootstrapPeer;

use super::crowd::Progress;
use super::plan::Plan;
use crate::harness::{Generating, Server, TestSwarm, eventually, leftovers, ready};

/// Blocks of the servers that stay: whatever is killed, each block has one.
const STAYING: [(u32, u32); 2] = [(0, 6), (6, 12)];

/// Blocks of those that may be killed.
const MORTAL: [(u32, u32); 3] = [(0, 6), (6, 12), (0, 12)];

/// KV room in tokens: no session is refused, also if all of them are on one server and some have moved.
const CACHE_TOKENS: u32 = 65_536;

/// A server that was there all the time, and its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its blocks.
    pub blocks: String,
    /// Bytes of pages that it may keep for later sessions.
    pub keeps: u64,
    /// Bytes of anonymous memory when it was ready, and after each round, at rest.
    pub memory: Vec<u64>,
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {}: anonymous memory in KiB", self.blocks)?;
        self.memory.iter().try_for_each(|bytes| write!(f, " {}", bytes / 1024))
    }
}

/// One that may be killed.
struct Mortal {
    identity: PathBuf,
    blocks: (u32, u32),
    server: Server,
}

/// A swarm and its servers.
pub(super) struct House {
    mortals: Vec<Mortal>,
    tenants: Vec<Tenant>,
    swarm: TestSwarm,
}

impl House {
    /// All servers are ready.
    pub(super) fn open() -> Self {
        let mut swarm = TestSwarm::empty("demo", &[]);
        let [keeping, forgetting] = STAYING;
        swarm.serve(&[keeping], &["--cache-tokens", &CACHE_TOKENS.to_string()]);
        swarm.serve(&[forgetting], &["--cache-tokens", &CACHE_TOKENS.to_string(), "--no-prefix-cache"]);
        let mortals = MORTAL.map(|blocks| {
            let identity = swarm.new_identity();
            let server = serve(&swarm, &identity, blocks);
            Mortal { identity, blocks, server }
        });
        let tenant =
            |(server, keeps): (&Server, u64)| Tenant { blocks: server.blocks.to_string(), keeps, memory: Vec::new() };
        let tenants = swarm.servers.iter().zip([kept_bytes(keeping), 0]).map(tenant).collect();
        let mut house = Self { mortals: mortals.into(), tenants, swarm };
        house.weigh();
        house
    }

    pub(super) fn entry(&self) -> BootstrapPeer {
        self.swarm.entry()
    }

    /// A process that asks for a text.
    pub(super) fn generate(&self, options: &[&str]) -> Generating {
        self.swarm.generate(options)
    }

    /// When the crowd has got so far, kills the busiest of those that may be killed, and lets it come back at once, as who it
    /// was; how often.
    pub(super) fn trouble(
        &mut self,
        plan: &Plan,
        progress: &Progress,
        load: impl Fn(&Server) -> Option<Load>,
    ) -> usize {
        for after in &plan.kills {
            eventually("the crowd gets on", || progress.has_come_to(*after).then_some(()));
            let sessions = |mortal: &&mut Mortal| load(&mortal.server).map_or(0, |load| load.sessions);
            let victim = self.mortals.iter_mut().max_by_key(sessions).expect("one that may be killed");
            let Mortal { identity, blocks, server } = victim;
            server.process.kill();
            *server = serve(&self.swarm, identity, *blocks);
        }
        plan.kills.len()
    }

    /// Waits until no server has a session, and each has all its room.
    pub(super) fn await_free(&self, load: impl Fn(&Server) -> Option<Load>) {
        let mortals = self.mortals.iter().map(|mortal| &mortal.server);
        for server in self.swarm.servers.iter().chain(mortals) {
            let mut seen = None;
            let what = format!("{} {} is free", server.peer, server.blocks);
            eventually(&what, || {
                let now = load(server);
                if now != seen {
                    eprintln!("{}: {now:?}", server.blocks);
                    seen = now;
                }
                now.filter(|load| load.sessions == 0 && load.free_tokens == load.total_tokens)
            });
        }
    }

    /// Writes down the memory of the servers that stay.
    pub(super) fn weigh(&mut self) {
        for (server, tenant) in self.swarm.servers.iter().zip(&mut self.tenants) {
            tenant.memory.push(server.process.anonymous_memory());
        }
    }

    /// Lets all servers go; nothing of them may stay.
    pub(super) fn close(mut self) -> Vec<Tenant> {
        let mortals = self.mortals.iter_mut().map(|mortal| &mut mortal.server);
        for server in self.swarm.servers.iter_mut().chain(mortals) {
            server.process.terminate();
            let exit = server.process.exit();
            assert_eq!((exit.code, exit.signal), (Some(0), None), "a server that was asked to end:\n{}", exit.stderr);
        }
        let folder = self.swarm.folder().to_path_buf();
        let tenants = std::mem::take(&mut self.tenants);
        drop(self);
        assert!(leftovers(&folder).is_empty(), "processes outlived the swarm");
        tenants
    }
}

/// Keys, values and outputs of as many tokens as there is room for.
fn kept_bytes((start, end): (u32, u32)) -> u64 {
    let demo = Checkpoint::open(&ModelSpec::Demo).expect("the bundled model");
    let (config, format) = (demo.config(), demo.native_format());
    let keys_and_values = config.kv_bytes_per_token_block(format, KvFormat::Activations) * u64::from(end - start);
    (keys_and_values + activations::byte_count(format, 1, config.hidden) as u64) * u64::from(CACHE_TOKENS)
}

fn serve(swarm: &TestSwarm, identity: &std::path::Path, (start, end): (u32, u32)) -> Server {
    let mut command = swarm.serve_command_as(identity, &format!("{start}..{end}"));
    command.args(["--cache-tokens", &CACHE_TOKENS.to_string()]);
    ready(swarm.start(&format!("mortal-{start}-{end}"), command))
}
