//! One running session on this server: the task that owns its state. It takes steps in, has them computed, and sees to it
//! that their outputs go where its owner said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use swarm_protocol::PeerId;
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::StreamError;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::TraceContext;
use swarm_protocol::warm_up::WarmUp;
use swarm_protocol::wire::{
    CloseReason, Connect, HandOver, Input, Lane, LinkFormat, LinkFormats, MAX_NEXT_ADDRESSES, Output, RowsHeader,
    SessionReply, SessionRequest, Step, StepError, StepOutput,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::answers::{Answer, Pending};
use super::export::hand_over;
use super::feed_out::{FeedOut, LinkEvent, Way};
use super::visit::{Fed, FeedIn, ImportIn, NotComputed, Piece, Visit};
use super::{End, Reader, Replies};
use crate::hop::{Frame, HopState, NotKept, Source, Taken, Welcome};
use crate::prefix_cache::PageName;
use crate::serve::compute::{self, Slot};
use crate::serve::host::Host;
use crate::serve::part_budget::PartBudget;
use crate::serve::parts::{HopOf, HopPart};

/// Steps of one session that wait or are computed. So many chunks of a prompt keep a link of 100 Mbit/s busy, also when
/// some are computed late; further ones are left in the connection, whose flow control then slows the sender.
pub(super) const STEPS_IN_FLIGHT: usize = 16;

/// How often the registry is told that a session was heard: far more often than sessions time out, far less often than
/// steps come.
const TOUCH_INTERVAL: Duration = Duration::from_millis(500);

/// Steps of a feeding server that were not computed and that it has not been told of; more say nothing new.
const FAILURES: usize = 4;

/// Steps of the owner's that are read while there is no room for them. An honest owner has no more on their way: what takes
/// room besides its steps is a piece of a KV cache.
const MOST_HELD_STEPS: usize = 2;

/// The same of everything that waits with them: how a hop is joined anew takes two words.
const MOST_HELD: usize = 16;

/// Servers that may wait for the owner's word about them: one that feeds and one that hands its KV cache over, over the
/// newest link and one before it.
const MOST_EARLY: usize = 4;

/// A session that was admitted.
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) owner: PeerId,
    pub(super) blocks: BlockRange,
    pub(super) slot: Slot,
    /// Whether it has got its KV cache.
    pub(super) opened: oneshot::Receiver<compute::Opened>,
    pub(super) reserved: TokenCount,
}

/// The server that feeds the session.
pub(super) struct Feed {
    pub(super) link: u32,
    steps: mpsc::Receiver<Fed>,
    pub(super) failures: mpsc::Sender<NotComputed>,
}

/// The server that hands its KV cache over.
pub(super) struct Import {
    pieces: mpsc::Receiver<Piece>,
    pub(super) stored: mpsc::Sender<u32>,
}

/// Something that concerns the session.
enum Happening {
    Request(Result<Option<(SessionRequest, Vec<u8>)>, StreamError>),
    Answer(Answer),
    Fed(Option<Fed>),
    Piece(Option<Piece>),
    Visit(Visit),
    /// There is room for a frame on that lane.
    Room(Lane),
    Link(Lane, Option<LinkEvent>),
    HandedOver(u32, Result<(), String>),
    /// Nothing can be written to the owner any more.
    Unwritten,
}

pub(super) struct Actor<'a> {
    pub(super) host: &'a Arc<Host>,
    pub(super) session: Opened,
    pub(super) state: HopState<ActivationRows>,
    /// What becomes of rows on its links.
    formats: LinkFormats,
    reader: Reader,
    pub(super) replies: &'a Replies,
    visits: &'a mut mpsc::Receiver<Visit>,
    /// What the compute thread owes, in the order it was asked.
    pub(super) pending: FuturesOrdered<Pending>,
    /// What the owner said since its step that waits for one of them, from that step on.
    held: VecDeque<(SessionRequest, Vec<u8>)>,
    pub(super) feed: Option<Feed>,
    pub(super) import: Option<Import>,
    /// One of each lane, where it leads to another server.
    main: Option<FeedOut>,
    mirror: Option<FeedOut>,
    /// Who came before their time, in the order of coming.
    early: VecDeque<Visit>,
    handing_over: Option<(u32, JoinHandle<Result<(), String>>)>,
    /// What its pages are kept under, from the first one on.
    pub(super) pages: Vec<PageName>,
    /// What is done here for the span that the owner has named.
    pub(super) part: Option<HopPart>,
    parts_left: PartBudget,
    touched: Option<Instant>,
    /// When the session was last heard.
    active: watch::Sender<Instant>,
}

