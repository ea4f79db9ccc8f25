//! Feeding the next hop: a stream that this server opens, kept as long as the link is wanted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use swarm_protocol::activations::{ActivationRows, Rows, packing_pays};
use swarm_protocol::liveness::Liveness;
use swarm_protocol::p2p::{FrameReader, FrameWriter, Network, StreamKind};
use swarm_protocol::warm_up::WarmUp;
use swarm_protocol::wire::{Incoming, LinkFormat, Next, SessionReply, SessionRequest, Step, StepError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::hop::Frame;
use crate::serve::metrics;

/// How long the next hop may take to be dialled and to say that it expects this server: a dozen round trips of a slow
/// link. Two such failures, after which rows go by way of the client, must fit into the 10 s after which a client gives
/// up a hop that gets on with nothing; else the next hop, which merely is not fed, is taken for stuck.
const OPENING_TIMEOUT: Duration = Duration::from_secs(4);

/// Events that may wait for the session: it takes them at once.
const EVENTS: usize = 16;

/// Frames noted for the deadline while they are written and not yet received.
const NOTES: usize = 4;

/// What the session learns of a link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The next hop is fed, and the way to it is up to speed.
    Up,
    /// The next hop lacks the positions from there on.
    FellBack(usize),
    /// It cannot be fed (any more).
    Down(String),
}

/// Where a link leads to, and how.
pub(super) struct Way {
    pub(super) next: Next,
    /// Its number.
    pub(super) link: u32,
    /// What becomes of rows on it.
    pub(super) format: LinkFormat,
}

/// A link to the next hop. Dropping it ends the link.
pub(super) struct FeedOut {
    /// Its number.
    pub(super) link: u32,
    /// One frame waits while another is written.
    pub(super) frames: mpsc::Sender<Frame<ActivationRows>>,
    pub(super) events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

impl FeedOut {
    /// Dials the next hop; frames wait until it says that it expects this server.
    pub(super) fn start((network, bytes): (Network, metrics::Way), way: Way, warm_up: WarmUp) -> Self {
        let (frames, queue) = mpsc::channel(1);
        let (sender, events) = mpsc::channel(EVENTS);
        let link = way.link;
        let task = tokio::spawn(async move {
            let reason = feed((&network, &bytes), &way, warm_up, queue, &sender).await;
            // Without a session nobody asks.
            let _ = sender.send(LinkEvent::Down(reason)).await;
        });
        Self { link, frames, events, task }
    }
}

impl Drop for FeedOut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Reader = FrameReader<SessionReply>;
type Writer = FrameWriter<SessionRequest>;

/// Feeds until it cannot go on; says why.
async fn feed(
    (network, bytes): (&Network, &metrics::Way),
    Way { next, link, format }: &Way,
    warm_up: WarmUp,
    mut frames: mpsc::Receiver<Frame<ActivationRows>>,
    events: &mpsc::Sender<LinkEvent>,
) -> String {
    let opened = timeout(OPENING_TIMEOUT, open(network, next, SessionRequest::Feed(incoming(next, *link)))).await;
    let (mut reader, mut writer) = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(reason)) => return reason,
        Err(_) => return format!("it did not answer within {OPENING_TIMEOUT:?}"),
    };
    reader.count_into(&bytes.into);
    writer.count_into(&bytes.out);
    // Whether the link is so slow that packed rows are worth their work.
    let packs = AtomicBool::new(false);
    let first = match bring_up(&mut reader, &mut writer, warm_up, &mut frames, &packs).await {
        Ok(first) => first,
        Err(reason) => return reason,
    };
    if events.send(LinkEvent::Up).await.is_err() {
        return "its session ended".to_string();
    }
    let (notes, noted) = mpsc::channel(NOTES);
    // Both are polled here: with one after the other, both ends could wait for each other to read.
    tokio::select! {
        reason = write(&mut writer, (*format, &packs), first, frames, notes) => reason,
        reason = read(&mut reader, noted, events, &packs) => reason,
    }
}

pub(super) fn incoming(next: &Next, link: u32) -> Incoming {
    Incoming { session: next.session, link }
}

