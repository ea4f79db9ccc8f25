//! The compute thread: it owns the weights and every KV cache. Async code sends it jobs and never computes.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use swarm_model::{Blocks, ComputePool, KvCache, ModelError, Sequence, activations};
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{RowsHeader, Step, StepError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use super::error::ServeError;
use super::smoothed::SmoothedWait;
use super::steps::rewind_to;

/// Jobs that may wait: two steps of each of 256 sessions, and their opening and closing.
const JOB_CAPACITY: usize = 1024;

/// One sequence in the compute thread; never reused, unlike the ids that clients draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot(pub(super) u64);

/// The output of a step.
#[derive(Debug)]
pub(super) struct Computed {
    /// Raw rows, as many as went in.
    pub(super) rows: Vec<u8>,
    /// How long the step waited.
    pub(super) queue: Duration,
    /// How long it was computed.
    pub(super) compute: Duration,
}

pub(super) type StepResult = Result<Computed, StepError>;

/// Whether a sequence has got its KV cache. If not, each of its steps fails with the same error.
pub(super) type Opened = Result<(), StepError>;

enum Job {
    Open { slot: Slot, blocks: BlockRange, tokens: TokenCount, reply: oneshot::Sender<Opened> },
    Step { slot: Slot, step: Step, rows: Vec<u8>, queued: Instant, reply: oneshot::Sender<StepResult> },
    Export { slot: Slot, positions: Range<usize>, reply: oneshot::Sender<Result<Vec<u8>, StepError>> },
    Import { slot: Slot, position: usize, bytes: Vec<u8>, reply: oneshot::Sender<Result<(), StepError>> },
    Close { slot: Slot, done: oneshot::Sender<()> },
}

/// Sends jobs to the compute thread; it ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub(super) struct Compute {
    jobs: mpsc::Sender<Job>,
}

/// What the compute thread tells of itself.
pub(super) struct Started {
    pub(super) compute: Compute,
    /// How long steps wait.
    pub(super) wait: watch::Receiver<SmoothedWait>,
    /// Resolves when the thread has ended, however it ended.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts the thread.
///
/// # Errors
/// [`ServeError::Thread`] if the system gives none.
pub(super) fn start(blocks: Blocks, pool: ComputePool) -> Result<Started, ServeError> {
    let (jobs, queue) = mpsc::channel(JOB_CAPACITY);
    let (wait_sender, wait) = watch::channel(SmoothedWait::default());
    let (alive, ended) = oneshot::channel();
    let worker = Worker { blocks, caches: HashMap::new(), wait: wait_sender };
    let thread = std::thread::Builder::new().name("compute".to_string());
    thread
        .spawn(move || {
            // Dropped when the thread ends, also by a panic.
            let _alive = alive;
            pool.run(|| worker.work(queue));
        })
        .map_err(ServeError::Thread)?;
    Ok(Started { compute: Compute { jobs }, wait, ended })
}

impl Compute {
    /// Has an empty KV cache made for a sequence, before any of its later steps is computed: nobody needs to wait for the
    /// answer, which comes behind all that was queued before. Waits only while the queue is full.
    pub(super) async fn open(
        &self,
        slot: Slot,
        blocks: BlockRange,
        tokens: TokenCount,
    ) -> Result<oneshot::Receiver<Opened>, StepError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Open { slot, blocks, tokens, reply }).await?;
        Ok(answer)
    }

    /// Queues a step; the answer comes through the receiver. Waits only while the queue is full.
    pub(super) async fn step(
        &self,
        slot: Slot,
        step: Step,
        rows: Vec<u8>,
    ) -> Result<oneshot::Receiver<StepResult>, StepError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Step { slot, step, rows, queued: Instant::now(), reply }).await?;
        Ok(answer)
    }

    /// Queues copying keys and values of `positions` out of a sequence's KV cache.
    pub(super) async fn export(
        &self,
        slot: Slot,
        positions: Range<usize>,
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, StepError>>, StepError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Export { slot, positions, reply }).await?;
        Ok(answer)
    }

    /// Queues adding keys and values, from `position` on, to a sequence's KV cache.
    pub(super) async fn import(
        &self,
        slot: Slot,
        position: usize,
        bytes: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<(), StepError>>, StepError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Import { slot, position, bytes, reply }).await?;
        Ok(answer)
    }

    /// Frees a sequence's KV cache; returns when it is freed.
    pub(super) async fn close(&self, slot: Slot) {
        let (done, freed) = oneshot::channel();
        if self.send(Job::Close { slot, done }).await.is_ok() {
            // A thread that has ended has freed everything.
            let _ = freed.await;
        }
    }

    async fn send(&self, job: Job) -> Result<(), StepError> {
        self.jobs.send(job).await.map_err(|_| stopped())
    }
}

fn stopped() -> StepError {
    StepError::Compute("the server is shutting down".to_string())
}

struct Worker {
    blocks: Blocks,
    /// Of each open sequence, or why it has none.
    caches: HashMap<Slot, Result<KvCache, StepError>>,
    wait: watch::Sender<SmoothedWait>,
}

