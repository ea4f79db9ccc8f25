//! What is computed.

use serde::Serialize;

/// One call through the blocks.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Sequences that share the call.
    pub(crate) sequences: usize,
    /// Rows of each.
    pub(crate) rows: usize,
    /// Positions each sequence has before.
    pub(crate) past: usize,
}

/// What servers do most: one session's decoding, eight sessions' decoding in one batch, a chunk of prefill.
pub(crate) const WORKLOADS: [Workload; 3] = [
    Workload { name: "decode, 1 row", sequences: 1, rows: 1, past: 128 },
    Workload { name: "decode, 8 rows", sequences: 8, rows: 1, past: 128 },
    Workload { name: "prefill, 128 rows", sequences: 1, rows: 128, past: 0 },
];
