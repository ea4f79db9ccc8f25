//! The pages that this server keeps for later sessions: the compute thread puts them in and takes their memory back,
//! sessions take references.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_model::KvPage;
use swarm_protocol::activations::ActivationRows;

use crate::prefix_cache::{PageName, PrefixCache};

/// A page: keys and values, and what the blocks gave.
#[derive(Debug, Clone)]
pub(super) struct KeptPage {
    pub(super) kv: KvPage,
    /// None of the model's last block: nobody is ever fed with them.
    pub(super) outputs: Option<Arc<ActivationRows>>,
}

/// A cheap handle; all of its clones are the same pages.
#[derive(Clone)]
pub(super) struct Prefixes {
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    cache: PrefixCache<KeptPage>,
    /// Of keys and values of all pages.
    bytes: u64,
}

impl Prefixes {
    /// Room for `pages` pages.
    pub(super) fn new(pages: usize) -> Self {
        Self { kept: Arc::new(Mutex::new(Kept { cache: PrefixCache::new(pages), bytes: 0 })) }
    }

    /// The pages of a sequence from its beginning on, as far as they are kept.
    pub(super) fn recall(&self, names: &[PageName]) -> Vec<KeptPage> {
        self.lock().cache.recall(names)
    }

    /// Keeps a page, unless one is kept under its name.
    pub(super) fn keep(&self, name: PageName, page: KeptPage) {
        let mut kept = self.lock();
        kept.bytes += page.kv.bytes();
        let gone = kept.cache.keep(name, page);
        kept.bytes -= gone.as_ref().map_or(0, |page| page.kv.bytes());
        // Nobody waits for the lock while memory is freed.
        drop(kept);
    }

    /// The pages of a sequence were used now.
    pub(super) fn touch(&self, names: &[PageName]) {
        self.lock().cache.touch(names);
    }

    /// Bytes of keys and values of all pages.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Lets go of a page: one that nobody else holds, if there is any. `false` if none is kept.
    pub(super) fn give_way(&self) -> bool {
        let mut kept = self.lock();
        let freed = kept.cache.evict(|page| !page.kv.is_shared()).or_else(|| kept.cache.evict(|_| true));
        kept.bytes -= freed.as_ref().map_or(0, |page| page.kv.bytes());
        // As above.
        drop(kept);
        freed.is_some()
    }

    /// Nothing that holds the lock can fail.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
