//! What can be wrong with hops and answers.

use swarm_protocol::block::BlockRange;
use thiserror::Error;

use super::order::HopId;

/// The hops do not join to the range without a hole or an overlap.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the hops {hops:?} do not tile the blocks {range}; take the hops of one route over exactly these blocks")]
pub struct BadHops {
    /// What they should tile.
    pub range: BlockRange,
    /// What they cover.
    pub hops: Vec<BlockRange>,
}

impl BadHops {
    pub(super) fn check(range: BlockRange, hops: &[BlockRange]) -> Result<(), Self> {
        let reached = hops.iter().try_fold(range.start(), |reached, hop| (hop.start() == reached).then_some(hop.end()));
        match reached {
            Some(end) if end == range.end() => Ok(()),
            _ => Err(Self { range, hops: hops.to_vec() }),
        }
    }
}

/// An answer or an input that does not fit the chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// Rows came that do not follow those before.
    #[error("{hop} sent rows of positions that were not asked for; it is given up and replaced")]
    WrongRows {
        /// Who sent them.
        hop: HopId,
    },
    /// It speaks of a step that it was not given, or overtakes an earlier one.
    #[error("{hop} answered a step it was not given; it is given up and replaced")]
    OutOfOrder {
        /// Who answered.
        hop: HopId,
    },
    /// It speaks of a hand-over that is another hop's.
    #[error("{hop} spoke of another hop's hand-over; it is given up and replaced")]
    NotItsHandOver {
        /// Who spoke.
        hop: HopId,
    },
    /// Token ids for a chain of rows, or rows for a chain of token ids.
    #[error("a chain is extended by what it was made for: token ids, or rows; open another session for the other")]
    WrongInput,
}

impl ChainError {
    /// The hop that broke the protocol, to be given up.
    pub fn culprit(&self) -> Option<HopId> {
        match self {
            Self::WrongRows { hop } | Self::OutOfOrder { hop } | Self::NotItsHandOver { hop } => Some(*hop),
            Self::WrongInput => None,
        }
    }
}

/// A repair that came too late, or does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StaleSpan {
    /// Not every hop of the span is lost and waiting any more: another repair was faster.
    #[error("the blocks {0} are no longer lost; close the hops opened for them and ask again what is lost")]
    NotLost(BlockRange),
    /// The new hops do not tile the span.
    #[error(transparent)]
    BadHops(#[from] BadHops),
}
