//! The account that the pages of one server are taken from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ModelError;

/// The memory that pages of keys and values come from, with an exact budget: what is used is the bytes of all pages
/// alive, each counted once however many caches hold it, and given back when the last of these lets go of it. A clone is
/// another handle to the same account.
#[derive(Clone)]
pub struct KvArena(Arc<Account>);

struct Account {
    budget: u64,
    used: AtomicU64,
}

impl KvArena {
    /// An arena whose pages never have more than `budget_bytes` together.
    pub fn new(budget_bytes: u64) -> Self {
        Self(Arc::new(Account { budget: budget_bytes, used: AtomicU64::new(0) }))
    }

    /// An arena that gives as much as is asked for.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Bytes of all pages alive.
    pub fn used_bytes(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    /// The most bytes that pages may have together.
    pub fn budget_bytes(&self) -> u64 {
        self.0.budget
    }

    /// Takes `bytes` out of the budget until the lease is dropped.
    ///
    /// # Errors
    /// [`ModelError::KvBudget`] if not so much is left.
    pub(super) fn lease(&self, bytes: u64) -> Result<Lease, ModelError> {
        let budget = self.0.budget;
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= budget);
        match self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, within) {
            Ok(_) => Ok(Lease { arena: self.clone(), bytes }),
            Err(used) => Err(ModelError::KvBudget { wanted: bytes, used, budget }),
        }
    }
}

impl fmt::Debug for KvArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvArena").field("used", &self.used_bytes()).field("budget", &self.budget_bytes()).finish()
    }
}

/// Bytes of an arena in use.
pub(super) struct Lease {
    arena: KvArena,
    pub(super) bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.arena.0.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
