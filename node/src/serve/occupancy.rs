//! How busy the server is, as its parts publish it.

use std::time::Instant;

use swarm_protocol::announcement::Load;
use swarm_protocol::session::TokenCount;
use tokio::sync::watch;

use super::smoothed::SmoothedWait;

/// What sessions hold of the KV caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rooms {
    pub(super) sessions: u32,
    pub(super) free: TokenCount,
}

/// Reads what the registry and the compute thread publish.
#[derive(Debug, Clone)]
pub(super) struct Occupancy {
    pub(super) total: TokenCount,
    pub(super) rooms: watch::Receiver<Rooms>,
    pub(super) wait: watch::Receiver<SmoothedWait>,
}

impl Occupancy {
    /// The load now.
    pub(super) fn load(&self) -> Load {
        let rooms = *self.rooms.borrow();
        Load {
            queue_us: self.wait.borrow().micros(Instant::now()),
            sessions: rooms.sessions,
            free_tokens: rooms.free,
            total_tokens: self.total,
        }
    }
}
