//! Who serves what while a schedule is carried out, as far as the schedule knows: on the safe side.

use super::schedule::{Host, Operation, Slot};

type Blocks = (u32, u32);

/// A place for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nobody; the blocks of who was there.
    Empty(Option<Blocks>),
    Starting(Blocks),
    Live(Blocks),
    Frozen(Blocks),
    Leaving(Blocks),
}

/// Every place, and every cut.
#[derive(Debug)]
pub(super) struct State {
    places: Vec<Place>,
    cuts: Vec<(Host, Option<Host>)>,
    slow: Vec<(Host, Host)>,
    blocks: u32,
}

impl State {
    /// The first of `slots` places have servers of the blocks `initial`.
    pub(super) fn new(slots: usize, initial: &[Blocks]) -> Self {
        let servers = initial.iter().map(|blocks| Place::Live(*blocks));
        let places = servers.chain(std::iter::repeat(Place::Empty(None))).take(slots).collect();
        let blocks = initial.iter().map(|(_, end)| *end).max().unwrap_or(0);
        Self { places, cuts: Vec::new(), slow: Vec::new(), blocks }
    }

    pub(super) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Start(slot, blocks, _) => self.places[slot] = Place::Starting(blocks),
            Operation::AwaitReady(slot) | Operation::Thaw(slot) => self.become_if(slot, Place::Live),
            Operation::Freeze(slot) => self.become_if(slot, Place::Frozen),
            Operation::Terminate(slot) => self.become_if(slot, Place::Leaving),
            Operation::Kill(slot) | Operation::AwaitExit(slot) => {
                self.become_if(slot, |blocks| Place::Empty(Some(blocks)));
            }
            Operation::Cut(host, other) => self.cuts.push((host, other)),
            Operation::Heal(host, other) => self.cuts.retain(|cut| *cut != (host, other)),
            Operation::Slow(host, other) => self.slow.push((host, other)),
            Operation::Quicken(host, other) => self.slow.retain(|slow| *slow != (host, other)),
        }
    }

    fn become_if(&mut self, slot: Slot, place: impl Fn(Blocks) -> Place) {
        self.places[slot] = match self.places[slot] {
            Place::Empty(before) => Place::Empty(before),
            Place::Starting(blocks) | Place::Live(blocks) | Place::Frozen(blocks) | Place::Leaving(blocks) => {
                place(blocks)
            }
        };
    }

    fn slots(&self, wanted: impl Fn(Place) -> bool) -> Vec<Slot> {
        let places = self.places.iter().enumerate();
        places.filter(|(_, place)| wanted(**place)).map(|(slot, _)| slot).collect()
    }

    /// Servers that run, answer and hear the clients.
    pub(super) fn serving(&self) -> Vec<Slot> {
        let live = self.slots(|place| matches!(place, Place::Live(_)));
        live.into_iter().filter(|slot| self.hears_clients(*slot)).collect()
    }

    fn hears_clients(&self, slot: Slot) -> bool {
        let (server, clients) = (Host::Server(slot), Host::Clients);
        let between = |cut: &(Host, Option<Host>)| match cut {
            (host, None) => *host == server || *host == clients,
            (one, Some(other)) => (*one, *other) == (server, clients) || (*one, *other) == (clients, server),
        };
        !self.cuts.iter().any(between)
    }

    /// Whether `slot` has a server of that block.
    pub(super) fn hosts(&self, slot: Slot, block: u32) -> bool {
        matches!(self.places[slot], Place::Live((start, end)) if (start..end).contains(&block))
    }

    /// Whether every block has a serving server, also without that one.
    pub(super) fn is_covered(&self, without: Option<Slot>) -> bool {
        let serving = self.serving();
        let others = || serving.iter().filter(|slot| Some(**slot) != without);
        (0..self.blocks).all(|block| others().any(|slot| self.hosts(*slot, block)))
    }

    /// Serving servers that are not the last ones of any block.
    pub(super) fn spare(&self) -> Vec<Slot> {
        self.serving().into_iter().filter(|slot| self.is_covered(Some(*slot))).collect()
    }

    /// Servers that were asked to leave.
    pub(super) fn leaving(&self) -> Vec<Slot> {
        self.slots(|place| matches!(place, Place::Leaving(_)))
    }

    /// Servers that serve or will.
    pub(super) fn present(&self) -> usize {
        self.slots(|place| matches!(place, Place::Live(_) | Place::Frozen(_) | Place::Starting(_))).len()
    }

    /// Places where a server can start, with the blocks of who was there; only those where somebody was, if `used`.
    pub(super) fn free(&self, used: bool) -> Vec<(Slot, Option<Blocks>)> {
        let free = |(slot, place): (Slot, &Place)| match place {
            Place::Empty(before) if !self.is_cut(slot) && (before.is_some() || !used) => Some((slot, *before)),
            _ => None,
        };
        self.places.iter().enumerate().filter_map(free).collect()
    }

    fn is_cut(&self, slot: Slot) -> bool {
        let server = Host::Server(slot);
        self.cuts.iter().any(|(one, other)| *one == server || *other == Some(server))
    }

    /// Whether nothing is left to be undone.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let rests = |place: &Place| matches!(place, Place::Empty(_) | Place::Live(_));
        self.places.iter().all(rests) && self.cuts.is_empty() && self.slow.is_empty() && self.is_covered(None)
    }
}
