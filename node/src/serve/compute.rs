//! The compute thread: it owns the weights and every KV cache. Async code sends it jobs and never computes.

mod queue;
mod receive;
mod worker;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_model::{Blocks, ComputePool, KvArena, KvPage};
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{Step, StepError};
use tokio::sync::{mpsc, oneshot, watch};

use self::worker::Worker;
use super::error::ServeError;
use super::metrics::ServerMetrics;
use super::prefixes::Prefixes;
use super::smoothed::SmoothedWait;
use crate::prefix_cache::PageName;

/// Jobs on their way to the thread, which sorts them as soon as it has a moment: two steps of each of 256 sessions, and their
/// opening and closing.
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

/// Something to do for one sequence.
struct Job {
    slot: Slot,
    task: Task,
}

enum Task {
    Open { blocks: BlockRange, tokens: TokenCount, reply: oneshot::Sender<Opened> },
    Step { step: Step, rows: Vec<u8>, queued: Instant, reply: oneshot::Sender<StepResult> },
    Export { positions: Range<usize>, reply: oneshot::Sender<Result<Vec<u8>, StepError>> },
    Import { position: usize, bytes: Vec<u8>, reply: oneshot::Sender<Result<(), StepError>> },
    Attach { pages: Vec<KvPage> },
    Keep { pages: Vec<NewPage>, chain: Vec<PageName> },
    Close { done: oneshot::Sender<()> },
}

/// A page of a session that is to be kept for others.
pub(super) struct NewPage {
    /// Which page of the session's KV cache.
    pub(super) index: usize,
    pub(super) name: PageName,
    pub(super) outputs: Option<Arc<ActivationRows>>,
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

/// Starts the thread. KV caches, and what is kept of them in `prefixes`, come from `arena`.
///
/// # Errors
/// [`ServeError::Thread`] if the system gives none.
pub(super) fn start(
    blocks: Blocks,
    pool: ComputePool,
    arena: KvArena,
    prefixes: Prefixes,
    metrics: ServerMetrics,
) -> Result<Started, ServeError> {
    let (jobs, queue) = mpsc::channel(JOB_CAPACITY);
    let (wait_sender, wait) = watch::channel(SmoothedWait::default());
    let (alive, ended) = oneshot::channel();
    let worker = Worker::new(blocks, arena, prefixes, wait_sender, metrics);
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
        self.send(Job { slot, task: Task::Open { blocks, tokens, reply } }).await?;
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
        self.send(Job { slot, task: Task::Step { step, rows, queued: Instant::now(), reply } }).await?;
        Ok(answer)
    }

    /// Queues copying keys and values of `positions` out of a sequence's KV cache.
    pub(super) async fn export(
        &self,
        slot: Slot,
        positions: Range<usize>,
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, StepError>>, StepError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job { slot, task: Task::Export { positions, reply } }).await?;
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
        self.send(Job { slot, task: Task::Import { position, bytes, reply } }).await?;
        Ok(answer)
    }

    /// Queues putting whole pages into a sequence's KV cache that is empty.
    pub(super) async fn attach(&self, slot: Slot, pages: Vec<KvPage>) -> Result<(), StepError> {
        self.send(Job { slot, task: Task::Attach { pages } }).await
    }

    /// Queues keeping pages of a sequence for others; `chain` names all of its pages up to the last of them.
    pub(super) async fn keep(&self, slot: Slot, pages: Vec<NewPage>, chain: Vec<PageName>) -> Result<(), StepError> {
        self.send(Job { slot, task: Task::Keep { pages, chain } }).await
    }

    /// Frees a sequence's KV cache; returns when it is freed.
    pub(super) async fn close(&self, slot: Slot) {
        let (done, freed) = oneshot::channel();
        if self.send(Job { slot, task: Task::Close { done } }).await.is_ok() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn opening_waits_for_nothing_that_is_queued_before() {
        let (jobs, mut queue) = mpsc::channel(JOB_CAPACITY);
        let compute = Compute { jobs };
        // Nobody takes jobs: a long step is being computed.
        let opened = compute.open(Slot(1), BlockRange::new(0, 2).unwrap(), TokenCount(4));
        let opened = tokio::time::timeout(Duration::from_secs(10), opened).await.expect("it waits for the thread");
        let Some(Job { task: Task::Open { reply, .. }, .. }) = queue.recv().await else {
            panic!("no cache would be made");
        };
        reply.send(Ok(())).unwrap();
        assert_eq!(opened.unwrap().await.unwrap(), Ok(()));
    }
}
