//! A simulated server: real admission, real hops, KV caches of hashes, and a compute thread that takes its time.
//! It does what `node::serve::session` does; see there for the reasons.

mod compute;
mod feed_in;
mod feed_out;
mod hand_over;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use swarm_node::admission::{self, Admission, AdmissionConfig};
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{CloseReason, Incoming, Open, Refusal, SessionReply, SessionRequest};

use self::compute::Job;
use self::feed_in::FeedIn;
use self::hand_over::ImportIn;
use self::session::Session;
use super::message::{Message, Payload, peer_of};
use super::network::{Happening, Net, Node, StreamId, Timer};
use super::report::{Counts, Violation};
use super::scenario::{Fault, ServerSpec};

/// How long a session may be silent.
const IDLE: Duration = Duration::from_secs(20);

/// The most steps a session has under way.
pub(super) const STEPS_IN_FLIGHT: usize = 4;

/// The most rows of one step; chains cut off fewer.
pub(super) const MAX_ROWS: usize = 7;

/// What a stream is for.
enum Role {
    /// Nothing was said yet.
    Fresh,
    Owner(SessionId),
    FeedIn(FeedIn),
    ImportIn(ImportIn),
    FeedOut(SessionId),
    Export(SessionId),
}

pub(super) struct Server {
    pub(super) node: Node,
    pub(super) blocks: BlockRange,
    pub(super) spec: ServerSpec,
    pub(super) admission: Admission,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    roles: BTreeMap<StreamId, Role>,
    jobs: VecDeque<Job>,
    /// The job that is being done.
    current: Option<Job>,
    /// Pings of a server that does not answer while it computes.
    unheard: Vec<(StreamId, u64)>,
    pub(super) up: bool,
    /// Whether its machine says that the process is gone.
    pub(super) resets: bool,
    pub(super) leaving: bool,
    /// It will never be back.
    pub(super) gone: bool,
    /// It does nothing until then.
    pub(super) stalled_until: Option<Duration>,
    /// What waits for it meanwhile.
    pub(super) inbox: Vec<Happening>,
    slow: (u32, Duration),
    /// It passes nothing on until then; to the client neither, or only to other servers.
    swallowing: (Duration, bool),
    /// Anything but slowness has happened to it, or to a way to it.
    pub(super) troubled: bool,
    /// It has lost KV: what it then says of steps that were queued may come out of order.
    pub(super) forgetful: bool,
    fault: Fault,
    pub(super) counts: Counts,
}

impl Server {
    pub(super) fn new(node: Node, blocks: BlockRange, spec: ServerSpec, fault: Fault) -> Self {
        Self {
            node,
            blocks,
            spec,
            admission: empty(spec.budget),
            sessions: BTreeMap::new(),
            roles: BTreeMap::new(),
            jobs: VecDeque::new(),
            current: None,
            unheard: Vec::new(),
            up: true,
            resets: true,
            leaving: false,
            gone: false,
            stalled_until: None,
            inbox: Vec::new(),
            slow: (1, Duration::ZERO),
            swallowing: (Duration::ZERO, false),
            troubled: false,
            forgetful: false,
            fault,
            counts: Counts::default(),
        }
    }

    /// The process dies, and with it all it knew.
    pub(super) fn crash(&mut self) {
        let (node, blocks, spec, fault, counts) = (self.node, self.blocks, self.spec, self.fault, self.counts);
        *self = Self { up: false, troubled: true, counts, ..Self::new(node, blocks, spec, fault) };
    }

    pub(super) fn slow_down(&mut self, factor: u32, until: Duration) {
        self.slow = (factor, until);
    }

    pub(super) fn swallow(&mut self, until: Duration, everything: bool) {
        (self.troubled, self.swallowing) = (true, (until, everything));
    }

    /// Every KV cache loses what lies beyond `keep`.
    pub(super) fn forget(&mut self, keep: usize) {
        (self.troubled, self.forgetful) = (true, true);
        self.sessions.values_mut().for_each(|session| session.kv.truncate(keep));
    }

