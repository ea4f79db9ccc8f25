//! Finding servers for blocks that have none.

use std::time::Duration;

use swarm_client::chain::LostSpan;
use swarm_client::route::{self, Candidate, Route};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{Open, Refusal, SessionReply, SessionRequest};

use super::Client;
use super::link::{Arrival, Link};
use crate::sim::message::{Message, Payload, class, node_of};
use crate::sim::network::{CLIENT, Net, StreamId, Timer};
use crate::sim::report::Violation;
use crate::sim::world::Known;

/// The pause before servers are looked for again; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a server may take to open a session.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A repair under way.
pub(super) enum Repair {
    /// The hops of a route are being opened.
    Opening(LostSpan, Vec<(PeerId, BlockRange, StreamId)>),
    /// There was no route.
    Pausing(Duration),
}

/// What came of opening a session on a server.
#[derive(Debug)]
pub(super) enum Outcome {
    Opened { rows: u32, steps: u32, took: Duration },
    Refused(Refusal),
    Failed,
}

/// A session that is being opened.
pub(super) struct Opening {
    pub(super) peer: PeerId,
    session: SessionId,
    asked: Duration,
    pub(super) outcome: Option<Outcome>,
    /// What came after it was opened.
    unread: Vec<Message>,
}

impl Client {
    /// The cheapest route over servers that may be asked now.
    pub(super) fn plan(
        &self,
        range: BlockRange,
        avoid: &[PeerId],
        known: &Known,
        net: &Net,
    ) -> Result<Option<Route>, Violation> {
        let full = |peer: PeerId| self.full.get(&peer).is_some_and(|until| net.now < *until);
        let usable = |server: &Candidate| {
            !self.is_banned(server.peer, net.now) && !full(server.peer) && !avoid.contains(&server.peer)
        };
        let candidates: Vec<Candidate> = known.candidates(net).into_iter().filter(usable).collect();
        let Ok(route) = route::find(&candidates, range, &known.links(net)) else { return Ok(None) };
        match route.hops.iter().find(|hop| self.is_banned(hop.peer, net.now)) {
            Some(hop) => Err(Violation::ThroughTheDead { peer: hop.peer }),
            None => Ok(Some(route)),
        }
    }

    pub(super) fn open(&mut self, peer: PeerId, blocks: BlockRange, net: &mut Net) -> Result<StreamId, Violation> {
        let session = SessionId::random(&mut self.rng);
        let class = class().ok_or_else(|| Violation::Unexpected("no class".to_string()))?;
        let stream = net.open(CLIENT, node_of(peer));
        let tokens = TokenCount(self.capacity.0.max(1));
        let open = Open { session, model: ModelId([0; 32]), class, blocks, tokens };
        net.ask(CLIENT, stream, SessionRequest::Open(open), Payload::None);
        net.timer(CLIENT, net.now + OPEN_TIMEOUT, Timer::Opened(stream));
        self.openings.insert(stream, Opening { peer, session, asked: net.now, outcome: None, unread: Vec::new() });
        Ok(stream)
    }

    pub(super) fn on_opening(&mut self, stream: StreamId, message: Message, net: &mut Net) {
        let Some(opening) = self.openings.get_mut(&stream) else { return };
        if opening.outcome.is_some() {
            return opening.unread.push(message);
        }
        let took = net.now.saturating_sub(opening.asked);
        opening.outcome = Some(match message {
            Message::Reply(SessionReply::Opened { max_step_rows: rows, max_steps: steps, .. }, _) => {
                Outcome::Opened { rows, steps, took }
            }
            Message::Reply(SessionReply::Refused(refusal), _) => Outcome::Refused(refusal),
            _ => Outcome::Failed,
        });
    }

    pub(super) fn on_opening_late(&mut self, stream: StreamId, net: &mut Net) {
        if let Some(opening) = self.openings.get_mut(&stream).filter(|opening| opening.outcome.is_none()) {
            opening.outcome = Some(Outcome::Failed);
            net.close(CLIENT, stream);
        }
    }

    /// What came of it; the server's record follows from that.
    pub(super) fn take_opening(&mut self, stream: StreamId, net: &mut Net) -> Option<(Link, Vec<Message>, usize)> {
        let opening = self.openings.remove(&stream)?;
        match opening.outcome {
            Some(Outcome::Opened { rows, steps, took }) => {
                let node = node_of(opening.peer);
                let mut link = Link::new(opening.peer, node, stream, opening.session, rows, net.now);
                link.liveness.observe(took);
                return Some((link, opening.unread, steps as usize));
            }
            Some(Outcome::Refused(refusal)) => self.on_refused(opening.peer, &refusal, net),
            Some(Outcome::Failed) | None => {
                self.counts.unopened += 1;
                self.ban(opening.peer, net);
            }
        }
        net.close(CLIENT, stream);
        None
    }

