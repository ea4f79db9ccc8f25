//! Sending the spans of requests to a collector, as OpenTelemetry has it: OTLP over HTTP, in batches, from a thread of its own.
//!
//! Everybody else knows `tracing`'s spans only. Those with the target [`SPANS`] become OpenTelemetry's here, and so does what our
//! crates log in them, from `info` on, as events. Without an endpoint nothing of this is made.

mod client;
mod endpoint;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use swarm_protocol::trace_context::{SPANS, SpanContexts, TraceContext};
use swarm_telemetry::logs::Collector;
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use self::client::CollectorClient;
pub(crate) use self::endpoint::{Endpoint, ratio};
use super::output::BadUsage;

/// How long a batch may take on its way. One that does not arrive is dropped: spans are worth less than a queue that grows.
const BATCH_WITHIN: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the last batch.
const LAST_BATCH_WITHIN: Duration = Duration::from_millis(1500);

/// The beginning of the targets of our own crates.
const OUR_CRATES: &str = "swarm_";

/// What this program is called at collectors, unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE: &str = "swarm-node";

/// Set once, when spans begin to be collected.
static COLLECTED: OnceLock<SpanContexts> = OnceLock::new();

/// How spans of this process and others become one another, if this process collects any.
pub(crate) fn spans() -> Option<SpanContexts> {
    COLLECTED.get().copied()
}

/// Spans are being sent, until this is finished.
pub(crate) struct Sending(SdkTracerProvider);

impl Sending {
    /// Sends what is left, for a moment.
    pub(crate) fn finish(self) {
        // A collector that is not there was warned of.
        let _ = self.0.shutdown_with_timeout(LAST_BATCH_WITHIN);
    }
}

/// Begins to send the spans of `command` to `endpoint`; where that is not given, as the standard's variables say. `sample` is the
/// part of the traces begun here that is recorded. `None` if nobody collects any.
///
/// # Errors
/// [`BadUsage`] if a variable holds no address.
pub(crate) fn start(
    endpoint: Option<Endpoint>,
    sample: f64,
    command: &'static str,
) -> anyhow::Result<Option<(Collector, Sending)>> {
    let bad = |error: String| anyhow::Error::from(BadUsage(anyhow::anyhow!(error)));
    let variable = |name: &str| std::env::var(name).ok();
    let Some(url) = endpoint::chosen(endpoint, variable).map_err(bad)? else { return Ok(None) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(CollectorClient::new(BATCH_WITHIN, &url))
        .with_protocol(Protocol::HttpBinary)
        .with_retry_policy(RetryPolicy::disabled())
        .with_timeout(BATCH_WITHIN)
        .with_endpoint(url)
        .build()
        .map_err(|error| bad(format!("spans cannot be sent to the collector: {error}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
        .with_resource(resource(command))
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_collected));
    // Started once a process.
    let _ = COLLECTED.set(SpanContexts { name, adopt });
    let collector = Collector { layer: Box::new(layer), trace_id };
    Ok(Some((collector, Sending(provider))))
}

/// Spans of traces, and what is worth a line in the log while they last.
fn is_collected(about: &Metadata<'_>) -> bool {
    let event = about.is_event() && *about.level() <= Level::INFO && about.target().starts_with(OUR_CRATES);
    about.target() == SPANS || event
}

fn resource(command: &'static str) -> Resource {
    let built = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("swarm.command", command),
    ]);
    // Where no variable names the service, the SDK calls it unknown.
    let named = Resource::builder().build().get(&Key::from_static_str("service.name"));
    match named {
        Some(name) if !name.as_str().starts_with("unknown_service") => built.build(),
        _ => built.with_service_name(SERVICE).build(),
    }
}

/// The span for other processes, if it is recorded.
fn name(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let named = span.span_context();
    let flags = named.trace_flags();
    let sampled = named.is_valid() && flags.is_sampled();
    sampled.then(|| TraceContext::new(named.trace_id().to_bytes(), named.span_id().to_bytes(), flags.to_u8())).flatten()
}

/// Makes `span` a part of another process's.
fn adopt(span: &Span, context: TraceContext) {
    let (trace, of) = (TraceId::from_bytes(context.trace()), SpanId::from_bytes(context.span()));
    let flags = TraceFlags::new(context.flags());
    let parent = SpanContext::new(trace, of, flags, true, TraceState::default());
    // A span that nobody collects has no parent either.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// The trace that is worked for where this is called.
fn trace_id() -> Option<String> {
    let context = Context::current();
    let span = context.span();
    let named = span.span_context();
    named.is_valid().then(|| named.trace_id().to_string())
}
