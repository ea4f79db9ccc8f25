//! Servers that are kept beside the chain: like one of its hops, to take its place at once.

use swarm_protocol::activations::Rows;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::Lane;

use super::error::ChainError;
use super::hop::{Hop, Joint, Target};
use super::order::{HopId, Order};
use super::{Chain, count};

impl<R: Rows> Chain<R> {
    /// Keeps another server of the same blocks beside `hop`, with an empty KV. With `mirrored` it gets all of the hop's
    /// input; without, it waits for a KV cache that the hop hands over. `None` if the hop is lost, has one already, or
    /// cannot hand its cache over now: see [`Chain::may_hand_over`].
    pub fn add_shadow(&mut self, hop: HopId, mirrored: bool) -> Option<HopId> {
        if !mirrored && !self.may_hand_over(hop) {
            return None;
        }
        let blocks = self.hops.iter().find(|known| known.id == hop && !known.lost && known.shadow.is_none())?.blocks;
        let shadow = Hop { mirrored, ..self.fresh_hop(blocks) };
        let id = shadow.id;
        let known = self.hops.iter_mut().find(|known| known.id == hop)?;
        known.shadow = Some(Box::new(shadow));
        Some(id)
    }

    /// Whether what a hop would hand over is right: not from a truncation on until it has computed a step of the new epoch.
    /// Until then its server knows nothing of the truncation, and would hand over positions that have changed since.
    pub fn may_hand_over(&self, hop: HopId) -> bool {
        self.hops.iter().any(|known| known.id == hop && known.epoch == self.epoch)
    }

    /// A hop is told to hand its KV cache over to its shadow: under this number, which no link of the session has.
    pub fn begin_hand_over(&mut self, hop: HopId) -> u32 {
        let link = self.fresh_link();
        if let Some(known) = self.hops.iter_mut().find(|known| known.id == hop) {
            known.handing_over = Some(link);
        }
        link
    }

    /// Whether a hop is handing its KV cache over.
    pub fn is_handing_over(&self, hop: HopId) -> bool {
        self.hops.iter().any(|known| known.id == hop && known.handing_over.is_some())
    }

    /// A hop says that its hand-over of that number has ended; `false` if nobody waits for that any more.
    ///
    /// # Errors
    /// [`ChainError`] if the number is another hop's: the server breaks the protocol.
    pub fn handed_over(&mut self, hop: HopId, link: u32) -> Result<bool, ChainError> {
        match self.hops.iter_mut().find(|known| known.handing_over == Some(link)) {
            Some(known) if known.id == hop => {
                known.handing_over = None;
                Ok(true)
            }
            Some(_) => Err(ChainError::NotItsHandOver { hop }),
            None => Ok(false),
        }
    }

    /// A KV cache was handed over to a shadow, up to `position`.
    pub fn imported(&mut self, shadow: HopId, position: TokenCount) {
        let length = self.source.len();
        // One that has become a hop of the chain is fed: what is said late of a piece is no matter any more.
        let mut shadows = self.hops.iter_mut().filter_map(|hop| hop.shadow.as_deref_mut());
        if let Some(shadow) = shadows.find(|known| known.id == shadow && !known.mirrored) {
            shadow.kv = position.as_usize().min(length);
            shadow.without_outputs = shadow.kv;
        }
    }

    /// A hop's shadow has been handed all there was; from now on it gets the hop's input. Says its id.
    pub fn follow(&mut self, hop: HopId) -> Option<HopId> {
        let known = self.hops.iter_mut().find(|known| known.id == hop)?;
        let shadow = known.shadow.as_deref_mut()?;
        shadow.mirrored = true;
        Some(shadow.id)
    }

    /// The shadow of a hop.
    pub fn shadow_of(&self, hop: HopId) -> Option<HopId> {
        let known = self.hops.iter().find(|known| known.id == hop)?;
        known.shadow.as_ref().map(|shadow| shadow.id)
    }

    /// How many positions a hop's shadow lacks that the hop has.
    pub fn shadow_lacks(&self, hop: HopId) -> Option<TokenCount> {
        let known = self.hops.iter().find(|known| known.id == hop)?;
        known.shadow.as_ref().map(|shadow| count(known.kv.saturating_sub(shadow.kv)))
    }

    /// Whether a hop's shadow holds positions that the hop is not known to hold.
    pub fn shadow_is_ahead(&self, hop: HopId) -> bool {
        let known = self.hops.iter().find(|known| known.id == hop);
        known.is_some_and(|known| known.shadow.as_ref().is_some_and(|shadow| shadow.mirrored && shadow.kv > known.kv))
    }

    /// Whether a hop's shadow cannot give what is wanted of the hop next: it is the last one's, and was handed keys and values
    /// of that position, but no outputs, which the last hop does not keep.
    pub fn shadow_lacks_output(&self, hop: HopId) -> bool {
        let last = self.hops.last().filter(|last| last.id == hop);
        let shadow = last.and_then(|last| last.shadow.as_ref());
        shadow.is_some_and(|shadow| shadow.without_outputs > self.wanted.next())
    }

    /// Puts a hop's shadow in its place, with what it holds; says its id. The hop is no longer part of the chain. `None` if
    /// there is none, or [it is of no use](Chain::shadow_lacks_output), and then it is forgotten.
    pub fn promote(&mut self, hop: HopId) -> Option<HopId> {
        if self.shadow_lacks_output(hop) {
            self.drop_shadow(self.shadow_of(hop)?);
        }
        let known = self.hops.iter_mut().find(|known| known.id == hop)?;
        let shadow = *known.shadow.take()?;
        let id = shadow.id;
        *known = Hop { mirrored: false, ..shadow };
        Some(id)
    }

    /// Forgets a shadow; `false` if there is none of that id.
    pub(super) fn drop_shadow(&mut self, shadow: HopId) -> bool {
        let mut known_one = false;
        for hop in &mut self.hops {
            if hop.shadow.take_if(|known| known.id == shadow).is_some() {
                known_one = true;
                hop.handing_over = None;
            }
            let leads_there = |joint: &mut Joint| matches!(joint.target, Target::Hop { id, .. } if id == shadow);
            hop.mirror.take_if(leads_there);
        }
        known_one
    }

    /// How a hop's output reaches what is kept beside the next hop, if it does not (any more).
    pub(super) fn mirror_of(&mut self, index: usize) -> Option<Order<R>> {
        let shadow = self.hops.get(index + 1)?.shadow.as_ref().filter(|shadow| shadow.mirrored)?;
        let (target, position) = (Target::Hop { id: shadow.id, relayed: false }, shadow.kv);
        let hop = &self.hops[index];
        if hop.lost || hop.mirror.is_some_and(|mirror| mirror.target == target) {
            return None;
        }
        let link = self.fresh_link();
        let hop = &mut self.hops[index];
        hop.mirror = Some(Joint::new(link, target, position));
        Some(Order::Join { link, lane: Lane::Mirror, from: hop.id, to: target, position: count(position) })
    }
}