impl<'a> Actor<'a> {
    pub(super) fn new(
        host: &'a Arc<Host>,
        session: Opened,
        reader: Reader,
        replies: &'a Replies,
        visits: &'a mut mpsc::Receiver<Visit>,
        active: watch::Sender<Instant>,
    ) -> Self {
        Self {
            state: HopState::new(host.shape.max_rows as usize),
            formats: LinkFormats::default(),
            host,
            session,
            reader,
            replies,
            visits,
            pending: FuturesOrdered::new(),
            held: VecDeque::new(),
            feed: None,
            import: None,
            main: None,
            mirror: None,
            early: VecDeque::new(),
            handing_over: None,
            pages: Vec::new(),
            part: None,
            parts_left: PartBudget::new(Instant::now()),
            touched: None,
            active,
        }
    }

    /// Goes on until the owner ends it, is lost, or breaks the protocol.
    pub(super) async fn run(mut self) -> End {
        loop {
            let happening = self.next_happening().await;
            let span = self.part.as_ref().map_or_else(Span::none, |part| part.span().clone());
            if let Some(end) = self.on_happening(happening).instrument(span).await {
                return end;
            }
        }
    }

    /// Waits for whatever comes first. Nothing is lost if it is asked again.
    async fn next_happening(&mut self) -> Happening {
        let room = self.pending.len() < STEPS_IN_FLIGHT;
        let (main_due, mirror_due) = (self.state.has_frame(Lane::Main), self.state.has_frame(Lane::Mirror));
        let to_owner = main_due && self.main.is_none();
        let listens = self.listens();
        let Self { reader, replies, visits, pending, feed, import, main, mirror, handing_over, .. } = self;
        tokio::select! {
            request = reader.next(), if listens => Happening::Request(request),
            Some(answer) = pending.next() => Happening::Answer(answer),
            fed = next_of(feed.as_mut().map(|feed| &mut feed.steps)), if room => Happening::Fed(fed),
            piece = next_of(import.as_mut().map(|import| &mut import.pieces)), if room => Happening::Piece(piece),
            Some(visit) = visits.recv() => Happening::Visit(visit),
            () = replies.has_room(), if to_owner => Happening::Room(Lane::Main),
            happening = on_lane(Lane::Main, main.as_mut(), main_due) => happening,
            happening = on_lane(Lane::Mirror, mirror.as_mut(), mirror_due) => happening,
            (link, result) = finished(handing_over) => Happening::HandedOver(link, result),
            () = replies.broken() => Happening::Unwritten,
        }
    }

    async fn on_happening(&mut self, happening: Happening) -> Option<End> {
        match happening {
            Happening::Request(Ok(Some((request, rows)))) => self.on_request(request, rows).await,
            Happening::Request(Ok(None)) => Some(End::ByClient),
            Happening::Request(Err(StreamError::Frame(error))) => Some(broken(error.to_string())),
            Happening::Request(Err(error)) => Some(End::Lost(error.to_string())),
            Happening::Answer(answer) => self.on_answer(answer).await,
            Happening::Fed(fed) => self.on_fed(fed).await,
            Happening::Piece(piece) => self.on_piece(piece).await,
            Happening::Visit(visit) => self.on_visit(visit).await,
            Happening::Room(lane) => {
                self.send_frames(lane);
                None
            }
            Happening::Link(lane, event) => self.on_link(lane, event).await,
            Happening::HandedOver(link, result) => self.on_handed_over(link, result).await,
            Happening::Unwritten => Some(unwritten()),
        }
    }

