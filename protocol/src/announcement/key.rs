//! Where in the DHT a statement stands.
//!
//! One record per 8-block segment and shard: a look-up of a whole model costs a tenth of what a record per block costs
//! (measured with 150 servers and 80 blocks), and no record grows with the swarm beyond its shard.

use crate::PeerId;
use crate::block::BlockRange;
use crate::model_id::ModelId;

use super::Statement;

/// Blocks in a segment.
pub const SEGMENT_BLOCKS: u32 = 8;

/// Servers of one model that one shard should hold; beyond, the model's directory entry splits it.
const SERVERS_PER_SHARD: u32 = 1000;

/// The most shards are 2^8: 256,000 servers of one model.
pub const MAX_SHARD_BITS: u8 = 8;

/// One of the parts the servers of a model are spread over: the leading bits of the peer id's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    bits: u8,
    index: u8,
}

impl Shard {
    /// The shard of `peer` when there are 2^`bits`.
    pub fn of(peer: PeerId, bits: u8) -> Self {
        let bits = bits.min(MAX_SHARD_BITS);
        let leading = u16::from(blake3::hash(&peer.to_bytes()).as_bytes()[0]);
        let index = (leading >> (8 - u16::from(bits))) as u8;
        Self { bits, index: if bits == 0 { 0 } else { index } }
    }

    /// Every shard when there are 2^`bits`.
    pub fn all(bits: u8) -> impl Iterator<Item = Self> {
        let bits = bits.min(MAX_SHARD_BITS);
        (0..1u16 << bits).map(move |index| Self { bits, index: index as u8 })
    }
}

/// How many shard bits a model with that many servers wants.
pub fn shard_bits(servers: u32) -> u8 {
    (0..MAX_SHARD_BITS).find(|&bits| servers <= SERVERS_PER_SHARD << bits).unwrap_or(MAX_SHARD_BITS)
}

/// The segments that `blocks` lie in.
pub fn segments(blocks: BlockRange) -> std::ops::RangeInclusive<u32> {
    blocks.start() / SEGMENT_BLOCKS..=(blocks.end() - 1) / SEGMENT_BLOCKS
}

/// The key of a merged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentKey(pub [u8; 32]);

impl SegmentKey {
    /// Where the servers of one segment of a model announce themselves.
    pub fn segment(model: ModelId, segment: u32, shard: Shard) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("swarm-node 1 segment record key");
        hasher.update(&model.0);
        hasher.update(&segment.to_le_bytes());
        hasher.update(&[shard.bits, shard.index]);
        Self(hasher.finalize().into())
    }

    /// Where the swarm's models are listed.
    pub fn directory() -> Self {
        Self(blake3::derive_key("swarm-node 1 directory record key", &[]))
    }

    /// Whether `statement` may stand under this key.
    pub fn admits(&self, statement: &Statement) -> bool {
        match statement {
            Statement::Directory(_) => *self == Self::directory(),
            Statement::Announcement(announcement) => (0..=MAX_SHARD_BITS).any(|bits| {
                let shard = Shard::of(announcement.peer, bits);
                segments(announcement.blocks).any(|segment| *self == Self::segment(announcement.model, segment, shard))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_the_segments_it_lies_in() {
        let range = |a, b| BlockRange::new(a, b).unwrap();
        assert_eq!(segments(range(0, 8)), 0..=0);
        assert_eq!(segments(range(7, 9)), 0..=1);
        assert_eq!(segments(range(16, 33)), 2..=4);
    }

    #[test]
    fn every_peer_has_one_shard_among_all() {
        for bits in 0..=MAX_SHARD_BITS {
            let all: Vec<_> = Shard::all(bits).collect();
            assert_eq!(all.len(), 1 << bits);
            for _ in 0..20 {
                assert!(all.contains(&Shard::of(PeerId::random(), bits)));
            }
        }
    }

    #[test]
    fn a_model_is_split_when_it_has_many_servers() {
        assert_eq!(shard_bits(3), 0);
        assert_eq!(shard_bits(1000), 0);
        assert_eq!(shard_bits(1001), 1);
        assert_eq!(shard_bits(10_000), 4);
        assert_eq!(shard_bits(u32::MAX), MAX_SHARD_BITS);
    }
}
