//! One session: what its owner says, steps on their way to the compute thread, and frames on their way out.

use std::collections::VecDeque;

use swarm_node::hop::{HopState, Source, Taken};
use swarm_protocol::activations::Rows;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{
    CloseReason, Connect, Input, Lane, Output, SessionReply, SessionRequest, Step, StepError, StepOutput,
};

use super::feed_in::{Early, Feed};
use super::feed_out::FeedOut;
use super::hand_over::{HandingOver, Import};
use super::{Job, MAX_ROWS, STEPS_IN_FLIGHT, Server};
use crate::sim::message::{Payload, shape};
use crate::sim::network::{Net, StreamId};
use crate::sim::rows::{Activations, Kv};
use crate::sim::scenario::Fault;

pub(in crate::sim) struct Session {
    pub(in crate::sim) owner: StreamId,
    pub(in crate::sim) kv: Kv,
    pub(super) blocks: BlockRange,
    pub(super) reserved: TokenCount,
    pub(super) state: HopState<Activations>,
    /// Of the owner's, not read yet.
    pub(super) unread: VecDeque<(SessionRequest, Payload)>,
    /// A step of the owner's that waits.
    held: Option<(Step, Activations)>,
    /// What the compute thread owes.
    pub(super) pending: usize,
    pub(super) feed: Option<Feed>,
    /// Who fed it earlier, on a server that still listens to them.
    pub(super) former: Vec<StreamId>,
    pub(super) import: Option<Import>,
    pub(super) main: Option<FeedOut>,
    pub(super) mirror: Option<FeedOut>,
    pub(super) early: VecDeque<Early>,
    pub(super) handing_over: Option<HandingOver>,
}

impl Session {
    pub(super) fn new(owner: StreamId, blocks: BlockRange, reserved: TokenCount) -> Self {
        Self {
            owner,
            kv: Kv::new(blocks),
            blocks,
            reserved,
            state: HopState::new(MAX_ROWS),
            unread: VecDeque::new(),
            held: None,
            pending: 0,
            feed: None,
            former: Vec::new(),
            import: None,
            main: None,
            mirror: None,
            early: VecDeque::new(),
            handing_over: None,
        }
    }

    /// Every stream it has.
    pub(super) fn streams(&self) -> Vec<StreamId> {
        let outs = [&self.main, &self.mirror].into_iter().flatten().map(|out| out.stream);
        let ins = self.feed.iter().map(|feed| feed.stream).chain(self.import.iter().map(|import| import.stream));
        let others = self.early.iter().map(|early| early.stream);
        let handed = self.handing_over.iter().map(|handing| handing.stream);
        std::iter::once(self.owner)
            .chain(outs)
            .chain(ins)
            .chain(others)
            .chain(handed)
            .chain(self.former.iter().copied())
            .collect()
    }

    pub(super) fn kept_rows(&self, fault: Fault) -> usize {
        self.state.kept_rows() * if fault == Fault::KeepsTooMuch { 2 } else { 1 }
    }

    /// A ping that is read while a step waits: one step more may come before there is no room for it either.
    fn next_ping(&mut self) -> Option<(SessionRequest, Payload)> {
        let read = self.unread.iter().take_while(|(request, _)| !matches!(request, SessionRequest::Step(_)));
        let ping = read.into_iter().position(|(request, _)| matches!(request, SessionRequest::Ping { .. }))?;
        self.unread.remove(ping)
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> &mut Option<FeedOut> {
        match lane {
            Lane::Main => &mut self.main,
            Lane::Mirror => &mut self.mirror,
        }
    }
}

impl Server {
    /// Goes on with a session as far as it goes now.
    pub(super) fn pump(&mut self, id: SessionId, net: &mut Net) {
        while let Some(session) = self.sessions.get_mut(&id) {
            let room = session.pending < STEPS_IN_FLIGHT;
            if room && let Some((step, rows)) = session.held.take() {
                self.start(id, Source::Owner, step, rows, net);
            } else if session.held.is_some()
                && let Some((request, payload)) = session.next_ping()
            {
                self.on_owner(id, request, payload, net);
            } else if session.held.is_none()
                && let Some((request, payload)) = session.unread.pop_front()
            {
                self.on_owner(id, request, payload, net);
            } else if !(room && (self.take_fed(id, net) || self.take_piece(id))) {
                break;
            }
        }
        self.send_frames(id, Lane::Main, net);
        self.send_frames(id, Lane::Mirror, net);
    }

    fn on_owner(&mut self, id: SessionId, request: SessionRequest, payload: Payload, net: &mut Net) {
        self.admission.touch(id, net.now);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match request {
            SessionRequest::Step(step) if session.pending < STEPS_IN_FLIGHT => {
                self.start(id, Source::Owner, step, payload.into_rows(), net);
            }
            SessionRequest::Step(step) => session.held = Some((step, payload.into_rows())),
            SessionRequest::Ping { nonce } => self.on_ping(id, nonce, net),
            SessionRequest::Close => self.end(id, None, net),
            SessionRequest::Accept(input) => self.accept(id, input, net),
            SessionRequest::Connect(connect) => self.connect(id, &connect, net),
            SessionRequest::HandOver(order) => self.begin_hand_over(id, order, net),
            _ => self.end(id, Some(CloseReason::Protocol("not understood".to_string())), net),
        }
    }

