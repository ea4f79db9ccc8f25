//! Pages of sequences that are kept for later sessions, by name; the least recently used go first. Pure.
//!
//! A page is of use only together with all pages before it: where several are used at once, the later ones count as used
//! longer ago.

use std::collections::{BTreeMap, HashMap};

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::PageKey;

/// What a page is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageName {
    /// Who may be given it; everybody who knows the key, if nobody stands here.
    pub owner: Option<PeerId>,
    /// The blocks that it was computed by.
    pub blocks: BlockRange,
    /// Its key.
    pub key: PageKey,
}

struct Entry<P> {
    page: P,
    used: u64,
}

/// Pages by name.
pub struct PrefixCache<P> {
    most: usize,
    entries: HashMap<PageName, Entry<P>>,
    /// The same names, by when they were used.
    order: BTreeMap<u64, PageName>,
    clock: u64,
}

impl<P: Clone> PrefixCache<P> {
    /// Room for `most` pages.
    pub fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), order: BTreeMap::new(), clock: 0 }
    }

    /// How many pages are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no page is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pages of a sequence from its beginning on, as far as they are kept.
    pub fn recall(&mut self, names: &[PageName]) -> Vec<P> {
        let pages: Vec<P> =
            names.iter().map_while(|name| self.entries.get(name)).map(|entry| entry.page.clone()).collect();
        self.touch(&names[..pages.len()]);
        pages
    }

    /// Keeps a page under a name that has none. Without room the page that was used longest ago goes. Gives the page that is
    /// not kept for it: none, the one that went, or `page` itself.
    pub fn keep(&mut self, name: PageName, page: P) -> Option<P> {
        if self.entries.contains_key(&name) || self.most == 0 {
            return Some(page);
        }
        let gone = if self.entries.len() >= self.most { self.evict(|_| true) } else { None };
        self.clock += 1;
        self.order.insert(self.clock, name);
        self.entries.insert(name, Entry { page, used: self.clock });
        gone
    }

    /// The pages of a sequence were used now.
    pub fn touch(&mut self, names: &[PageName]) {
        for name in names.iter().rev() {
            if let Some(entry) = self.entries.get_mut(name) {
                self.clock += 1;
                self.order.remove(&entry.used);
                self.order.insert(self.clock, *name);
                entry.used = self.clock;
            }
        }
    }

    /// Forgets, of the pages for which `helps` is true, the one that was used longest ago; `None` if there is none.
    pub fn evict(&mut self, helps: impl Fn(&P) -> bool) -> Option<P> {
        let of = |name: &PageName| self.entries.get(name).is_some_and(|entry| helps(&entry.page));
        let name = *self.order.values().find(|name| of(name))?;
        let entry = self.entries.remove(&name)?;
        self.order.remove(&entry.used);
        Some(entry.page)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(key: u8) -> PageName {
        PageName { owner: None, blocks: BlockRange::new(0, 2).unwrap(), key: PageKey([key; 32]) }
    }

    #[test]
    fn a_sequence_is_recalled_up_to_the_first_page_that_is_missing() {
        let mut cache = PrefixCache::new(9);
        [1, 2, 4].into_iter().for_each(|key| assert_eq!(cache.keep(name(key), key), None));
        assert_eq!(cache.keep(name(2), 5), Some(5), "the name has a page");
        assert_eq!(cache.recall(&[1, 2, 3, 4].map(name)), [1, 2]);
        assert!(cache.recall(&[3, 4].map(name)).is_empty());
        let (alice, bob) = (PeerId::random(), PeerId::random());
        cache.keep(PageName { owner: Some(alice), ..name(7) }, 7);
        let of = |owner| PageName { owner, ..name(7) };
        assert_eq!(cache.recall(&[of(Some(alice))]), [7]);
        assert!(cache.recall(&[of(Some(bob))]).is_empty() && cache.recall(&[of(None)]).is_empty());
        assert!(cache.recall(&[PageName { blocks: BlockRange::new(0, 1).unwrap(), ..name(1) }]).is_empty());
    }

    #[test]
    fn the_end_of_what_was_used_longest_ago_goes_first() {
        let mut cache = PrefixCache::new(4);
        (1..=3).for_each(|key| assert_eq!(cache.keep(name(key), key), None));
        cache.touch(&[1, 2, 3].map(name));
        cache.keep(name(8), 8);
        assert_eq!(cache.recall(&[1, 2].map(name)), [1, 2]);
        assert_eq!(cache.evict(|page| *page != 3), Some(8), "page 3 is in use: it would give nothing back");
        cache.keep(name(9), 9);
        assert_eq!(cache.keep(name(10), 10), Some(3));
        assert!(!cache.entries.contains_key(&name(3)) && cache.len() == 4);
        assert_eq!([2, 1, 9, 10].map(Some), [0; 4].map(|_| cache.evict(|_| true)));
        assert_eq!(cache.evict(|_| true), None);
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_fit_and_the_order_knows_them_all(
            work in prop::collection::vec((0u8..4, 0u8..12), 1..200),
        ) {
            let mut cache = PrefixCache::new(5);
            for (kind, key) in work {
                match kind {
                    0 | 1 => prop_assert!(cache.keep(name(key), key).is_none_or(|gone| gone < 12)),
                    2 => drop(cache.recall(&[name(key), name(key / 2)])),
                    _ => drop(cache.evict(|page| page % 2 == 0)),
                }
                prop_assert!(cache.len() <= 5 && cache.order.len() == cache.len());
                prop_assert!(cache.order.iter().all(|(used, name)| cache.entries[name].used == *used));
            }
        }
    }
}
