//! Blocks that this process computes itself: for when nobody serves them.
//!
//! One thread holds the weights and computes what sessions ask for, a piece of a prompt or a token at a time, so that sessions
//! share it. Each session holds its own keys and values.

use std::panic::{AssertUnwindSafe, catch_unwind};

use swarm_model::{Blocks, ComputePool, KvCache, ModelError, Sequence, activations};
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::session::TokenCount;
use tokio::sync::{mpsc, oneshot};

use crate::edges::ClientEdges;
use crate::session::SessionError;

/// Jobs that wait for the thread; whoever has more waits for room.
const QUEUE: usize = 64;

/// Rows computed at once: as many as use the weights well, few enough that others' tokens need not wait for long.
const CHUNK: usize = 64;

/// A sequence, and rows that follow it.
struct Job {
    /// None before its first rows.
    cache: Option<KvCache>,
    /// Positions it may have.
    room: usize,
    /// Positions it keeps.
    keep: usize,
    rows: ActivationRows,
    reply: oneshot::Sender<Result<(KvCache, ActivationRows), ModelError>>,
}

/// A handle on the thread, which ends with its last handle.
#[derive(Clone)]
pub(crate) struct BlocksHere {
    jobs: mpsc::Sender<Job>,
}

impl BlocksHere {
    /// Moves `blocks` to a thread of its own, which computes on `pool`.
    ///
    /// # Errors
    /// The system's error if no thread can be started.
    pub(crate) fn start(blocks: Blocks, pool: ComputePool) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let work = move || {
            while let Some(Job { cache, room, keep, rows, reply }) = queue.blocking_recv() {
                if reply.is_closed() {
                    continue;
                }
                // Whoever asked for what panics gets no answer; the thread goes on for the others.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(reply.send(step(&blocks, cache, room, keep, &rows)))));
            }
        };
        std::thread::Builder::new().name("blocks".to_string()).spawn(move || pool.run(work))?;
        Ok(Self { jobs })
    }

    async fn step(
        &self,
        cache: Option<KvCache>,
        room: usize,
        keep: usize,
        rows: ActivationRows,
    ) -> Result<(KvCache, ActivationRows), SessionError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { cache, room, keep, rows, reply }).await.map_err(|_| SessionError::Stopped)?;
        Ok(answer.await.map_err(|_| SessionError::Stopped)??)
    }
}

/// Computes the rows; gives the last one.
fn step(
    blocks: &Blocks,
    cache: Option<KvCache>,
    room: usize,
    keep: usize,
    rows: &ActivationRows,
) -> Result<(KvCache, ActivationRows), ModelError> {
    let (range, format, hidden) = (blocks.range(), blocks.format(), blocks.config().hidden);
    let mut cache = cache.map_or_else(|| blocks.new_cache(range, room), Ok)?;
    cache.truncate(keep);
    let count = rows.rows();
    let input = activations::from_bytes(format, count, hidden, rows.bytes())?;
    let output = blocks.forward(range, &input, &mut [Sequence { cache: &mut cache, rows: count }])?;
    let last = activations::to_bytes(&output.narrow(0, count - 1, 1)?)?;
    let last = ActivationRows::new(format, hidden as u32, last);
    let missing = || ModelError::BadInput { found: "no rows".into(), expected: format!("(rows, {hidden})") };
    Ok((cache, last.ok_or_else(missing)?))
}

/// One sequence, computed here.
pub(crate) struct SessionHere {
    blocks: BlocksHere,
    edges: ClientEdges,
    room: TokenCount,
    /// All that it was fed.
    ids: Vec<u32>,
    /// None before the first rows, and when a call was dropped that held it: then all is computed again.
    cache: Option<KvCache>,
    /// Positions of the cache that are those of `ids`.
    held: usize,
    /// The last row's output.
    last: Option<ActivationRows>,
}

impl SessionHere {
    /// An empty one with room for so many positions.
    pub(crate) fn new(blocks: BlocksHere, edges: ClientEdges, room: TokenCount) -> Self {
        Self { blocks, edges, room, ids: Vec::new(), cache: None, held: 0, last: None }
    }

    pub(crate) fn reserved(&self) -> TokenCount {
        self.room
    }

    pub(crate) fn fed_ids(&self) -> &[u32] {
        &self.ids
    }

    pub(crate) fn position(&self) -> TokenCount {
        TokenCount(self.ids.len() as u32)
    }

    pub(crate) fn truncate(&mut self, position: TokenCount) {
        self.ids.truncate(position.as_usize());
        self.held = self.held.min(self.ids.len());
    }

    /// Feeds token ids; gives the last block's output of the last one.
    ///
    /// # Errors
    /// [`SessionError`] if they do not fit the room, or the model.
    pub(crate) async fn feed_tokens(&mut self, ids: &[u32]) -> Result<Option<ActivationRows>, SessionError> {
        let asked = self.ids.len() + ids.len();
        if asked > self.room.as_usize() {
            let asked = TokenCount(u32::try_from(asked).unwrap_or(u32::MAX));
            return Err(SessionError::PastReservation { asked, reserved: self.room });
        }
        self.ids.extend_from_slice(ids);
        while self.held < self.ids.len() {
            let until = self.ids.len().min(self.held + CHUNK);
            let rows = self.edges.embed(self.ids[self.held..until].to_vec()).await?;
            let keep = self.held;
            // Should this call be dropped, the sequence is computed anew.
            self.held = 0;
            let (cache, last) = self.blocks.step(self.cache.take(), self.room.as_usize(), keep, rows).await?;
            (self.cache, self.last, self.held) = (Some(cache), Some(last), until);
        }
        Ok(self.last.take())
    }
}
