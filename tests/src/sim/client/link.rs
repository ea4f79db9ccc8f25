//! One hop's stream, and telling silent hops from slow ones.

use std::time::Duration;

use swarm_client::chain::{HopId, Late};
use swarm_protocol::PeerId;
use swarm_protocol::liveness::{Liveness, progress_deadline};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{Next, SessionRequest};

use super::{CHECK_INTERVAL, Client};
use crate::sim::message::{Message, Payload, ROW_BYTES};
use crate::sim::network::{CLIENT, Net, Node, StreamId, Timer};
use crate::sim::report::Violation;
use crate::sim::world::Known;

/// The longest a step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// By how much longer chunks of a prompt take than what was measured last.
const LONGEST_STEP: u32 = 64;

/// How late a hop may be against its standby.
const LATER_THAN_STANDBY: Duration = Duration::from_millis(200);

/// The same in steps of its own.
const STEPS_LATER_THAN_STANDBY: u32 = 4;

/// What a hop said, and when it arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) hop: HopId,
    pub(super) message: Message,
    pub(super) at: Duration,
}

pub(super) struct Link {
    pub(super) peer: PeerId,
    pub(super) node: Node,
    pub(super) stream: StreamId,
    pub(super) session: SessionId,
    pub(super) max_step_rows: TokenCount,
    pub(super) heard: Duration,
    pub(super) liveness: Liveness,
    pub(super) pinged: Option<(u64, Duration)>,
    pings: u64,
    pub(super) last_step: Duration,
    pub(super) progressed: Duration,
    /// Who feeds it, and whether through the client.
    pub(super) fed_by: Option<(HopId, bool)>,
    /// It has said that it will be gone soon.
    pub(super) leaving: bool,
}

impl Link {
    pub(super) fn new(
        peer: PeerId,
        node: Node,
        stream: StreamId,
        session: SessionId,
        rows: u32,
        now: Duration,
    ) -> Self {
        Self {
            peer,
            node,
            stream,
            session,
            max_step_rows: TokenCount(rows.max(1)),
            heard: now,
            liveness: Liveness::new(),
            pinged: None,
            pings: 0,
            last_step: Duration::ZERO,
            progressed: now,
            fed_by: None,
            leaving: false,
        }
    }

    /// The hop as another one is told of it.
    pub(super) fn as_next(&self, chunk: TokenCount) -> Next {
        let max_rows = self.max_step_rows.min(chunk).0;
        Next { peer: self.peer, addresses: Vec::new(), session: self.session, max_rows }
    }

    fn ping(&mut self, net: &mut Net) {
        if self.pinged.is_none() {
            self.pings += 1;
            self.pinged = Some((self.pings, net.now));
            net.ask(CLIENT, self.stream, SessionRequest::Ping { nonce: self.pings }, Payload::None);
        }
    }

    pub(super) fn ponged(&mut self, nonce: u64, at: Duration) {
        if let Some((_, asked)) = self.pinged.take_if(|(pinged, _)| *pinged == nonce) {
            self.liveness.observe(at.saturating_sub(asked));
        }
    }

    fn silent_for(&self, now: Duration) -> Duration {
        self.pinged.map_or(Duration::ZERO, |(_, asked)| now.saturating_sub(asked.max(self.heard)))
    }
}

impl Client {
    /// Nobody was watched while nothing was asked for.
    pub(super) fn begin_watching(&mut self, net: &mut Net) {
        self.links.values_mut().for_each(|link| link.progressed = net.now);
        self.check_later(net);
    }

    fn check_later(&mut self, net: &mut Net) {
        self.check = (self.check.0 + 1, net.now + CHECK_INTERVAL);
        net.timer(CLIENT, self.check.1, Timer::Check(self.check.0));
    }

    /// Gives up the hops that are silent or stuck, and asks the others whether they live.
    pub(super) fn check(&mut self, known: &Known, net: &mut Net) -> Result<(), Violation> {
        if self.repair.is_some() || self.embedding.is_some() {
            // It is made up for afterwards.
            return Ok(());
        }
        self.catch_up(known, net)?;
        let (now, waited_for) = (net.now, self.chain.waited_for());
        let (mut gone, mut late) = (Vec::new(), Vec::new());
        for (hop, link) in &mut self.links {
            if waited_for != Some(*hop) {
                link.progressed = now;
            }
            let under_way = self.chain.unanswered_rows(*hop) * ROW_BYTES;
            let awaited = self.chain.awaited_rows(*hop) * ROW_BYTES;
            let silent = link.silent_for(now);
            let stuck = now.saturating_sub(link.progressed);
            let patience = progress_deadline(link.last_step * LONGEST_STEP).min(STEP_TIMEOUT);
            let deadline = link.liveness.deadline(under_way);
            if silent > deadline {
                self.counts.silences += 1;
                gone.push((*hop, "silent"));
            } else if stuck > patience + link.liveness.deadline(under_way + awaited).saturating_sub(silent) {
                late.push(*hop);
            } else {
                link.ping(net);
            }
        }
        for (hop, reason) in gone {
            self.accuse(hop, reason, known, net)?;
        }
        for hop in late {
            match self.chain.late(hop) {
                Late::Stale => {}
                Late::Detour => {
                    self.counts.detours += 1;
                    self.reasons += 1;
                }
                Late::GiveUp(culprit) if culprit == hop => {
                    self.counts.stuck += 1;
                    self.accuse(hop, "no answer to a step", known, net)?;
                }
                Late::GiveUp(before) => {
                    self.counts.swallowers += 1;
                    self.accuse(before, "nothing came of what it has computed", known, net)?;
                }
            }
        }
        self.hedge(net);
        self.check_later(net);
        Ok(())
    }

    /// Gives a hop up for what only a server in trouble does.
    fn accuse(&mut self, hop: HopId, reason: &str, known: &Known, net: &mut Net) -> Result<(), Violation> {
        if let Some(link) = self.links.get(&hop) {
            known.accuse(link.peer, reason)?;
        }
        self.lose(hop, reason, net);
        Ok(())
    }

    /// Takes the standby of a hop that everybody waits for, if it has computed what the hop has not.
    fn hedge(&mut self, net: &mut Net) {
        let Some(hop) = self.chain.waited_for().filter(|hop| self.chain.shadow_is_ahead(*hop)) else { return };
        let Some(link) = self.links.get(&hop) else { return };
        let late = net.now.saturating_sub(link.progressed);
        if late > LATER_THAN_STANDBY.max(link.last_step * STEPS_LATER_THAN_STANDBY) {
            self.counts.hedged += 1;
            self.give_up(hop, "its standby is faster", net);
        }
    }
}
