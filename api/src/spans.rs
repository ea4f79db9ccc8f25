//! Each request's span: the beginning of a trace, or a part of the caller's, as the header `traceparent` says.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use swarm_protocol::trace_context::{SPANS, TraceContext};
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use crate::Host;
use crate::metrics::endpoint;
use crate::request_id::RequestId;

/// The header that names the caller's span.
const TRACEPARENT: &str = "traceparent";

/// From this status on an answer says that this program, or the swarm, failed.
const FAILED: u16 = 500;

/// Answers within a span, if this program collects any. What goes on when the answer has begun is a part of it as well.
pub(crate) async fn traced(State(host): State<Arc<Host>>, request: Request, next: Next) -> Response {
    let Some(spans) = host.config().spans else { return next.run(request).await };
    let (method, route) = (known(request.method()), endpoint(request.uri().path()));
    // Paths and bodies are whatever callers write; these are of few words.
    let span = info_span!(
        target: SPANS, parent: None, "request", otel.name = format!("{method} {route}"), otel.kind = "server",
        http.request.method = method, http.route = route, http.response.status_code = Empty,
        request.id = Empty, otel.status_code = Empty,
    );
    if let Some(caller) = caller(request.headers()) {
        (spans.adopt)(&span, caller);
    }
    if let Some(RequestId(id)) = request.extensions().get() {
        span.record("request.id", id.as_str());
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("http.response.status_code", i64::from(status));
    if status >= FAILED {
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// A method as spans name it.
fn known(method: &Method) -> &str {
    const KNOWN: [Method; 7] =
        [Method::GET, Method::POST, Method::OPTIONS, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH];
    if KNOWN.contains(method) { method.as_str() } else { "_OTHER" }
}

/// The caller's span, if exactly one header names one.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let (first, second) = (named.next()?, named.next());
    second.is_none().then(|| first.to_str().ok()?.trim().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const SPAN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn named(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_bytes(value).unwrap());
        }
        caller(&headers).map(|caller| caller.to_string())
    }

    #[test]
    fn a_caller_names_one_span_or_none() {
        assert_eq!(named(&[SPAN.as_bytes()]).as_deref(), Some(SPAN));
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[SPAN.as_bytes(), SPAN.as_bytes()]), None);
        assert_eq!(named(&[b"00-zz-01"]), None);
        assert_eq!(named(&[b"\xff\xfe"]), None);
    }
}
