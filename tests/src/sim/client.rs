//! A simulated client: it drives the real chain over the real route search, as `client::session` does; see there for the
//! reasons.

mod arrivals;
mod link;
mod orders;
mod repair;
mod shadows;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_client::chain::{Chain, HopId, Work};
use swarm_protocol::PeerId;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::Input;

use self::link::{Arrival, Link};
use self::repair::{Opening, Repair};
use self::shadows::Shadows;
use super::message::{Message, Payload, peer_of};
use super::network::{CLIENT, Net, Node, StreamId, Timer};
use super::report::{Counts, Violation};
use super::rows::{Activations, Kv};
use super::scenario::{Scenario, Turn};
use super::world::Known;

/// How often hops are pinged, and checked for silence.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a peer is avoided after its first failure; doubled by every further one.
const FIRST_BAN: Duration = Duration::from_millis(250);

/// The longest a peer is avoided.
const LONGEST_BAN: Duration = Duration::from_secs(4);

/// How long a peer that leaves is avoided: by then it is gone, or back.
const LEAVING_BAN: Duration = Duration::from_secs(8);

/// What the client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for its user.
    Resting,
    /// A call runs.
    Settling,
    /// Everything was done.
    Over,
}

pub(super) struct Client {
    chain: Chain<Activations>,
    links: BTreeMap<HopId, Link>,
    streams: BTreeMap<StreamId, HopId>,
    openings: BTreeMap<StreamId, Opening>,
    inbox: VecDeque<Arrival>,
    shadows: Shadows,
    bans: BTreeMap<PeerId, (u32, Duration)>,
    full: BTreeMap<PeerId, Duration>,
    phase: Phase,
    /// Hops are being opened, or looked for again after a pause.
    repair: Option<Repair>,
    /// Rows that are being embedded.
    embedding: Option<Work<Activations>>,
    /// The last call was not broken off.
    settled: bool,
    /// The newest timer for looking at the hops.
    check: (u32, Duration),
    tokens: Vec<u64>,
    /// What a run without faults computes.
    whole: Kv,
    newest: u64,
    turns: VecDeque<Turn>,
    /// How many turns were begun.
    turn: usize,
    /// Until when the user does nothing.
    rest_until: Duration,
    /// Positions whose outputs are still to come.
    awaited: BTreeSet<usize>,
    /// A change of mind that is to come: positions to go back.
    regret: Option<u32>,
    capacity: TokenCount,
    standby: bool,
    of_rows: bool,
    embed_time: Duration,
    rng: StdRng,
    pub(super) counts: Counts,
    /// How many joins there was a reason for.
    reasons: usize,
}

