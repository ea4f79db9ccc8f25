//! What servers say of themselves in the DHT: signed statements, the keys they are kept under, and the record that
//! merges them.

mod key;
mod record;
mod signed;
mod store;

use serde::{Deserialize, Serialize};

use crate::block::BlockRange;
use crate::model_id::{ModelId, NumericClass};
use crate::session::TokenCount;
use crate::{Multiaddr, PeerId};

pub use key::{MAX_SHARD_BITS, SEGMENT_BLOCKS, SegmentKey, Shard, segments, shard_bits};
pub use record::{Entry, MAX_RECORD_BYTES, MergedRecord, RecordError};
pub use signed::{SignatureError, Signed};
pub use store::{MergedStore, PutError};

/// The longest time a holder keeps a statement without hearing it again. Announcements come every minute; a server that
/// misses four of them is gone.
pub const MAX_TTL_SECONDS: u32 = 15 * 60;

/// Addresses in one announcement: a few transports on a few interfaces; more would crowd other servers out of an answer.
pub const MAX_ADDRESSES: usize = 8;

/// Neighbours whose RTT a server may announce.
pub const MAX_NEIGHBOURS: usize = 8;

/// The longest name a server may give itself, in bytes.
pub const MAX_NAME_BYTES: usize = 48;

/// The longest name of a model in the directory, in bytes.
pub const MAX_MODEL_NAME_BYTES: usize = 96;

/// How far a server is on its way in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// The blocks are chosen and being loaded: others should choose others.
    Joining,
    /// Sessions are welcome.
    Serving,
    /// No new sessions; the server will be gone soon.
    Leaving,
}

/// What a server measured of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// One decode step through one block, in microseconds.
    pub decode_us_per_block: u32,
    /// One token of a long prefill through one block, in nanoseconds.
    pub prefill_ns_per_token_block: u32,
}

/// How busy a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// How long a step waits before it is computed, smoothed, in microseconds.
    pub queue_us: u32,
    /// Open sessions.
    pub sessions: u32,
    /// KV cache room that no session has reserved.
    pub free_tokens: TokenCount,
    /// All KV cache room.
    pub total_tokens: TokenCount,
}

/// One server's word about itself, put into the DHT about every minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The server; the statement is signed with its key.
    pub peer: PeerId,
    /// Drawn at random when the process starts: two processes with one identity show.
    pub instance: u64,
    /// Grows with every announcement of a peer; the highest wins.
    pub sequence: u64,
    /// On its way in, serving, or on its way out.
    pub state: ServerState,
    /// Where others can dial it; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<Multiaddr>,
    /// The model it serves.
    pub model: ModelId,
    /// The blocks it hosts.
    pub blocks: BlockRange,
    /// Which servers compute the same bits.
    pub class: NumericClass,
    /// What it measured of itself.
    pub rates: Rates,
    /// How busy it is.
    pub load: Load,
    /// Round-trip times to likely next hops in microseconds; at most [`MAX_NEIGHBOURS`].
    pub neighbours: Vec<(PeerId, u32)>,
    /// How long a holder may keep this, in seconds; at most [`MAX_TTL_SECONDS`].
    pub ttl_seconds: u32,
    /// A name for people; at most [`MAX_NAME_BYTES`] bytes.
    pub name: Option<String>,
    /// The server's release, for people; at most [`MAX_NAME_BYTES`] bytes.
    pub version: String,
    /// Whether it offers embedding, head and sampling to others.
    pub edges: bool,
}

impl Announcement {
    /// Whether every bounded part is within its bounds, and every text one that a terminal can be shown. Statements of
    /// the DHT have passed this; one that came another way (the info call) must be asked.
    pub fn within_bounds(&self) -> bool {
        self.addresses.len() <= MAX_ADDRESSES
            && self.neighbours.len() <= MAX_NEIGHBOURS
            && self.name.as_ref().is_none_or(|name| is_plain(name, MAX_NAME_BYTES))
            && is_plain(&self.version, MAX_NAME_BYTES)
    }
}

