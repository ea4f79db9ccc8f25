//! Whose fault it is that everybody waits.
//!
//! A hop lives and gets on with nothing. Either it does not compute what it has, or it has nothing: the hop before says that
//! it has computed, and passes nothing on, or their connection has died in a way that neither notices. From their words alone
//! nobody can tell. So first the rows take the way through this client, which then sees who does not do its part.

use swarm_protocol::activations::Rows;

use super::Chain;
use super::order::HopId;

/// What becomes of a hop that lives, and gets on with nothing although everybody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is not waited for (any more).
    Stale,
    /// It is not to blame so far: from now on its input takes the way through the client, and it has all its time again.
    Detour,
    /// This one is to blame, the hop itself or the one before: give it up.
    GiveUp(HopId),
}

impl<R: Rows> Chain<R> {
    /// A hop that answers has got on with nothing for longer than a step may take.
    pub fn late(&mut self, id: HopId) -> Late {
        if self.waited_for() != Some(id) {
            return Late::Stale;
        }
        let place = self.hops.iter().position(|hop| hop.id == id);
        let Some(before) = place.and_then(|index| index.checked_sub(1)) else {
            // This client has fed it.
            return Late::GiveUp(id);
        };
        let [upper, hop] = &self.hops[before..before + 2] else { return Late::Stale };
        if hop.kv >= upper.kv || hop.relayed_to > hop.kv {
            // It owes its output, or has not computed what this client has handed on.
            return Late::GiveUp(id);
        }
        if upper.joint.is_some_and(|joint| joint.is_relayed()) {
            return Late::GiveUp(upper.id);
        }
        self.hops[before].take_detour(id);
        Late::Detour
    }

    /// How many rows of the next step have to come from the hop before through this client, before this one can be expected
    /// to get on.
    pub fn awaited_rows(&self, id: HopId) -> usize {
        let pairs = self.hops.windows(2).find(|pair| pair[1].id == id);
        let relayed = pairs.filter(|pair| pair[0].joint.is_some_and(|joint| joint.is_relayed()));
        let lacking = relayed.map_or(0, |pair| pair[0].kv.saturating_sub(pair[1].kv));
        lacking.min(self.config.chunk.as_usize())
    }
}
