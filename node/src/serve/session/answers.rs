//! What a session asks of the compute thread, and what comes of the answers.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::wire::{KvHeader, Lane, MAX_KV_BYTES, MAX_STEP_ROWS, SessionReply, Step, StepDone, StepError};
use tokio::sync::oneshot;

use super::End;
use super::actor::{Actor, broken};
use super::visit::Piece;
use crate::hop::Source;
use crate::serve::compute::{Computed, StepResult};

/// An answer that the compute thread owes.
pub(super) type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An answer of the compute thread.
pub(super) enum Answer {
    Step {
        source: Source,
        step: Step,
        result: StepResult,
    },
    Exported {
        epoch: u32,
        from: usize,
        count: usize,
        bytes: Result<Vec<u8>, StepError>,
        reply: oneshot::Sender<Option<Piece>>,
    },
    Imported {
        header: KvHeader,
        outputs: Option<ActivationRows>,
        result: Result<(), StepError>,
    },
}

impl Answer {
    pub(super) async fn of_step(
        source: Source,
        step: Step,
        queued: Result<oneshot::Receiver<StepResult>, StepError>,
    ) -> Self {
        Self::Step { source, step, result: answer_to(queued).await }
    }
}

async fn answer_to<T>(queued: Result<oneshot::Receiver<Result<T, StepError>>, StepError>) -> Result<T, StepError> {
    match queued {
        Ok(answer) => answer.await.unwrap_or_else(|_| Err(StepError::Compute("the compute thread ended".to_string()))),
        Err(error) => Err(error),
    }
}

impl Actor<'_> {
    pub(super) async fn on_answer(&mut self, answer: Answer) -> Option<End> {
        match answer {
            Answer::Step { source, step, result: Ok(computed) } => self.on_computed(source, step, computed).await,
            Answer::Step { source, step, result: Err(error) } => self.on_failed(source, &step, error).await,
            Answer::Exported { epoch, from, count, bytes, reply } => {
                self.on_exported(epoch, from, count, bytes, reply);
                None
            }
            Answer::Imported { header, outputs, result } => self.on_imported(header, outputs, result).await,
        }
    }

    async fn on_computed(&mut self, source: Source, step: Step, computed: Computed) -> Option<End> {
        let Computed { rows, queue, compute } = computed;
        let Some(rows) = ActivationRows::of_wire(step.rows, rows) else {
            let error = StepError::Compute("the blocks gave rows of another shape".to_string());
            return self.on_failed(source, &step, error).await;
        };
        self.part.iter_mut().for_each(|part| part.computed(step.rows.rows, queue, compute));
        let Step { epoch, position, wanted_from, .. } = step;
        self.state.computed(epoch, position as usize, wanted_from as usize, rows);
        if let Some(end) = self.resume().await {
            return Some(end);
        }
        // Rows go before the word about them: that is what everybody waits for.
        self.send_frames(Lane::Main);
        self.send_frames(Lane::Mirror);
        let (queue_us, compute_us) = (micros(queue), micros(compute));
        self.say(SessionReply::Done(StepDone { epoch, position, rows: step.rows.rows, queue_us, compute_us })).await
    }

    async fn on_failed(&mut self, source: Source, step: &Step, error: StepError) -> Option<End> {
        let have = match &error {
            StepError::Gap { have } => *have as usize,
            _ => step.position as usize,
        };
        self.state.failed(have);
        // Without a KV cache no step will ever succeed: the first that failed was the last.
        let end = match self.session.opened.try_recv() {
            Ok(Err(error)) => Some(End::NotOpened(error.to_string())),
            _ => None,
        };
        let told = self.not_computed(source, step, error).await;
        match end.or(told) {
            None => self.resume().await,
            end => end,
        }
    }

    /// The next piece of the KV cache, for a server that is to go on with this session.
    pub(super) async fn export(&mut self, from: usize, reply: oneshot::Sender<Option<Piece>>) {
        let Some(left) = self.state.len().checked_sub(from) else {
            // Rewound: dropping `reply` says so.
            return;
        };
        let count = left.min(self.positions_per_piece());
        if count == 0 {
            // Whoever asked may be gone.
            let _ = reply.send(None);
            return;
        }
        let epoch = self.state.epoch();
        let queued = self.host.compute.export(self.session.slot, from..from + count).await;
        self.pending.push_back(Box::pin(async move {
            Answer::Exported { epoch, from, count, bytes: answer_to(queued).await, reply }
        }));
    }

    fn kv_bytes_per_position(&self) -> u64 {
        self.host.kv_bytes_per_token_block * u64::from(self.session.blocks.len())
    }

    fn positions_per_piece(&self) -> usize {
        let fitting = u64::from(MAX_KV_BYTES) / self.kv_bytes_per_position().max(1);
        let most = self.host.shape.max_rows.min(MAX_STEP_ROWS);
        (fitting.clamp(1, u64::from(most))) as usize
    }

    /// The piece goes out only if no truncation came in between: the other server would build on what is no more.
    fn on_exported(
        &mut self,
        epoch: u32,
        from: usize,
        count: usize,
        bytes: Result<Vec<u8>, StepError>,
        reply: oneshot::Sender<Option<Piece>>,
    ) {
        let Ok(mut bytes) = bytes else {
            return;
        };
        if self.state.epoch() != epoch || self.state.len() < from + count {
            return;
        }
        let outputs = self.state.outputs(from, count);
        let none = self.host.shape.none();
        let header = KvHeader {
            epoch,
            position: from as u32,
            positions: count as u32,
            kv_bytes: bytes.len() as u32,
            outputs: outputs.as_ref().map_or(none, ActivationRows::header),
        };
        outputs.iter().for_each(|rows| bytes.extend_from_slice(rows.bytes()));
        let _ = reply.send(Some((header, bytes)));
    }

    /// Has a piece of another server's KV cache stored.
    pub(super) async fn store(&mut self, header: KvHeader, mut bytes: Vec<u8>) -> Option<End> {
        let outputs = bytes.split_off((header.kv_bytes as usize).min(bytes.len()));
        if u64::from(header.positions) * self.kv_bytes_per_position() != bytes.len() as u64 {
            return Some(not_taken_over("its positions are not those of its bytes"));
        }
        let shape = &self.host.shape;
        let fits = header.outputs.rows == 0
            || (header.outputs.rows == header.positions
                && (header.outputs.hidden, header.outputs.element) == (shape.hidden, shape.element.into()));
        if !fits {
            return Some(not_taken_over("its outputs are not the model's"));
        }
        let outputs = ActivationRows::of_wire(header.outputs, outputs).filter(|rows| rows.rows() > 0);
        let queued = self.host.compute.import(self.session.slot, header.position as usize, bytes).await;
        self.pending
            .push_back(Box::pin(async move { Answer::Imported { header, outputs, result: answer_to(queued).await } }));
        None
    }

    async fn on_imported(
        &mut self,
        header: KvHeader,
        outputs: Option<ActivationRows>,
        result: Result<(), StepError>,
    ) -> Option<End> {
        if let Err(error) = result {
            return Some(not_taken_over(&error.to_string()));
        }
        let KvHeader { epoch, position, positions, .. } = header;
        self.state.imported(epoch, position as usize, positions as usize, outputs);
        let position = position + positions;
        if let Some(import) = &self.import {
            // It asks for each piece's word before it sends the next.
            let _ = import.stored.try_send(position);
        }
        self.say(SessionReply::Received { position }).await
    }
}

/// What came is no KV cache of this session: its owner has to find another way.
fn not_taken_over(reason: &str) -> End {
    broken(format!("a KV cache could not be taken over: {reason}"))
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
