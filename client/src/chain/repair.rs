//! Losing hops and putting others in their place.

use std::ops::Range;

use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

use super::error::{BadHops, StaleSpan};
use super::history::Rows;
use super::hop::Hop;
use super::work::HopId;
use super::{Chain, count};

/// Neighbouring hops that were lost, to be replaced together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSpan {
    /// The blocks that nobody computes now.
    pub range: BlockRange,
    /// The hops that did, in order.
    pub hops: Vec<HopId>,
}

impl LostSpan {
    fn of(hop: &Hop) -> Self {
        Self { range: hop.blocks, hops: vec![hop.id] }
    }

    /// The span with a lost neighbour behind it.
    fn with(mut self, hop: &Hop) -> Self {
        self.hops.push(hop.id);
        self.range = BlockRange::new(self.range.start(), hop.blocks.end()).unwrap_or(self.range);
        self
    }
}

impl<R: Rows> Chain<R> {
    /// The hop is gone, with its KV: its late answers are stale from now on. Idempotent; `false` if the chain has no
    /// such hop, or has lost it already.
    pub fn fail(&mut self, hop: HopId) -> bool {
        let living = self.hops.iter_mut().find(|known| known.id == hop && !known.lost);
        let failed = living.is_some();
        living.into_iter().for_each(Hop::lose);
        failed
    }

    /// What is lost and not yet replaced; neighbours are one span.
    pub fn lost(&self) -> Vec<LostSpan> {
        let runs = self.hops.chunk_by(|one, next| one.lost == next.lost);
        let lost = runs.filter(|run| run[0].lost);
        let merged = lost.filter_map(|run| {
            let (first, rest) = run.split_first()?;
            Some(rest.iter().fold(LostSpan::of(first), LostSpan::with))
        });
        merged.collect()
    }

    /// How many positions a replacement of the hop has to hold at once: its input so far.
    pub fn input_length(&self, hop: HopId) -> Option<TokenCount> {
        let index = self.hops.iter().position(|known| known.id == hop)?;
        Some(count(self.input_len(index)))
    }

    /// Puts new hops with an empty KV in the place of lost ones, and says their ids. Their inputs are fed to them as
    /// work like any other; the histories of boundaries that exist no more are dropped.
    ///
    /// # Errors
    /// [`StaleSpan`] if a hop of the span is not lost (any more), or the new hops do not tile it. Nothing is changed.
    pub fn replace(&mut self, span: &LostSpan, hops: &[BlockRange]) -> Result<Vec<HopId>, StaleSpan> {
        let place = self.place_of(span).ok_or(StaleSpan::NotLost(span.range))?;
        BadHops::check(span.range, hops)?;
        let fresh: Vec<Hop> = hops.iter().map(|&blocks| self.fresh_hop(blocks)).collect();
        let ids = fresh.iter().map(|hop| hop.id).collect();
        self.hops.splice(place, fresh);
        self.sync_boundaries();
        Ok(ids)
    }

    /// Where the span's hops stand, if all of them are still lost.
    fn place_of(&self, span: &LostSpan) -> Option<Range<usize>> {
        let first = self.hops.iter().position(|hop| Some(&hop.id) == span.hops.first())?;
        let place = first..first + span.hops.len();
        let hops = self.hops.get(place.clone())?;
        let same = hops.iter().map(|hop| hop.id).eq(span.hops.iter().copied());
        (same && hops.iter().all(|hop| hop.lost)).then_some(place)
    }
}
