//! What a client may be told: whom to use, how long to wait, how often to try again.

use std::collections::HashSet;
use std::time::Duration;

use swarm_hub::HubConfig;
use swarm_protocol::PeerId;
use swarm_protocol::session::TokenCount;
use swarm_protocol::trace_context::SpanContexts;
use swarm_protocol::wire::LinkFormat;

/// Which servers a client uses.
#[derive(Debug, Clone, Default)]
pub struct PeerFilter {
    /// If given, only these.
    pub allowed: Option<HashSet<PeerId>>,
    /// Never these.
    pub blocked: HashSet<PeerId>,
}

impl PeerFilter {
    /// Whether `peer` may be used.
    pub fn admits(&self, peer: PeerId) -> bool {
        !self.blocked.contains(&peer) && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&peer))
    }
}

/// Whether servers keep what they have computed of a session, so that a later one that begins with the same tokens need
/// not compute it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PrefixReuse {
    /// They keep nothing: keys and values are gone when the session ends.
    Off,
    /// For this client: nobody else is ever given them.
    #[default]
    Private,
    /// For all who know this secret. They trust one another: who names pages wrongly spoils the others' texts.
    Shared(String),
}

/// In which format activations travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wire {
    /// Bit for bit, and packed where links are so slow that it pays: about 70 % of the bytes of bf16.
    #[default]
    Auto,
    /// As they were computed.
    Exact,
    /// Rounded to eight bits wherever the session's first route has a link: about half the bytes. The text is another one
    /// than with exact rows, and another one over other cuts of the model; it stays what it is whichever servers die.
    Int8,
}

impl Wire {
    /// What becomes of rows at the cuts of a session's first route.
    pub(crate) fn rounding(self) -> LinkFormat {
        match self {
            Self::Auto | Self::Exact => LinkFormat::Exact,
            Self::Int8 => LinkFormat::Int8,
        }
    }
}

/// Who holds embedding, final norm and head, and chooses the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EdgesPlace {
    /// This client: servers see hidden states only, and it samples as it likes.
    #[default]
    Own,
    /// Servers that offer it: this client loads no weights at all. Such a server sees the tokens themselves.
    Served,
}

/// How a client behaves; every value has a default for interactive use over the internet.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Which servers it uses.
    pub peers: PeerFilter,
    /// How long a server may take to describe itself and answer the latency probe.
    pub probe_timeout: Duration,
    /// How old what is known of the servers may be when a session starts.
    pub probe_age: Duration,
    /// The most servers probed in one look-up: enough for several replicas of every block, few enough for a home line.
    pub most_probes: usize,
    /// How long a server may take to open a session, dialling included.
    pub open_timeout: Duration,
    /// The longest that one step may take on a hop that does answer pings; usually its own measured time allows for less.
    pub step_timeout: Duration,
    /// Whether a second server is kept like each hop, fed with the same input, so that a loss costs one step and no
    /// replay. It doubles what the session takes of the swarm.
    pub standby: bool,
    /// Whether a route may take servers of several numeric classes, if those of one do not cover the model. Then a text is
    /// no longer the same to the bit whoever computes it: after a loss it may go on differently.
    pub mixed_classes: bool,
    /// In which format activations travel: with all but one of them, texts are the same.
    pub wire: Wire,
    /// Who holds embedding and head.
    pub edges: EdgesPlace,
    /// Who profits from what servers have computed of a session of token ids, when it is over.
    pub prefixes: PrefixReuse,
    /// How long a new session looks for servers before it says that there is no route.
    pub start_patience: Duration,
    /// How long a running session looks for a replacement of a lost hop before it gives up.
    pub repair_patience: Duration,
    /// How many hops may fail, or fail to open, before a session gives up, if it gives no output meanwhile.
    pub most_repairs: u32,
    /// Rows of a prefill chunk: large enough to use the weights well, small enough to share a server with others, and to let
    /// the hops behind begin early.
    pub prefill_chunk: TokenCount,
    /// Rows of the first and last chunks of a prompt, which the hops pass on while most of them have nothing to do: small,
    /// though a server uses its weights worse with fewer rows.
    pub least_chunk: TokenCount,
    /// Chunks the first hop may have unanswered: as many as keep a link of 100 Mbit/s
    /// busy over 50 ms there and back, also when the hop computes some of them late.
    pub window: usize,
    /// Where models that are named as on the Hugging Face hub are fetched from and kept; as the environment says
    /// (`HF_HOME`, `HF_TOKEN` and so on) by default.
    pub hub: HubConfig,
    /// How hops are told whose work they do, if this program collects spans. Without it nothing of traces is sent.
    pub spans: Option<SpanContexts>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            peers: PeerFilter::default(),
            probe_timeout: Duration::from_secs(2),
            probe_age: Duration::from_secs(30),
            most_probes: 64,
            open_timeout: Duration::from_secs(5),
            step_timeout: Duration::from_secs(120),
            standby: false,
            mixed_classes: false,
            wire: Wire::default(),
            edges: EdgesPlace::default(),
            prefixes: PrefixReuse::default(),
            start_patience: Duration::from_secs(4),
            repair_patience: Duration::from_secs(30),
            most_repairs: 16,
            prefill_chunk: TokenCount(64),
            least_chunk: TokenCount(16),
            window: 16,
            hub: HubConfig::of_environment(),
            spans: None,
        }
    }
}
