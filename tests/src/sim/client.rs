//! A simulated client: it drives the real chain over the real route search, as a session does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_client::chain::{Chain, Completed, HopId, Input, LostSpan, Outputs, Work, WorkId};
use swarm_client::route::{self, Candidate, Links};
use swarm_node::admission::Refusal;
use swarm_protocol::PeerId;
use swarm_protocol::session::{SessionId, TokenCount};

use super::message::{Reply, Request};
use super::rows::{Activations, Kv, embed, mix};
use super::scenario::{Scenario, Turn};
use super::world::Violation;

/// How long an answer may take. Servers that do nothing wrong are faster by far.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long a peer is avoided after its first failure; doubled by every further one.
const FIRST_BAN: Duration = Duration::from_millis(100);
/// The longest a peer is avoided.
const LONGEST_BAN: Duration = Duration::from_secs(2);
/// How long to wait where no route is left.
const NO_ROUTE_PAUSE: Duration = Duration::from_millis(200);

/// What a timer reminds of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    /// The hop should be open by now.
    Opening(HopId),
    /// The work should be answered by now.
    Answer(WorkId),
    /// The user changes their mind.
    Regret,
    /// Look for a route again.
    Retry,
}

/// What the client wants done.
#[derive(Debug)]
pub(super) enum Out {
    Send { peer: PeerId, session: SessionId, request: Request },
    Wake { at: Duration, timer: Timer },
}

/// How often things happened, to see that a simulation is worth its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hops given up.
    pub failures: usize,
    /// Hops given up while another one was not yet replaced and fed.
    pub failures_during_repair: usize,
    /// Sessions that a server refused.
    pub refusals: usize,
    /// Answers to work that had been given up.
    pub late_answers: usize,
    /// Work that a server refused since its KV was too short.
    pub fallbacks: usize,
    /// Searches that found no route.
    pub no_route: usize,
}

struct Hop {
    peer: PeerId,
    session: SessionId,
    opened: bool,
}

pub(super) struct Client {
    chain: Chain<Activations>,
    hops: BTreeMap<HopId, Hop>,
    unanswered: BTreeMap<WorkId, HopId>,
    bans: BTreeMap<PeerId, (u32, Duration)>,
    retrying: bool,
    tokens: Vec<u64>,
    /// What a run without faults computes.
    whole: Kv,
    newest: u64,
    turns: VecDeque<Turn>,
    /// Positions whose outputs are still to come.
    awaited: BTreeSet<usize>,
    regret: Option<u32>,
    capacity: TokenCount,
    rng: StdRng,
    out: Vec<Out>,
    pub(super) finished: bool,
    pub(super) counts: Counts,
}

impl Client {
    pub(super) fn new(scenario: &Scenario) -> Result<Self, Violation> {
        let chain = Chain::of_tokens(scenario.model, &[scenario.model], scenario.chain);
        let mut chain = chain.map_err(|error| Violation::Unexpected(error.to_string()))?;
        // The first route is a repair like any other: of one hop that never was.
        let placeholder = chain.hops().next();
        placeholder.map(|(hop, _)| chain.fail(hop));
        Ok(Self {
            chain,
            hops: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            bans: BTreeMap::new(),
            retrying: false,
            tokens: Vec::new(),
            whole: Kv::new(scenario.model),
            newest: scenario.seed,
            turns: scenario.turns.iter().copied().collect(),
            awaited: BTreeSet::new(),
            regret: None,
            capacity: scenario.capacity(),
            rng: StdRng::seed_from_u64(scenario.seed),
            out: Vec::new(),
            finished: false,
            counts: Counts::default(),
        })
    }

    /// Hears from a server.
    pub(super) fn hear(&mut self, session: SessionId, reply: Reply, now: Duration) -> Result<(), Violation> {
        let hop = self.hops.iter().find(|(_, hop)| hop.session == session).map(|(id, _)| *id);
        if let Reply::Answer { work, rows } = reply {
            return self.answer(hop, work, rows, now);
        }
        let Some(hop) = hop else { return Ok(()) };
        match reply {
            Reply::Opened => self.hops.entry(hop).and_modify(|hop| hop.opened = true),
            Reply::Refused(refusal) => return self.refused(hop, &refusal, now),
            Reply::Behind { work, kv } => return self.behind(work, kv),
            Reply::Leaving | Reply::Reset | Reply::Answer { .. } => return self.give_up(hop, now),
        };
        Ok(())
    }

