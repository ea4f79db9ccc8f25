//! Losing hops and links, and putting others in their place.

use std::ops::Range;

use swarm_protocol::activations::Rows;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

use super::Chain;
use super::error::{BadHops, StaleSpan};
use super::hop::{Hop, Target};
use super::order::HopId;

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

/// What becomes of a link that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlinked {
    /// It was no longer in use.
    Stale,
    /// It is made anew, perhaps through the client.
    Again,
    /// It led to a hop beside the chain, which is let go of.
    Shadow(HopId),
    /// Nothing helps: the hop cannot send what it should. Give it up.
    GiveUp(HopId),
}

impl<R: Rows> Chain<R> {
    /// The hop is gone, with its KV: what it says late is ignored. One that was kept beside the chain is forgotten.
    /// Idempotent; `false` if the chain has no such hop, or has lost it already.
    pub fn fail(&mut self, hop: HopId) -> bool {
        if self.drop_shadow(hop) {
            return true;
        }
        let known = self.hops.iter_mut().find(|known| known.id == hop && !known.lost);
        known.map(Hop::lose).is_some()
    }

    /// A hop says that a link cannot be fed (any more).
    pub fn unlinked(&mut self, id: HopId, link: u32) -> Unlinked {
        let Some(hop) = self.hops.iter_mut().find(|hop| hop.id == id && !hop.lost) else {
            return Unlinked::Stale;
        };
        if let Some(Target::Hop { id: shadow, .. }) =
            hop.mirror.filter(|joint| joint.link == link).map(|joint| joint.target)
        {
            hop.mirror = None;
            // One that has become a hop is joined like any other.
            return if self.drop_shadow(shadow) { Unlinked::Shadow(shadow) } else { Unlinked::Stale };
        }
        let Some(joint) = hop.joint.take_if(|joint| joint.link == link) else {
            return Unlinked::Stale;
        };
        match joint.target {
            Target::Hop { id: next, .. } if hop.missed(next) => Unlinked::Again,
            _ => Unlinked::GiveUp(id),
        }
    }

    /// The output of `hop` to the next one takes the way through the client, as long as that is `next`: the one cannot reach
    /// the other.
    pub fn take_detour(&mut self, hop: HopId, next: HopId) {
        let place = self.hops.windows(2).position(|pair| (pair[0].id, pair[1].id) == (hop, next));
        if let Some(hop) = place.and_then(|index| self.hops.get_mut(index)).filter(|hop| !hop.relays_to(next)) {
            hop.take_detour(next);
        }
    }

    /// The hop behind, if what goes there from `hop` takes the way through the client.
    pub fn detour_of(&self, hop: HopId) -> Option<HopId> {
        let [hop, next] = self.hops.windows(2).find(|pair| pair[0].id == hop)? else { return None };
        hop.relays_to(next.id).then_some(next.id)
    }

    /// Rows arrived at a hop: the link to it works.
    pub(super) fn forgive_joint_before(&mut self, id: HopId) {
        let before = self.hops.iter().position(|hop| hop.id == id).and_then(|index| index.checked_sub(1));
        if let Some(before) = before {
            self.hops[before].reached();
        }
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

    /// Puts new hops with an empty KV in the place of lost ones, and says their ids.
    ///
    /// # Errors
    /// [`StaleSpan`] if a hop of the span is not lost (any more), or the new hops do not tile it. Nothing is changed.
    pub fn replace(&mut self, span: &LostSpan, hops: &[BlockRange]) -> Result<Vec<HopId>, StaleSpan> {
        let place = self.place_of(span).ok_or(StaleSpan::NotLost(span.range))?;
        BadHops::check(span.range, hops)?;
        let fresh: Vec<Hop> = hops.iter().map(|&blocks| self.fresh_hop(blocks)).collect();
        let ids = fresh.iter().map(|hop| hop.id).collect();
        self.hops.splice(place, fresh);
        Ok(ids)
    }

    /// A hop that was just put in place holds the first `position` positions already: its server has computed them before, and
    /// was asked for them in `epoch`. What has changed since is left out, as are more than there are, and anything said of a hop
    /// that is at work.
    pub fn recalled(&mut self, id: HopId, position: TokenCount, epoch: u32) {
        let length = self.cutbacks.since(epoch).unwrap_or(usize::MAX).min(self.source.len());
        let Some(hop) = self.find_mut(id).filter(|hop| hop.is_fresh()) else { return };
        hop.kv = position.as_usize().min(length);
        hop.epoch = epoch;
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
