//! What an impostor does on streams of the session protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use swarm_protocol::p2p::{FrameReader, FrameWriter, InboundStream};
use swarm_protocol::session::SessionId;
use swarm_protocol::wire::{
    Connect, Incoming, MAX_STEP_ROWS, Output, Refusal, RowEncoding, RowsHeader, SessionReply, SessionRequest, Step,
    StepDone, StepError, StepOutput,
};
use tokio::sync::mpsc;

use super::Manner;
use super::intruder::Intruder;

/// The largest payload of an honest client or server.
const PAYLOAD_LIMIT: usize = 16 << 20;

/// Steps from another server that may wait.
const STEPS: usize = 16;

/// Frames of a flood between two looks at what the client says: a flood answers pings.
const FLOOD: u32 = 64;

/// Links that a flood of broken ones names; far more than a session has.
const FLOODED_LINKS: u32 = 1000;

/// All sessions on one impostor.
pub(super) struct Sessions {
    pub(super) manner: Manner,
    pub(super) intruder: Intruder,
    /// Where the steps go that other servers send.
    fed: Mutex<HashMap<SessionId, mpsc::Sender<Step>>>,
}

impl Sessions {
    pub(super) fn new(manner: Manner, intruder: Intruder) -> Self {
        Self { manner, intruder, fed: Mutex::default() }
    }

    /// Serves one stream, up to its end or the impostor's.
    pub(super) async fn serve(self: Arc<Self>, inbound: InboundStream) {
        let (mut reader, mut writer) = inbound.stream.into_frames::<SessionRequest, SessionReply>(PAYLOAD_LIMIT);
        match reader.next().await {
            Ok(Some((SessionRequest::Open(open), _))) => {
                let (fed, steps) = mpsc::channel(STEPS);
                self.fed.lock().expect("the sessions").insert(open.session, fed);
                if self.open(&mut writer).await {
                    let owned = Owned { sessions: self, reader, writer, steps, link: 0, flooding: None };
                    owned.run().await;
                }
            }
            Ok(Some((SessionRequest::Feed(incoming), _))) => self.take_feed(incoming, reader, writer).await,
            _ => {}
        }
    }

    async fn open(&self, writer: &mut FrameWriter<SessionReply>) -> bool {
        let reply = match self.manner {
            Manner::NeverOpens => return true,
            Manner::Refuses => SessionReply::Refused(Refusal::BadRequest("no reason".to_string())),
            _ => SessionReply::Opened { max_step_rows: MAX_STEP_ROWS, max_steps: 4, idle_timeout_ms: 60_000 },
        };
        writer.send(&reply, &[]).await.is_ok()
    }