    fn answer(
        &mut self,
        hop: Option<HopId>,
        work: WorkId,
        rows: Option<Activations>,
        now: Duration,
    ) -> Result<(), Violation> {
        self.unanswered.remove(&work);
        match (self.chain.complete(work, rows), hop) {
            (Ok(Completed::Stale), _) => self.counts.late_answers += 1,
            (Ok(_), None) => return Err(Violation::AcceptedLate),
            (Ok(Completed::Output { from, rows }), _) => return self.output(from.as_usize(), &rows.0),
            (Ok(Completed::Advanced), _) => {}
            (Err(_), Some(hop)) => return self.give_up(hop, now),
            (Err(error), None) => return Err(Violation::Unexpected(error.to_string())),
        }
        Ok(())
    }

    fn output(&mut self, from: usize, rows: &[u64]) -> Result<(), Violation> {
        for (position, row) in (from..).zip(rows) {
            if self.whole.output(position) != Some(*row) || !self.awaited.remove(&position) {
                return Err(Violation::WrongOutput { position });
            }
            self.newest = *row;
        }
        Ok(())
    }

    fn behind(&mut self, work: WorkId, kv: TokenCount) -> Result<(), Violation> {
        self.unanswered.remove(&work);
        self.chain.fell_back(work, kv);
        self.counts.fallbacks += 1;
        Ok(())
    }

    fn refused(&mut self, hop: HopId, refusal: &Refusal, now: Duration) -> Result<(), Violation> {
        self.counts.refusals += 1;
        let peer = self.hops.get(&hop).map(|hop| hop.peer);
        self.give_up(hop, now)?;
        // A server without room is not a bad one: it is asked again when it said, and its record stays clean.
        if let (Some(peer), Some(after)) = (peer, refusal.retry_after) {
            self.bans.insert(peer, (0, now + after));
        }
        Ok(())
    }

    fn give_up(&mut self, hop: HopId, now: Duration) -> Result<(), Violation> {
        self.counts.failures += 1;
        let repairing = !self.chain.lost().is_empty() || self.hops.values().any(|hop| !hop.opened);
        self.counts.failures_during_repair += usize::from(repairing);
        let Some(link) = self.hops.remove(&hop).filter(|_| self.chain.fail(hop)) else {
            return Err(Violation::Unexpected(format!("{hop} was lost twice")));
        };
        self.unanswered.retain(|_, of| *of != hop);
        self.out.push(Out::Send { peer: link.peer, session: link.session, request: Request::Close });
        let (failures, _) = self.bans.get(&link.peer).copied().unwrap_or_default();
        let ban = FIRST_BAN.saturating_mul(1 << failures.min(10)).min(LONGEST_BAN);
        self.bans.insert(link.peer, (failures + 1, now + ban));
        Ok(())
    }

    /// A timer went off.
    pub(super) fn wake(&mut self, timer: Timer, now: Duration) -> Result<(), Violation> {
        match timer {
            Timer::Retry => self.retrying = false,
            Timer::Opening(hop) if self.hops.get(&hop).is_some_and(|hop| !hop.opened) => self.give_up(hop, now)?,
            Timer::Answer(work) => {
                if let Some(hop) = self.unanswered.get(&work).copied() {
                    self.give_up(hop, now)?;
                }
            }
            Timer::Regret => self.go_back(),
            Timer::Opening(_) => {}
        }
        Ok(())
    }

    fn go_back(&mut self) {
        let Some(back) = self.regret.take() else { return };
        let length = self.tokens.len().saturating_sub(back as usize);
        self.tokens.truncate(length);
        self.whole.truncate(length);
        self.awaited.retain(|position| *position < length);
        self.chain.truncate(TokenCount(length as u32));
    }

    /// Does all that can be done now; `known` are the servers that the swarm announces.
    pub(super) fn drive(&mut self, known: &[Candidate], now: Duration) -> Result<Vec<Out>, Violation> {
        self.take_turns(now)?;
        if !self.finished {
            self.repair(known, now)?;
            self.send(now);
        }
        Ok(std::mem::take(&mut self.out))
    }