    /// Sends what is due on a lane, as far as there is room for it now.
    pub(super) fn send_frames(&mut self, lane: Lane) {
        while self.state.has_frame(lane) {
            let out = match lane {
                Lane::Main => self.main.as_ref(),
                Lane::Mirror => self.mirror.as_ref(),
            };
            match out {
                Some(out) => {
                    let Ok(room) = out.frames.try_reserve() else { return };
                    let Some(frame) = self.state.next_frame(lane) else { return };
                    self.part.iter_mut().for_each(|part| part.goes_out(frame.rows.bytes().len()));
                    room.send(frame);
                }
                None => {
                    let Some(room) = self.replies.room_now() else { return };
                    let Some(frame) = self.state.next_frame(lane) else { return };
                    self.part.iter_mut().for_each(|part| part.goes_out(frame.rows.bytes().len()));
                    room.send(output(frame, self.formats.output));
                }
            }
        }
    }

    /// Whether it reads what the owner says. While a step waits it goes on to, for the sake of pings: an owner that sends no
    /// more steps at once than it may is told at any time that this server lives.
    fn listens(&self) -> bool {
        let steps = self.held.iter().filter(|(request, _)| matches!(request, SessionRequest::Step(_))).count();
        steps < MOST_HELD_STEPS && self.held.len() < MOST_HELD
    }

    /// Takes in what the owner says. After a step that waits everything waits with it, but for pings and the end.
    async fn on_request(&mut self, request: SessionRequest, rows: Vec<u8>) -> Option<End> {
        self.touch().await;
        let waits = match &request {
            SessionRequest::Ping { .. } | SessionRequest::Close => false,
            SessionRequest::Step(_) => !self.held.is_empty() || self.pending.len() >= STEPS_IN_FLIGHT,
            _ => !self.held.is_empty(),
        };
        if waits {
            self.held.push_back((request, rows));
            return None;
        }
        self.obey(request, rows).await
    }

    async fn obey(&mut self, request: SessionRequest, rows: Vec<u8>) -> Option<End> {
        match request {
            SessionRequest::Step(step) => self.start(Source::Owner, step, rows).await,
            SessionRequest::Ping { nonce } => self.say(SessionReply::Pong { nonce }).await,
            SessionRequest::Close => Some(End::ByClient),
            SessionRequest::Accept(input) => {
                self.accept(input);
                None
            }
            SessionRequest::Connect(connect) => self.connect(connect).await,
            SessionRequest::HandOver(order) => self.begin_hand_over(order).await,
            SessionRequest::Warm(_) => None,
            SessionRequest::Recall(recall) => self.recall(recall).await,
            SessionRequest::Keep(keep) => self.keep(keep).await,
            SessionRequest::Links(formats) => self.agree(formats).await,
            SessionRequest::Trace(context) => {
                self.work_for(context);
                None
            }
            SessionRequest::Open(_) => Some(broken("a session is opened once".to_string())),
            SessionRequest::Feed(_) | SessionRequest::Import(_) | SessionRequest::Kv(_) => {
                Some(broken("servers feed a session over streams of their own".to_string()))
            }
        }
    }

    /// What is done from now on is a part of another span of the owner's. Steps under way count to it: an owner that goes on to
    /// another request has none.
    fn work_for(&mut self, context: Option<TraceContext>) {
        // The part before ends.
        drop(self.part.take());
        let Opened { id: session, owner, blocks, .. } = self.session;
        let about = &self.host.about;
        let of = HopOf { server: about.network.peer_id(), owner, session, blocks };
        let context = context.filter(|_| self.parts_left.take(Instant::now()));
        self.part = HopPart::begin(about.spans, context, of);
    }