impl Worker {
    /// Takes jobs one by one, in order, until nobody can send any more. Batches of several sessions' steps will be
    /// gathered here: [`Blocks::forward`] takes many sequences, and their rows' results do not depend on company.
    fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            self.handle(job);
        }
    }

    fn handle(&mut self, job: Job) {
        // In each case the asker may have gone meanwhile.
        match job {
            Job::Open { slot, blocks, tokens, reply } => {
                let cache = self.blocks.new_cache(blocks, tokens.as_usize());
                let cache = cache.map_err(|error| StepError::Compute(error.to_string()));
                let _ = reply.send(cache.as_ref().map(|_| ()).map_err(Clone::clone));
                self.caches.insert(slot, cache);
            }
            // Nobody waits for the answer: the session is gone.
            Job::Step { reply, .. } if reply.is_closed() => {}
            Job::Step { slot, step, rows, queued, reply } => {
                let began = Instant::now();
                let queue = began.saturating_duration_since(queued);
                self.wait.send_modify(|wait| wait.observe(queue, began));
                let result =
                    self.step(slot, &step, &rows).map(|rows| Computed { rows, queue, compute: began.elapsed() });
                let _ = reply.send(result);
            }
            Job::Export { slot, positions, reply } => {
                let exported = self.cache(slot).and_then(|cache| cache.export(positions).map_err(failed));
                let _ = reply.send(exported);
            }
            Job::Import { slot, position, bytes, reply } => {
                let imported = self.cache(slot).and_then(|cache| cache.import(position, &bytes).map_err(failed));
                let _ = reply.send(imported.map(|_| ()));
            }
            Job::Close { slot, done } => {
                self.caches.remove(&slot);
                let _ = done.send(());
            }
        }
    }

    fn cache(&mut self, slot: Slot) -> Result<&mut KvCache, StepError> {
        cache_of(&mut self.caches, slot)
    }

    /// A panic costs the session its cache, not the server its life: the client sees a failed step, then a gap.
    fn step(&mut self, slot: Slot, step: &Step, rows: &[u8]) -> Result<Vec<u8>, StepError> {
        let Self { blocks, caches, .. } = self;
        let cache = cache_of(caches, slot)?;
        match catch_unwind(AssertUnwindSafe(|| forward(blocks, cache, step, rows))) {
            Ok(result) => result,
            Err(_) => {
                error!(?slot, position = step.position, rows = step.rows.rows, "computing a step panicked");
                cache.truncate(0);
                Err(StepError::Compute(
                    "the server's blocks panicked; its KV cache of this session is lost".to_string(),
                ))
            }
        }
    }
}

fn cache_of(caches: &mut HashMap<Slot, Result<KvCache, StepError>>, slot: Slot) -> Result<&mut KvCache, StepError> {
    let cache = caches.get_mut(&slot).ok_or(StepError::Gap { have: 0 })?;
    cache.as_mut().map_err(|error| error.clone())
}

fn failed(error: ModelError) -> StepError {
    StepError::Compute(error.to_string())
}

fn forward(blocks: &Blocks, cache: &mut KvCache, step: &Step, rows: &[u8]) -> Result<Vec<u8>, StepError> {
    cache.truncate(rewind_to(step.position, cache.len())?);
    let RowsHeader { rows: count, hidden, .. } = step.rows;
    let input = activations::from_bytes(blocks.format(), count as usize, hidden as usize, rows)
        .map_err(|error| StepError::BadRows(error.to_string()))?;
    let (range, rows) = (cache.range(), count as usize);
    let output = blocks.forward(range, &input, &mut [Sequence { cache, rows }]).map_err(failed)?;
    activations::to_bytes(&output).map_err(failed)
}

#[cfg(test)]
mod tests {
    use swarm_model::{Checkpoint, ModelSpec};
    use swarm_protocol::wire::ElementType;

    use super::*;

    fn range(start: u32, end: u32) -> BlockRange {
        BlockRange::new(start, end).unwrap()
    }

    #[tokio::test]
    async fn opening_waits_for_nothing_that_is_queued_before() {
        let (jobs, mut queue) = mpsc::channel(JOB_CAPACITY);
        let compute = Compute { jobs };
        // Nobody takes jobs: a long step is being computed.
        let opened = compute.open(Slot(1), range(0, 2), TokenCount(4));
        let opened = tokio::time::timeout(Duration::from_secs(10), opened).await.expect("it waits for the thread");
        let Some(Job::Open { reply, .. }) = queue.recv().await else {
            panic!("no cache would be made");
        };
        reply.send(Ok(())).unwrap();
        assert_eq!(opened.unwrap().await.unwrap(), Ok(()));
    }

    #[test]
    fn a_sequence_without_a_cache_fails_with_its_cause() {
        let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
        let format = checkpoint.native_format();
        let blocks = checkpoint.load_blocks(range(0, 1), format, &mut |_| {}).unwrap();
        let mut worker = Worker { blocks, caches: HashMap::new(), wait: watch::channel(SmoothedWait::default()).0 };
        let (reply, mut opened) = oneshot::channel();
        worker.handle(Job::Open { slot: Slot(1), blocks: range(5, 6), tokens: TokenCount(4), reply });
        let cause = opened.try_recv().unwrap().unwrap_err();
        let rows = RowsHeader { rows: 1, hidden: 128, element: ElementType::Bf16 };
        let step = Step { epoch: 0, position: 0, rows, wanted_from: 0 };
        let (reply, mut answer) = oneshot::channel();
        worker.handle(Job::Step { slot: Slot(1), step, rows: vec![0; 256], queued: Instant::now(), reply });
        assert_eq!(answer.try_recv().unwrap().unwrap_err(), cause);
        let (done, _) = oneshot::channel();
        worker.handle(Job::Close { slot: Slot(1), done });
        assert!(worker.caches.is_empty());
    }
}
