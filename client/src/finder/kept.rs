//! Which servers have been told to keep which pages: a text that begins with them is computed sooner there. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{PAGE_POSITIONS, PageKey};

/// Pages that are remembered, of all servers together: some megabytes. Those noted longest ago go first.
const MOST_PAGES: usize = 16 * 1024;

/// What a session is expected to begin with, and how long it may become.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The keys of its first pages.
    pub keys: Arc<[PageKey]>,
    /// The tokens that are to be generated, at least 1.
    pub answer: TokenCount,
}

/// Servers and what they keep.
#[derive(Debug, Default)]
pub(super) struct KeptPages {
    noted: HashMap<(PeerId, PageKey), u64>,
    order: BTreeMap<u64, (PeerId, PageKey)>,
    clock: u64,
}

impl KeptPages {
    /// `peer` keeps this page and those before it.
    pub(super) fn note(&mut self, peer: PeerId, key: PageKey) {
        self.clock += 1;
        if let Some(before) = self.noted.insert((peer, key), self.clock) {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, (peer, key));
        if self.order.len() > MOST_PAGES
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.noted.remove(&oldest);
        }
    }

    /// `peer` keeps none of these pages any more.
    pub(super) fn forget(&mut self, peer: PeerId, keys: &[PageKey]) {
        for key in keys {
            if let Some(noted) = self.noted.remove(&(peer, *key)) {
                self.order.remove(&noted);
            }
        }
    }

    /// What `peer` saves each token of the answer if it need not compute what it keeps, where a token of a prompt takes `token`.
    pub(super) fn saving(&self, peer: PeerId, expected: &Expected, token: Duration) -> Duration {
        let kept = expected.keys.iter().rposition(|key| self.noted.contains_key(&(peer, *key)));
        let pages = kept.map_or(0, |last| last as u32 + 1);
        token * (pages * PAGE_POSITIONS) / expected.answer.0.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_that_is_kept_counts_with_all_before_it() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let key = |byte: u8| PageKey([byte; 32]);
        let expected = Expected { keys: [1, 2, 3].map(key).into(), answer: TokenCount(64) };
        let mut kept = KeptPages::default();
        kept.note(one, key(2));
        kept.note(one, key(9));
        let saving = |kept: &KeptPages, peer| kept.saving(peer, &expected, Duration::from_millis(1)).as_millis();
        assert_eq!((saving(&kept, one), saving(&kept, other)), (2, 0));
        kept.forget(one, &expected.keys);
        assert_eq!(saving(&kept, one), 0);
        for page in 0..MOST_PAGES as u32 + 5 {
            kept.note(one, PageKey::root(&page.to_le_bytes()));
        }
        assert_eq!((kept.noted.len(), kept.order.len()), (MOST_PAGES, MOST_PAGES));
    }
}
