//! Beginning a session with what was computed in others, and keeping what is computed in it.

use std::sync::Arc;

use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::wire::{Keep, MAX_PAGE_KEYS, PAGE_POSITIONS, PageKey, PageScope, Recall, SessionReply};

use super::End;
use super::actor::{Actor, broken};
use crate::prefix_cache::PageName;
use crate::serve::compute::NewPage;
use crate::serve::prefixes::KeptPage;

const PAGE: usize = PAGE_POSITIONS as usize;

impl Actor<'_> {
    /// Takes over what is there of the pages that are asked for, and says how far that goes.
    pub(super) async fn recall(&mut self, recall: Recall) -> Option<End> {
        let Recall { epoch, scope, keys } = recall;
        if keys.len() > MAX_PAGE_KEYS {
            return Some(too_many());
        }
        let names: Vec<PageName> = keys.into_iter().map(|key| self.page_name(scope, key)).collect();
        // A session that has begun has positions of its own, or will have in a moment.
        let most = if self.state.is_untouched() { self.session.reserved.as_usize() / PAGE } else { 0 };
        let pages = self.host.prefixes.recall(&names[..names.len().min(most)]);
        let mut position = pages.len() * PAGE;
        if position > 0 {
            let outputs = all_outputs(&pages);
            let attached = self.host.compute.attach(self.session.slot, pages.into_iter().map(|page| page.kv).collect());
            if attached.await.is_ok() {
                self.state.recalled(epoch, position, outputs);
                self.pages = names;
                self.pages.truncate(position / PAGE);
            } else {
                position = 0;
            }
        }
        let metrics = &self.host.about.metrics;
        if position > 0 {
            metrics.prefix_hits.inc()
        } else {
            metrics.prefix_misses.inc()
        };
        metrics.prefix_tokens.inc_by(position as u64);
        tracing::debug!(session = %self.session.id, position, "recalled");
        self.say(SessionReply::Recalled { position: position as u32 }).await
    }

    /// Has pages of this session kept, those that are whole and still what their names say.
    pub(super) async fn keep(&mut self, keep: Keep) -> Option<End> {
        let Keep { epoch, scope, first, keys } = keep;
        if keys.len() > MAX_PAGE_KEYS || first as usize > MAX_PAGE_KEYS {
            return Some(too_many());
        }
        let first = first as usize;
        // Pages before the first must be known: they are of no use without.
        if epoch != self.state.queued_epoch() || first > self.pages.len() {
            return None;
        }
        self.pages.truncate(first);
        let mut new = Vec::new();
        for (index, key) in (first..).zip(keys) {
            if (index + 1) * PAGE > self.state.len() {
                break;
            }
            let outputs = match self.is_last() {
                true => None,
                false => match self.state.outputs(index * PAGE, PAGE) {
                    Some(rows) => Some(Arc::new(rows)),
                    None => break,
                },
            };
            let name = self.page_name(scope, key);
            self.pages.push(name);
            new.push(NewPage { index, name, outputs });
        }
        if !new.is_empty() {
            // A thread that has ended keeps nothing.
            let _ = self.host.compute.keep(self.session.slot, new, self.pages.clone()).await;
        }
        None
    }

    fn page_name(&self, scope: PageScope, key: PageKey) -> PageName {
        let owner = match scope {
            PageScope::Owner => Some(self.session.owner),
            PageScope::Shared => None,
        };
        PageName { owner, blocks: self.session.blocks, key }
    }

    /// Whether no server is ever fed with what these blocks give.
    fn is_last(&self) -> bool {
        self.session.blocks.end() == self.host.about.model_blocks.end()
    }
}

/// The outputs of all pages, one behind the other.
fn all_outputs(pages: &[KeptPage]) -> Option<ActivationRows> {
    let mut outputs = pages.iter().map(|page| page.outputs.as_deref());
    let mut all = outputs.next()??.clone();
    for rows in outputs {
        all.append(rows?.clone());
    }
    Some(all)
}

fn too_many() -> End {
    broken(format!("at most {MAX_PAGE_KEYS} pages have names"))
}
