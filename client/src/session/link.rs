//! One hop's stream. Reading and writing are separate tasks: with one, both ends could wait for the other to read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_protocol::block::BlockRange;
use swarm_protocol::liveness::Liveness;
use swarm_protocol::model_id::NumericClass;
use swarm_protocol::p2p::{FrameReader, FrameWriter, Network, OpenError, StreamError, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::TraceContext;
use swarm_protocol::warm_up::WarmUp;
use swarm_protocol::wire::{
    CloseReason, LinkFormats, MAX_STEP_ROWS, Next, Open, PAGE_POSITIONS, Recall, Refusal, RowEncoding, RowsHeader,
    SessionReply, SessionRequest,
};
use swarm_protocol::{Multiaddr, PeerId};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::warming::{WARM_PING, Warming};
use crate::chain::HopId;
use crate::finder::Present;

/// Requests waiting to be written to one hop: a window of steps, how it is joined to others, and a few pings.
const REQUESTS: usize = 64;

/// Bytes of rows that have come and wait for the session, over all of its hops; more are left in the connections.
const WAITING_BYTES: usize = 16 << 20;

/// How long a hop is given to take the end of the session before its stream is reset.
const CLOSING: Duration = Duration::from_secs(1);

/// What is sent to a hop: a request and the rows that follow it.
pub(super) type Asked = (SessionRequest, Vec<u8>);

/// What comes from a hop.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The connection is up to speed.
    Warm,
    Reply(SessionReply, Vec<u8>),
    /// The hop ended the session and said why.
    Closed(CloseReason),
    Broken(String),
}

/// What a hop said, and when it arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) hop: HopId,
    pub(super) event: LinkEvent,
    pub(super) at: Instant,
    /// Room for its rows, given back when the session has dealt with them.
    _room: Option<OwnedSemaphorePermit>,
}

/// Where the events of all hops of a session go.
#[derive(Debug, Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<Arrival>,
    room: Arc<Semaphore>,
}

impl Events {
    /// Room for `capacity` events.
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<Arrival>) {
        let (queue, events) = mpsc::channel(capacity);
        (Self { queue, room: Arc::new(Semaphore::new(WAITING_BYTES)) }, events)
    }

    /// Hands an event on, as soon as there is room for its rows.
    async fn send(&self, hop: HopId, event: LinkEvent) -> bool {
        let at = Instant::now();
        let bytes = match &event {
            LinkEvent::Reply(_, rows) => rows.len().min(WAITING_BYTES) as u32,
            _ => 0,
        };
        let room = match bytes {
            0 => None,
            bytes => self.room.clone().acquire_many_owned(bytes).await.ok(),
        };
        self.queue.send(Arrival { hop, event, at, _room: room }).await.is_ok()
    }
}

