//! What the server says of itself, in announcements and to whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use swarm_protocol::announcement::{Announcement, DirectoryEntry, Load, MAX_MODEL_NAME_BYTES, Rates, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{BlockDigest, ModelId, NumericClass};
use swarm_protocol::p2p::Network;
use swarm_protocol::trace_context::SpanContexts;
use swarm_protocol::wire::{EdgesOffer, ServerInfo};

use super::metrics::ServerMetrics;
use super::neighbours::Neighbours;

/// How long a model stays in the directory without being named again: directory entries are put by a few servers of each
/// model at random, so that pauses of some minutes are usual.
const DIRECTORY_TTL: Duration = Duration::from_secs(600);

/// What stays the same while the process lives.
#[derive(Debug)]
pub(super) struct About {
    pub(super) network: Network,
    /// Drawn at random when the process starts.
    pub(super) instance: u64,
    pub(super) model: ModelId,
    pub(super) model_name: String,
    pub(super) model_blocks: BlockRange,
    pub(super) name: Option<String>,
    /// How long others believe an announcement.
    pub(super) ttl: Duration,
    /// The highest sequence used so far.
    pub(super) sequence: AtomicU64,
    /// Whether embedding and head are offered.
    pub(super) edges: bool,
    /// How far likely next hops are away.
    pub(super) neighbours: Neighbours,
    /// What is counted.
    pub(super) metrics: ServerMetrics,
    /// How spans become parts of clients' spans, if this program collects them.
    pub(super) spans: Option<SpanContexts>,
}

/// What is known once the blocks are chosen, and surer once they are loaded.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) blocks: BlockRange,
    pub(super) class: NumericClass,
    pub(super) rates: Rates,
}

impl About {
    /// The next sequence: the wall clock, so that a restarted server goes on above its former self, but always more
    /// than the last one.
    pub(super) fn next_sequence(&self) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        let next = |last: u64| clock.max(last.saturating_add(1));
        let last = self.sequence.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.unwrap_or_else(|last| last))
    }

    /// Goes on above `sequence`.
    pub(super) fn continue_above(&self, sequence: u64) {
        self.sequence.fetch_max(sequence, Ordering::Relaxed);
    }

    pub(super) fn announcement(&self, profile: &Profile, state: ServerState, load: Load) -> Announcement {
        Announcement {
            peer: self.network.peer_id(),
            instance: self.instance,
            sequence: self.next_sequence(),
            state,
            addresses: self.network.dialable_addresses(),
            model: self.model,
            blocks: profile.blocks,
            class: profile.class.clone(),
            rates: profile.rates,
            load,
            neighbours: self.neighbours.round_trips(),
            ttl_seconds: self.ttl.as_secs() as u32,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            edges: self.edges,
        }
    }

    pub(super) fn directory_entry(&self, shard_bits: u8) -> DirectoryEntry {
        DirectoryEntry {
            peer: self.network.peer_id(),
            sequence: self.next_sequence(),
            model: self.model,
            name: plain(&self.model_name, MAX_MODEL_NAME_BYTES),
            blocks: self.model_blocks.len(),
            shard_bits,
            ttl_seconds: DIRECTORY_TTL.as_secs() as u32,
        }
    }
}

/// `text` without control characters, cut to `most` bytes: what others accept.
pub(super) fn plain(text: &str, most: usize) -> String {
    let mut plain: String = text.chars().filter(|c| !c.is_control()).collect();
    while plain.len() > most {
        plain.pop();
    }
    plain
}

/// What the info call answers, but for the announcement.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) digests: Vec<BlockDigest>,
    pub(super) max_positions: u32,
    pub(super) ready: Instant,
    pub(super) edges: Option<EdgesOffer>,
}

impl Details {
    pub(super) fn info(&self, announcement: Announcement) -> ServerInfo {
        ServerInfo {
            announcement,
            digests: self.digests.clone(),
            max_positions: self.max_positions,
            uptime_seconds: self.ready.elapsed().as_secs(),
            edges: self.edges.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_fit_for_others() {
        assert_eq!(plain("a\u{7}b", 9), "ab");
        assert_eq!(plain("äöü", 5), "äö");
    }
}
