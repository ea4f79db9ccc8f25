//! From what was said and heard to what is shown. Pure.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::swarm_view::uncovered;
use swarm_protocol::wire::{ElementType, RowEncoding};

use super::alarms;
use super::observation::{Answer, ModelObservation, ModelShape, Observation, ServerObservation};
use super::types::{
    Bottleneck, ClassOverview, EdgesOverview, ModelOverview, RoundTrip, SCHEMA, SeenBy, ServerOverview, SwarmOverview,
    WireOverview,
};

/// The end of a weight format's name in a numeric class whose KV caches hold eight bits.
const KV_EIGHT_BITS: &str = "kv8";

impl SwarmOverview {
    /// What `seen` adds up to; `at_unix_ms` is the time of the look.
    pub fn of(seen: &Observation, at_unix_ms: u64) -> Self {
        let mut models: Vec<ModelOverview> = seen.models.iter().map(model).collect();
        models.sort_by(|a, b| (&a.name, &a.model_id).cmp(&(&b.name, &b.model_id)));
        let mut alarms: Vec<_> = models.iter().flat_map(alarms::of).collect();
        alarms.sort_by_key(|alarm| alarm.severity);
        Self {
            schema: SCHEMA,
            swarm: seen.swarm.clone(),
            at_unix_ms,
            seen_by: SeenBy { peer_id: seen.by, version: env!("CARGO_PKG_VERSION").to_string() },
            models,
            alarms,
        }
    }
}

fn model(seen: &ModelObservation) -> ModelOverview {
    let mut servers: Vec<ServerOverview> = seen.servers.iter().filter_map(server).collect();
    servers.sort_by_key(|server| (server.blocks, server.peer_id));
    let serving: Vec<&ServerOverview> = servers.iter().filter(|server| server.state.serves()).collect();
    let all = seen.blocks.len() as usize;
    let (mut replicas, mut tokens_per_second) = (vec![0; all], vec![0.0; all]);
    for server in &serving {
        // Numbers of blocks past the model's end are a peer's mistake.
        for block in server.blocks.blocks().map(|block| block.as_usize()).filter(|block| *block < all) {
            replicas[block] += 1;
            tokens_per_second[block] += server.tokens_per_second;
        }
    }
    tokens_per_second.iter_mut().for_each(|rate| *rate = tenths(*rate));
    ModelOverview {
        model_id: seen.id.to_string(),
        name: seen.name.clone(),
        blocks: seen.blocks.len(),
        known_servers: seen.known_servers.max(servers.len() as u32),
        missing: uncovered(seen.blocks, serving.iter().map(|server| server.blocks)),
        bottleneck: if servers.is_empty() { None } else { bottleneck(&replicas, &tokens_per_second) },
        classes: classes(seen.blocks, &serving),
        wire: seen.shape.map(wire),
        round_trips: round_trips(&seen.servers, &servers),
        replicas,
        tokens_per_second,
        servers,
    }
}

fn server(seen: &ServerObservation) -> Option<ServerOverview> {
    let state = seen.condition()?;
    let said = &seen.announcement;
    let (rtt, uptime_seconds, offer) = match &seen.answer {
        Answer::Given { rtt, uptime_seconds, edges } => (Some(*rtt), Some(*uptime_seconds), edges.as_ref()),
        Answer::NotAsked | Answer::Silent { .. } => (None, None, None),
    };
    let edges = said.edges.then(|| EdgesOverview {
        numeric_class: offer.map(|offer| offer.class.to_string()),
        choose_us: offer.map(|offer| offer.choose_us),
        cost_ms: offer.zip(rtt).map(|(offer, rtt)| millis(rtt + Duration::from_micros(offer.choose_us.into()))),
    });
    let (weight_format, kv_bits) = formats(said.class.as_str());
    Some(ServerOverview {
        peer_id: said.peer,
        name: said.name.clone(),
        blocks: said.blocks,
        state,
        silence: match &seen.answer {
            Answer::Silent { reason } => Some(reason.clone()),
            _ => None,
        },
        addresses: said.addresses.iter().map(ToString::to_string).collect(),
        rtt_ms: rtt.map(millis),
        uptime_seconds,
        numeric_class: said.class.to_string(),
        weight_format,
        kv_bits,
        decode_us_per_block: said.rates.decode_us_per_block,
        prefill_ns_per_token_block: said.rates.prefill_ns_per_token_block,
        tokens_per_second: tenths(rate(said.rates.decode_us_per_block, said.blocks)),
        queue_us: said.load.queue_us,
        sessions: said.load.sessions,
        free_tokens: said.load.free_tokens.0,
        total_tokens: said.load.total_tokens.0,
        version: said.version.clone(),
        edges,
    })
}

