//! The data that a swarm is shown by. Its JSON is an interface: fields are added, never changed (`docs/swarm.schema.json`).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

/// The number of the JSON's form; it grows when a field is taken away or changes its meaning.
pub const SCHEMA: u32 = 1;

/// A swarm at one moment, as one member sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmOverview {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The swarm's name.
    pub swarm: String,
    /// When it was looked at: milliseconds since 1970, by the clock of whoever looked.
    pub at_unix_ms: u64,
    /// Who looked: round trips are from there.
    pub seen_by: SeenBy,
    /// The models that live here, by their names.
    pub models: Vec<ModelOverview>,
    /// What is wrong, or soon will be, the worst first.
    pub alarms: Vec<Alarm>,
}

/// A member that looked at a swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenBy {
    /// Its id.
    pub peer_id: PeerId,
    /// Its release.
    pub version: String,
}

/// One model of a swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelOverview {
    /// What its servers share, in hexadecimal digits.
    pub model_id: String,
    /// Its name for people.
    pub name: String,
    /// How many blocks it has.
    pub blocks: u32,
    /// How many servers it has, as far as anybody knows; more than are listed if what was found is a sample.
    pub known_servers: u32,
    /// The blocks that nobody serves; empty if the model can be used.
    pub missing: Vec<BlockRange>,
    /// For each block the servers that take sessions for it.
    pub replicas: Vec<u32>,
    /// For each block the decode steps a second that its servers could take together, one sequence at a time each.
    pub tokens_per_second: Vec<f64>,
    /// What limits the whole model; none if it has no server.
    pub bottleneck: Option<Bottleneck>,
    /// Coverage by numeric class: a session stays within one.
    pub classes: Vec<ClassOverview>,
    /// What a token takes on a link between two hops; none if nobody here knows the model's width.
    pub wire: Option<WireOverview>,
    /// Its servers, by their first block.
    pub servers: Vec<ServerOverview>,
    /// Round trips between servers, as far as they have measured and announced them.
    pub round_trips: Vec<RoundTrip>,
}

impl ModelOverview {
    /// What people call its servers, in their order: where several have one name, the end of the id stands behind it.
    pub fn labels(&self) -> Vec<String> {
        let mut named: HashMap<String, usize> = HashMap::new();
        for server in &self.servers {
            *named.entry(server.label()).or_default() += 1;
        }
        let called = |server: &ServerOverview| match server.label() {
            name if named.get(&name).is_some_and(|servers| *servers > 1) => apart(&name, &server.peer_id),
            name => name,
        };
        self.servers.iter().map(called).collect()
    }
}

/// The blocks that limit what a model's servers can do together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// The first run of blocks with the least throughput.
    pub blocks: BlockRange,
    /// The fewest servers that one of them has.
    pub replicas: u32,
    /// The decode steps a second that their servers could take together.
    pub tokens_per_second: f64,
}

/// The servers of one numeric class: they give the same bits, and stand in for one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassOverview {
    /// The class.
    pub numeric_class: String,
    /// Its servers that take sessions.
    pub servers: u32,
    /// The blocks that none of them serves.
    pub missing: Vec<BlockRange>,
}

/// What one token's row takes on one link between hops, in bytes, framing left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireOverview {
    /// Elements of a row.
    pub hidden: u32,
    /// What an element is: `bf16`, `f16` or `f32`.
    pub element: String,
    /// Bytes of a row bit for bit (`--wire exact`; `auto` sends about 70 % of them where links are slow).
    pub exact_bytes: u32,
    /// Bytes of a row rounded to eight bits (`--wire int8`).
    pub int8_bytes: u32,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerCondition {
    /// It loads its blocks.
    Joining,
    /// It takes sessions.
    Serving,
    /// It takes no new sessions, and will be gone soon.
    Leaving,
    /// It has announced itself, and does not answer.
    Silent,
    /// It has announced that it serves, and was not asked, since there are so many.
    Announced,
}

