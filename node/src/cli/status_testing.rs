//! A swarm for the tests of what is shown of one.

use std::time::Duration;

use swarm_client::overview::{Answer, ModelObservation, Observation, ServerObservation, SwarmOverview};
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, Load, Rates, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass};
use swarm_protocol::session::TokenCount;

/// One model with these servers.
pub(crate) fn observation(blocks: u32, servers: Vec<ServerObservation>) -> Observation {
    let known_servers = servers.len() as u32;
    let (id, blocks) = (ModelId([0; 32]), BlockRange::new(0, blocks).unwrap());
    let model = ModelObservation { id, name: "demo".to_string(), blocks, known_servers, shape: None, servers };
    Observation { swarm: "public".to_string(), by: PeerId::random(), models: vec![model], cut_off: false }
}

/// The same as it is shown.
pub(crate) fn overview(blocks: u32, servers: Vec<ServerObservation>) -> SwarmOverview {
    SwarmOverview::of(&observation(blocks, servers), 0)
}

/// A server that serves and answered.
pub(crate) fn server(name: &str, start: u32, end: u32) -> ServerObservation {
    let announcement = Announcement {
        peer: PeerId::random(),
        instance: 0,
        sequence: 1,
        state: ServerState::Serving,
        addresses: Vec::new(),
        model: ModelId([0; 32]),
        blocks: BlockRange::new(start, end).unwrap(),
        class: NumericClass::new("bf16/fma/x86_64-linux").unwrap(),
        rates: Rates { decode_us_per_block: 500, prefill_ns_per_token_block: 1 },
        load: Load { queue_us: 0, sessions: 1, free_tokens: TokenCount(48), total_tokens: TokenCount(64) },
        neighbours: Vec::new(),
        ttl_seconds: 1,
        name: Some(name.to_string()),
        version: "0.1.0".to_string(),
        edges: false,
    };
    let answer = Answer::Given { rtt: Duration::from_millis(3), uptime_seconds: 90, edges: None };
    ServerObservation { announcement, answer }
}
