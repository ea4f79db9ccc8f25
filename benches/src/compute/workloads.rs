//! What is computed.

use serde::Serialize;

/// One call through the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Sequences that share the call.
    pub(crate) sequences: usize,
    /// Rows of each.
    pub(crate) rows: usize,
    /// Positions each sequence has before.
    pub(crate) past: usize,
    /// Measured once in so many rounds: what takes long needs fewer samples.
    pub(crate) every: usize,
}

/// Positions before a decoding step: with its own, whole pages of keys and values. One more would be the first of a page, whose
/// memory the system clears; that happens to one step in many, and would here to every one.
pub(crate) const BEFORE: usize = 127;

/// One session's decoding.
pub(crate) const ONE_ROW: Workload = Workload { name: "decode, 1 row", sequences: 1, rows: 1, past: BEFORE, every: 1 };
/// Eight sessions' decoding in one pass.
pub(crate) const EIGHT_ROWS: Workload =
    Workload { name: "decode, 8 rows", sequences: 8, rows: 1, past: BEFORE, every: 1 };
/// A chunk of a long prompt.
pub(crate) const PREFILL: Workload = Workload { name: "prefill, 512 rows", sequences: 1, rows: 512, past: 0, every: 5 };

/// What servers do most.
pub(crate) const WORKLOADS: [Workload; 3] = [ONE_ROW, EIGHT_ROWS, PREFILL];

impl Workload {
    /// Rows of a call.
    pub(crate) fn all_rows(&self) -> usize {
        self.sequences * self.rows
    }
}
