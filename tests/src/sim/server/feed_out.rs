//! Feeding the next hop.

use std::collections::VecDeque;
use std::time::Duration;

use swarm_node::hop::Frame;
use swarm_protocol::activations::Rows;
use swarm_protocol::liveness::Liveness;
use swarm_protocol::session::SessionId;
use swarm_protocol::wire::{Connect, Lane, Next, Output, SessionReply, SessionRequest, Step, StepError};

use super::{Server, incoming};
use crate::sim::message::{Payload, ROW_BYTES, node_of, shape};
use crate::sim::network::{Net, Node, StreamId, Timer};
use crate::sim::rows::Activations;

/// How long the next hop may take to be dialled and to say that it expects this server.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows sent first over a link that has nothing to carry yet.
const WARM_ROWS: usize = 4;

/// A frame that the next hop has not received yet.
struct Sent {
    end: usize,
    bytes: usize,
    at: Duration,
}

pub(super) struct FeedOut {
    pub(super) link: u32,
    pub(super) stream: StreamId,
    /// The next frame.
    pub(super) waiting: Option<Frame<Activations>>,
    expected: bool,
    /// A frame is on its way out.
    writing: bool,
    under_way: VecDeque<Sent>,
    heard: Duration,
    liveness: Liveness,
    /// A timer runs that watches the other end.
    watched: bool,
}

impl FeedOut {
    pub(super) fn start(node: Node, next: &Next, link: u32, net: &mut Net) -> Self {
        let stream = net.open(node, node_of(next.peer));
        net.ask(node, stream, SessionRequest::Feed(incoming(next, link)), Payload::None);
        net.timer(node, net.now + OPENING_TIMEOUT, Timer::Opening(stream));
        Self {
            link,
            stream,
            waiting: None,
            expected: false,
            writing: false,
            under_way: VecDeque::new(),
            heard: net.now,
            liveness: Liveness::new(),
            watched: false,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_none()
    }

    /// Writes what waits, if the link is free.
    pub(super) fn write(&mut self, node: Node, net: &mut Net) {
        if !self.expected || self.writing {
            return;
        }
        let Some(frame) = self.waiting.take() else { return };
        let rows = frame.rows.rows();
        let end = frame.position + rows;
        self.under_way.push_back(Sent { end, bytes: rows * ROW_BYTES, at: net.now });
        let (position, wanted_from) = (frame.position as u32, frame.wanted_from as u32);
        let step = Step { epoch: frame.epoch, position, rows: shape(rows), wanted_from };
        let leaves = net.ask(node, self.stream, SessionRequest::Step(step), Payload::Rows(frame.rows));
        self.writing = true;
        net.timer(node, leaves, Timer::Written(self.stream));
        self.watch(node, net);
    }

    fn deadline(&self) -> Option<Duration> {
        let bytes = self.under_way.iter().map(|sent| sent.bytes).sum();
        self.under_way.front().map(|oldest| self.heard.max(oldest.at) + self.liveness.deadline(bytes))
    }

    fn watch(&mut self, node: Node, net: &mut Net) {
        if let Some(deadline) = self.deadline().filter(|_| !self.watched) {
            self.watched = true;
            net.timer(node, deadline, Timer::Watch(self.stream));
        }
    }

    fn received(&mut self, position: usize) {
        while self.under_way.front().is_some_and(|sent| sent.end <= position) {
            let Some(sent) = self.under_way.pop_front() else { return };
            let took = self.heard.saturating_sub(sent.at);
            self.liveness.observe(took);
            self.liveness.observe_transfer(sent.bytes, took);
        }
    }
}

impl Server {
    /// The link of that stream, and its session.
    fn out_of(&mut self, stream: StreamId) -> Option<(SessionId, &mut FeedOut)> {
        let all = self.sessions.iter_mut().flat_map(|(id, session)| {
            [&mut session.main, &mut session.mirror].into_iter().flatten().map(|out| (*id, out))
        });
        all.into_iter().find(|(_, out)| out.stream == stream)
    }

    pub(super) fn on_written(&mut self, stream: StreamId, net: &mut Net) {
        let node = self.node;
        if let Some((_, out)) = self.out_of(stream) {
            out.writing = false;
            out.write(node, net);
        }
    }

    pub(super) fn on_opening_late(&mut self, stream: StreamId, net: &mut Net) {
        if let Some((id, out)) = self.out_of(stream)
            && !out.expected
        {
            self.on_link_down(id, stream, "it did not answer in time", net);
        }
    }

    pub(super) fn on_watch(&mut self, stream: StreamId, net: &mut Net) {
        let node = self.node;
        let Some((id, out)) = self.out_of(stream) else { return };
        out.watched = false;
        if out.deadline().is_some_and(|deadline| net.now >= deadline) {
            return self.on_link_down(id, stream, "silent", net);
        }
        out.watch(node, net);
    }

    pub(super) fn on_link_reply(&mut self, id: SessionId, stream: StreamId, reply: SessionReply, net: &mut Net) {
        let node = self.node;
        let Some((_, out)) = self.out_of(stream) else { return };
        out.heard = net.now;
        match reply {
            SessionReply::Expected => {
                out.expected = true;
                if out.waiting.is_none() {
                    net.ask(node, stream, SessionRequest::Warm(shape(WARM_ROWS)), Payload::None);
                }
                out.write(node, net);
            }
            SessionReply::Received { position } => out.received(position as usize),
            SessionReply::Failed { error: StepError::Gap { have }, .. } => {
                out.under_way.clear();
                let link = out.link;
                let Some(session) = self.sessions.get_mut(&id) else { return };
                if session.state.fell_back(link, have as usize).is_err() {
                    self.on_link_down(id, stream, "not kept", net);
                }
            }
            SessionReply::Refused(_) => self.on_link_down(id, stream, "refused", net),
            _ => self.on_link_down(id, stream, "it broke the protocol", net),
        }
    }

    pub(super) fn on_link_down(&mut self, id: SessionId, stream: StreamId, reason: &str, net: &mut Net) {
        self.roles.remove(&stream);
        net.close(self.node, stream);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for lane in [Lane::Main, Lane::Mirror] {
            let Some(out) = session.lane_mut(lane).take_if(|out| out.stream == stream) else { continue };
            let nobody = Connect { lane, link: out.link, output: Output::Nobody, position: 0 };
            // Nobody can always be sent to.
            let _ = session.state.connect(&nobody);
            return self.say(id, SessionReply::Unlinked { link: out.link, reason: reason.to_string() }, net);
        }
    }
}