    /// The server will be gone soon, and says so.
    pub(super) fn leave(&mut self, within: Duration, net: &mut Net) {
        self.leaving = true;
        self.admission.leave();
        for session in self.sessions.values() {
            let within_ms = within.as_millis() as u64;
            net.say(self.node, session.owner, SessionReply::Leaving { within_ms }, Payload::None);
        }
        net.timer(self.node, net.now + within, Timer::Farewell);
    }

    /// Ends every session, saying why.
    pub(super) fn say_farewell(&mut self, net: &mut Net) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.end(session, Some(CloseReason::Left), net));
    }

    pub(super) fn hear(&mut self, stream: StreamId, message: Message, net: &mut Net) {
        match message {
            Message::Request(request, payload) => self.on_request(stream, request, payload, net),
            Message::Reply(reply, payload) => self.on_reply(stream, reply, payload, net),
            Message::End | Message::Broken => self.on_end(stream, net),
        }
        self.go_on(net);
    }

    pub(super) fn wake(&mut self, timer: Timer, net: &mut Net) {
        match timer {
            Timer::JobDone => self.on_job_done(net),
            Timer::Sweep => self.sweep(net),
            Timer::Opening(stream) => self.on_opening_late(stream, net),
            Timer::Written(stream) => self.on_written(stream, net),
            Timer::Watch(stream) => self.on_watch(stream, net),
            Timer::Expected(stream) => self.on_not_expected(stream, net),
            Timer::StillHere(stream) => self.on_still_here(stream, net),
            Timer::Piece(stream, stored) => self.on_piece_late(stream, stored, net),
            _ => {}
        }
        self.go_on(net);
    }

    /// Does what has become possible.
    fn go_on(&mut self, net: &mut Net) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.pump(session, net));
        self.work(net);
    }

    fn on_request(&mut self, stream: StreamId, request: SessionRequest, payload: Payload, net: &mut Net) {
        match (self.roles.entry(stream).or_insert(Role::Fresh), request) {
            (Role::Fresh, SessionRequest::Open(open)) => self.open(stream, &open, net),
            (Role::Fresh, SessionRequest::Feed(incoming)) => self.on_feeder(stream, incoming, net),
            (Role::Fresh, SessionRequest::Import(incoming)) => self.on_importer(stream, incoming, net),
            (Role::Owner(session), request) => {
                let session = *session;
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.unread.push_back((request, payload));
                }
            }
            (Role::FeedIn(feed), SessionRequest::Step(step)) => {
                feed.unread.push_back((step, payload.into_rows()));
                self.read_feed(stream, net);
            }
            (Role::ImportIn(import), SessionRequest::Kv(header)) => {
                let session = import.session;
                self.on_piece(stream, session, header, payload);
            }
            _ => {}
        }
    }

    fn on_reply(&mut self, stream: StreamId, reply: SessionReply, _: Payload, net: &mut Net) {
        match self.roles.get(&stream) {
            Some(Role::FeedOut(session)) => self.on_link_reply(*session, stream, reply, net),
            Some(Role::Export(session)) => self.on_export_reply(*session, stream, reply, net),
            _ => {}
        }
    }

    fn on_end(&mut self, stream: StreamId, net: &mut Net) {
        match self.roles.remove(&stream) {
            Some(Role::Owner(session)) => self.end(session, None, net),
            Some(Role::FeedIn(feed)) => self.on_feeder_gone(stream, feed.session),
            Some(Role::ImportIn(import)) => self.on_importer_gone(stream, import.session),
            Some(Role::FeedOut(session)) => self.on_link_down(session, stream, "it ended the stream", net),
            Some(Role::Export(session)) => self.on_export_over(session, stream, Some("it ended the stream"), net),
            Some(Role::Fresh) | None => {}
        }
    }

    fn open(&mut self, stream: StreamId, open: &Open, net: &mut Net) {
        let hosted = self.blocks.covers(open.blocks);
        let admitted = if hosted {
            let owner = peer_of(net.ends(stream)[0]);
            self.admission.open(open.session, owner, open.tokens, net.now).map_err(|refusal| on_the_wire(&refusal))
        } else {
            Err(Refusal::NotHosted { hosted: self.blocks })
        };
        if let Err(refusal) = admitted {
            net.say(self.node, stream, SessionReply::Refused(refusal), Payload::None);
            self.hang_up(stream, net);
            return;
        }
        self.roles.insert(stream, Role::Owner(open.session));
        self.sessions.insert(open.session, Session::new(stream, open.blocks, open.tokens));
        let opened = SessionReply::Opened {
            max_step_rows: MAX_ROWS as u32,
            max_steps: STEPS_IN_FLIGHT as u32,
            idle_timeout_ms: IDLE.as_millis() as u64,
        };
        net.say(self.node, stream, opened, Payload::None);
        self.sweep_later(net);
    }

    fn hang_up(&mut self, stream: StreamId, net: &mut Net) {
        self.roles.remove(&stream);
        net.close(self.node, stream);
    }

    /// Sends somebody away who came to feed a session.
    fn refuse(&mut self, stream: StreamId, net: &mut Net) {
        net.say(self.node, stream, SessionReply::Refused(Refusal::NotExpected), Payload::None);
        self.hang_up(stream, net);
    }

    fn end(&mut self, id: SessionId, reason: Option<CloseReason>, net: &mut Net) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if self.fault != Fault::LeaksReservations {
            self.admission.close(id);
        }
        if let Some(reason) = reason {
            net.say(self.node, session.owner, SessionReply::Closed(reason), Payload::None);
        }
        for stream in session.streams() {
            self.hang_up(stream, net);
        }
    }

    fn sweep(&mut self, net: &mut Net) {
        if self.fault == Fault::LeaksReservations {
            return;
        }
        for session in self.admission.sweep(net.now) {
            self.end(session, Some(CloseReason::Idle), net);
        }
        self.sweep_later(net);
    }

    fn sweep_later(&self, net: &mut Net) {
        if let Some(at) = self.admission.next_sweep() {
            net.timer(self.node, at, Timer::Sweep);
        }
    }

    /// Whether what is kept stays within what was reserved.
    pub(super) fn check(&self) -> Result<(), Violation> {
        for (id, session) in &self.sessions {
            let (kept, held) = (session.kept_rows(self.fault), session.kv.len());
            let reserved = self.admission.tokens(*id).unwrap_or_default();
            if kept > reserved.as_usize() || held > reserved.as_usize() {
                return Err(Violation::PastReservation { peer: peer_of(self.node), kept, held, reserved });
            }
        }
        Ok(())
    }

    /// Whether nothing is left of any session.
    pub(super) fn check_empty(&self) -> Result<(), Violation> {
        let tokens = self.admission.reserved();
        if tokens != TokenCount(0) || !self.sessions.is_empty() || !self.roles.is_empty() {
            return Err(Violation::Leaked { peer: peer_of(self.node), tokens });
        }
        Ok(())
    }
}

fn empty(budget: TokenCount) -> Admission {
    Admission::new(AdmissionConfig { idle: IDLE, ..AdmissionConfig::of(budget) })
}

fn on_the_wire(refusal: &admission::Refusal) -> Refusal {
    match refusal.retry_after {
        Some(after) => Refusal::NoRoom { free: refusal.free, retry_after_ms: after.as_millis() as u64 },
        None if refusal.reason == admission::Reason::Leaving => Refusal::Leaving,
        None => Refusal::BadRequest(refusal.reason.to_string()),
    }
}

/// What the other end is told that a session is opened for.
fn incoming(next: &swarm_protocol::wire::Next, link: u32) -> Incoming {
    Incoming { session: next.session, link }
}