    /// The owner says what becomes of rows on the session's links. Once there are any, it is too late.
    async fn agree(&mut self, formats: LinkFormats) -> Option<End> {
        let untouched = self.state.is_untouched() && self.pending.is_empty();
        if !untouched || [Lane::Main, Lane::Mirror].iter().any(|lane| *self.state.output(*lane).1 != Output::Nobody) {
            return Some(broken("the formats of a session's links are named before anything else".to_string()));
        }
        self.formats = formats;
        self.say(SessionReply::Agreed).await
    }

    pub(super) async fn touch(&mut self) {
        if self.touched.is_none_or(|touched| touched.elapsed() >= TOUCH_INTERVAL) {
            self.touched = Some(Instant::now());
            self.active.send_replace(Instant::now());
            self.host.registry.touch(self.session.id).await;
        }
    }

    /// A word to the owner.
    pub(super) async fn say(&mut self, reply: SessionReply) -> Option<End> {
        (!self.replies.send(reply, Vec::new()).await).then(unwritten)
    }

    /// Has a step computed, or says why not.
    async fn start(&mut self, source: Source, step: Step, rows: Vec<u8>) -> Option<End> {
        self.part.iter_mut().for_each(|part| part.came(rows.len()));
        let shape = &self.host.shape;
        if let Err(error) = shape.check(&step, self.formats.input, self.session.reserved) {
            return self.not_computed(source, &step, error).await;
        }
        let Some(rows) = ActivationRows::unpacked(step.rows, rows).map(|rows| rows.off_link(shape.element)) else {
            let error = StepError::BadRows("its bytes are not those of its rows".to_string());
            return self.not_computed(source, &step, error).await;
        };
        // From here on they are rows as the blocks take them.
        let step = Step { rows: rows.header(), ..step };
        match self.state.take(source, step.epoch, step.position as usize, step.rows.rows as usize) {
            Taken::Stale => None,
            Taken::Gap { have } => self.not_computed(source, &step, StepError::Gap { have: have as u32 }).await,
            Taken::Compute => {
                let queued = self.host.compute.step(self.session.slot, step, rows.into_bytes()).await;
                self.pending.push_back(Box::pin(Answer::of_step(source, step, queued)));
                None
            }
        }
    }

    /// Tells whoever sent a step that it was not computed. A gap is for its sender to mend; everything else the owner has
    /// to know.
    pub(super) async fn not_computed(&mut self, source: Source, step: &Step, error: StepError) -> Option<End> {
        let Step { epoch, position, .. } = *step;
        tracing::debug!(session = %self.session.id, position, %error, "a step was not computed");
        match (&self.feed, source) {
            (Some(feed), Source::Link(link)) if feed.link == link && matches!(error, StepError::Gap { .. }) => {
                // It is told of one gap at least.
                let _ = feed.failures.try_send(NotComputed { epoch, position, error });
                None
            }
            _ => self.say(SessionReply::Failed { epoch, position, error }).await,
        }
    }

    /// Goes on with what waited, as far as there is room.
    pub(super) async fn resume(&mut self) -> Option<End> {
        while self.pending.len() < STEPS_IN_FLIGHT {
            let (request, rows) = self.held.pop_front()?;
            let end = self.obey(request, rows).await;
            if end.is_some() {
                return end;
            }
        }
        None
    }

    async fn on_fed(&mut self, fed: Option<Fed>) -> Option<End> {
        let (Some((step, rows)), Some(feed)) = (fed, &self.feed) else {
            // Its server is gone; the owner will name another one.
            self.feed = None;
            return None;
        };
        let source = Source::Link(feed.link);
        self.touch().await;
        self.start(source, step, rows).await
    }

    async fn on_piece(&mut self, piece: Option<Piece>) -> Option<End> {
        let Some((header, bytes)) = piece else {
            self.import = None;
            self.part.iter_mut().for_each(HopPart::import_ended);
            return None;
        };
        self.part.iter_mut().for_each(|part| part.imported(&header, bytes.len()));
        self.touch().await;
        self.store(header, bytes).await
    }

