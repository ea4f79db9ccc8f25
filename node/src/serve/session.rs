//! Streams of the session protocol: a session's owner, and other servers that have something for a session.
//!
//! Reading and writing are tasks of their own: if both ends first wrote a megabyte and then read, neither would ever
//! finish writing.

mod actor;
mod answers;
mod export;
mod feed_in;
mod feed_out;
mod import;
mod prefix;
mod replies;
mod visit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;
use swarm_protocol::p2p::{ByteStream, FrameReader, FrameWriter, StreamError};
use swarm_protocol::session::SessionId;
use swarm_protocol::wire::{CloseReason, Open, Refusal, SessionReply, SessionRequest};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{Instrument, debug, error_span, info, warn};

use self::actor::{Actor, Opened};
use self::replies::Replies;
use super::host::Host;
use super::metrics;
use super::phase::{leaving, left};
use super::registry::Lease;
pub(super) use visit::Visit;

/// How long a client may take to say what it wants once its stream is open.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a refused client may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing may come for a session, steps and pings included, until a server that leaves ends it. A client at work
/// pings several times a second.
const QUIET_WHEN_LEAVING: Duration = Duration::from_secs(3);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client said so, or closed the stream.
    ByClient,
    /// The client, or the connection to it, is gone.
    Lost(String),
    /// This server ends it, and says why.
    ByServer(CloseReason),
    /// It got no KV cache. The client has read why in the answer to its first step.
    NotOpened(String),
}

impl End {
    /// One word for it, for metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::ByClient => "client",
            Self::Lost(_) => "lost",
            Self::ByServer(CloseReason::Idle) => "idle",
            Self::ByServer(CloseReason::Left) => "left",
            Self::ByServer(CloseReason::Protocol(_)) => "protocol",
            Self::NotOpened(_) => "not_opened",
        }
    }
}

type Reader = FrameReader<SessionRequest>;
type Writer = FrameWriter<SessionReply>;

/// Serves one stream of the session protocol to its end. Never fails: whatever a peer does concerns its own session only.
pub(super) async fn serve_session(host: Arc<Host>, peer: PeerId, stream: ByteStream) {
    let (mut reader, mut writer) = stream.into_frames::<SessionRequest, SessionReply>(0);
    match first_message(&mut reader).await {
        Ok(SessionRequest::Open(open)) => {
            count(&host.about.metrics.wire.session, &mut reader, &mut writer);
            own(host, peer, &open, reader, writer).await;
        }
        Ok(SessionRequest::Feed(incoming)) => {
            count(&host.about.metrics.wire.link, &mut reader, &mut writer);
            feed_in::serve(&host, peer, incoming, reader, writer).await;
        }
        Ok(SessionRequest::Import(incoming)) => {
            count(&host.about.metrics.wire.hand_over, &mut reader, &mut writer);
            import::serve(&host, peer, incoming, reader, writer).await;
        }
        Ok(_) => not_understood(&host, peer, "a stream begins with Open, Feed or Import".to_string(), writer).await,
        Err(Some(reason)) => not_understood(&host, peer, reason, writer).await,
        Err(None) => debug!(%peer, "a session stream ended before anything was said"),
    }
}

fn count(way: &metrics::Way, reader: &mut Reader, writer: &mut Writer) {
    reader.count_into(&way.into);
    writer.count_into(&way.out);
}

/// The first message, or what is wrong with it, if it is worth an answer.
async fn first_message(reader: &mut Reader) -> Result<SessionRequest, Option<String>> {
    match timeout(OPENING_TIMEOUT, reader.next()).await {
        Ok(Ok(Some((request, _)))) => Ok(request),
        Ok(Err(StreamError::Frame(error))) => Err(Some(error.to_string())),
        Ok(Ok(None) | Err(_)) | Err(_) => Err(None),
    }
}

async fn not_understood(host: &Host, peer: PeerId, reason: String, writer: Writer) {
    host.broke_the_protocol(peer, &reason);
    refuse(host, peer, writer, Refusal::BadRequest(reason)).await;
}

/// A session from its opening to its end, on its owner's stream.
async fn own(host: Arc<Host>, peer: PeerId, open: &Open, reader: Reader, writer: Writer) {
    match host.admit(peer, open).await {
        Ok(lease) => {
            host.about.metrics.sessions_opened.inc();
            // Whatever is logged meanwhile says of which session.
            let span = error_span!("session", session = %open.session, peer = %peer);
            let end = run(&host, peer, open, lease, reader, writer).instrument(span).await;
            host.about.metrics.ended(end.reason());
            host.log_end(peer, open.session, &end);
        }
        Err(refusal) => refuse(&host, peer, writer, refusal).await,
    }
}

