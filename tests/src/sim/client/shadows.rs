//! Servers kept beside the chain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_client::chain::HopId;
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::{HandOver, Input, SessionRequest};

use super::Client;
use crate::sim::network::{Net, StreamId};
use crate::sim::report::Violation;
use crate::sim::world::Known;

/// How soon a server is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How many positions a server that is fed may lack when it takes a leaving one's place.
const CLOSE_ENOUGH: u32 = 1;

/// Why a server is kept beside a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Standby,
    TakeOver,
    CatchUp,
}

#[derive(Default)]
pub(super) struct Shadows {
    opening: Vec<(HopId, Purpose, StreamId)>,
    looked: BTreeMap<HopId, Option<Duration>>,
    by_input: BTreeSet<HopId>,
    /// Shadows that a KV cache was handed to.
    handed: BTreeSet<HopId>,
}

impl Client {
    /// Looks for servers where they are wanted, and swaps those in that have caught up.
    pub(super) fn tend_shadows(&mut self, known: &Known, net: &mut Net) -> Result<(), Violation> {
        let hops: Vec<(HopId, BlockRange)> = self.chain.hops().collect();
        for (hop, blocks) in hops {
            let leaving = self.links.get(&hop).is_some_and(|link| link.leaving);
            let purpose = match (leaving, self.shadows.by_input.contains(&hop)) {
                (true, false) => Purpose::TakeOver,
                (true, true) => Purpose::CatchUp,
                (false, _) if self.standby => Purpose::Standby,
                (false, _) => continue,
            };
            if purpose == Purpose::TakeOver && !self.chain.may_hand_over(hop) && self.chain.shadow_of(hop).is_none() {
                continue;
            }
            let may_look = match self.shadows.looked.get(&hop) {
                None => true,
                Some(None) => false,
                Some(Some(again)) => *again <= net.now,
            };
            match self.chain.shadow_lacks(hop) {
                Some(lacks) if leaving && lacks.0 <= CLOSE_ENOUGH && self.may_swap(hop) => self.swap(hop, net),
                Some(_) => {}
                None if may_look => self.look_for_shadow(hop, blocks, purpose, known, net)?,
                None => {}
            }
        }
        Ok(())
    }

    fn may_swap(&self, hop: HopId) -> bool {
        !self.chain.is_handing_over(hop) && !self.chain.shadow_lacks_output(hop)
    }

    fn look_for_shadow(
        &mut self,
        hop: HopId,
        blocks: BlockRange,
        purpose: Purpose,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        let avoid: Vec<PeerId> = self.links.values().map(|link| link.peer).collect();
        match self.plan(blocks, &avoid, known, net)?.as_ref().map(|route| route.hops.as_slice()) {
            Some([only]) => {
                self.shadows.looked.insert(hop, None);
                let stream = self.open(only.peer, blocks, net)?;
                self.shadows.opening.push((hop, purpose, stream));
            }
            // Replaced like a lost one, between two steps, while it still lives.
            Some(_) if purpose != Purpose::Standby => self.give_up(hop, "it is leaving", net),
            _ => {
                self.shadows.looked.insert(hop, Some(net.now + LOOK_AGAIN));
            }
        }
        Ok(())
    }

    pub(super) fn take_opened_shadows(&mut self, net: &mut Net) {
        let opened = |stream: &StreamId| self.openings.get(stream).is_none_or(|opening| opening.outcome.is_some());
        let (ready, waiting) = self.shadows.opening.iter().copied().partition(|(_, _, stream)| opened(stream));
        self.shadows.opening = waiting;
        let ready: Vec<(HopId, Purpose, StreamId)> = ready;
        for (hop, purpose, stream) in ready {
            let Some((link, unread, _)) = self.take_opening(stream, net) else {
                self.shadows.looked.insert(hop, Some(net.now + LOOK_AGAIN));
                continue;
            };
            self.shadows.looked.remove(&hop);
            let Some(shadow) = self.chain.add_shadow(hop, purpose != Purpose::TakeOver) else {
                self.hang_up(link, net);
                continue;
            };
            self.counts.shadows += 1;
            self.reasons += 1;
            self.put(shadow, link, unread, net);
            if purpose == Purpose::TakeOver {
                self.begin_hand_over(hop, shadow, net);
            }
        }
    }

    fn begin_hand_over(&mut self, hop: HopId, shadow: HopId, net: &mut Net) {
        let (Some(from), Some(to)) = (self.links.get(&hop), self.links.get(&shadow)) else { return };
        let (peer, to) = (from.peer, to.as_next(self.chain.chunk()));
        let link = self.chain.begin_hand_over(hop);
        self.ask(shadow, SessionRequest::Accept(Input::Import { peer, link }), net);
        self.ask(hop, SessionRequest::HandOver(HandOver { link, to }), net);
    }

    pub(super) fn on_handed_over(
        &mut self,
        hop: HopId,
        link: u32,
        failed: bool,
        known: &Known,
        net: &mut Net,
    ) -> Result<(), Violation> {
        match self.chain.handed_over(hop, link) {
            Err(lie) => return self.on_wrong(hop, &lie, known, net),
            Ok(false) => return Ok(()),
            Ok(true) => {}
        }
        if failed {
            self.counts.hand_overs_failed += 1;
            self.shadows.by_input.insert(hop);
            if let Some(shadow) = self.chain.shadow_of(hop) {
                self.give_up(shadow, "its KV cache was not handed over", net);
            }
        } else if let Some(shadow) = self.chain.follow(hop) {
            self.reasons += 1;
            self.shadows.handed.insert(shadow);
            if self.is_first(hop) {
                self.ask(shadow, SessionRequest::Accept(Input::Owner), net);
            }
        }
        Ok(())
    }

    fn is_first(&self, hop: HopId) -> bool {
        self.chain.hops().next().is_some_and(|(first, _)| first == hop)
    }

    /// Puts a hop's shadow in its place while the hop still lives.
    fn swap(&mut self, hop: HopId, net: &mut Net) {
        if let Some(shadow) = self.chain.shadow_of(hop) {
            self.counts.taken_over += usize::from(self.shadows.handed.contains(&shadow));
            self.give_up(hop, "it is leaving", net);
        }
    }

    /// Puts the shadow of a hop that is gone in its place.
    pub(super) fn promote_shadow(&mut self, hop: HopId, net: &mut Net) {
        let first = self.is_first(hop);
        self.shadows.looked.remove(&hop);
        self.shadows.by_input.remove(&hop);
        let Some(shadow) = self.chain.promote(hop) else { return self.forget_dropped_shadows(net) };
        self.counts.promotions += 1;
        if first {
            self.ask(shadow, SessionRequest::Accept(Input::Owner), net);
        }
    }

    /// Ends the sessions of shadows that the chain has forgotten.
    pub(super) fn forget_dropped_shadows(&mut self, net: &mut Net) {
        let dropped: Vec<HopId> = self.links.keys().copied().filter(|hop| self.chain.held_by(*hop).is_none()).collect();
        for hop in dropped {
            if let Some(link) = self.links.remove(&hop) {
                self.hang_up(link, net);
            }
        }
    }
}
