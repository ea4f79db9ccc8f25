//! Why a session was not opened, and what its client can do.

use std::time::Duration;

use swarm_protocol::session::TokenCount;
use thiserror::Error;

/// A client that asks again sooner only adds load: a session rarely ends within less.
pub(super) const SOONEST_RETRY: Duration = Duration::from_millis(500);
/// Most sessions end long before they are idle for good, so it is worth asking again by then.
pub(super) const LATEST_RETRY: Duration = Duration::from_secs(10);

/// A session was not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason} ({free} tokens are free)")]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The tokens that are free now.
    pub free: TokenCount,
    /// When to ask this server again; `None` if that will not help: go elsewhere.
    pub retry_after: Option<Duration>,
}

/// Why a session was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reason {
    /// The server is about to leave the swarm.
    #[error("the server is leaving the swarm; use another one")]
    Leaving,
    /// The session is larger than the whole budget.
    #[error("the session is longer than the {budget} tokens this server has in all; ask for fewer, or use another one")]
    TooLong {
        /// All the server has.
        budget: TokenCount,
    },
    /// The id is taken.
    #[error("a session of that id is open; draw another id")]
    AlreadyOpen,
    /// As many sessions are open as the server allows.
    #[error("the server has as many sessions as it allows; use another one, or try again later")]
    TooManySessions,
    /// The budget is spent.
    #[error("the KV cache is full; use another server, or try again later")]
    Full,
    /// What is free is kept for clients that have no session here.
    #[error("what is free is kept for other clients; close a session, use another server, or try again later")]
    KeptForOthers,
}

impl Reason {
    /// Whether the same session may be opened on the same server later.
    pub fn passes(self) -> bool {
        match self {
            Self::Leaving | Self::TooLong { .. } | Self::AlreadyOpen => false,
            Self::TooManySessions | Self::Full | Self::KeptForOthers => true,
        }
    }
}