/// Decode steps a second of a server that takes so many microseconds for one of its blocks.
fn rate(decode_us_per_block: u32, blocks: BlockRange) -> f64 {
    let micros = f64::from(decode_us_per_block.max(1)) * f64::from(blocks.len());
    1e6 / micros
}

/// Weight format and KV bits of a numeric class such as `bf16+kv8/fma/x86_64-linux`.
fn formats(class: &str) -> (String, Option<u32>) {
    let weights = class.split('/').next().unwrap_or(class);
    match weights.split_once('+') {
        Some((weights, KV_EIGHT_BITS)) => (weights.to_string(), Some(8)),
        _ => (weights.to_string(), None),
    }
}

/// The first run of blocks whose throughput is the least.
fn bottleneck(replicas: &[u32], tokens_per_second: &[f64]) -> Option<Bottleneck> {
    let least = tokens_per_second.iter().copied().min_by(f64::total_cmp)?;
    let is_least = |rate: &f64| *rate <= least;
    let start = tokens_per_second.iter().position(is_least)?;
    let length = tokens_per_second[start..].iter().take_while(|rate| is_least(rate)).count();
    Some(Bottleneck {
        blocks: BlockRange::new(start as u32, (start + length) as u32).ok()?,
        replicas: replicas[start..start + length].iter().copied().min()?,
        tokens_per_second: least,
    })
}

fn classes(blocks: BlockRange, serving: &[&ServerOverview]) -> Vec<ClassOverview> {
    let mut classes: BTreeMap<&str, Vec<BlockRange>> = BTreeMap::new();
    for server in serving {
        classes.entry(&server.numeric_class).or_default().push(server.blocks);
    }
    let class = |(class, ranges): (&str, Vec<BlockRange>)| ClassOverview {
        numeric_class: class.to_string(),
        servers: ranges.len() as u32,
        missing: uncovered(blocks, ranges.into_iter()),
    };
    classes.into_iter().map(class).collect()
}

fn wire(shape: ModelShape) -> WireOverview {
    let bytes = |encoding: RowEncoding| encoding.row_bytes(shape.hidden as usize) as u32;
    let element = match shape.element {
        ElementType::F32 => "f32",
        ElementType::F16 => "f16",
        ElementType::Bf16 => "bf16",
    };
    WireOverview {
        hidden: shape.hidden,
        element: element.to_string(),
        exact_bytes: bytes(shape.element.into()),
        int8_bytes: bytes(RowEncoding::Int8),
    }
}

/// What the shown servers have measured of one another.
fn round_trips(seen: &[ServerObservation], shown: &[ServerOverview]) -> Vec<RoundTrip> {
    let known: HashSet<PeerId> = shown.iter().map(|server| server.peer_id).collect();
    let of = |server: &ServerObservation| {
        let from = server.announcement.peer;
        let to = |(to, micros): &(PeerId, u32)| {
            let rtt_ms = millis(Duration::from_micros((*micros).into()));
            known.contains(to).then_some(RoundTrip { from, to: *to, rtt_ms })
        };
        server.announcement.neighbours.iter().filter_map(to).collect::<Vec<_>>()
    };
    seen.iter().filter(|server| known.contains(&server.announcement.peer)).flat_map(of).collect()
}

