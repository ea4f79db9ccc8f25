//! How batches of spans are sent: by the blocking HTTP that the tree has anyway, on the thread that makes them up.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tracing::warn;
use ureq::Agent;

/// The most bytes of an answer that are read: collectors say little.
const MOST_ANSWER: u64 = 64 << 10;

/// The time between two warnings about a collector that takes nothing.
const WARN_EVERY: Duration = Duration::from_secs(300);

/// Sends batches to a collector. Nobody waits for it but the thread that calls it.
#[derive(Debug)]
pub(super) struct CollectorClient {
    agent: Agent,
    /// When somebody was last warned.
    warned: Mutex<Option<Instant>>,
}

impl CollectorClient {
    /// Each request takes no longer than `within`. A collector without TLS is near: no proxy of this environment leads there.
    pub(super) fn new(within: Duration, endpoint: &str) -> Self {
        let agent = Agent::config_builder();
        let agent = if endpoint.starts_with("https:") { agent } else { agent.proxy(None) };
        let agent = agent
            .http_status_as_error(false)
            .timeout_global(Some(within))
            .user_agent(concat!("swarm-node/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { agent, warned: Mutex::default() }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(MOST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    fn warn(&self, collector: &str, reason: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            warn!(collector, reason, "spans could not be sent to the collector; those of this time are lost");
        }
    }
}

impl HttpClient for CollectorClient {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        // The rest of the address may hold a secret.
        let collector = request.uri().host().unwrap_or_default().to_string();
        let sent = self.send(request);
        match &sent {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.warn(&collector, &format!("it answered with status {}", response.status().as_u16())),
            Err(error) => self.warn(&collector, &error.to_string()),
        }
        Box::pin(ready(sent.map_err(HttpError::from)))
    }
}
