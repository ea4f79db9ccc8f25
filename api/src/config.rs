//! How the API behaves.

use std::time::Duration;

use swarm_client::PrefixReuse;
use swarm_protocol::trace_context::SpanContexts;

use crate::auth::ApiKeys;
use crate::names::HostNames;

/// How the API behaves; the defaults are for one person or a small group.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Who may ask; everybody by default.
    pub keys: ApiKeys,
    /// Under which names it may be asked; all by default.
    pub names: HostNames,
    /// Origins whose pages may ask from a browser; `*` is any. None by default.
    pub cors: Vec<String>,
    /// Requests that run at once. Each holds a session: room in the servers' KV caches.
    pub max_requests: usize,
    /// Requests that wait for their turn; beyond, they are refused at once.
    pub max_queue: usize,
    /// How long the head of a request may take, and its body; and how long a connection may rest between two requests.
    pub read_timeout: Duration,
    /// How long a request may take, from its last byte to the last one of its answer, waiting included.
    pub request_timeout: Duration,
    /// How long requests that run are let go on when this process is told to stop.
    pub stop_timeout: Duration,
    /// The largest body of a request, in bytes: a long prompt as text or token ids.
    pub max_body: usize,
    /// What servers keep of texts: what the client was given. With API keys, those of one key share nothing with those of
    /// another.
    pub prefixes: PrefixReuse,
    /// How requests become parts of their callers' traces (`traceparent`), if this program collects spans.
    pub spans: Option<SpanContexts>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            keys: ApiKeys::default(),
            names: HostNames::default(),
            cors: Vec::new(),
            max_requests: 64,
            max_queue: 256,
            // Longer than clients keep connections open, so that it is they who close; a few megabytes over a slow line.
            read_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(30),
            max_body: 4 * 1024 * 1024,
            prefixes: PrefixReuse::default(),
            spans: None,
        }
    }
}