async fn refuse(host: &Host, peer: PeerId, mut writer: Writer, refusal: Refusal) {
    host.about.metrics.refused(&refusal);
    info!(%peer, %refusal, "refused");
    let say = async {
        writer.send(&SessionReply::Refused(refusal), &[]).await?;
        writer.close().await
    };
    // The client may be gone.
    let _ = timeout(REFUSAL_TIMEOUT, say).await;
}

/// Runs an admitted session. The lease is dropped on return, whatever happens.
async fn run(host: &Arc<Host>, peer: PeerId, open: &Open, mut lease: Lease, mut reader: Reader, writer: Writer) -> End {
    reader.set_payload_limit(host.shape.max_bytes());
    let (slot, tokens) = (lease.slot, lease.tokens);
    let replies = Replies::start(writer);
    let opened = match host.compute.open(slot, open.blocks, tokens).await {
        Ok(opened) => opened,
        Err(error) => {
            // The compute thread has ended, and the server with it.
            replies.send(SessionReply::Refused(Refusal::Leaving), Vec::new()).await;
            replies.finish().await;
            return End::NotOpened(error.to_string());
        }
    };
    // The KV cache is made when the compute thread comes to it, in front of this session's first step. Admission has
    // checked everything that a client can get wrong, and a client does not wait as long as others' steps may take.
    info!(%peer, session = %open.session, blocks = %open.blocks, %tokens, "a session was opened");
    replies.send(host.opened(), Vec::new()).await;
    let session = Opened { id: open.session, owner: peer, blocks: open.blocks, slot, opened, reserved: tokens };
    let Lease { idle, visits, .. } = &mut lease;
    let (active, activity) = watch::channel(Instant::now());
    let actor = Actor::new(host, session, reader, &replies, visits, active);
    let end = tokio::select! {
        end = actor.run() => end,
        Ok(()) = idle => End::ByServer(CloseReason::Idle),
        () = left(host.phase.clone()) => End::ByServer(CloseReason::Left),
        () = left_alone(host, &activity) => End::ByServer(CloseReason::Left),
        never = tell_of_leaving(host, &replies) => match never {},
    };
    match &end {
        End::ByServer(reason) => {
            // A server that leaves waits for its leases: the last word comes first.
            replies.send(SessionReply::Closed(reason.clone()), Vec::new()).await;
            replies.finish().await;
        }
        End::ByClient | End::Lost(_) | End::NotOpened(_) => {
            drop(lease);
            replies.finish().await;
        }
    }
    end
}

/// Waits until the server leaves and nothing has come for a while: the client of a session at rest does not move it, and
/// finds another server when it goes on.
async fn left_alone(host: &Host, activity: &watch::Receiver<Instant>) {
    leaving(host.phase.clone()).await;
    loop {
        let quiet = activity.borrow().elapsed();
        if quiet >= QUIET_WHEN_LEAVING {
            return;
        }
        tokio::time::sleep(QUIET_WHEN_LEAVING - quiet).await;
    }
}

/// Tells the client once that the server will be gone soon.
async fn tell_of_leaving(host: &Host, replies: &Replies) -> std::convert::Infallible {
    let until = leaving(host.phase.clone()).await;
    let within_ms = until.saturating_duration_since(Instant::now()).as_millis() as u64;
    replies.send(SessionReply::Leaving { within_ms }, Vec::new()).await;
    std::future::pending().await
}

impl Host {
    async fn admit(&self, peer: PeerId, open: &Open) -> Result<Lease, Refusal> {
        self.offer.check(open)?;
        self.registry.open(open.session, peer, open.tokens).await
    }

    fn opened(&self) -> SessionReply {
        SessionReply::Opened {
            max_step_rows: self.shape.max_rows,
            max_steps: actor::STEPS_IN_FLIGHT as u32,
            idle_timeout_ms: self.idle_timeout.as_millis() as u64,
        }
    }

    fn log_end(&self, peer: PeerId, session: SessionId, end: &End) {
        match end {
            End::ByClient => info!(%peer, %session, "a session was closed"),
            End::Lost(reason) => info!(%peer, %session, %reason, "a session's client is gone"),
            End::ByServer(CloseReason::Protocol(reason)) => {
                debug!(%session, "a session was ended");
                self.broke_the_protocol(peer, reason);
            }
            End::ByServer(reason) => info!(%peer, %session, %reason, "a session was ended"),
            End::NotOpened(reason) => warn!(%peer, %session, %reason, "a session got no KV cache"),
        }
    }
}