/// Opens a stream and says its first message; an error says why it is not expected.
pub(super) async fn open(network: &Network, next: &Next, first: SessionRequest) -> Result<(Reader, Writer), String> {
    let stream = network.open(next.peer, &next.addresses, StreamKind::Session).await;
    let (mut reader, mut writer) = stream.map_err(|error| error.to_string())?.into_frames(0);
    writer.send(&first, &[]).await.map_err(|error| error.to_string())?;
    match reader.next().await {
        Ok(Some((SessionReply::Expected, _))) => Ok((reader, writer)),
        Ok(Some((SessionReply::Refused(refusal), _))) => Err(refusal.to_string()),
        Ok(_) => Err("it did not say whether it expects this server".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A frame that the next hop has not received yet.
struct Sent {
    end: usize,
    bytes: usize,
    at: Instant,
}

async fn write(
    writer: &mut Writer,
    (format, packs): (LinkFormat, &AtomicBool),
    mut first: Option<Frame<ActivationRows>>,
    mut frames: mpsc::Receiver<Frame<ActivationRows>>,
    notes: mpsc::Sender<Sent>,
) -> String {
    loop {
        let Some(frame) = (match first.take() {
            Some(frame) => Some(frame),
            None => frames.recv().await,
        }) else {
            return "it is fed by somebody else".to_string();
        };
        let Frame { epoch, position, wanted_from, rows, .. } = frame;
        let end = position + rows.rows();
        let (rows, bytes) = match format {
            LinkFormat::Packed if packs.load(Ordering::Relaxed) => rows.into_packed(),
            _ => rows.on_link(format).into_wire(),
        };
        let sent = Sent { end, bytes: bytes.len(), at: Instant::now() };
        if notes.send(sent).await.is_err() {
            return "its link ended".to_string();
        }
        let step = Step { epoch, position: position as u32, rows, wanted_from: wanted_from as u32 };
        if let Err(error) = writer.send(&SessionRequest::Step(step), &bytes).await {
            return error.to_string();
        }
    }
}

/// Sends nothing worth having until the link is warm, or there is a frame for it.
async fn bring_up(
    reader: &mut Reader,
    writer: &mut Writer,
    mut warm_up: WarmUp,
    frames: &mut mpsc::Receiver<Frame<ActivationRows>>,
    packs: &AtomicBool,
) -> Result<Option<Frame<ActivationRows>>, String> {
    let mut taken = None;
    while let Some(header) = warm_up.next(taken) {
        let asked = Instant::now();
        let nothing = vec![0; header.payload_bytes().unwrap_or(0)];
        writer.send(&SessionRequest::Warm(header), &nothing).await.map_err(|error| error.to_string())?;
        tokio::select! {
            frame = frames.recv() => return Ok(frame),
            answer = reader.next() => match answer {
                Ok(Some((SessionReply::Received { .. }, _))) => {
                    let took = asked.elapsed();
                    packs.store(packing_pays(nothing.len(), took), Ordering::Relaxed);
                    taken = Some(took);
                }
                Ok(_) => return Err("it broke the session's protocol".to_string()),
                Err(error) => return Err(error.to_string()),
            },
        }
    }
    Ok(None)
}

/// Hears what the next hop says, until it says nothing for too long.
async fn read(
    reader: &mut Reader,
    mut noted: mpsc::Receiver<Sent>,
    events: &mpsc::Sender<LinkEvent>,
    packs: &AtomicBool,
) -> String {
    let mut liveness = Liveness::default();
    let mut under_way: VecDeque<Sent> = VecDeque::new();
    let mut heard = Instant::now();
    loop {
        let bytes = under_way.iter().map(|sent| sent.bytes).sum();
        let deadline = under_way.front().map(|oldest| heard.max(oldest.at) + liveness.deadline(bytes));
        tokio::select! {
            reply = reader.next() => {
                heard = Instant::now();
                match reply {
                    Ok(Some((SessionReply::Received { position }, _))) => {
                        received(&mut under_way, position as usize, heard, &mut liveness, packs);
                    }
                    Ok(Some((SessionReply::Failed { error: StepError::Gap { have }, .. }, _))) => {
                        under_way.clear();
                        if events.send(LinkEvent::FellBack(have as usize)).await.is_err() {
                            return "its session ended".to_string();
                        }
                    }
                    Ok(Some(_)) => return "it broke the session's protocol".to_string(),
                    Ok(None) => return "it closed the stream".to_string(),
                    Err(error) => return error.to_string(),
                }
            }
            Some(sent) = noted.recv() => under_way.push_back(sent),
            () = sleep_until(deadline) => return format!("silent for {:.1} s", heard.elapsed().as_secs_f64()),
        }
    }
}

fn received(
    under_way: &mut VecDeque<Sent>,
    position: usize,
    now: Instant,
    liveness: &mut Liveness,
    packs: &AtomicBool,
) {
    while under_way.front().is_some_and(|sent| sent.end <= position) {
        let Some(sent) = under_way.pop_front() else { return };
        let took = now.saturating_duration_since(sent.at);
        packs.store(packing_pays(sent.bytes, took), Ordering::Relaxed);
        liveness.observe(took);
        liveness.observe_transfer(sent.bytes, took);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