/// A model that lives in the swarm, as one of its servers says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The server that says so.
    pub peer: PeerId,
    /// Grows with every statement of a peer.
    pub sequence: u64,
    /// The model.
    pub model: ModelId,
    /// Its name for people; at most [`MAX_MODEL_NAME_BYTES`] bytes.
    pub name: String,
    /// How many blocks it has.
    pub blocks: u32,
    /// Under how many bits of a peer id its announcements are spread.
    pub shard_bits: u8,
    /// How long a holder may keep this, in seconds.
    pub ttl_seconds: u32,
}

/// Whatever a peer may put into the DHT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// A server of some blocks.
    Announcement(Announcement),
    /// A model that lives here.
    Directory(DirectoryEntry),
}

impl Statement {
    /// Who says so.
    pub fn peer(&self) -> PeerId {
        match self {
            Self::Announcement(announcement) => announcement.peer,
            Self::Directory(entry) => entry.peer,
        }
    }

    /// The statement's place among those of its peer.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Announcement(announcement) => announcement.sequence,
            Self::Directory(entry) => entry.sequence,
        }
    }

    /// How long a holder may keep it.
    pub fn ttl_seconds(&self) -> u32 {
        match self {
            Self::Announcement(announcement) => announcement.ttl_seconds,
            Self::Directory(entry) => entry.ttl_seconds,
        }
        .min(MAX_TTL_SECONDS)
    }

    /// Whether every bounded part is within its bounds, and every text one that a terminal can be shown.
    fn within_bounds(&self) -> bool {
        match self {
            Self::Announcement(announcement) => announcement.within_bounds(),
            Self::Directory(entry) => {
                is_plain(&entry.name, MAX_MODEL_NAME_BYTES)
                    && entry.shard_bits <= MAX_SHARD_BITS
                    && (1..=crate::block::MAX_BLOCKS).contains(&entry.blocks)
            }
        }
    }
}

/// Whether a text for people is short enough and free of control characters.
fn is_plain(text: &str, most_bytes: usize) -> bool {
    text.len() <= most_bytes && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;

    #[test]
    fn an_announcement_is_within_bounds_until_one_part_is_not() {
        let good = || tests_support::announcement(&Keypair::generate_ed25519(), 1);
        assert!(good().within_bounds());
        let address = good().addresses[0].clone();
        let bad = [
            Announcement { addresses: vec![address; MAX_ADDRESSES + 1], ..good() },
            Announcement { neighbours: vec![(good().peer, 1); MAX_NEIGHBOURS + 1], ..good() },
            Announcement { name: Some("n".repeat(MAX_NAME_BYTES + 1)), ..good() },
            Announcement { name: Some("\u{1b}[2J".to_string()), ..good() },
            Announcement { version: "0.1\n".to_string(), ..good() },
        ];
        for announcement in bad {
            assert!(!announcement.within_bounds(), "{announcement:?}");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;
    use crate::Keypair;

    pub(crate) fn announcement(keys: &Keypair, sequence: u64) -> Announcement {
        Announcement {
            peer: keys.public().to_peer_id(),
            instance: 9,
            sequence,
            state: ServerState::Serving,
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
            model: ModelId([3; 32]),
            blocks: BlockRange::new(0, 8).unwrap(),
            class: NumericClass::new("bf16/fma/x86_64-linux").unwrap(),
            rates: Rates { decode_us_per_block: 900, prefill_ns_per_token_block: 70_000 },
            load: Load { queue_us: 5, sessions: 1, free_tokens: TokenCount(100), total_tokens: TokenCount(200) },
            neighbours: vec![],
            ttl_seconds: 240,
            name: Some("attic".to_string()),
            version: "0.1.0".to_string(),
            edges: false,
        }
    }

    pub(crate) fn directory_entry(keys: &Keypair, sequence: u64) -> DirectoryEntry {
        DirectoryEntry {
            peer: keys.public().to_peer_id(),
            sequence,
            model: ModelId([3; 32]),
            name: "demo".to_string(),
            blocks: 12,
            shard_bits: 0,
            ttl_seconds: 600,
        }
    }
}
