//! The account that the pages of one server are taken from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ModelError;
use crate::kernels::{Piece, Slabs};

/// The memory that pages of keys and values come from, with an exact budget: what is used is the bytes of all pages
/// alive, each counted once however many caches hold it, and given back when the last of these lets go of it. A clone is
/// another handle to the same account.
#[derive(Clone)]
pub struct KvArena(Arc<Account>);

struct Account {
    budget: u64,
    used: AtomicU64,
    /// Slabs hold several pages, so the system may have given up to a few MiB more than is used.
    slabs: Slabs,
}

impl KvArena {
    /// An arena whose pages never have more than `budget_bytes` together.
    pub fn new(budget_bytes: u64) -> Self {
        Self(Arc::new(Account { budget: budget_bytes, used: AtomicU64::new(0), slabs: Slabs::default() }))
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

    /// Memory of `bytes` bytes, counted until it is dropped; it may hold what another page left behind.
    ///
    /// # Errors
    /// [`ModelError::KvBudget`] if not so much is left, [`ModelError::Io`] if the system has none.
    pub(super) fn take(&self, bytes: u64) -> Result<Leased, ModelError> {
        let lease = self.lease(bytes)?;
        Ok(Leased { memory: self.0.slabs.take(bytes as usize)?, lease })
    }

    /// Takes `bytes` out of the budget until the lease is dropped.
    fn lease(&self, bytes: u64) -> Result<Lease, ModelError> {
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

/// Memory of an arena.
pub(super) struct Leased {
    pub(super) memory: Piece,
    // Dropped last: bytes count as used until they are free.
    lease: Lease,
}

impl Leased {
    /// How many bytes the arena counts.
    pub(super) fn bytes(&self) -> u64 {
        self.lease.bytes
    }
}

/// Bytes of an arena in use.
struct Lease {
    arena: KvArena,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.arena.0.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
