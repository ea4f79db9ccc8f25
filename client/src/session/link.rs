//! One hop's stream. Reading and writing are separate tasks: with one, both ends could wait for the other to read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::{FrameReader, FrameWriter, Network, OpenError, StreamError, StreamKind};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{CloseReason, MAX_STEP_ROWS, Open, Refusal, SessionReply, SessionRequest, Step};
use swarm_protocol::{Multiaddr, PeerId};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::chain::{HopId, WorkId};

/// Requests waiting to be written to one hop: a window of steps and a few pings.
const REQUESTS: usize = 16;

/// How long a hop is given to take the end of the session before its stream is reset.
const CLOSING: Duration = Duration::from_secs(1);

/// What comes from a hop.
#[derive(Debug)]
pub(super) enum LinkEvent {
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
}

/// Where the events of all hops of a session go.
pub(super) type Events = mpsc::Sender<Arrival>;

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
    /// It took too long.
    #[error("it did not open the session within {0:?}")]
    TimedOut(Duration),
}

/// An opened stream before its hop has a place in the chain.
pub(super) struct OpenedLink {
    pub(super) peer: PeerId,
    pub(super) blocks: BlockRange,
    pub(super) max_step_rows: TokenCount,
    reader: FrameReader<SessionReply>,
    writer: FrameWriter<SessionRequest>,
}

/// Opens a session on one server.
pub(super) async fn open(
    network: &Network,
    peer: PeerId,
    addresses: &[Multiaddr],
    request: Open,
    payload_limit: usize,
    limit: Duration,
) -> Result<OpenedLink, OpenFailure> {
    let opened =
        tokio::time::timeout(limit, open_without_limit(network, peer, addresses, request, payload_limit)).await;
    opened.unwrap_or(Err(OpenFailure::TimedOut(limit)))
}

async fn open_without_limit(
    network: &Network,
    peer: PeerId,
    addresses: &[Multiaddr],
    request: Open,
    payload_limit: usize,
) -> Result<OpenedLink, OpenFailure> {
    let blocks = request.blocks;
    let stream = network.open(peer, addresses, StreamKind::Session).await?;
    let (mut reader, mut writer) = stream.into_frames(payload_limit);
    writer.send(&SessionRequest::Open(request), &[]).await?;
    match reader.next().await? {
        Some((SessionReply::Opened { max_step_rows, .. }, _)) => {
            let max_step_rows = TokenCount(max_step_rows.clamp(1, MAX_STEP_ROWS));
            Ok(OpenedLink { peer, blocks, max_step_rows, reader, writer })
        }
        Some((SessionReply::Refused(refusal), _)) => Err(OpenFailure::Refused(refusal)),
        _ => Err(OpenFailure::NoAnswer),
    }
}

impl OpenedLink {
    /// Starts the hop's tasks; what it says goes to `events` under `hop`.
    pub(super) fn start(self, hop: HopId, events: Events) -> Link {
        let (requests, queue) = mpsc::channel(REQUESTS);
        tokio::spawn(write(self.writer, queue));
        let owed = Arc::new(AtomicUsize::new(0));
        let reader = tokio::spawn(read(self.reader, hop, events, owed.clone()));
        Link {
            peer: self.peer,
            blocks: self.blocks,
            requests,
            reader,
            flights: VecDeque::new(),
            heard: Instant::now(),
            leave: None,
            owed,
        }
    }
}

async fn write(mut writer: FrameWriter<SessionRequest>, mut queue: mpsc::Receiver<(SessionRequest, Vec<u8>)>) {
    while let Some((request, payload)) = queue.recv().await {
        // The hop was given up: what was queued for it would only take bandwidth from its replacement.
        if queue.is_closed() {
            continue;
        }
        if writer.send(&request, &payload).await.is_err() {
            // The reader sees the same break and tells the session.
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

async fn read(mut reader: FrameReader<SessionReply>, hop: HopId, events: Events, owed: Arc<AtomicUsize>) {
    loop {
        let (event, last) = match reader.next().await {
            Ok(Some((SessionReply::Closed(reason), _))) => (LinkEvent::Closed(reason), true),
            Ok(Some((reply, payload))) if !answers_a_step(&reply) || took_one(&owed) => {
                (LinkEvent::Reply(reply, payload), false)
            }
            Ok(Some(_)) => (LinkEvent::Broken("it answered a step it was not given".to_string()), true),
            Ok(None) => (LinkEvent::Broken("its stream closed".to_string()), true),
            Err(error) => (LinkEvent::Broken(error.to_string()), true),
        };
        if events.send(Arrival { hop, event, at: Instant::now() }).await.is_err() || last {
            return;
        }
    }
}

fn answers_a_step(reply: &SessionReply) -> bool {
    matches!(reply, SessionReply::Output(_) | SessionReply::Failed { .. })
}

/// Takes one answer off what the hop owes; more of them would fill the session's memory.
fn took_one(owed: &AtomicUsize) -> bool {
    owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| owed.checked_sub(1)).is_ok()
}

/// A step that has not been answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) work: WorkId,
    pub(super) epoch: u32,
    pub(super) position: u32,
    pub(super) rows: u32,
    pub(super) bytes: usize,
    pub(super) sent: Instant,
}

/// A hop of the chain with its stream. Dropping it ends the session on that hop.
pub(super) struct Link {
    pub(super) peer: PeerId,
    pub(super) blocks: BlockRange,
    /// Steps without an answer, oldest first: answers come in order.
    pub(super) flights: VecDeque<Flight>,
    /// When the hop last said anything.
    pub(super) heard: Instant,
    /// It has said that it will be gone soon; when a replacement is looked for (again).
    pub(super) leave: Option<Instant>,
    /// Steps it was given and has not answered.
    owed: Arc<AtomicUsize>,
    requests: mpsc::Sender<(SessionRequest, Vec<u8>)>,
    reader: JoinHandle<()>,
}

impl Link {
    /// Sends a step; `false` if the hop takes no more, which an honest window never causes.
    pub(super) fn step(&mut self, step: Step, payload: Vec<u8>, flight: Flight) -> bool {
        self.flights.push_back(flight);
        self.owed.fetch_add(1, Ordering::AcqRel);
        self.requests.try_send((SessionRequest::Step(step), payload)).is_ok()
    }

    /// Asks whether the hop lives; left out while requests wait to be written, since those ask the same.
    pub(super) fn ping(&self) {
        if self.requests.capacity() < self.requests.max_capacity() {
            return;
        }
        let _ = self.requests.try_send((SessionRequest::Ping { nonce: 0 }, Vec::new()));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
