//! What a server counts of its work, for Prometheus. Recording is an atomic addition or a short look at a histogram's buckets,
//! once for each pass, step or frame; everything else is worked out when somebody asks.

mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use swarm_protocol::p2p::Network;
use swarm_protocol::wire::Refusal;
use swarm_telemetry::metrics::NetworkGauges;

pub(super) use self::wire::{Way, Wire};

/// Rows of a pass: from one sequence that decodes to the largest chunk of a prompt.
const ROWS_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Seconds of a pass, and of waiting for one: from a small model's step to a long prompt's chunk on a slow machine.
const SECONDS_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Loading,
    Serving,
    Moving,
    Leaving,
}

impl State {
    const ALL: [Self; 5] = [Self::Starting, Self::Loading, Self::Serving, Self::Moving, Self::Leaving];

    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Loading => "loading",
            Self::Serving => "serving",
            Self::Moving => "moving",
            Self::Leaving => "leaving",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandOverLabel {
    direction: &'static str,
    outcome: &'static str,
}

/// Why sessions are refused, as the label says it.
const REFUSALS: [&str; 9] = [
    "wrong_model",
    "wrong_class",
    "not_hosted",
    "no_room",
    "too_long",
    "too_many_sessions",
    "leaving",
    "bad_request",
    "not_expected",
];

fn reason_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::WrongModel { .. } => "wrong_model",
        Refusal::WrongClass { .. } => "wrong_class",
        Refusal::NotHosted { .. } => "not_hosted",
        Refusal::NoRoom { .. } => "no_room",
        Refusal::TooLong { .. } => "too_long",
        Refusal::TooManySessions { .. } => "too_many_sessions",
        Refusal::Leaving => "leaving",
        Refusal::BadRequest(_) => "bad_request",
        Refusal::NotExpected => "not_expected",
    }
}

/// How sessions end, as the label says it.
pub(super) const ENDS: [&str; 6] = ["client", "lost", "idle", "left", "protocol", "not_opened"];

/// What a server counts; clones are the same numbers.
#[derive(Debug, Clone)]
pub struct ServerMetrics(Arc<Numbers>);