    async fn on_visit(&mut self, visit: Visit) -> Option<End> {
        match visit {
            Visit::Feed { peer, link, welcome } => self.let_feed(peer, link, welcome),
            Visit::Import { peer, link, welcome } => self.let_import(peer, link, welcome),
            Visit::Export { from, reply } => self.export(from, reply).await,
        }
        None
    }

    /// Dropping `welcome` sends the visitor away.
    fn let_feed(&mut self, peer: PeerId, link: u32, welcome: oneshot::Sender<FeedIn>) {
        match self.state.feeder(peer, link) {
            Welcome::Now => {
                let (steps_in, steps) = mpsc::channel(1);
                let (failures, failures_out) = mpsc::channel(FAILURES);
                if welcome.send(FeedIn { steps: steps_in, failures: failures_out }).is_ok() {
                    self.feed = Some(Feed { link, steps, failures });
                }
            }
            Welcome::Later => self.wait_outside(Visit::Feed { peer, link, welcome }),
            Welcome::Never => {}
        }
    }

    fn let_import(&mut self, peer: PeerId, link: u32, welcome: oneshot::Sender<ImportIn>) {
        match self.state.importer(peer, link) {
            Welcome::Now => {
                let (pieces_in, pieces) = mpsc::channel(1);
                let (stored, stored_out) = mpsc::channel(1);
                if welcome.send(ImportIn { pieces: pieces_in, stored: stored_out }).is_ok() {
                    self.import = Some(Import { pieces, stored });
                }
            }
            Welcome::Later => self.wait_outside(Visit::Import { peer, link, welcome }),
            Welcome::Never => {}
        }
    }

    /// Keeps a visitor until the owner names it. Those that have given up make room, then the first that came.
    fn wait_outside(&mut self, visit: Visit) {
        self.early.retain(|early| !early.is_over());
        if self.early.len() >= MOST_EARLY {
            self.early.pop_front();
        }
        self.early.push_back(visit);
    }

    /// The owner has named another input: whoever fed the session does so no more. To name the same again changes nothing.
    fn accept(&mut self, input: Input) {
        if *self.state.input() == input {
            return;
        }
        self.feed = None;
        self.import = None;
        self.part.iter_mut().for_each(HopPart::import_ended);
        self.state.accept(input);
        for early in std::mem::take(&mut self.early) {
            match early {
                Visit::Feed { peer, link, welcome } => self.let_feed(peer, link, welcome),
                Visit::Import { peer, link, welcome } => self.let_import(peer, link, welcome),
                Visit::Export { .. } => {}
            }
        }
    }

    async fn connect(&mut self, connect: Connect) -> Option<End> {
        if let Output::Next(next) = &connect.output
            && next.addresses.len() > MAX_NEXT_ADDRESSES
        {
            return Some(broken(format!("a next hop has at most {MAX_NEXT_ADDRESSES} addresses")));
        }
        let Connect { lane, link, .. } = connect;
        let moves = lane == Lane::Main && self.mirror.as_ref().is_some_and(|mirror| mirror.link == link);
        if let Err(error) = self.state.connect(&connect) {
            return self.unlinked(link, error.to_string()).await;
        }
        let out = match connect.output {
            _ if moves => self.mirror.take(),
            Output::Next(next) => {
                let way = Way { next, link, format: self.formats.output };
                let about = &self.host.about;
                Some(FeedOut::start((about.network.clone(), about.metrics.wire.link.clone()), way, self.warm_up()))
            }
            Output::Nobody | Output::Owner | Output::Relay => None,
        };
        match lane {
            Lane::Main => self.main = out,
            Lane::Mirror => self.mirror = out,
        }
        None
    }

    fn warm_up(&self) -> WarmUp {
        let shape = &self.host.shape;
        // What it is warmed up with is as large as the rows that are to come.
        let element = self.formats.output.encoding(shape.element);
        let rows = RowsHeader { rows: shape.max_rows, hidden: shape.hidden, element };
        WarmUp::new(rows, self.session.reserved)
    }