    fn on_ping(&mut self, id: SessionId, nonce: u64, net: &mut Net) {
        let Some(session) = self.sessions.get(&id) else { return };
        match self.fault == Fault::DeafWhileComputing && self.current.is_some() {
            true => self.unheard.push((session.owner, nonce)),
            false => self.say(id, SessionReply::Pong { nonce }, net),
        }
    }

    /// A word to the owner.
    pub(super) fn say(&self, id: SessionId, reply: SessionReply, net: &mut Net) {
        if let Some(session) = self.sessions.get(&id) {
            net.say(self.node, session.owner, reply, Payload::None);
        }
    }

    /// Has a step computed, or says why not.
    pub(super) fn start(&mut self, id: SessionId, source: Source, step: Step, rows: Activations, net: &mut Net) {
        let fault = self.fault;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (position, count, reserved) = (step.position as usize, rows.rows(), session.reserved);
        if count > MAX_ROWS {
            return self.not_computed(id, source, &step, StepError::BadRows(format!("{count} rows")), net);
        }
        if position + count > reserved.as_usize() {
            return self.not_computed(id, source, &step, StepError::PastReservation { reserved }, net);
        }
        // A link's number and the epoch each keep stale rows out: with either of them, nothing bad would come of this fault.
        let epoch = if fault == Fault::ListensToOldLinks { u32::MAX } else { step.epoch };
        match session.state.take(source, epoch, position, count) {
            Taken::Gap { have } if fault != Fault::ComputesOverGaps => {
                self.not_computed(id, source, &step, StepError::Gap { have: have as u32 }, net);
            }
            Taken::Stale => {}
            Taken::Compute | Taken::Gap { .. } => {
                session.pending += 1;
                self.jobs.push_back(Job::Step { session: id, source, step, rows, queued: net.now });
            }
        }
    }

    /// Tells whoever sent a step that it was not computed.
    pub(super) fn not_computed(&mut self, id: SessionId, source: Source, step: &Step, error: StepError, net: &mut Net) {
        let Some(session) = self.sessions.get(&id) else { return };
        let failed = SessionReply::Failed { epoch: step.epoch, position: step.position, error };
        let is_gap = matches!(failed, SessionReply::Failed { error: StepError::Gap { .. }, .. });
        match (&session.feed, source) {
            (Some(feed), Source::Link(link)) if feed.link == link && is_gap => {
                self.counts.gaps_between_servers += 1;
                net.say(self.node, feed.stream, failed, Payload::None);
            }
            _ => self.say(id, failed, net),
        }
    }

    /// The owner has named another input.
    fn accept(&mut self, id: SessionId, input: Input, net: &mut Net) {
        let fault = self.fault;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if *session.state.input() == input {
            return;
        }
        let feed = session.feed.take().map(|feed| feed.stream);
        let import = session.import.take().map(|import| import.stream);
        session.state.accept(input);
        let early = std::mem::take(&mut session.early);
        if fault == Fault::ListensToOldLinks {
            session.former.extend(feed);
        } else {
            feed.into_iter().for_each(|stream| self.hang_up(stream, net));
        }
        import.into_iter().for_each(|stream| self.hang_up(stream, net));
        early.into_iter().for_each(|early| self.welcome(id, early, net));
    }

    fn connect(&mut self, id: SessionId, connect: &Connect, net: &mut Net) {
        let node = self.node;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (lane, link) = (connect.lane, connect.link);
        let moves = lane == Lane::Main && session.mirror.as_ref().is_some_and(|mirror| mirror.link == link);
        if let Err(error) = session.state.connect(connect) {
            return self.say(id, SessionReply::Unlinked { link, reason: error.to_string() }, net);
        }
        let out = match &connect.output {
            _ if moves => session.mirror.take(),
            Output::Next(next) => Some(FeedOut::start(node, next, link, net)),
            Output::Nobody | Output::Owner | Output::Relay => None,
        };
        let started = out.as_ref().map(|out| out.stream);
        let former = std::mem::replace(session.lane_mut(lane), out);
        if let Some(stream) = started {
            self.roles.insert(stream, super::Role::FeedOut(id));
        }
        if let Some(former) = former {
            self.hang_up(former.stream, net);
        }
    }

    /// Sends what is due on a lane, as far as there is room for it now.
    pub(super) fn send_frames(&mut self, id: SessionId, lane: Lane, net: &mut Net) {
        let (node, fault, (until, everything)) = (self.node, self.fault, self.swallowing);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if net.now < until && (everything || session.lane_mut(lane).is_some()) {
            return;
        }
        while session.state.has_frame(lane) {
            match session.lane_mut(lane) {
                Some(out) if !out.has_room() => return,
                Some(_) => {
                    let frame = session.state.next_frame(lane);
                    if let Some(out) = session.lane_mut(lane) {
                        out.waiting = frame;
                        out.write(node, net);
                    }
                }
                None => {
                    let Some(frame) = session.state.next_frame(lane) else { return };
                    let epoch = if fault == Fault::ForgetsEpochs { u32::MAX } else { frame.epoch };
                    let rows = shape(frame.rows.rows());
                    let output = StepOutput { link: frame.link, epoch, position: frame.position as u32, rows };
                    net.say(node, session.owner, SessionReply::Output(output), Payload::Rows(frame.rows));
                }
            }
        }
    }
}