/// The numbers themselves.
#[derive(Debug)]
pub struct Numbers {
    state: Family<StateLabel, Gauge>,
    pub(super) blocks: Gauge,
    pub(super) model_blocks: Gauge,
    pub(super) weights_bytes: Gauge,
    pub(super) sessions_open: Gauge,
    pub(super) sessions_opened: Counter,
    refused: Family<ReasonLabel, Counter>,
    ended: Family<ReasonLabel, Counter>,
    pub(super) kv_capacity_tokens: Gauge,
    pub(super) kv_reserved_tokens: Gauge,
    pub(super) kv_used_bytes: Gauge,
    pub(super) kv_budget_bytes: Gauge,
    computed: Family<KindLabel, Counter>,
    pub(super) decoded: Counter,
    pub(super) prefilled: Counter,
    pub(super) replayed: Counter,
    pub(super) pass_rows: Histogram,
    pub(super) pass_duration: Histogram,
    pub(super) queue_wait: Histogram,
    pub(super) failed_steps: Counter,
    hand_overs: Family<HandOverLabel, Counter>,
    pub(super) moves: Counter,
    pub(super) prefix_hits: Counter,
    pub(super) prefix_misses: Counter,
    pub(super) prefix_tokens: Counter,
    pub(super) prefix_bytes: Gauge,
    pub(super) protocol_errors: Counter,
    pub(super) known_servers: Gauge,
    pub(super) wire: Wire,
    of_network: NetworkGauges,
    /// Asked for what it sees when somebody wants to know.
    pub(super) network: OnceLock<Network>,
    /// Whether the swarm knows that sessions are welcome.
    pub(super) announced: Gauge,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        let computed = Family::<KindLabel, Counter>::default();
        let of_kind = |kind| computed.get_or_create_owned(&KindLabel { kind });
        let (decoded, prefilled, replayed) = (of_kind("decode"), of_kind("prefill"), of_kind("replay"));
        let numbers = Numbers {
            state: Family::default(),
            blocks: Gauge::default(),
            model_blocks: Gauge::default(),
            weights_bytes: Gauge::default(),
            sessions_open: Gauge::default(),
            sessions_opened: Counter::default(),
            refused: Family::default(),
            ended: Family::default(),
            kv_capacity_tokens: Gauge::default(),
            kv_reserved_tokens: Gauge::default(),
            kv_used_bytes: Gauge::default(),
            kv_budget_bytes: Gauge::default(),
            computed,
            decoded,
            prefilled,
            replayed,
            pass_rows: Histogram::new(ROWS_BUCKETS),
            pass_duration: Histogram::new(SECONDS_BUCKETS),
            queue_wait: Histogram::new(SECONDS_BUCKETS),
            failed_steps: Counter::default(),
            hand_overs: Family::default(),
            moves: Counter::default(),
            prefix_hits: Counter::default(),
            prefix_misses: Counter::default(),
            prefix_tokens: Counter::default(),
            prefix_bytes: Gauge::default(),
            protocol_errors: Counter::default(),
            known_servers: Gauge::default(),
            wire: Wire::default(),
            of_network: NetworkGauges::default(),
            network: OnceLock::new(),
            announced: Gauge::default(),
        };
        let metrics = Self(Arc::new(numbers));
        metrics.set_state(State::Starting);
        // What has not happened yet is told as 0: a rate needs a beginning.
        REFUSALS.iter().for_each(|reason| drop(metrics.0.refused.get_or_create(&ReasonLabel { reason })));
        ENDS.iter().for_each(|reason| drop(metrics.0.ended.get_or_create(&ReasonLabel { reason })));
        for (direction, outcome) in [("in", "done"), ("in", "failed"), ("out", "done"), ("out", "failed")] {
            drop(metrics.0.hand_overs.get_or_create(&HandOverLabel { direction, outcome }));
        }
        metrics
    }
}

impl std::ops::Deref for ServerMetrics {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.0
    }
}

impl ServerMetrics {
    pub(super) fn set_state(&self, now: State) {
        if now != State::Serving {
            self.0.announced.set(0);
        }
        for state in State::ALL {
            self.0.state.get_or_create(&StateLabel { state: state.name() }).set((state == now).into());
        }
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.0.refused.get_or_create(&ReasonLabel { reason: reason_of(refusal) }).inc();
    }