/// Why a hop did not open.
#[derive(Debug, Error)]
pub enum OpenFailure {
    /// The server said no.
    #[error(transparent)]
    Refused(Refusal),
    /// No stream to it.
    #[error(transparent)]
    Unreachable(#[from] OpenError),
    /// The stream broke.
    #[error(transparent)]
    Broken(#[from] StreamError),
    /// It hung up, or said something else.
    #[error("it did not answer the request to open a session")]
    NoAnswer,
    /// It does not know the format in which rows are to travel.
    #[error("it does not know the wire format that was asked for ({0}); choose another server, or `--wire exact`")]
    UnknownFormat(CloseReason),
    /// It took too long.
    #[error("it did not open the session within {0:?}")]
    TimedOut(Duration),
}

/// An opened stream before its hop has a place in the chain.
pub(super) struct OpenedLink {
    pub(super) peer: PeerId,
    pub(super) blocks: BlockRange,
    class: NumericClass,
    pub(super) max_step_rows: TokenCount,
    pub(super) max_steps: usize,
    /// The positions that it has computed before, in another session.
    recalled: TokenCount,
    session: SessionId,
    formats: LinkFormats,
    addresses: Vec<Multiaddr>,
    /// How long the server took to answer.
    took: Duration,
    /// What rows look like, with the most that any server takes.
    shape: RowsHeader,
    tokens: TokenCount,
    /// The span that it works for.
    context: Option<TraceContext>,
    /// Other sessions of this client know of it.
    present: Option<Present>,
    reader: FrameReader<SessionReply>,
    writer: FrameWriter<SessionRequest>,
}

/// What a hop is asked for when its session is opened.
pub(super) struct Opening {
    pub(super) request: Open,
    /// What becomes of rows on its links.
    pub(super) formats: LinkFormats,
    /// The pages that it may have computed before.
    pub(super) recall: Option<Recall>,
    /// The span that it works for.
    pub(super) context: Option<TraceContext>,
    /// What exact rows look like, with the most that any server takes.
    pub(super) shape: RowsHeader,
}

/// Opens a session on one server.
pub(super) async fn open(
    network: &Network,
    peer: PeerId,
    addresses: &[Multiaddr],
    opening: Opening,
    limit: Duration,
) -> Result<OpenedLink, OpenFailure> {
    let opened = tokio::time::timeout(limit, open_without_limit(network, peer, addresses, opening)).await;
    opened.unwrap_or(Err(OpenFailure::TimedOut(limit)))
}

async fn open_without_limit(
    network: &Network,
    peer: PeerId,
    addresses: &[Multiaddr],
    Opening { request, formats, recall, context, shape }: Opening,
) -> Result<OpenedLink, OpenFailure> {
    let (blocks, session, tokens, class) = (request.blocks, request.session, request.tokens, request.class.clone());
    let stream = network.open(peer, addresses, StreamKind::Session).await?;
    let (mut reader, mut writer) = stream.into_frames(shape.payload_bytes().unwrap_or(0));
    let asked = Instant::now();
    writer.send(&SessionRequest::Open(request), &[]).await?;
    let asks = formats != LinkFormats::default();
    if asks {
        // Servers that know nothing of formats are not asked for any.
        writer.send(&SessionRequest::Links(formats), &[]).await?;
    }
    if context.is_some() {
        writer.send(&SessionRequest::Trace(context), &[]).await?;
    }
    let most = recall.as_ref().map(|recall| recall.keys.len() as u32 * PAGE_POSITIONS);
    if let Some(recall) = recall {
        // All of this is answered in one round trip.
        writer.send(&SessionRequest::Recall(recall), &[]).await?;
    }
    match reader.next().await? {
        Some((SessionReply::Opened { max_step_rows, max_steps, .. }, _)) => Ok(OpenedLink {
            peer,
            class,
            formats: if asks { agreed(&mut reader, formats).await? } else { formats },
            recalled: recalled(&mut reader, most).await?,
            blocks,
            max_step_rows: TokenCount(max_step_rows.clamp(1, MAX_STEP_ROWS)),
            max_steps: max_steps.max(1) as usize,
            session,
            addresses: addresses.to_vec(),
            took: asked.elapsed(),
            shape,
            tokens,
            context,
            present: None,
            reader,
            writer,
        }),
        Some((SessionReply::Refused(refusal), _)) => Err(OpenFailure::Refused(refusal)),
        _ => Err(OpenFailure::NoAnswer),
    }
}

/// The formats, if the hop takes them.
async fn agreed(reader: &mut FrameReader<SessionReply>, formats: LinkFormats) -> Result<LinkFormats, OpenFailure> {
    match reader.next().await? {
        Some((SessionReply::Agreed, _)) => Ok(formats),
        Some((SessionReply::Closed(reason @ CloseReason::Protocol(_)), _)) => Err(OpenFailure::UnknownFormat(reason)),
        Some((SessionReply::Refused(refusal), _)) => Err(OpenFailure::Refused(refusal)),
        _ => Err(OpenFailure::NoAnswer),
    }
}

/// How far a hop has recalled what it was asked for, of `most` positions; nothing was asked if there are none.
async fn recalled(reader: &mut FrameReader<SessionReply>, most: Option<u32>) -> Result<TokenCount, OpenFailure> {
    let Some(most) = most else { return Ok(TokenCount(0)) };
    match reader.next().await? {
        Some((SessionReply::Recalled { position }, _)) if position <= most => Ok(TokenCount(position)),
        Some((SessionReply::Refused(refusal), _)) => Err(OpenFailure::Refused(refusal)),
        _ => Err(OpenFailure::NoAnswer),
    }
}

impl OpenedLink {
    /// It is counted as long as it stands.
    pub(super) fn counted(self, present: Option<Present>) -> Self {
        Self { present, ..self }
    }

    /// Starts the hop's tasks; what it says goes to `events` under `hop`. A hop that is fed from here is warmed up first.
    pub(super) fn start(self, hop: HopId, fed: bool, events: Events) -> Link {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let (arrived, answered) = mpsc::channel(1);
        // What it is warmed up with is as large as the rows that are to come.
        let element =
            self.shape.element.element().map_or(self.shape.element, |exact| self.formats.input.encoding(exact));
        let shape = RowsHeader { rows: self.max_step_rows.0, element, ..self.shape };
        let warming = fed.then(|| Warming { plan: WarmUp::new(shape, self.tokens), answered });
        tokio::spawn(write(self.writer, queue, warming, hop, events.clone()));
        let reader = tokio::spawn(read(self.reader, hop, arrived, events));
        let mut liveness = Liveness::default();
        liveness.observe(self.took);
        Link {
            peer: self.peer,
            blocks: self.blocks,
            class: self.class,
            session: self.session,
            formats: self.formats,
            packed: PackedBytes::default(),
            addresses: self.addresses,
            max_step_rows: self.max_step_rows,
            heard: Instant::now(),
            liveness,
            rtt: self.took,
            pinged: None,
            pings: 0,
            last_step: Duration::ZERO,
            progressed: Instant::now(),
            reached: TokenCount(0),
            fed_by: None,
            leave: None,
            warm: !fed,
            fed: None,
            recalled: self.recalled,
            kept_pages: self.recalled.as_usize() / PAGE_POSITIONS as usize,
            context: self.context,
            _present: self.present,
            requests,
            reader,
        }
    }
}

async fn write(
    mut writer: FrameWriter<SessionRequest>,
    mut queue: mpsc::Receiver<Asked>,
    warming: Option<Warming>,
    hop: HopId,
    events: Events,
) {
    if let Some(warming) = warming {
        // The reader sees the same break and tells the session.
        if warming.run(&mut writer, &mut queue).await.is_err() || !events.send(hop, LinkEvent::Warm).await {
            return;
        }
    }
    drop(events);
    while let Some((request, payload)) = queue.recv().await {
        // The hop was given up: what was queued for it would only take bandwidth from its replacement.
        // Pages that it has computed are of use to sessions to come.
        if queue.is_closed() && !matches!(request, SessionRequest::Keep(_)) {
            continue;
        }
        if writer.send(&request, &payload).await.is_err() {
            return;
        }
    }
    let farewell = async {
        if writer.send(&SessionRequest::Close, &[]).await.is_ok() {
            // Nobody is left to be told that the stream did not end well.
            let _ = writer.close().await;
        }
    };
    let _ = tokio::time::timeout(CLOSING, farewell).await;
}

async fn read(mut reader: FrameReader<SessionReply>, hop: HopId, arrived: mpsc::Sender<Instant>, events: Events) {
    loop {
        let (event, last) = match reader.next().await {
            Ok(Some((SessionReply::Pong { nonce: WARM_PING }, _))) => {
                // One piece is under way at most, and once the connection is warm nobody asks.
                let _ = arrived.try_send(Instant::now());
                continue;
            }
            Ok(Some((SessionReply::Closed(reason), _))) => (LinkEvent::Closed(reason), true),
            Ok(Some((reply, payload))) => (LinkEvent::Reply(reply, payload), false),
            Ok(None) => (LinkEvent::Broken("its stream closed".to_string()), true),
            Err(error) => (LinkEvent::Broken(error.to_string()), true),
        };
        if !events.send(hop, event).await || last {
            return;
        }
    }
}

/// Bytes that a row of the newest frame took, where it came or went packed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PackedBytes {
    /// Of the frames for the hop.
    pub(super) input: Option<u32>,
    /// Of those from it.
    pub(super) output: Option<u32>,
}

impl PackedBytes {
    /// What a row of the announced frame took, if it is packed.
    pub(super) fn a_row(rows: &RowsHeader) -> Option<u32> {
        match rows.element {
            RowEncoding::Packed { bytes, .. } => bytes.checked_div(rows.rows),
            _ => None,
        }
    }
}

/// A hop of the chain with its stream. Dropping it ends the session on that hop.
pub(super) struct Link {
    pub(super) peer: PeerId,
    pub(super) blocks: BlockRange,
    pub(super) class: NumericClass,
    /// The session's id on this hop.
    session: SessionId,
    /// What becomes of rows on the way to it, and from it.
    pub(super) formats: LinkFormats,
    /// How far its rows are packed on their way from and to this client.
    pub(super) packed: PackedBytes,
    addresses: Vec<Multiaddr>,
    max_step_rows: TokenCount,
    /// When the hop last said anything.
    pub(super) heard: Instant,
    /// How long it may be silent.
    pub(super) liveness: Liveness,
    /// The shortest way there and back that was seen.
    pub(super) rtt: Duration,
    /// The ping that is not answered: its number, and when it was asked.
    pinged: Option<(u64, Instant)>,
    pings: u64,
    /// How long its newest step waited and was computed.
    pub(super) last_step: Duration,
    /// When it last got on with what it has to do, or had nothing to do.
    pub(super) progressed: Instant,
    /// How many positions it held then.
    pub(super) reached: TokenCount,
    /// The hop that feeds it, and whether through this client.
    pub(super) fed_by: Option<(HopId, bool)>,
    /// It has said that it will be gone soon; when a replacement is looked for (again).
    pub(super) leave: Option<Instant>,
    /// The connection to it is up to speed, or nothing much is sent over it.
    pub(super) warm: bool,
    /// The link that it has said to feed.
    pub(super) fed: Option<u32>,
    /// The positions that it had computed before, in another session.
    pub(super) recalled: TokenCount,
    /// The pages that it has been told to keep, or has kept before.
    pub(super) kept_pages: usize,
    /// The span of this client that it has been told to work for.
    pub(super) context: Option<TraceContext>,
    _present: Option<Present>,
    requests: mpsc::Sender<Asked>,
    reader: JoinHandle<()>,
}

impl Link {
    /// Sends a request; `false` if the hop takes no more, which an honest window never causes.
    pub(super) fn send(&self, request: SessionRequest, payload: Vec<u8>) -> bool {
        self.requests.try_send((request, payload)).is_ok()
    }

    /// The hop as another one is told of it; `chunk` is the most rows of one step.
    pub(super) fn as_next(&self, chunk: TokenCount) -> Next {
        let max_rows = self.max_step_rows.min(chunk).0;
        Next { peer: self.peer, addresses: self.addresses.clone(), session: self.session, max_rows }
    }

    /// Asks whether the hop lives, unless it still owes an answer to that.
    pub(super) fn ping(&mut self, now: Instant) {
        if self.pinged.is_none() {
            self.pings += 1;
            if self.send(SessionRequest::Ping { nonce: self.pings }, Vec::new()) {
                self.pinged = Some((self.pings, now));
            }
        }
    }

    /// It answered a ping.
    pub(super) fn ponged(&mut self, nonce: u64, at: Instant) {
        if let Some((_, asked)) = self.pinged.take_if(|(pinged, _)| *pinged == nonce) {
            let took = at.saturating_duration_since(asked);
            self.liveness.observe(took);
            self.rtt = self.rtt.min(took);
        }
    }

    /// For how long it has said nothing although it was asked.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        self.pinged.map_or(Duration::ZERO, |(_, asked)| now.saturating_duration_since(asked.max(self.heard)))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
