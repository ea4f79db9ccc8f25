//! Beginnings of sequences that a hop has computed before.
//!
//! A sequence is cut into pages of [`PAGE_POSITIONS`] positions. A page's key is the blake3 hash of the key before it and
//! of the page's own token ids: so it names everything from the first token on. The owner of a session names the pages
//! that a hop has computed ([`Keep`]); in a later session it asks for those that it would feed anyway ([`Recall`]).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::link_format::LinkFormat;
use crate::block::BlockIndex;

/// Positions of one page: those of one page of a KV cache.
pub const PAGE_POSITIONS: u32 = 64;

/// The most keys in one message: 32,768 positions, and half of what a header may hold.
pub const MAX_PAGE_KEYS: usize = 512;

/// What all keys are derived from, so that they mean nothing elsewhere.
const CONTEXT: &str = "swarm-node 2026 prefix pages v1";

/// The same of pages that were computed from rounded rows.
const ROUNDED_CONTEXT: &str = "swarm-node 2026 prefix pages of rounded rows v1";

/// Names a page and everything before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageKey(pub [u8; 32]);

impl PageKey {
    /// What the chain of keys begins with. With a secret, only those who have it can name its pages.
    pub fn root(secret: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }

    /// The key of the page behind this one, with these token ids.
    pub fn next(&self, ids: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        ids.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of the same page where rows were rounded, in `format`, on their way into each of these blocks (and out of the
    /// one before): what was computed from them is something else.
    pub fn rounded(&self, format: LinkFormat, at: impl IntoIterator<Item = BlockIndex>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ROUNDED_CONTEXT);
        hasher.update(&self.0).update(format.name().as_bytes());
        at.into_iter().for_each(|block| {
            hasher.update(&block.0.to_le_bytes());
        });
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageKey(")?;
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// Who may be given a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PageScope {
    /// The owner of the session that it was named in, whose id the transport proves.
    Owner,
    /// Whoever knows its key: those who share a secret. They trust one another to name pages rightly.
    Shared,
}

/// Begin with what these pages hold. In a session that has computed nothing yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// The epoch that they belong to.
    pub epoch: u32,
    /// Whose pages.
    pub scope: PageScope,
    /// The first pages of the sequence, in order; at most [`MAX_PAGE_KEYS`].
    pub keys: Vec<PageKey>,
}

/// Pages that were computed in this session may be asked for in others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The epoch that they belong to: if a step of a later one has come meanwhile, nothing is kept.
    pub epoch: u32,
    /// Who may be given them.
    pub scope: PageScope,
    /// The number of the first page: it begins at that many times [`PAGE_POSITIONS`].
    pub first: u32,
    /// This page's key and those of the pages behind it; at most [`MAX_PAGE_KEYS`].
    pub keys: Vec<PageKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_everything_before_it() {
        let root = PageKey::root(b"");
        let (a, b) = (root.next(&[1, 2]), root.next(&[1, 3]));
        assert_eq!(a, PageKey::root(b"").next(&[1, 2]));
        assert_ne!(a, b);
        assert_ne!(a.next(&[4]), b.next(&[4]));
        assert_ne!(a, PageKey::root(b"secret").next(&[1, 2]));
        assert_ne!(root.next(&[1]).next(&[2]), root.next(&[1, 2]));
    }
}
