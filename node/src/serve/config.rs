//! What a server is told to do.

use std::time::Duration;

use swarm_hub::HubConfig;
use swarm_model::{DeviceChoice, KvFormat, ModelSpec};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::p2p::NetworkConfig;
use swarm_protocol::session::TokenCount;
use swarm_protocol::trace_context::SpanContexts;

use super::metrics::ServerMetrics;

/// KV cache room in tokens when nothing is said: eight conversations of 2,048 tokens. On eight blocks of a 70B Llama
/// this is 512 MiB, which pages are only taken for as sessions grow.
pub const DEFAULT_CACHE_TOKENS: TokenCount = TokenCount(16_384);

/// How long sessions that run may go on after the server was told to stop: enough to finish a short answer or to move.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a session may be silent: long enough for a person to type the next message of a chat.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The time between two announcements: a swarm of 10,000 servers then costs a holder a few puts a second.
pub const DEFAULT_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);

/// Which blocks a server hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// These, whatever the swarm needs.
    Pinned(BlockRange),
    /// That many, where the swarm needs them most.
    Count(u32),
    /// As many as fit in free memory, where the swarm needs them most.
    Fitting,
}

/// What a server is told to do.
#[derive(Debug)]
pub struct ServeConfig {
    /// The model.
    pub model: ModelSpec,
    /// Where a model of the Hugging Face hub is fetched from, and kept.
    pub hub: HubConfig,
    /// Which of its blocks.
    pub wanted: Wanted,
    /// How it takes part in the swarm.
    pub network: NetworkConfig,
    /// A name for people.
    pub name: Option<String>,
    /// Room in the KV caches of all sessions together.
    pub cache_tokens: TokenCount,
    /// Whether what a session has computed is kept, as long as there is room, for later ones that begin alike.
    pub prefix_cache: bool,
    /// Whether embedding, head and sampling are offered to clients that hold none.
    pub edges: bool,
    /// The format the weights are held in; the checkpoint's if `None`.
    pub format: Option<WeightFormat>,
    /// How KV caches hold keys and values.
    pub kv_format: KvFormat,
    /// What computes the blocks.
    pub device: DeviceChoice,
    /// Threads to compute on; if `None` one for each core, less one for the network where there are more.
    pub threads: Option<usize>,
    /// How long running sessions may go on after the server was told to stop.
    pub drain_timeout: Duration,
    /// How long a session may be silent.
    pub idle_timeout: Duration,
    /// The time between two announcements.
    pub announce_interval: Duration,
    /// Where it counts its work.
    pub metrics: ServerMetrics,
    /// How its spans become parts of its clients' spans, if this program collects any.
    pub spans: Option<SpanContexts>,
}
