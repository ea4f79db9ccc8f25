//! What a chain asks of its driver, and what comes of the answers.

use std::fmt;

use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::Lane;

pub use super::hop::Target;

/// One server's part in a session, from its opening on. Never used twice: a replacement is another hop, so that what
/// an abandoned one says late is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopId(pub u64);

impl fmt::Display for HopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hop {}", self.0)
    }
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order<R> {
    /// Send rows to a hop.
    Feed(Work<R>),
    /// Tell a hop where its output goes from now on, and, if that is another hop, tell that one who feeds it.
    Join {
        /// The number of the link. One that stands on the other lane is moved to this one.
        link: u32,
        /// Which of the hop's ways out.
        lane: Lane,
        /// Whose output.
        from: HopId,
        /// Where it goes.
        to: Target,
        /// The first position whose output is sent.
        position: TokenCount,
    },
}

/// Feed rows to a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work<R> {
    /// Who computes.
    pub hop: HopId,
    /// The epoch under which it is sent.
    pub epoch: u32,
    /// The absolute position of the first row: how many positions the hop's KV holds before this work.
    pub from: TokenCount,
    /// How many rows, at least 1.
    pub rows: TokenCount,
    /// From which position on the last hop's outputs are wanted.
    pub wanted_from: TokenCount,
    /// What to feed.
    pub input: Input<R>,
}

/// What a hop is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<R> {
    /// The embeddings of the token ids at the work's positions; the driver makes them.
    Tokens,
    /// These rows.
    Rows(R),
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
pub enum Came<R> {
    /// It is of an earlier epoch, hop or link, or was known: it is ignored.
    Stale,
    /// A hop's KV is longer, or rows came that are handed on.
    Advanced,
    /// Rows came that are to be handed on, but not those before them, which were perhaps of an earlier epoch: all of them are
    /// asked for again.
    Skipped,
    /// The last hop's outputs, in order and each once.
    Output {
        /// The position of the first row.
        from: TokenCount,
        /// The rows.
        rows: R,
    },
}