/// Milliseconds to the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1000.0
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use swarm_protocol::announcement::ServerState;
    use swarm_protocol::model_id::NumericClass;

    use super::super::testing::{answered, model, range, server, silent};
    use super::super::types::ServerCondition;
    use super::*;

    fn seen(models: Vec<ModelObservation>) -> SwarmOverview {
        let (swarm, by) = ("public".to_string(), PeerId::random());
        SwarmOverview::of(&Observation { swarm, by, models, cut_off: false }, 1_000)
    }

    #[test]
    fn each_block_shows_who_serves_it_and_how_fast() {
        let mut slow = server("slow", 4, 12);
        slow.announcement.rates.decode_us_per_block = 1_000;
        let overview = seen(vec![model(12, vec![server("attic", 0, 6), slow])]);
        let model = &overview.models[0];
        assert_eq!(model.replicas, [1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1]);
        // 500 us for each of six blocks, and 1,000 us for each of eight.
        assert_eq!((model.tokens_per_second[0], model.tokens_per_second[4]), (333.3, 458.3));
        let bottleneck = model.bottleneck.clone().unwrap();
        assert_eq!((bottleneck.blocks, bottleneck.replicas, bottleneck.tokens_per_second), (range(6, 12), 1, 125.0));
        assert!(model.missing.is_empty());
    }

    #[test]
    fn who_does_not_answer_serves_nothing_and_who_was_not_asked_is_believed() {
        let believed = ServerObservation { answer: Answer::NotAsked, ..server("believed", 0, 6) };
        let mut gone = silent(server("gone", 0, 12));
        gone.announcement.state = ServerState::Leaving;
        let overview = seen(vec![model(12, vec![believed, silent(server("cellar", 6, 12)), gone])]);
        let model = &overview.models[0];
        assert_eq!(model.missing, [range(6, 12)]);
        let states: Vec<ServerCondition> = model.servers.iter().map(|server| server.state).collect();
        assert_eq!(states, [ServerCondition::Announced, ServerCondition::Silent]);
        assert_eq!(model.servers[1].silence.as_deref(), Some("refused"));
        assert_eq!(model.bottleneck.clone().unwrap().blocks, range(6, 12));
    }

    #[test]
    fn a_token_takes_two_bytes_an_element_and_int8_about_half() {
        let mut seen_model = model(2, vec![]);
        seen_model.shape = Some(ModelShape { hidden: 8192, element: ElementType::Bf16 });
        let wire = seen(vec![seen_model]).models[0].wire.clone().unwrap();
        assert_eq!((wire.element.as_str(), wire.exact_bytes, wire.int8_bytes), ("bf16", 16_384, 8_704));
        assert!(seen(vec![model(2, vec![])]).models[0].wire.is_none());
    }

    #[test]
    fn the_class_names_the_formats_and_coverage_is_counted_within_it() {
        let mut other = server("other", 6, 12);
        other.announcement.class = NumericClass::new("q8_0+kv8/fma/x86_64-linux").unwrap();
        let model = seen(vec![model(12, vec![server("attic", 0, 12), other])]).models.remove(0);
        let formats = |server: &ServerOverview| (server.weight_format.clone(), server.kv_bits);
        assert_eq!(formats(&model.servers[0]), ("bf16".to_string(), None));
        assert_eq!(formats(&model.servers[1]), ("q8_0".to_string(), Some(8)));
        let missing: Vec<_> = model.classes.iter().map(|class| class.missing.clone()).collect();
        assert_eq!(missing, [vec![], vec![range(0, 6)]]);
    }

    #[test]
    fn round_trips_between_servers_are_those_of_servers_that_are_shown() {
        let (mut attic, cellar) = (server("attic", 0, 6), server("cellar", 6, 12));
        let to = cellar.announcement.peer;
        attic.announcement.neighbours = vec![(to, 2_500), (PeerId::random(), 9)];
        let from = attic.announcement.peer;
        let model = seen(vec![model(12, vec![attic, cellar])]).models.remove(0);
        assert_eq!(model.round_trips, [RoundTrip { from, to, rtt_ms: 2.5 }]);
    }

    #[test]
    fn a_peer_that_lies_about_its_blocks_breaks_nothing() {
        let overview = seen(vec![model(4, vec![server("liar", 0, 512)])]);
        assert_eq!(overview.models[0].replicas, [1; 4]);
    }

    #[test]
    fn offered_edges_cost_the_way_and_the_choice() {
        let mut offering = server("attic", 0, 12);
        offering.announcement.edges = true;
        let told = answered(offering.clone(), Duration::from_millis(3), Some(700));
        let untold = ServerObservation { answer: Answer::NotAsked, ..offering };
        let model = seen(vec![model(12, vec![told])]).models.remove(0);
        assert_eq!(model.servers[0].edges.as_ref().unwrap().cost_ms, Some(3.7));
        let model = seen(vec![super::super::testing::model(12, vec![untold])]).models.remove(0);
        assert_eq!(model.servers[0].edges.as_ref().unwrap().cost_ms, None);
    }

    #[test]
    fn the_json_is_read_back_as_it_was() {
        let overview = seen(vec![model(12, vec![server("attic", 0, 6), silent(server("cellar", 6, 12))])]);
        let json = serde_json::to_value(&overview).unwrap();
        assert_eq!(json["models"][0]["missing"], serde_json::json!([[6, 12]]));
        assert_eq!(json["models"][0]["servers"][0]["state"], "serving");
        assert_eq!(serde_json::from_value::<SwarmOverview>(json).unwrap(), overview);
    }
}
