//! What a chain asks of its hops, and what comes of the answers.

use std::fmt;

use swarm_protocol::session::TokenCount;

/// One server's part in a session, from its opening on. Never used twice: a replacement is another hop, so that what
/// an abandoned one says late is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopId(pub u64);

impl fmt::Display for HopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hop {}", self.0)
    }
}

/// One piece of work; never used twice, so that the answer to an abandoned one is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// Feed rows to a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work<R> {
    /// Names the answer in [`Chain::complete`](super::Chain::complete).
    pub id: WorkId,
    /// Who computes.
    pub hop: HopId,
    /// The absolute position of the first row: how many positions the hop's KV holds before this work.
    pub from: TokenCount,
    /// How many rows, at least 1.
    pub rows: TokenCount,
    /// What to feed.
    pub input: Input<R>,
    /// What to answer.
    pub output: OutputRows,
}

/// What a hop is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<R> {
    /// The embeddings of the token ids at the work's positions; the driver makes them.
    Tokens,
    /// These rows.
    Rows(R),
}

/// Which output rows of a piece of work are sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputRows {
    /// Every row: the next boundary lacks them, or the user wants them.
    All,
    /// The newest row alone: what the next token is sampled from.
    Last,
    /// None: the rows only fill the KV cache.
    None,
}

impl OutputRows {
    /// How many rows answer a piece of work of `rows` rows.
    pub fn of(self, rows: usize) -> usize {
        match self {
            Self::All => rows,
            Self::Last => rows.min(1),
            Self::None => 0,
        }
    }
}

/// Which outputs of the last hop the user wants for the positions it adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outputs {
    /// Every position's.
    All,
    /// The newest position's.
    Last,
    /// None.
    None,
}

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completed<R> {
    /// The work was given up before: the answer is ignored.
    Stale,
    /// The hop's KV is longer, the next hop's input perhaps too.
    Advanced,
    /// The last hop's outputs, in order and each once.
    Output {
        /// The position of the first row.
        from: TokenCount,
        /// The rows.
        rows: R,
    },
}
