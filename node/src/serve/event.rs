//! What a server tells whoever started it.

use std::sync::Arc;
use std::time::Duration;

use swarm_model::LoadProgress;
use swarm_protocol::announcement::Rates;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass};
use swarm_protocol::p2p::Network;
use swarm_protocol::{Multiaddr, PeerId};

use super::host::OwnWord;

/// What a server tells whoever started it.
#[derive(Debug, Clone)]
pub enum ServeEvent {
    /// It listens, and will join the swarm.
    Listening {
        /// Its id.
        peer: PeerId,
        /// Where others can dial it, best first; where it listens, if they cannot.
        addresses: Vec<Multiaddr>,
        /// Whether others can dial any of them.
        reachable: bool,
        /// Its network, for whoever wants to look at the swarm from there.
        network: Box<Network>,
    },
    /// It knows which blocks it will host.
    Chosen {
        /// The blocks.
        blocks: BlockRange,
    },
    /// It reads weights.
    Loading(LoadProgress),
    /// Sessions are welcome, and the swarm knows it.
    Ready {
        /// Its id.
        peer: PeerId,
        /// The model.
        model: ModelId,
        /// The model's name for people.
        name: String,
        /// The blocks it hosts.
        blocks: BlockRange,
        /// What its results depend on besides weights and input.
        class: NumericClass,
        /// What it measured of itself.
        rates: Rates,
        /// Where others can dial it, best first; empty if only relays and local peers can.
        addresses: Vec<Multiaddr>,
        /// What it answers from now on to whoever asks.
        word: OwnWord,
    },
    /// It hands its blocks over to others, and goes where the swarm needs it more.
    Moving {
        /// The blocks it hosts.
        from: BlockRange,
        /// The blocks it will host.
        to: BlockRange,
        /// Sessions that still run.
        sessions: u32,
        /// How long they may.
        within: Duration,
    },
    /// It was told to stop.
    Leaving {
        /// Sessions that still run.
        sessions: u32,
        /// How long they may.
        within: Duration,
    },
}

/// Where a server's events go.
pub type Report = Arc<dyn Fn(ServeEvent) + Send + Sync>;