impl Client {
    pub(super) fn new(scenario: &Scenario) -> Result<Self, Violation> {
        let make = if scenario.of_rows { Chain::of_rows } else { Chain::of_tokens };
        let chain = make(scenario.model, &[scenario.model], scenario.chain);
        let mut chain = chain.map_err(|error| Violation::Unexpected(error.to_string()))?;
        // The first route is a repair like any other: of one hop that never was.
        let placeholder = chain.hops().next();
        placeholder.map(|(hop, _)| chain.fail(hop));
        Ok(Self {
            chain,
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            openings: BTreeMap::new(),
            inbox: VecDeque::new(),
            shadows: Shadows::default(),
            bans: BTreeMap::new(),
            full: BTreeMap::new(),
            phase: Phase::Resting,
            repair: None,
            embedding: None,
            settled: true,
            check: (0, Duration::ZERO),
            tokens: Vec::new(),
            whole: Kv::new(scenario.model),
            newest: scenario.seed,
            turns: scenario.turns.iter().copied().collect(),
            turn: 0,
            rest_until: Duration::ZERO,
            awaited: BTreeSet::new(),
            regret: None,
            capacity: scenario.capacity(),
            standby: scenario.standby,
            of_rows: scenario.of_rows,
            embed_time: scenario.embedding,
            rng: StdRng::seed_from_u64(scenario.seed),
            counts: Counts::default(),
            reasons: 0,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Something comes from a server.
    pub(super) fn hear(&mut self, stream: StreamId, message: Message, net: &mut Net) {
        if self.openings.contains_key(&stream) {
            return self.on_opening(stream, message, net);
        }
        if let Some(hop) = self.streams.get(&stream) {
            self.inbox.push_back(Arrival { hop: *hop, message, at: net.now });
        }
    }

    /// A timer went off.
    pub(super) fn wake(&mut self, timer: Timer, known: &Known, net: &mut Net) -> Result<(), Violation> {
        match timer {
            Timer::Opened(stream) => self.on_opening_late(stream, net),
            Timer::Check(number) if number == self.check.0 && self.phase == Phase::Settling => {
                self.check(known, net)?
            }
            Timer::Regret(turn) if turn == self.turn => self.change_mind(net)?,
            Timer::Embedded => self.on_embedded(net)?,
            _ => {}
        }
        Ok(())
    }

    /// Does all that can be done now.
    pub(super) fn drive(&mut self, known: &Known, net: &mut Net) -> Result<(), Violation> {
        loop {
            let goes_on = match self.phase {
                Phase::Over => false,
                Phase::Resting => self.take_turn(net)?,
                Phase::Settling => self.settle(known, net)?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// One round of the loop of `Session::settle`; `false` if it waits for something.
    fn settle(&mut self, known: &Known, net: &mut Net) -> Result<bool, Violation> {
        if self.embedding.is_some() || !self.mend(known, net)? {
            return Ok(false);
        }
        if net.now >= self.check.1 {
            // It was due while hops were opened.
            self.check(known, net)?;
            return Ok(true);
        }
        self.take_opened_shadows(net);
        self.tend_shadows(known, net)?;
        if !self.chain.lost().is_empty() {
            return Ok(true);
        }
        while let Some(order) = self.chain.next_order() {
            self.obey(order, known, net)?;
            if self.embedding.is_some() {
                return Ok(false);
            }
        }
        if self.chain.is_settled() {
            self.end_turn(net)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes in all that has come.
    fn catch_up(&mut self, known: &Known, net: &mut Net) -> Result<(), Violation> {
        while let Some(arrival) = self.inbox.pop_front() {
            self.on_arrival(arrival, known, net)?;
        }
        Ok(())
    }

    /// A hop failed: its server is avoided for a while.
    fn lose(&mut self, hop: HopId, reason: &str, net: &mut Net) {
        if let Some(peer) = self.links.get(&hop).map(|link| link.peer) {
            self.ban(peer, net);
        }
        self.give_up(hop, reason, net);
    }

    fn ban(&mut self, peer: PeerId, net: &Net) {
        let (failures, until) = self.bans.get(&peer).copied().unwrap_or_default();
        if until <= net.now {
            let ban = FIRST_BAN.saturating_mul(1 << failures.min(10)).min(LONGEST_BAN);
            self.bans.insert(peer, (failures + 1, net.now + ban));
        }
    }

    fn is_banned(&self, peer: PeerId, now: Duration) -> bool {
        self.bans.get(&peer).is_some_and(|(_, until)| now < *until)
    }

    /// Lets go of a hop. Who was kept beside it takes its place at once.
    fn give_up(&mut self, hop: HopId, _reason: &str, net: &mut Net) {
        let in_chain = self.chain.hops().any(|(known, _)| known == hop);
        let repairing = !self.chain.lost().is_empty() || self.repair.is_some();
        self.chain.fail(hop);
        let Some(link) = self.links.remove(&hop) else { return };
        self.hang_up(link, net);
        if in_chain {
            self.counts.losses += 1;
            self.counts.losses_during_repair += usize::from(repairing);
            // Its replacement, the hop before, and one that is kept beside the next.
            self.reasons += 3;
            self.promote_shadow(hop, net);
        }
    }

    fn hang_up(&mut self, link: Link, net: &mut Net) {
        self.streams.remove(&link.stream);
        net.ask(CLIENT, link.stream, swarm_protocol::wire::SessionRequest::Close, Payload::None);
        net.close(CLIENT, link.stream);
    }

    /// The hops it has, those beside the chain too, and how many positions it believes each to hold.
    pub(super) fn claims(&self) -> impl Iterator<Item = (Node, SessionId, usize)> {
        let held = |hop| self.chain.held_by(hop).map_or(0, TokenCount::as_usize);
        self.links.iter().map(move |(hop, link)| (link.node, link.session, held(*hop)))
    }

    pub(super) fn whole(&self) -> &Kv {
        &self.whole
    }

    /// Closes what is open.
    pub(super) fn close(&mut self, net: &mut Net) {
        for (_, link) in std::mem::take(&mut self.links) {
            self.hang_up(link, net);
        }
        for stream in std::mem::take(&mut self.openings).into_keys() {
            net.close(CLIENT, stream);
        }
    }

    /// Whether things were mended about as often as something broke.
    pub(super) fn check_effort(&self, troubles: usize) -> Result<(), Violation> {
        let Counts { joins, opens, losses, refusals, unopened, .. } = self.counts;
        let loop_of = |what, count, causes| Err(Violation::RepairLoop { what, count, causes });
        if joins > self.reasons {
            return loop_of("joins", joins, self.reasons);
        }
        let causes = losses + refusals + unopened + self.counts.unlinked;
        if causes > MOST_PER_TROUBLE * (troubles + 2) {
            return loop_of("losses", causes, troubles);
        }
        if opens > MOST_HOPS * (losses + refusals + unopened + 1) {
            return loop_of("opens", opens, losses + refusals + unopened);
        }
        Ok(())
    }
}

/// Hops and links lost and servers tried in vain for each thing that goes wrong. A server that is away, or has no room, is
/// tried again and again.
const MOST_PER_TROUBLE: usize = 30;

/// Hops that replace one.
const MOST_HOPS: usize = 12;

/// Whether two inputs name the same server.
fn upstream(node: Node, link: u32) -> Input {
    Input::Upstream { peer: peer_of(node), link }
}
