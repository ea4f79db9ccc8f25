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
    cache: Arc<Mutex<PrefixCache<KeptPage>>>,
}

impl Prefixes {
    /// Room for `pages` pages.
    pub(super) fn new(pages: usize) -> Self {
        Self { cache: Arc::new(Mutex::new(PrefixCache::new(pages))) }
    }

    /// The pages of a sequence from its beginning on, as far as they are kept.
    pub(super) fn recall(&self, names: &[PageName]) -> Vec<KeptPage> {
        self.lock().recall(names)
    }

    /// Keeps a page, unless one is kept under its name.
    pub(super) fn keep(&self, name: PageName, page: KeptPage) {
        self.lock().keep(name, page);
    }

    /// The pages of a sequence were used now.
    pub(super) fn touch(&self, names: &[PageName]) {
        self.lock().touch(names);
    }

    /// Bytes of keys and values of all pages.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().pages().map(|page| page.kv.bytes()).sum()
    }

    /// Lets go of a page: one that nobody else holds, if there is any. `false` if none is kept.
    pub(super) fn give_way(&self) -> bool {
        let mut cache = self.lock();
        let freed = cache.evict(|page| !page.kv.is_shared()).or_else(|| cache.evict(|_| true));
        // Nobody waits for the lock while memory is freed.
        drop(cache);
        freed.is_some()
    }

    /// Nothing that holds the lock can fail, and a page is whole or not there.
    fn lock(&self) -> MutexGuard<'_, PrefixCache<KeptPage>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
