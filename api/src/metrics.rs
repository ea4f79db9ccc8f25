//! What is counted of requests, for Prometheus: `/metrics`.

use std::sync::Arc;
use std::time::Instant;

use crate::Host;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use swarm_telemetry::metrics::{self as telemetry, NetworkGauges, Registry, Unit};

/// Seconds until an answer begins: from a health check to a long prompt on a slow swarm.
const SECONDS_BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// What a request asks for, as labels say it. Whatever else is asked is one label, however many paths strangers try.
const ENDPOINTS: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/responses",
    "/api/v1/swarm",
    "/health",
    "/ready",
    "/metrics",
];

/// What all other paths are called.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: &'static str,
}

/// What is counted; clones are the same numbers.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: Family<RequestLabels, Counter>,
    running: Gauge,
    admitted: Gauge,
    queued: Gauge,
    duration: Family<EndpointLabel, Histogram, fn() -> Histogram>,
    network: NetworkGauges,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            running: Gauge::default(),
            admitted: Gauge::default(),
            queued: Gauge::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS)),
            network: NetworkGauges::default(),
        }
    }
}

impl ApiMetrics {
    fn register(&self, registry: &mut Registry, host: &Host) {
        self.network.register(registry);
        let api = registry.sub_registry_with_prefix("api");
        host.usage().register(api);
        api.register("admitted_requests", "Requests that the swarm computes for now", self.admitted.clone());
        api.register("queued_requests", "Requests that wait until others are done", self.queued.clone());
        api.register("requests", "Requests that were answered, by endpoint and HTTP status", self.requests.clone());
        api.register("requests_running", "Requests whose answer has not begun", self.running.clone());
        let duration = "Time until the answer began";
        api.register_with_unit("request_duration", duration, Unit::Seconds, self.duration.clone());
    }

    /// `router` with its requests counted, and `/metrics`.
    pub fn watch(self, router: Router, host: Arc<Host>) -> Router {
        let mut registry = telemetry::registry("swarm-node api");
        self.register(&mut registry, &host);
        let registry = Arc::new(registry);
        let metrics = self.clone();
        let text = move || {
            let (registry, host, metrics) = (registry.clone(), host.clone(), metrics.clone());
            async move {
                let census = host.swarm().network().census().await;
                let (admitted, queued) = host.load();
                metrics.admitted.set(admitted as i64);
                metrics.queued.set(queued as i64);
                metrics.network.set(census.connected_peers, census.known_peers, census.records);
                telemetry::text(&registry)
            }
        };
        router.merge(swarm_telemetry::http::metrics(text)).layer(from_fn_with_state(self, record))
    }
}

/// Counts what runs, also when the client goes away before it is answered.
struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn record(State(metrics): State<ApiMetrics>, request: Request, next: Next) -> Response {
    let (began, path) = (Instant::now(), request.uri().path().to_string());
    metrics.running.inc();
    let running = Running(metrics.running.clone());
    let response = next.run(request).await;
    drop(running);
    let status = u32::from(response.status().as_u16());
    let endpoint = endpoint(&path);
    metrics.duration.get_or_create(&EndpointLabel { endpoint }).observe(began.elapsed().as_secs_f64());
    metrics.requests.get_or_create(&RequestLabels { endpoint, status }).inc();
    response
}

/// The endpoint of a path: one of few, whatever is asked. What stands behind a collection's name is an id, and nobody counts
/// those.
pub(crate) fn endpoint(path: &str) -> &'static str {
    let below =
        |endpoint: &str| path.strip_prefix(endpoint).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ENDPOINTS.into_iter().find(|endpoint| below(endpoint)).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_endpoints_whatever_is_asked() {
        for (path, expected) in [
            ("/health", "/health"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/models/org%2Fname", "/v1/models"),
            ("/v1/models-strangers-try", "other"),
            ("/v1/chat", "other"),
            ("/wp-login.php", "other"),
            ("/", "other"),
        ] {
            assert_eq!(endpoint(path), expected, "{path}");
        }
    }
}
