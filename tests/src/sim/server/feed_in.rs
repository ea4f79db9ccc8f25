//! Another server feeds a session.

use std::collections::VecDeque;
use std::time::Duration;

use swarm_node::hop::{Source, Welcome};
use swarm_protocol::activations::Rows;
use swarm_protocol::session::SessionId;
use swarm_protocol::wire::{Incoming, Input, SessionReply, Step};

use super::hand_over::Import;
use super::{Role, Server};
use crate::sim::message::{Payload, peer_of};
use crate::sim::network::{Net, StreamId, Timer};
use crate::sim::rows::Activations;

/// How long a server may wait for the owner's word that it is expected.
pub(super) const EXPECTED_WITHIN: Duration = Duration::from_secs(10);

/// How often a sender is told that this server lives, while its step waits for its turn.
const STILL_HERE: Duration = Duration::from_millis(250);

/// Servers that may wait for the owner's word about them.
const MOST_EARLY: usize = 4;

/// Steps that are taken from the stream before one is computed: one waits for room, one has it.
const TAKEN: usize = 2;

/// The server that feeds a session, as the session knows it.
pub(super) struct Feed {
    pub(super) link: u32,
    pub(super) stream: StreamId,
}

/// The stream over which it does.
pub(super) struct FeedIn {
    pub(super) session: SessionId,
    pub(super) unread: VecDeque<(Step, Activations)>,
    taken: VecDeque<(Step, Activations)>,
    received: u32,
    /// A timer runs that tells the sender that this server lives.
    telling: bool,
}

/// Who came before its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Early {
    pub(super) stream: StreamId,
    pub(super) link: u32,
    /// Whether it comes to hand its KV cache over.
    pub(super) imports: bool,
}

impl Server {
    pub(super) fn on_feeder(&mut self, stream: StreamId, incoming: Incoming, net: &mut Net) {
        self.on_visit(incoming.session, Early { stream, link: incoming.link, imports: false }, net);
    }

    pub(super) fn on_visit(&mut self, id: SessionId, visitor: Early, net: &mut Net) {
        if !self.sessions.contains_key(&id) {
            return self.refuse(visitor.stream, net);
        }
        net.timer(self.node, net.now + EXPECTED_WITHIN, Timer::Expected(visitor.stream));
        self.welcome(id, visitor, net);
    }

    pub(super) fn welcome(&mut self, id: SessionId, visitor: Early, net: &mut Net) {
        let Early { stream, link, imports } = visitor;
        let peer = peer_of(net.ends(stream)[0]);
        let Some(session) = self.sessions.get_mut(&id).filter(|_| net.has(self.node, stream)) else { return };
        let welcome = if imports { session.state.importer(peer, link) } else { session.state.feeder(peer, link) };
        let former = match welcome {
            Welcome::Never => return self.refuse(stream, net),
            Welcome::Later => {
                session.early.push_back(visitor);
                let most = session.early.len() > MOST_EARLY;
                most.then(|| session.early.pop_front()).flatten().map(|early| early.stream)
            }
            Welcome::Now if imports => session.import.replace(Import::new(stream)).map(|import| import.stream),
            Welcome::Now => session.feed.replace(Feed { link, stream }).map(|feed| feed.stream),
        };
        match (welcome, former) {
            (Welcome::Later, Some(former)) => self.refuse(former, net),
            (_, Some(former)) => self.hang_up(former, net),
            (_, None) => {}
        }
        if welcome == Welcome::Now {
            self.roles.insert(stream, if imports { Role::import_in(id) } else { Role::feed_in(id) });
            net.say(self.node, stream, SessionReply::Expected, Payload::None);
        }
    }

    /// It has waited long enough.
    pub(super) fn on_not_expected(&mut self, stream: StreamId, net: &mut Net) {
        if matches!(self.roles.get(&stream), Some(Role::Fresh)) && net.has(self.node, stream) {
            self.sessions.values_mut().for_each(|session| {
                session.early.retain(|early| early.stream != stream);
            });
            self.refuse(stream, net);
        }
    }

    pub(super) fn on_feeder_gone(&mut self, stream: StreamId, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.feed.take_if(|feed| feed.stream == stream);
            session.former.retain(|former| *former != stream);
        }
    }

    /// Takes steps from the stream, as far as there is room for them.
    pub(super) fn read_feed(&mut self, stream: StreamId, net: &mut Net) {
        let node = self.node;
        let Some(Role::FeedIn(feed)) = self.roles.get_mut(&stream) else { return };
        while feed.taken.len() < TAKEN
            && let Some((step, rows)) = feed.unread.pop_front()
        {
            feed.received = step.position + rows.rows() as u32;
            feed.taken.push_back((step, rows));
            net.say(node, stream, SessionReply::Received { position: feed.received }, Payload::None);
        }
        if feed.taken.len() == TAKEN && !std::mem::replace(&mut feed.telling, true) {
            net.timer(node, net.now + STILL_HERE, Timer::StillHere(stream));
        }
    }

    pub(super) fn on_still_here(&mut self, stream: StreamId, net: &mut Net) {
        let Some(Role::FeedIn(feed)) = self.roles.get_mut(&stream) else { return };
        feed.telling = false;
        if feed.taken.len() == TAKEN {
            net.say(self.node, stream, SessionReply::Received { position: feed.received }, Payload::None);
            feed.telling = true;
            net.timer(self.node, net.now + STILL_HERE, Timer::StillHere(stream));
        }
    }

    /// Starts the next step of whoever feeds the session; `false` if there is none.
    pub(super) fn take_fed(&mut self, id: SessionId, net: &mut Net) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let link = match session.state.input() {
            Input::Upstream { link, .. } => *link,
            _ => 0,
        };
        let current = session.feed.as_ref().map(|feed| (feed.stream, feed.link));
        let streams: Vec<_> = current.into_iter().chain(session.former.iter().map(|stream| (*stream, link))).collect();
        for (stream, link) in streams {
            let Some(Role::FeedIn(feed)) = self.roles.get_mut(&stream) else { continue };
            if let Some((step, rows)) = feed.taken.pop_front() {
                self.admission.touch(id, net.now);
                self.start(id, Source::Link(link), step, rows, net);
                self.read_feed(stream, net);
                return true;
            }
        }
        false
    }
}

impl Role {
    fn feed_in(session: SessionId) -> Self {
        let (unread, taken) = Default::default();
        Self::FeedIn(FeedIn { session, unread, taken, received: 0, telling: false })
    }
}
