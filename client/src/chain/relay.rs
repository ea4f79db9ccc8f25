//! Rows on the way through the client, from a hop to the next one, which it cannot reach.

use swarm_protocol::activations::Rows;

use super::hop::{Flight, Target};
use super::order::{HopId, Input, Order, Work};
use super::{Chain, count};

/// Rows of a hop's output that wait for room at the next one.
#[derive(Debug, Clone)]
pub(super) struct Relayed<R> {
    /// For whom.
    pub(super) hop: HopId,
    /// The first position.
    pub(super) from: usize,
    pub(super) rows: R,
}

impl<R: Rows> Chain<R> {
    /// Rows came that are to be handed on. Of those that wait and lie behind their beginning, they are a newer version.
    pub(super) fn relay(&mut self, hop: HopId, from: usize, rows: R) {
        self.relaying.retain(|waiting| waiting.hop != hop || waiting.from < from);
        let before = self.relaying.iter_mut().rev().find(|waiting| waiting.hop == hop);
        if let Some(before) = before {
            before.rows.truncate(from - before.from);
        }
        self.relaying.push_back(Relayed { hop, from, rows });
    }

    /// A hop is joined to what feeds it anew: what waits for it comes again.
    pub(super) fn forget_relayed(&mut self, target: Target) {
        let Target::Hop { id, relayed } = target else { return };
        self.relaying.retain(|waiting| waiting.hop != id);
        if !relayed && let Some(hop) = self.find_mut(id) {
            hop.forget_relayed();
        }
    }

    /// Hands rows on, as far as the hops behind take them: a hop is sent no more steps at once than the first one is, so
    /// that its pings are never behind steps which nobody reads.
    pub(super) fn next_relay(&mut self) -> Option<Order<R>> {
        let Self { hops, relaying, config, .. } = self;
        relaying.retain(|relayed| hops.iter().any(|hop| hop.id == relayed.hop && !hop.lost));
        let has_room = |id| hops.iter().any(|hop| hop.id == id && hop.relayed.len() < config.window);
        let next = relaying.iter().position(|relayed| has_room(relayed.hop))?;
        let Relayed { hop, from, rows } = relaying.remove(next)?;
        let (epoch, count_of_rows) = (self.epoch, rows.rows());
        self.find_mut(hop)?.hand_on(Flight { epoch, from, rows: count_of_rows });
        let (from, rows, input) = (count(from), count(count_of_rows), Input::Rows(rows));
        Some(Order::Feed(Work { hop, epoch, from, rows, wanted_from: count(self.wanted.from()), input }))
    }
}