    /// `reason` is one of [`ENDS`].
    pub(super) fn ended(&self, reason: &'static str) {
        self.0.ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn handed_over(&self, direction: &'static str, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.0.hand_overs.get_or_create(&HandOverLabel { direction, outcome }).inc();
    }

    pub(super) fn pass(&self, rows: usize, took: Duration) {
        self.0.pass_rows.observe(rows as f64);
        self.0.pass_duration.observe(took.as_secs_f64());
    }

    /// Looks at what is not counted as it happens, before all of it is told.
    pub async fn refresh(&self) {
        if let Some(network) = self.0.network.get() {
            let census = network.census().await;
            self.0.of_network.set(census.connected_peers, census.known_peers, census.records);
        }
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let numbers = &*self.0;
        numbers.of_network.register(registry);
        let server = registry.sub_registry_with_prefix("server");
        server.register("state", "What the server is doing: 1 for one of the states", numbers.state.clone());
        let announced = "1 once the swarm knows that sessions are welcome, until the server moves or leaves";
        server.register("announced", announced, numbers.announced.clone());
        server.register("hosted_blocks", "Blocks that are served", numbers.blocks.clone());
        server.register("model_blocks", "Blocks that the whole model has", numbers.model_blocks.clone());
        let weights = "Weights of the served blocks, as they are held";
        server.register_with_unit("weights", weights, Unit::Bytes, numbers.weights_bytes.clone());
        server.register("sessions_open", "Sessions that run", numbers.sessions_open.clone());
        server.register("sessions_opened", "Sessions that were opened", numbers.sessions_opened.clone());
        server.register("sessions_refused", "Sessions and feeds that were refused, by reason", numbers.refused.clone());
        server.register("sessions_ended", "Sessions that have ended, by reason", numbers.ended.clone());
        let capacity = "Tokens that the KV caches of all sessions together have room for";
        server.register("kv_capacity_tokens", capacity, numbers.kv_capacity_tokens.clone());
        server.register(
            "kv_reserved_tokens",
            "Tokens of it that sessions have reserved",
            numbers.kv_reserved_tokens.clone(),
        );
        let used = "Memory of the KV caches in use, pages kept for later sessions included";
        server.register_with_unit("kv_used", used, Unit::Bytes, numbers.kv_used_bytes.clone());
        let budget = "The most that KV caches may take";
        server.register_with_unit("kv_budget", budget, Unit::Bytes, numbers.kv_budget_bytes.clone());
        let computed =
            "Tokens computed: decode (steps of at most 8), prefill, and replay (positions computed here before)";
        server.register("computed_tokens", computed, numbers.computed.clone());
        server.register("pass_rows", "Rows computed together in one pass", numbers.pass_rows.clone());
        let pass = "Time of a pass through the blocks";
        server.register_with_unit("pass_duration", pass, Unit::Seconds, numbers.pass_duration.clone());
        let wait = "Time that steps waited to be computed";
        server.register_with_unit("queue_wait", wait, Unit::Seconds, numbers.queue_wait.clone());
        server.register("failed_steps", "Steps that could not be computed", numbers.failed_steps.clone());
        let hand_overs = "KV caches handed over to another server (out) or taken over (in)";
        server.register("hand_overs", hand_overs, numbers.hand_overs.clone());
        server.register("moves", "Moves to other blocks", numbers.moves.clone());
        let hits = "Sessions that began with pages kept of earlier ones";
        server.register("prefix_cache_hits", hits, numbers.prefix_hits.clone());
        let misses = "Sessions that asked for pages and found none";
        server.register("prefix_cache_misses", misses, numbers.prefix_misses.clone());
        let recalled = "Tokens that need not be computed since their pages were kept";
        server.register("prefix_cache_recalled_tokens", recalled, numbers.prefix_tokens.clone());
        let kept = "Keys and values of pages kept for later sessions";
        server.register_with_unit("prefix_cache", kept, Unit::Bytes, numbers.prefix_bytes.clone());
        server.register("protocol_errors", "How often a peer broke the protocol", numbers.protocol_errors.clone());
        server.register(
            "known_servers",
            "Servers of the model that the last look found",
            numbers.known_servers.clone(),
        );
        server.register_collector(Box::new(numbers.wire.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_holds_at_a_time() {
        let metrics = ServerMetrics::default();
        metrics.set_state(State::Serving);
        let of = |state: State| metrics.state.get_or_create(&StateLabel { state: state.name() }).get();
        assert_eq!(State::ALL.map(of), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_is_counted_is_told() {
        let metrics = ServerMetrics::default();
        let mut registry = swarm_telemetry::metrics::registry("test");
        metrics.register(&mut registry);
        metrics.refused(&Refusal::Leaving);
        metrics.handed_over("out", true);
        metrics.pass(3, Duration::from_millis(4));
        metrics.decoded.inc_by(3);
        let text = swarm_telemetry::metrics::text(&registry).unwrap();
        assert_eq!(swarm_telemetry::metrics::check::problems(&text), Vec::<String>::new(), "{text}");
        for line in [
            "swarm_server_sessions_refused_total{reason=\"leaving\"} 1",
            "swarm_server_sessions_refused_total{reason=\"no_room\"} 0",
            "swarm_server_hand_overs_total{direction=\"out\",outcome=\"done\"} 1",
            "swarm_server_pass_rows_bucket{le=\"4.0\"} 1",
            "swarm_server_computed_tokens_total{kind=\"decode\"} 3",
            "swarm_server_wire_bytes_total{kind=\"session\",direction=\"in\"} 0",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
    }
}
