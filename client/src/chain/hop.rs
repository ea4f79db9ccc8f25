//! What a chain knows of one hop.

use std::collections::VecDeque;

use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::StepDone;

use super::order::HopId;

/// How often a link between two hops may break before their rows take the way through the client: once may be a
/// connection that was closed in that moment.
const DIRECT_ATTEMPTS: u32 = 2;

/// How often a joint may break before its upper hop is given up: it cannot send what it should have kept.
const ATTEMPTS: u32 = 4;

/// Rows that were sent to a hop which this client feeds, and about which it has said nothing yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) epoch: u32,
    pub(super) from: usize,
    pub(super) rows: usize,
}

/// Where a hop's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To another hop.
    Hop {
        /// Which.
        id: HopId,
        /// Through the client, since the one cannot reach the other.
        relayed: bool,
    },
    /// To the client: the hop is the last one.
    Owner,
}

/// A hop's output has been told where to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joint {
    pub(super) link: u32,
    pub(super) target: Target,
    /// The first position that is sent over it.
    pub(super) position: usize,
    /// Through the client: the first position that has not come.
    pub(super) next: usize,
}

impl Joint {
    pub(super) fn new(link: u32, target: Target, position: usize) -> Self {
        Self { link, target, position, next: position }
    }

    pub(super) fn is_relayed(&self) -> bool {
        matches!(self.target, Target::Hop { relayed: true, .. })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Hop {
    pub(super) id: HopId,
    pub(super) blocks: BlockRange,
    /// The positions its KV is known to hold.
    pub(super) kv: usize,
    /// The positions whose outputs it may lack: it was handed their keys and values only.
    pub(super) without_outputs: usize,
    /// The epoch of the newest step it has computed: its KV may still be of what an epoch after that has changed.
    pub(super) epoch: u32,
    /// In the order of sending, which is the order of answering; only of a hop that this client feeds.
    pub(super) flights: VecDeque<Flight>,
    /// The same of rows that were handed on for the hop before.
    pub(super) relayed: VecDeque<Flight>,
    /// The positions below have been handed on to it, since it was last fed by another server.
    pub(super) relayed_to: usize,
    /// A step failed for lack of KV, and so will those in flight behind it: nothing is sent until each has said so.
    pub(super) failing: bool,
    pub(super) lost: bool,
    /// Where its output goes, if it has been told.
    pub(super) joint: Option<Joint>,
    /// Where its output goes besides.
    pub(super) mirror: Option<Joint>,
    /// The next hop that it has failed to reach, and how often.
    pub(super) unreached: Option<(HopId, u32)>,
    /// A server that is kept like this one, or brought up to date to take its place.
    pub(super) shadow: Option<Box<Hop>>,
    /// Of a shadow: whether it gets the same input; if not, it gets a KV cache.
    pub(super) mirrored: bool,
    /// The number under which it hands its KV cache over to its shadow, if it does.
    pub(super) handing_over: Option<u32>,
}

impl Hop {
    pub(super) fn new(id: HopId, blocks: BlockRange) -> Self {
        Self {
            id,
            blocks,
            kv: 0,
            without_outputs: 0,
            epoch: 0,
            flights: VecDeque::new(),
            relayed: VecDeque::new(),
            relayed_to: 0,
            failing: false,
            lost: false,
            joint: None,
            mirror: None,
            unreached: None,
            shadow: None,
            mirrored: false,
            handing_over: None,
        }
    }

    /// Whether it has been told, and has said, nothing yet.
    pub(super) fn is_fresh(&self) -> bool {
        !self.lost && self.kv == 0 && self.flights.is_empty() && self.joint.is_none() && self.mirror.is_none()
    }

    /// Rows that it was sent and has not computed yet.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.iter().map(|flight| flight.rows).sum()
    }

    /// The positions its KV holds once everything sent is computed.
    pub(super) fn sent(&self) -> usize {
        self.flights.back().map_or(self.kv, |flight| flight.from + flight.rows)
    }

    /// Whether the oldest flight is the one that was computed, which is over then.
    pub(super) fn answered(&mut self, done: &StepDone) -> bool {
        let is_it = |flight: &Flight| {
            (flight.epoch, flight.from, flight.rows) == (done.epoch, done.position as usize, done.rows as usize)
        };
        self.flights.pop_front().as_ref().is_some_and(is_it)
    }

    /// Rows are handed on to it.
    pub(super) fn hand_on(&mut self, flight: Flight) {
        self.relayed_to = flight.from + flight.rows;
        self.relayed.push_back(flight);
    }

    /// It is fed by another server: what was handed on, and has not been taken in, is dropped there.
    pub(super) fn forget_relayed(&mut self) {
        self.relayed.clear();
        self.relayed_to = 0;
    }

    /// Its KV holds the positions below `end`: rows that were handed on have come that far.
    pub(super) fn took_in(&mut self, end: usize) {
        self.relayed.retain(|flight| flight.from + flight.rows > end);
    }

    /// The oldest flight was not computed: the KV holds `have` positions.
    pub(super) fn fell_back(&mut self, have: usize) {
        self.flights.pop_front();
        self.relayed.clear();
        self.failing = !self.flights.is_empty();
        self.kv = self.kv.min(have);
    }

    /// Nothing that is in flight matters any more.
    fn forget_flights(&mut self) {
        self.flights.clear();
        self.forget_relayed();
        self.failing = false;
    }

    pub(super) fn truncate(&mut self, length: usize) {
        // A link that begins behind the truncation, and whose beginning its hop has not come to, would leave out what lies
        // between: it is made anew.
        let kv = self.kv;
        let leaves_out = |joint: &mut Joint| joint.position > length && kv < joint.position;
        self.joint.take_if(leaves_out);
        self.mirror.take_if(leaves_out);
        if let Some(joint) = &mut self.joint {
            joint.next = joint.next.min(length);
        }
        self.kv = kv.min(length);
        self.without_outputs = self.without_outputs.min(length);
        self.forget_flights();
        match &mut self.shadow {
            Some(shadow) if shadow.mirrored => shadow.truncate(length),
            // What is being handed over to it may be of positions that are no more.
            _ => (self.shadow, self.handing_over) = (None, None),
        }
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.forget_flights();
        self.joint = None;
        self.mirror = None;
    }

    /// Its link to `next` broke. Whether it may be tried again, one way or the other.
    pub(super) fn missed(&mut self, next: HopId) -> bool {
        let before = self.unreached.filter(|(id, _)| *id == next).map_or(0, |(_, times)| times);
        self.unreached = Some((next, before + 1));
        before + 1 < ATTEMPTS
    }

    /// From now on its output to `next` takes the way through the client.
    pub(super) fn take_detour(&mut self, next: HopId) {
        let before = self.unreached.filter(|(id, _)| *id == next).map_or(0, |(_, times)| times);
        self.unreached = Some((next, before.max(DIRECT_ATTEMPTS)));
        self.joint = None;
    }

    /// Rows arrived at the next hop: what went wrong before is over, but a way through the client stays.
    pub(super) fn reached(&mut self) {
        if let Some((_, times)) = &mut self.unreached {
            *times = if *times >= DIRECT_ATTEMPTS { DIRECT_ATTEMPTS } else { 0 };
        }
    }

    /// Whether its output to `next` takes the way through the client.
    pub(super) fn relays_to(&self, next: HopId) -> bool {
        self.unreached.is_some_and(|(id, times)| id == next && times >= DIRECT_ATTEMPTS)
    }
}
