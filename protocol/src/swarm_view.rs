//! What the announcements of one model add up to. Pure: the caller brings the statements.

use std::collections::BTreeMap;

use crate::PeerId;
use crate::announcement::{Announcement, ServerState};
use crate::block::{BlockIndex, BlockRange};
use crate::model_id::ModelId;

/// The servers of one model, each by its newest word.
#[derive(Debug, Clone)]
pub struct SwarmView {
    model: ModelId,
    servers: BTreeMap<PeerId, Announcement>,
    /// The largest number of servers any holder spoke of: what is known here may be a sample.
    largest_total: u32,
}

impl SwarmView {
    /// Nothing known yet of `model`.
    pub fn new(model: ModelId) -> Self {
        Self { model, servers: BTreeMap::new(), largest_total: 0 }
    }

    /// Takes in one verified announcement; older words and other models change nothing.
    pub fn insert(&mut self, announcement: Announcement) {
        if announcement.model != self.model {
            return;
        }
        let newer = self.servers.get(&announcement.peer).is_none_or(|known| known.sequence < announcement.sequence);
        if newer {
            self.servers.insert(announcement.peer, announcement);
        }
    }

    /// Takes in how many servers a holder knows under one key.
    pub fn saw_total(&mut self, total: u32) {
        self.largest_total = self.largest_total.max(total);
    }

    /// How many servers the model has, as far as the holders of its records know.
    pub fn estimated_servers(&self) -> u32 {
        self.largest_total.max(self.servers.len() as u32)
    }

    /// Every server known, those on their way in or out included, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &Announcement> {
        self.servers.values()
    }

    /// The servers that take sessions.
    pub fn serving(&self) -> impl Iterator<Item = &Announcement> {
        self.all().filter(|server| server.state == ServerState::Serving)
    }

    /// The newest word of `peer`.
    pub fn get(&self, peer: PeerId) -> Option<&Announcement> {
        self.servers.get(&peer)
    }

    /// The parts of `range` that nobody serves.
    pub fn missing(&self, range: BlockRange) -> Vec<BlockRange> {
        uncovered(range, self.serving().map(|server| server.blocks))
    }
}

/// The parts of `range` that none of `covers` holds, in order, neighbours merged.
pub fn uncovered(range: BlockRange, covers: impl Iterator<Item = BlockRange>) -> Vec<BlockRange> {
    let covers: Vec<BlockRange> = covers.collect();
    let mut missing: Vec<BlockRange> = Vec::new();
    let open = range.blocks().filter(|block: &BlockIndex| !covers.iter().any(|cover| cover.contains(*block)));
    for BlockIndex(block) in open {
        let start = match missing.last() {
            Some(last) if last.end() == block => missing.pop().map_or(block, BlockRange::start),
            _ => block,
        };
        // A block inside `range` is within the bounds of ranges.
        missing.extend(BlockRange::new(start, block + 1));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;
    use crate::announcement::tests_support::announcement;

    #[test]
    fn the_newest_word_of_each_server_counts() {
        let keys = Keypair::generate_ed25519();
        let mut view = SwarmView::new(ModelId([3; 32]));
        let mut leaving = announcement(&keys, 5);
        leaving.state = ServerState::Leaving;
        view.insert(announcement(&keys, 4));
        assert_eq!(view.serving().count(), 1);
        view.insert(leaving);
        view.insert(announcement(&keys, 4));
        assert_eq!(view.serving().count(), 0);
        assert_eq!(view.missing(BlockRange::new(0, 12).unwrap()), vec![BlockRange::new(0, 12).unwrap()]);
    }

    #[test]
    fn what_nobody_serves_is_named_in_whole_ranges() {
        let range = |a, b| BlockRange::new(a, b).unwrap();
        let missing = uncovered(range(0, 12), [range(2, 5), range(4, 6), range(9, 10)].into_iter());
        assert_eq!(missing, vec![range(0, 2), range(6, 9), range(10, 12)]);
        assert!(uncovered(range(2, 6), [range(0, 8)].into_iter()).is_empty());
    }
}