    fn take_turns(&mut self, now: Duration) -> Result<(), Violation> {
        while self.awaited.is_empty() && self.regret.is_none() && !self.finished {
            match self.turns.pop_front() {
                None => {
                    self.finished = self.chain.is_idle();
                    return Ok(());
                }
                Some(Turn::Prompt(tokens)) => self.extend(tokens, Outputs::Last)?,
                Some(Turn::Verify(tokens)) => self.extend(tokens, Outputs::All)?,
                Some(Turn::Decode(tokens)) => {
                    self.extend(1, Outputs::Last)?;
                    self.turns.extend((tokens > 1).then(|| Turn::Decode(tokens - 1)));
                    self.turns.rotate_right(usize::from(tokens > 1));
                }
                Some(Turn::Regret { tokens, after, back }) => {
                    self.extend(tokens, Outputs::Last)?;
                    self.regret = Some(back);
                    self.out.push(Out::Wake { at: now + after, timer: Timer::Regret });
                }
            }
        }
        Ok(())
    }

    /// Every new token follows from the newest output.
    fn extend(&mut self, tokens: u32, outputs: Outputs) -> Result<(), Violation> {
        let from = self.tokens.len();
        self.tokens.extend((0..u64::from(tokens)).map(|number| mix(self.newest, number)));
        self.whole.feed(self.tokens[from..].iter().copied().map(embed).collect());
        let end = self.tokens.len();
        self.awaited.extend(if outputs == Outputs::All { from..end } else { end - 1..end });
        let extended = self.chain.extend_tokens(TokenCount(tokens), outputs);
        extended.map_err(|error| Violation::Unexpected(error.to_string()))
    }

    fn repair(&mut self, known: &[Candidate], now: Duration) -> Result<(), Violation> {
        let banned = |peer| self.bans.get(&peer).is_some_and(|(_, until)| now < *until);
        let usable: Vec<Candidate> = known.iter().filter(|server| !banned(server.peer)).cloned().collect();
        for span in self.chain.lost() {
            match route::find(&usable, span.range, &Links::ViaClient) {
                Ok(route) => self.replace(&span, &route, now)?,
                Err(_) => self.wait_for_a_route(now),
            }
        }
        Ok(())
    }

    fn wait_for_a_route(&mut self, now: Duration) {
        self.counts.no_route += 1;
        if !std::mem::replace(&mut self.retrying, true) {
            self.out.push(Out::Wake { at: now + NO_ROUTE_PAUSE, timer: Timer::Retry });
        }
    }

    fn replace(&mut self, span: &LostSpan, route: &route::Route, now: Duration) -> Result<(), Violation> {
        let blocks: Vec<_> = route.hops.iter().map(|hop| hop.blocks).collect();
        let ids = self.chain.replace(span, &blocks).map_err(|error| Violation::Unexpected(error.to_string()))?;
        for (id, hop) in ids.into_iter().zip(&route.hops) {
            let session = SessionId::random(&mut self.rng);
            self.hops.insert(id, Hop { peer: hop.peer, session, opened: false });
            let request = Request::Open { blocks: hop.blocks, tokens: self.capacity };
            self.out.push(Out::Send { peer: hop.peer, session, request });
            self.out.push(Out::Wake { at: now + DEADLINE, timer: Timer::Opening(id) });
        }
        Ok(())
    }

    fn send(&mut self, now: Duration) {
        while let Some(work) = self.chain.next_work() {
            let rows = self.rows_of(&work);
            let Some(hop) = self.hops.get(&work.hop) else { continue };
            self.unanswered.insert(work.id, work.hop);
            let request = Request::Step { work: work.id, from: work.from, rows, output: work.output };
            self.out.push(Out::Send { peer: hop.peer, session: hop.session, request });
            self.out.push(Out::Wake { at: now + DEADLINE, timer: Timer::Answer(work.id) });
        }
    }

    fn rows_of(&self, work: &Work<Activations>) -> Activations {
        let from = work.from.as_usize();
        match &work.input {
            Input::Rows(rows) => rows.clone(),
            Input::Tokens => {
                let tokens = &self.tokens[from..from + work.rows.as_usize()];
                Activations(tokens.iter().copied().map(embed).collect())
            }
        }
    }

    /// The hops it has.
    pub(super) fn claims(&self) -> impl Iterator<Item = (PeerId, SessionId)> {
        self.hops.values().map(|hop| (hop.peer, hop.session))
    }

    pub(super) fn whole(&self) -> &Kv {
        &self.whole
    }

    /// Closes what is open.
    pub(super) fn close(&mut self) -> Vec<Out> {
        let close = |hop: &Hop| Out::Send { peer: hop.peer, session: hop.session, request: Request::Close };
        let closing = self.hops.values().map(close).collect();
        self.hops.clear();
        closing
    }
}
