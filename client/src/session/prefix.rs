//! The pages of a session's token ids: what servers are asked for when it begins, or a hop is replaced, and what they are
//! told to keep for later sessions.

use std::ops::Range;

use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{Keep, MAX_PAGE_KEYS, PAGE_POSITIONS, PageKey, PageScope, Recall, SessionRequest};

use super::Session;
use crate::chain::HopId;
use crate::config::PrefixReuse;
use crate::finder::Expected;

/// Pages before which nobody is asked or told: shorter beginnings are computed as fast as they are looked up.
const LEAST_PAGES: usize = 1;

/// The keys of the whole pages of a sequence.
#[derive(Debug, Clone)]
pub(super) struct PageKeys {
    scope: PageScope,
    root: PageKey,
    keys: Vec<PageKey>,
}

impl PageKeys {
    /// Of an empty sequence; `None` if nothing is to be reused.
    pub(super) fn new(reuse: &PrefixReuse) -> Option<Self> {
        let (scope, root) = match reuse {
            PrefixReuse::Off => return None,
            PrefixReuse::Private => (PageScope::Owner, PageKey::root(b"")),
            PrefixReuse::Shared(secret) => (PageScope::Shared, PageKey::root(secret.as_bytes())),
        };
        Some(Self { scope, root, keys: Vec::new() })
    }

    /// The sequence is this now, and differs from what it was from position `same` on at most.
    pub(super) fn follow(&mut self, ids: &[u32], same: usize) {
        let page = PAGE_POSITIONS as usize;
        self.keys.truncate((same / page).min(MAX_PAGE_KEYS));
        for ids in ids.chunks_exact(page).take(MAX_PAGE_KEYS).skip(self.keys.len()) {
            let before = self.keys.last().unwrap_or(&self.root);
            self.keys.push(before.next(ids));
        }
    }

    /// Asks for all pages that end at or before position `end`; `None` if that is not worth it.
    pub(super) fn recall(&self, epoch: u32, end: usize) -> Option<Recall> {
        let pages = self.keys.len().min(end / PAGE_POSITIONS as usize);
        (pages >= LEAST_PAGES).then(|| Recall { epoch, scope: self.scope, keys: self.keys[..pages].to_vec() })
    }

    fn keep(&self, epoch: u32, pages: Range<usize>) -> Option<Keep> {
        let keys = self.keys.get(pages.clone()).filter(|keys| !keys.is_empty())?.to_vec();
        Some(Keep { epoch, scope: self.scope, first: pages.start as u32, keys })
    }
}

impl Session {
    /// Takes the beginning of `expected` that some hop has computed before as fed: those that have not get it like any input.
    pub(super) fn begin_with(&mut self, expected: &[u32]) {
        let recalled: Vec<(HopId, TokenCount)> = self.links.iter().map(|(hop, link)| (*hop, link.recalled)).collect();
        let most = recalled.iter().map(|(_, position)| position.as_usize()).max().unwrap_or(0).min(expected.len());
        if most == 0 || self.chain.extend_tokens(TokenCount(most as u32), crate::chain::Outputs::None).is_err() {
            return;
        }
        self.ids.extend_from_slice(&expected[..most]);
        let epoch = self.chain.epoch();
        recalled.into_iter().for_each(|(hop, position)| self.chain.recalled(hop, position, epoch));
    }

    /// What routes count with.
    pub(super) fn expected(&self) -> Option<Expected> {
        // Until a route is chosen, pages of rounded rows have no names.
        let pages = self.pages.as_ref().filter(|pages| !pages.keys.is_empty() && self.cuts.are_known())?;
        let keys: Vec<PageKey> = pages.keys.iter().map(|key| self.cuts.name(*key)).collect();
        let prompt = keys.len() as u32 * PAGE_POSITIONS;
        Some(Expected { keys: keys.into(), answer: TokenCount(self.tokens.0.saturating_sub(prompt).max(1)) })
    }

    /// What a new hop is asked for.
    pub(super) fn recall(&self) -> Option<Recall> {
        let pages = self.pages.as_ref()?;
        // The last hop has to compute what is wanted of it.
        let end = if self.started { self.chain.not_wanted() } else { TokenCount(u32::MAX) };
        let mut recall = pages.recall(self.chain.epoch(), end.as_usize())?;
        recall.keys.iter_mut().for_each(|key| *key = self.cuts.name(*key));
        Some(recall)
    }

    /// Tells a hop that holds so many positions to keep the pages it has filled since it was last told.
    pub(super) fn keep_pages(&mut self, hop: HopId, held: usize) {
        let held = held.min(self.ids.len());
        let (Some(pages), Some(link)) = (&self.pages, self.links.get_mut(&hop)) else { return };
        let filled = held / PAGE_POSITIONS as usize;
        // After a truncation the same pages may be filled anew.
        link.kept_pages = link.kept_pages.min(filled);
        let Some(mut keep) = pages.keep(self.chain.epoch(), link.kept_pages..filled.min(pages.keys.len())) else {
            return;
        };
        keep.keys.iter_mut().for_each(|key| *key = self.cuts.name(*key));
        link.kept_pages = filled;
        if let Some(last) = keep.keys.last() {
            self.finder.report_kept(link.peer, *last);
        }
        self.ask(hop, SessionRequest::Keep(keep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = PAGE_POSITIONS as usize;

    fn keys(ids: &[u32]) -> PageKeys {
        let mut keys = PageKeys::new(&PrefixReuse::Private).unwrap();
        keys.follow(ids, 0);
        keys
    }

    #[test]
    fn only_whole_pages_are_asked_for() {
        let ids: Vec<u32> = (0..3 * PAGE as u32).collect();
        let keys = keys(&ids);
        let asked = |end: usize| keys.recall(7, end).map(|recall| recall.keys.len());
        assert_eq!(
            [0, PAGE - 1, PAGE, 3 * PAGE - 1, 3 * PAGE, 9 * PAGE].map(asked),
            [None, None, Some(1), Some(2), Some(3), Some(3)]
        );
        assert!(PageKeys::new(&PrefixReuse::Off).is_none());
    }

    #[test]
    fn keys_follow_what_a_sequence_becomes() {
        let mut ids: Vec<u32> = (0..2 * PAGE as u32 + 10).collect();
        let mut followed = keys(&ids[..PAGE + 3]);
        followed.follow(&ids, PAGE + 3);
        assert_eq!(followed.keys, keys(&ids).keys);
        ids.truncate(PAGE + 5);
        ids.extend((0..PAGE as u32).map(|id| 1000 + id));
        followed.follow(&ids, PAGE + 5);
        assert_eq!(followed.keys, keys(&ids).keys);
        assert_ne!(followed.keys[1], keys(&(0..2 * PAGE as u32).collect::<Vec<_>>()).keys[1]);
        let shared = PageKeys::new(&PrefixReuse::Shared("secret".to_string())).map(|mut keys| {
            keys.follow(&ids, 0);
            keys.keys
        });
        assert_ne!(shared.unwrap(), followed.keys);
    }
}