impl ServerCondition {
    /// Its name, also in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Silent => "silent",
            Self::Announced => "announced",
        }
    }

    /// Whether sessions can be opened on it, as far as is known.
    pub fn serves(self) -> bool {
        matches!(self, Self::Serving | Self::Announced)
    }
}

/// One server of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerOverview {
    /// Its id.
    pub peer_id: PeerId,
    /// A name it has given itself.
    pub name: Option<String>,
    /// The blocks it hosts.
    pub blocks: BlockRange,
    /// How it is.
    pub state: ServerCondition,
    /// Why it did not answer, if it did not.
    pub silence: Option<String>,
    /// Where it says it can be dialled.
    pub addresses: Vec<String>,
    /// Round-trip time from whoever looked, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Seconds since it became ready.
    pub uptime_seconds: Option<u64>,
    /// Which servers compute the same bits.
    pub numeric_class: String,
    /// How it holds its weights: the beginning of its numeric class.
    pub weight_format: String,
    /// Bits of an element of its KV caches, 8 if its class says so, and otherwise none: they are as wide as activations.
    pub kv_bits: Option<u32>,
    /// One decode step through one block, in microseconds.
    pub decode_us_per_block: u32,
    /// One token of a long prefill through one block, in nanoseconds.
    pub prefill_ns_per_token_block: u32,
    /// Decode steps a second through all its blocks, of one sequence.
    pub tokens_per_second: f64,
    /// How long a step waits before it is computed, in microseconds.
    pub queue_us: u32,
    /// Open sessions.
    pub sessions: u32,
    /// KV cache room that no session has reserved, in tokens.
    pub free_tokens: u32,
    /// All KV cache room, in tokens.
    pub total_tokens: u32,
    /// Its release.
    pub version: String,
    /// Embedding, head and sampling, if it offers them.
    pub edges: Option<EdgesOverview>,
}

impl ServerOverview {
    /// What people call it: its name, or the end of its id.
    pub fn label(&self) -> String {
        label(self.name.as_deref(), &self.peer_id)
    }
}

/// What people call a server: its name, or the end of its id (the beginning is the same for all).
pub(super) fn label(name: Option<&str>, peer: &PeerId) -> String {
    name.filter(|name| !name.trim().is_empty()).map_or_else(|| tail(peer), ToString::to_string)
}

/// A name that several servers have given themselves, with what tells this one apart.
pub(super) fn apart(name: &str, peer: &PeerId) -> String {
    format!("{name} …{}", tail(peer))
}

fn tail(peer: &PeerId) -> String {
    const SHOWN: usize = 8;
    let peer = peer.to_string();
    peer.chars().skip(peer.chars().count().saturating_sub(SHOWN)).collect()
}

/// Embedding, head and sampling that a server offers to clients that hold no weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgesOverview {
    /// Which servers compute the same bits with them; known of those that answered.
    pub numeric_class: Option<String>,
    /// The choice of one token, in microseconds.
    pub choose_us: Option<u32>,
    /// The same with the way there and back from whoever looked, in milliseconds.
    pub cost_ms: Option<f64>,
}

/// How far two servers are apart, as `from` has measured it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Who has measured.
    pub from: PeerId,
    /// The other one.
    pub to: PeerId,
    /// Round-trip time in milliseconds.
    pub rtt_ms: f64,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The model cannot be used.
    Critical,
    /// One more loss, and it cannot.
    Warning,
    /// Good to know.
    Info,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Blocks that nobody serves.
    MissingBlocks,
    /// Every block is served, but no numeric class has them all.
    NoCommonClass,
    /// Blocks that one server alone serves.
    SinglePointOfFailure,
    /// Servers that have announced themselves and do not answer.
    SilentServers,
    /// Servers that are leaving.
    Draining,
    /// Servers of several releases.
    VersionSkew,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub kind: AlarmKind,
    /// The model it is about.
    pub model_id: String,
    /// The servers it is about.
    pub peers: Vec<PeerId>,
    /// The blocks it is about.
    pub blocks: Vec<BlockRange>,
    /// One line for people, and what to do about it.
    pub message: String,
}