    async fn on_link(&mut self, lane: Lane, event: Option<LinkEvent>) -> Option<End> {
        let out = match lane {
            Lane::Main => &mut self.main,
            Lane::Mirror => &mut self.mirror,
        };
        let link = out.as_ref()?.link;
        let reason = match event {
            Some(LinkEvent::FellBack(have)) => match self.state.fell_back(link, have) {
                Ok(()) => return None,
                Err(error @ NotKept { .. }) => error.to_string(),
            },
            Some(LinkEvent::Up) => return self.say(SessionReply::Linked { link }).await,
            Some(LinkEvent::Down(reason)) => reason,
            None => "its task ended".to_string(),
        };
        *out = None;
        // Nothing is lost: what this hop computes is kept until it is told where to send it.
        self.state.disconnect(lane);
        self.unlinked(link, reason).await
    }

    async fn unlinked(&mut self, link: u32, reason: String) -> Option<End> {
        tracing::debug!(session = %self.session.id, link, reason, "a link ended");
        self.say(SessionReply::Unlinked { link, reason }).await
    }

    async fn begin_hand_over(&mut self, order: HandOver) -> Option<End> {
        if order.to.addresses.len() > MAX_NEXT_ADDRESSES {
            return Some(broken(format!("a server has at most {MAX_NEXT_ADDRESSES} addresses")));
        }
        let visits = self.host.registry.find(self.session.id).await?;
        let link = order.link;
        if let Some((_, former)) = self.handing_over.take() {
            former.abort();
        }
        let about = &self.host.about;
        let to = (about.network.clone(), about.metrics.wire.hand_over.clone());
        let span = self.part.as_ref().map_or_else(Span::none, |part| part.hand_over(order.to.peer));
        self.handing_over = Some((link, tokio::spawn(hand_over(to, order, visits).instrument(span))));
        None
    }

    async fn on_handed_over(&mut self, link: u32, result: Result<(), String>) -> Option<End> {
        self.handing_over = None;
        self.host.about.metrics.handed_over("out", result.is_ok());
        self.say(SessionReply::HandedOver { link, failure: result.err() }).await
    }
}

impl Drop for Actor<'_> {
    fn drop(&mut self) {
        if let Some((_, task)) = self.handing_over.take() {
            task.abort();
        }
    }
}

pub(super) fn broken(reason: String) -> End {
    End::ByServer(CloseReason::Protocol(reason))
}

pub(super) fn unwritten() -> End {
    End::Lost("its replies cannot be written".to_string())
}

fn output(frame: Frame<ActivationRows>, format: LinkFormat) -> (SessionReply, Vec<u8>) {
    let Frame { link, epoch, position, rows, .. } = frame;
    debug_assert!(rows.rows() > 0);
    let (rows, bytes) = match format {
        LinkFormat::Packed => rows.into_packed(),
        _ => rows.on_link(format).into_wire(),
    };
    (SessionReply::Output(StepOutput { link, epoch, position: position as u32, rows }), bytes)
}

/// The next thing that comes, if anything can.
async fn next_of<T>(receiver: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// What happens on a link to another server: it tells of something, or takes one more frame. Only this task sends any, so
/// there is room until it does.
async fn on_lane(lane: Lane, out: Option<&mut FeedOut>, due: bool) -> Happening {
    let Some(FeedOut { frames, events, .. }) = out else {
        return std::future::pending().await;
    };
    tokio::select! {
        event = events.recv() => Happening::Link(lane, event),
        Ok(_) = frames.reserve(), if due => Happening::Room(lane),
    }
}

async fn finished(task: &mut Option<(u32, JoinHandle<Result<(), String>>)>) -> (u32, Result<(), String>) {
    match task {
        Some((link, task)) => (*link, task.await.unwrap_or_else(|error| Err(error.to_string()))),
        None => std::future::pending().await,
    }
}