    fn on_refused(&mut self, peer: PeerId, refusal: &Refusal, net: &Net) {
        self.counts.refusals += 1;
        match refusal.retry_after_ms() {
            // A server without room is not a bad one: it is asked again when it said, and its record stays clean.
            Some(after) => {
                self.full.insert(peer, net.now + Duration::from_millis(after));
            }
            None if *refusal == Refusal::Leaving => {
                self.bans.insert(peer, (0, net.now + super::LEAVING_BAN));
            }
            None => self.ban(peer, net),
        }
    }

    /// Puts an opened server at the other end of a hop.
    pub(super) fn put(&mut self, hop: swarm_client::chain::HopId, link: Link, unread: Vec<Message>, net: &Net) {
        self.streams.insert(link.stream, hop);
        self.links.insert(hop, link);
        let at = net.now;
        self.inbox.extend(unread.into_iter().map(|message| Arrival { hop, message, at }));
    }

    /// Replaces what is lost; `false` while that takes its time.
    pub(super) fn mend(&mut self, known: &Known, net: &mut Net) -> Result<bool, Violation> {
        let mut pause = FIRST_PAUSE;
        let mending = self.repair.is_some();
        loop {
            match self.repair.take() {
                Some(Repair::Pausing(until)) if net.now < until => {
                    self.repair = Some(Repair::Pausing(until));
                    return Ok(false);
                }
                Some(Repair::Pausing(_)) => pause = LONGEST_PAUSE,
                Some(Repair::Opening(span, hops)) if !self.are_opened(&hops) => {
                    self.repair = Some(Repair::Opening(span, hops));
                    return Ok(false);
                }
                Some(Repair::Opening(span, hops)) => self.replace(&span, &hops, net)?,
                None => {}
            }
            self.catch_up(known, net)?;
            let Some(span) = self.chain.lost().into_iter().next() else {
                if mending {
                    // Nobody was watched meanwhile, nor told what to do.
                    self.links.values_mut().for_each(|link| link.progressed = net.now);
                }
                return Ok(true);
            };
            self.repair = Some(match self.plan(span.range, &[], known, net)? {
                Some(route) => {
                    let mut hops = Vec::new();
                    for hop in route.hops {
                        self.counts.opens += 1;
                        hops.push((hop.peer, hop.blocks, self.open(hop.peer, hop.blocks, net)?));
                    }
                    Repair::Opening(span, hops)
                }
                None => {
                    self.counts.no_route += 1;
                    net.timer(CLIENT, net.now + pause, Timer::Look);
                    Repair::Pausing(net.now + pause)
                }
            });
        }
    }

    fn are_opened(&self, hops: &[(PeerId, BlockRange, StreamId)]) -> bool {
        let outcome = |stream| self.openings.get(stream).and_then(|opening| opening.outcome.as_ref());
        hops.iter().all(|(_, _, stream)| outcome(stream).is_some())
    }

    /// Puts the hops into the chain: those that did not open are lost again at once.
    fn replace(
        &mut self,
        span: &LostSpan,
        hops: &[(PeerId, BlockRange, StreamId)],
        net: &mut Net,
    ) -> Result<(), Violation> {
        let blocks: Vec<_> = hops.iter().map(|(_, blocks, _)| *blocks).collect();
        let ids = self.chain.replace(span, &blocks).map_err(|error| Violation::Unexpected(error.to_string()))?;
        // Each is joined to what follows, what is before to the first; and to what is kept beside them.
        self.reasons += 2 * (hops.len() + 1);
        for (hop, (_, _, stream)) in ids.into_iter().zip(hops) {
            match self.take_opening(*stream, net) {
                Some((link, unread, steps)) => {
                    self.chain.narrow(link.max_step_rows, steps);
                    self.put(hop, link, unread, net);
                }
                None => {
                    self.chain.fail(hop);
                }
            }
        }
        Ok(())
    }

    /// The user wants something else: what was being opened is let go of.
    pub(super) fn drop_repair(&mut self, net: &mut Net) {
        if let Some(Repair::Opening(_, hops)) = self.repair.take() {
            for (_, _, stream) in hops {
                self.openings.remove(&stream);
                net.close(CLIENT, stream);
            }
        }
    }
}
