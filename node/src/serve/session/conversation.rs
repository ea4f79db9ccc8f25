//! The reading half of a session: takes steps in, hands them to the compute thread, and passes the answers on in order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use swarm_protocol::p2p::StreamError;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{CloseReason, RowsHeader, SessionReply, SessionRequest, Step, StepError, StepOutput};
use tokio::sync::oneshot;

use super::{End, Reader, Replies};
use crate::serve::compute::{Computed, Opened, Slot, StepResult};
use crate::serve::host::Host;

/// Steps of one session that wait or are computed. Two keep the compute thread busy while an answer travels; a third is
/// left in the connection, whose flow control then slows the client.
const STEPS_IN_FLIGHT: usize = 2;

/// How often the registry is told that a client was heard: far more often than sessions time out, far less often than
/// steps come.
const TOUCH_INTERVAL: Duration = Duration::from_millis(500);

type Answer = Pin<Box<dyn Future<Output = (Step, StepResult)> + Send>>;

pub(super) struct Conversation<'a> {
    host: &'a Arc<Host>,
    session: SessionId,
    slot: Slot,
    opened: oneshot::Receiver<Opened>,
    reserved: TokenCount,
    reader: Reader,
    replies: &'a Replies,
    /// The answers of the steps in flight, in the steps' order.
    answers: FuturesOrdered<Answer>,
    /// A step that waits for one of them.
    held: Option<(Step, Vec<u8>)>,
    touched: Option<Instant>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        host: &'a Arc<Host>,
        session: SessionId,
        (slot, opened): (Slot, oneshot::Receiver<Opened>),
        reserved: TokenCount,
        reader: Reader,
        replies: &'a Replies,
    ) -> Self {
        let answers = FuturesOrdered::new();
        Self { host, session, slot, opened, reserved, reader, replies, answers, held: None, touched: None }
    }

    /// Goes on until the client ends it, is lost, or breaks the protocol.
    pub(super) async fn run(mut self) -> End {
        loop {
            let end = tokio::select! {
                request = self.reader.next(), if self.held.is_none() => match request {
                    Ok(Some((request, rows))) => self.on_request(request, rows).await,
                    Ok(None) => Some(End::ByClient),
                    Err(StreamError::Frame(error)) => Some(broken(error.to_string())),
                    Err(error) => Some(End::Lost(error.to_string())),
                },
                Some((step, result)) = self.answers.next() => self.on_answer(step, result).await,
                () = self.replies.broken() => Some(End::Lost("its replies cannot be written".to_string())),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn on_request(&mut self, request: SessionRequest, rows: Vec<u8>) -> Option<End> {
        self.touch().await;
        match request {
            SessionRequest::Step(step) if self.answers.len() < STEPS_IN_FLIGHT => self.start(step, rows).await,
            SessionRequest::Step(step) => self.held = Some((step, rows)),
            SessionRequest::Ping { nonce } => {
                self.replies.send(SessionReply::Pong { nonce }, Vec::new()).await;
            }
            SessionRequest::Close => return Some(End::ByClient),
            SessionRequest::Open(_) => return Some(broken("a session is opened once".to_string())),
        }
        None
    }

    async fn touch(&mut self) {
        if self.touched.is_none_or(|touched| touched.elapsed() >= TOUCH_INTERVAL) {
            self.touched = Some(Instant::now());
            self.host.registry.touch(self.session).await;
        }
    }

    async fn start(&mut self, step: Step, rows: Vec<u8>) {
        let queued = match self.host.shape.check(&step, self.reserved) {
            Ok(()) => self.host.compute.step(self.slot, step, rows).await,
            Err(error) => Err(error),
        };
        self.answers.push_back(Box::pin(async move {
            let result = match queued {
                Ok(answer) => answer.await.unwrap_or_else(|_| Err(lost())),
                Err(error) => Err(error),
            };
            (step, result)
        }));
    }

    async fn on_answer(&mut self, step: Step, result: StepResult) -> Option<End> {
        let end = if result.is_err() { self.not_opened() } else { None };
        let (reply, rows) = self.reply(step, result);
        if let Some((step, rows)) = self.held.take() {
            self.start(step, rows).await;
        }
        match self.replies.send(reply, rows).await {
            true => end,
            false => Some(End::Lost("its replies cannot be written".to_string())),
        }
    }

    /// Without a KV cache no step will ever succeed: the first that failed was the last.
    fn not_opened(&mut self) -> Option<End> {
        match self.opened.try_recv() {
            Ok(Err(error)) => Some(End::NotOpened(error.to_string())),
            _ => None,
        }
    }

    fn reply(&self, step: Step, result: StepResult) -> (SessionReply, Vec<u8>) {
        let Step { epoch, position, rows: RowsHeader { hidden, element, .. }, .. } = step;
        match result {
            Ok(Computed { rows, count, queue, compute }) => {
                let rows_header = RowsHeader { rows: count, hidden, element };
                let (queue_us, compute_us) = (micros(queue), micros(compute));
                let output = StepOutput { epoch, position, rows: rows_header, queue_us, compute_us };
                (SessionReply::Output(output), rows)
            }
            Err(error) => {
                tracing::debug!(session = %self.session, position, %error, "a step was not computed");
                (SessionReply::Failed { epoch, position, error }, Vec::new())
            }
        }
    }
}

fn broken(reason: String) -> End {
    End::ByServer(CloseReason::Protocol(reason))
}

fn lost() -> StepError {
    StepError::Compute("the compute thread ended".to_string())
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
