//! Servers and models for this module's tests.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, Load, Rates, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::EdgesOffer;

use super::observation::{Answer, ModelObservation, ServerObservation};

pub(super) fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

pub(super) fn model(blocks: u32, servers: Vec<ServerObservation>) -> ModelObservation {
    let known_servers = servers.len() as u32;
    let (id, name, blocks) = (ModelId([7; 32]), "demo".to_string(), range(0, blocks));
    ModelObservation { id, name, blocks, known_servers, shape: None, servers }
}

/// A server that answered at once.
pub(super) fn server(name: &str, start: u32, end: u32) -> ServerObservation {
    let announcement = Announcement {
        peer: PeerId::random(),
        instance: 1,
        sequence: 1,
        state: ServerState::Serving,
        addresses: Vec::new(),
        model: ModelId([7; 32]),
        blocks: range(start, end),
        class: NumericClass::new("bf16/fma/x86_64-linux").unwrap(),
        rates: Rates { decode_us_per_block: 500, prefill_ns_per_token_block: 1 },
        load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(64), total_tokens: TokenCount(64) },
        neighbours: Vec::new(),
        ttl_seconds: 240,
        name: Some(name.to_string()),
        version: "0.1.0".to_string(),
        edges: false,
    };
    answered(ServerObservation { announcement, answer: Answer::NotAsked }, Duration::from_millis(1), None)
}

pub(super) fn answered(seen: ServerObservation, rtt: Duration, choose_us: Option<u32>) -> ServerObservation {
    let class = seen.announcement.class.clone();
    let edges = choose_us.map(|choose_us| EdgesOffer { class, digest: BlockDigest([0; 32]), choose_us });
    ServerObservation { answer: Answer::Given { rtt, uptime_seconds: 5, edges }, ..seen }
}

pub(super) fn silent(seen: ServerObservation) -> ServerObservation {
    ServerObservation { answer: Answer::Silent { reason: "refused".to_string() }, ..seen }
}