    /// Takes whatever an honest server feeds.
    async fn take_feed(
        &self,
        incoming: Incoming,
        mut reader: FrameReader<SessionRequest>,
        mut writer: FrameWriter<SessionReply>,
    ) {
        let Some(steps) = self.fed.lock().expect("the sessions").get(&incoming.session).cloned() else {
            return;
        };
        let mut reply = SessionReply::Expected;
        while writer.send(&reply, &[]).await.is_ok() {
            let step = loop {
                match reader.next().await {
                    Ok(Some((SessionRequest::Step(step), _))) => break step,
                    Ok(Some((SessionRequest::Warm(_), _))) => {
                        if writer.send(&SessionReply::Received { position: 0 }, &[]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            };
            reply = SessionReply::Received { position: step.position + step.rows.rows };
            if steps.send(step).await.is_err() {
                return;
            }
        }
    }
}

/// One session.
struct Owned {
    sessions: Arc<Sessions>,
    reader: FrameReader<SessionRequest>,
    writer: FrameWriter<SessionReply>,
    steps: mpsc::Receiver<Step>,
    /// The number of its way out.
    link: u32,
    /// The step that set off the flood, and how many frames were sent.
    flooding: Option<(Step, u32)>,
}

impl Owned {
    async fn run(mut self) {
        loop {
            let lives = match self.next_request().await {
                Some(Some(request)) => self.on_request(request).await,
                Some(None) => false,
                None => self.flood().await,
            };
            if !lives {
                return;
            }
        }
    }

    /// Waits for the next request; a flood looks only whether there is one.
    async fn next_request(&mut self) -> Option<Option<SessionRequest>> {
        let next = next(&mut self.reader, &mut self.steps);
        match self.flooding {
            Some(_) => next.now_or_never(),
            None => Some(next.await),
        }
    }

    async fn on_request(&mut self, request: SessionRequest) -> bool {
        let manner = self.sessions.manner;
        match request {
            SessionRequest::Step(step) => self.answer(manner, step).await,
            SessionRequest::Ping { .. } if manner == Manner::Silent => true,
            SessionRequest::Ping { nonce } => self.say(SessionReply::Pong { nonce }).await,
            SessionRequest::Connect(connect) => self.on_connect(manner, connect).await,
            // An honest session's beginning: who never opened one has nothing to agree to.
            SessionRequest::Links(_) if manner != Manner::NeverOpens => self.say(SessionReply::Agreed).await,
            SessionRequest::Close => false,
            _ => true,
        }
    }

    async fn on_connect(&mut self, manner: Manner, connect: Connect) -> bool {
        self.link = connect.link;
        match (manner, connect.output) {
            (Manner::Unlinks, _) => {
                self.say(SessionReply::Unlinked { link: self.link, reason: "no reason".to_string() }).await
            }
            (Manner::Intrudes, Output::Next(next)) => {
                self.sessions.intruder.visit(next, self.link);
                true
            }
            _ => true,
        }
    }

    async fn say(&mut self, reply: SessionReply) -> bool {
        let payload = match &reply {
            SessionReply::Output(output) => vec![0; output.rows.payload_bytes().expect("a small payload")],
            _ => Vec::new(),
        };
        self.writer.send(&reply, &payload).await.is_ok()
    }

    async fn answer(&mut self, manner: Manner, step: Step) -> bool {
        let Step { epoch, position, rows, .. } = step;
        let output = |position, rows| SessionReply::Output(StepOutput { link: self.link, epoch, position, rows });
        let failed = |error| SessionReply::Failed { epoch, position, error };
        let reply = match manner {
            Manner::HangsUp => return false,
            Manner::Garbage => return self.writer.send_bytes(&[7; 64]).await.is_ok(),
            Manner::Oversized => return self.writer.send_bytes(&u32::MAX.to_le_bytes()).await.is_ok(),
            Manner::Fails | Manner::Intrudes => failed(StepError::Compute("no reason".to_string())),
            Manner::Forgetful => failed(StepError::Gap { have: 0 }),
            Manner::WrongShape => output(position, RowsHeader { hidden: 2, ..rows }),
            Manner::WrongPosition => output(position + 1, rows),
            Manner::DoneOnly => {
                SessionReply::Done(StepDone { epoch, position, rows: rows.rows, queue_us: 0, compute_us: 1 })
            }
            Manner::FloodsDone
            | Manner::FloodsOutputs
            | Manner::FloodsStrayOutputs
            | Manner::FloodsReceived
            | Manner::FloodsUnlinked => {
                self.flooding.get_or_insert((step, 0));
                return true;
            }
            Manner::Silent | Manner::PongsOnly | Manner::Refuses | Manner::NeverOpens | Manner::Unlinks => return true,
        };
        self.say(reply).await
    }

    /// A few more frames of a flood.
    async fn flood(&mut self) -> bool {
        let Some((step, sent)) = self.flooding else { return true };
        for count in sent..sent + FLOOD {
            if !self.say(self.flotsam(&step, count)).await {
                return false;
            }
        }
        self.flooding = Some((step, sent.wrapping_add(FLOOD) % u32::MAX.saturating_sub(FLOOD)));
        true
    }

    /// What a flood brings.
    fn flotsam(&self, step: &Step, count: u32) -> SessionReply {
        let epoch = step.epoch;
        let row = RowsHeader { rows: 1, element: RowEncoding::Bf16, ..step.rows };
        match self.sessions.manner {
            Manner::FloodsDone => {
                SessionReply::Done(StepDone { epoch, position: count % 2, rows: 0, queue_us: 0, compute_us: 0 })
            }
            Manner::FloodsOutputs => {
                SessionReply::Output(StepOutput { link: self.link, epoch, position: 0, rows: row })
            }
            Manner::FloodsStrayOutputs => {
                SessionReply::Output(StepOutput { link: u32::MAX - count, epoch, position: 0, rows: row })
            }
            Manner::FloodsReceived => SessionReply::Received { position: count.wrapping_mul(0x9e37_79b9) },
            _ => SessionReply::Unlinked { link: count % FLOODED_LINKS, reason: "no reason".to_string() },
        }
    }
}

/// The next request, or step of another server; `None` when the client is gone.
async fn next(reader: &mut FrameReader<SessionRequest>, steps: &mut mpsc::Receiver<Step>) -> Option<SessionRequest> {
    tokio::select! {
        request = reader.next() => Some(request.ok()??.0),
        Some(step) = steps.recv() => Some(SessionRequest::Step(step)),
    }
}
