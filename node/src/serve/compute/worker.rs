//! What runs on the compute thread.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use swarm_model::{Blocks, KvArena, KvCache, ModelError, Sequence, activations};
use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::{Step, StepError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, trace};

use super::queue::{Next, SHORT_ROWS, Work, WorkQueue};
use super::receive::receive_until;
use super::{Computed, Job, NewPage, Slot, StepResult, Task};
use crate::prefix_cache::PageName;
use crate::serve::metrics::ServerMetrics;
use crate::serve::prefixes::{KeptPage, Prefixes};
use crate::serve::smoothed::SmoothedWait;
use crate::serve::steps::rewind_to;

/// A step that waits, or of which a part is computed.
struct Waiting {
    step: Step,
    rows: Vec<u8>,
    queued: Instant,
    reply: oneshot::Sender<StepResult>,
    /// How long it waited, once its first rows were taken.
    queue: Option<Duration>,
    compute: Duration,
    outputs: Vec<u8>,
}

/// One sequence's part in a pass, with its cache in hand.
struct Member {
    slot: Slot,
    rows: usize,
    input: Vec<u8>,
    cache: KvCache,
}

/// What became of an attempt to do something.
enum Outcome {
    /// Something was done.
    Done,
    /// Nothing is to be done.
    Idle,
    /// Nothing before this moment, unless a job comes.
    Waits(Instant),
}

pub(super) struct Worker {
    blocks: Blocks,
    /// Where keys and values lie.
    arena: KvArena,
    /// Pages that outlive their sessions; they give way to those of sessions.
    prefixes: Prefixes,
    /// Of each open sequence, or why it has none.
    caches: HashMap<Slot, Result<KvCache, StepError>>,
    /// Of each sequence whose opening has been queued, and whose closing has not.
    ranges: HashMap<Slot, BlockRange>,
    queue: WorkQueue<Waiting, (Slot, Task)>,
    wait: watch::Sender<SmoothedWait>,
    metrics: ServerMetrics,
}

impl Worker {
    pub(super) fn new(
        blocks: Blocks,
        arena: KvArena,
        prefixes: Prefixes,
        wait: watch::Sender<SmoothedWait>,
        metrics: ServerMetrics,
    ) -> Self {
        let (caches, ranges) = (HashMap::new(), HashMap::new());
        let hops = blocks.config().blocks.div_ceil(blocks.range().len());
        Self { blocks, arena, prefixes, caches, ranges, queue: WorkQueue::new(hops as usize), wait, metrics }
    }

    /// Works until nobody can send jobs any more. What has come meanwhile is sorted between two passes, so what waits is
    /// no more than sessions may have under way.
    #[allow(clippy::disallowed_methods)] // On a thread of its own.
    pub(super) fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            while let Ok(job) = jobs.try_recv() {
                self.take(job);
            }
            match self.go_on() {
                Outcome::Done => {}
                Outcome::Idle => {
                    let Some(job) = jobs.blocking_recv() else { return };
                    self.take(job);
                }
                Outcome::Waits(until) => {
                    if let Some(job) = receive_until(&mut jobs, until) {
                        self.take(job);
                    }
                }
            }
        }
    }

    fn take(&mut self, Job { slot, task }: Job) {
        let work = match task {
            Task::Step { step, rows, queued, reply } => {
                let Some(&range) = self.ranges.get(&slot) else {
                    let _ = reply.send(Err(StepError::Gap { have: 0 }));
                    return;
                };
                let count = (step.rows.rows as usize).max(1);
                let (queue, compute, outputs) = (None, Duration::ZERO, Vec::new());
                Work::Step { range, rows: count, step: Waiting { step, rows, queued, reply, queue, compute, outputs } }
            }
            other => {
                match &other {
                    Task::Open { blocks, .. } => drop(self.ranges.insert(slot, *blocks)),
                    Task::Close { .. } => drop(self.ranges.remove(&slot)),
                    _ => {}
                }
                Work::Other((slot, other))
            }
        };
        self.queue.push(slot, work, Instant::now());
    }

    /// Does what is next.
    fn go_on(&mut self) -> Outcome {
        match self.queue.next(Instant::now()) {
            Next::Nothing => return Outcome::Idle,
            Next::Later(until) => return Outcome::Waits(until),
            Next::Other((slot, task)) => self.handle(slot, task),
            Next::Pass { range, members } => self.pass(range, members),
        }
        self.metrics.kv_used_bytes.set(self.arena.used_bytes() as i64);
        Outcome::Done
    }

    fn handle(&mut self, slot: Slot, task: Task) {
        // In each case the asker may have gone meanwhile.
        match task {
            Task::Open { blocks, tokens, reply } => {
                let cache = self.blocks.new_cache_in(&self.arena, blocks, tokens.as_usize()).map_err(failed);
                let _ = reply.send(cache.as_ref().map(|_| ()).map_err(Clone::clone));
                self.caches.insert(slot, cache);
            }
            Task::Export { positions, reply } => {
                let exported = self.cache(slot).and_then(|cache| cache.export(positions).map_err(failed));
                let _ = reply.send(exported);
            }
            Task::Import { position, bytes, reply } => {
                if let Some(Ok(cache)) = self.caches.get(&slot) {
                    self.make_room(|| cache.growth_bytes(bytes.len() / cache.bytes_per_position().max(1)));
                }
                let imported = self.cache(slot).and_then(|cache| cache.import(position, &bytes).map_err(failed));
                let _ = reply.send(imported.map(|_| ()));
            }
            // Without its pages the session's first step finds a gap, and its owner feeds them.
            Task::Attach { pages } => drop(self.cache(slot).map(|cache| cache.attach(&pages))),
            Task::Keep { pages, chain } => self.keep(slot, pages, &chain),
            Task::Close { done } => {
                self.caches.remove(&slot);
                self.queue.forget(slot);
                let _ = done.send(());
            }
            // Steps are computed in passes.
            Task::Step { reply, .. } => drop(reply),
        }
    }

    fn cache(&mut self, slot: Slot) -> Result<&mut KvCache, StepError> {
        let cache = self.caches.get_mut(&slot).ok_or(StepError::Gap { have: 0 })?;
        cache.as_mut().map_err(|error| error.clone())
    }

    /// Keeps pages for later sessions. The steps that were queued before are computed: what a page's name says, it holds.
    fn keep(&mut self, slot: Slot, pages: Vec<NewPage>, chain: &[PageName]) {
        for NewPage { index, name, outputs } in pages {
            let Some(kv) = self.cache(slot).ok().and_then(|cache| cache.page(index)) else { return };
            self.prefixes.keep(name, KeptPage { kv, outputs });
        }
        self.prefixes.touch(chain);
        self.metrics.prefix_bytes.set(self.prefixes.bytes() as i64);
    }

    /// Lets go of pages that are kept until there is room for what is to be stored. Sessions have reserved theirs: they are
    /// there when nothing else is.
    fn make_room(&self, needed: impl Fn() -> u64) {
        // What a page gives back may also be that nobody has to copy it.
        let mut gave_way = false;
        while self.arena.used_bytes() + needed() > self.arena.budget_bytes() && self.prefixes.give_way() {
            gave_way = true;
        }
        if gave_way {
            self.metrics.prefix_bytes.set(self.prefixes.bytes() as i64);
        }
    }

    /// Computes rows of several sequences together.
    fn pass(&mut self, range: BlockRange, members: Vec<(Slot, usize)>) {
        let began = Instant::now();
        let mut ready = Vec::with_capacity(members.len());
        for (slot, rows) in members {
            match self.prepare(slot, rows, began) {
                Ok(Some(member)) => ready.push(member),
                // Nobody waits for it: the session is gone.
                Ok(None) => drop(self.queue.drop_step(slot)),
                Err(error) => self.fail(slot, error),
            }
        }
        if ready.is_empty() {
            return;
        }
        self.make_room(|| ready.iter().map(|member| member.cache.growth_bytes(member.rows)).sum());
        match self.forward(range, &mut ready) {
            Ok(outputs) => self.computed(ready, &outputs, began),
            Err(error) if ready.len() == 1 => self.not_computed(ready, error),
            // One of them is to blame; the others lose nothing but a moment.
            Err(_) => {
                for member in ready {
                    let mut alone = vec![member];
                    match self.forward(range, &mut alone) {
                        Ok(outputs) => self.computed(alone, &outputs, began),
                        Err(error) => self.not_computed(alone, error),
                    }
                }
            }
        }
    }

    /// Takes a sequence's cache, rewound to where its step begins; `None` if nobody wants the step.
    fn prepare(&mut self, slot: Slot, rows: usize, now: Instant) -> Result<Option<Member>, StepError> {
        let Some(waiting) = self.queue.step(slot).filter(|waiting| !waiting.reply.is_closed()) else {
            return Ok(None);
        };
        if waiting.queue.is_none() {
            let waited = now.saturating_duration_since(waiting.queued);
            waiting.queue = Some(waited);
            self.metrics.queue_wait.observe(waited.as_secs_f64());
            self.wait.send_modify(|wait| wait.observe(waited, now));
        }
        let whole = (waiting.step.rows.rows as usize).max(1);
        let row = waiting.rows.len() / whole;
        let from = waiting.outputs.len().checked_div(row).unwrap_or(0);
        let part = from * row..if from + rows == whole { waiting.rows.len() } else { (from + rows) * row };
        let position = waiting.step.position + from as u32;
        // A step that is computed whole needs its rows no more.
        let input = if rows == whole { std::mem::take(&mut waiting.rows) } else { waiting.rows[part].to_vec() };
        let cache = self.cache(slot)?;
        let again = cache.len().saturating_sub(position as usize).min(rows);
        cache.truncate(rewind_to(position, cache.len())?);
        self.metrics.replayed.inc_by(again as u64);
        let new = (rows - again) as u64;
        if whole <= SHORT_ROWS {
            self.metrics.decoded.inc_by(new)
        } else {
            self.metrics.prefilled.inc_by(new)
        };
        match self.caches.remove(&slot) {
            Some(Ok(cache)) => Ok(Some(Member { slot, rows, input, cache })),
            _ => Err(StepError::Gap { have: 0 }),
        }
    }

    /// Pushes all members' rows through the blocks. A panic is an error like others.
    fn forward(&self, range: BlockRange, members: &mut [Member]) -> Result<Vec<u8>, StepError> {
        let rows: usize = members.iter().map(|member| member.rows).sum();
        let bytes: Vec<u8> = match &mut members[..] {
            [alone] => std::mem::take(&mut alone.input),
            _ => members.iter().map(|member| member.input.as_slice()).collect::<Vec<_>>().concat(),
        };
        let computed = catch_unwind(AssertUnwindSafe(|| {
            let hidden = self.blocks.config().hidden;
            let input = activations::from_bytes(self.blocks.format(), rows, hidden, &bytes)
                .map_err(|error| StepError::BadRows(error.to_string()))?;
            let mut sequences: Vec<Sequence<'_>> =
                members.iter_mut().map(|Member { cache, rows, .. }| Sequence { cache, rows: *rows }).collect();
            let output = self.blocks.forward(range, &input, &mut sequences).map_err(failed)?;
            activations::to_bytes(&output).map_err(failed)
        }));
        computed.unwrap_or_else(|_| {
            error!(%range, rows, sequences = members.len(), "computing a step panicked");
            // One that is computed alone loses its cache, not the server its life: the client sees a failed step, then a gap.
            if let [alone] = members {
                alone.cache.truncate(0);
            }
            Err(StepError::Compute("the server's blocks panicked; its KV cache of this session is lost".to_string()))
        })
    }

    fn computed(&mut self, members: Vec<Member>, outputs: &[u8], began: Instant) {
        let rows: usize = members.iter().map(|member| member.rows).sum();
        let row = outputs.len() / rows.max(1);
        let took = began.elapsed();
        self.queue.took(rows, took);
        self.metrics.pass(rows, took);
        trace!(rows, sequences = members.len(), ?took, "a pass");
        let mut first = 0;
        for Member { slot, rows, cache, .. } in members {
            self.caches.insert(slot, Ok(cache));
            if let Some(waiting) = self.queue.step(slot) {
                waiting.outputs.extend_from_slice(&outputs[first * row..(first + rows) * row]);
                waiting.compute += took;
            }
            first += rows;
            if let Some(Waiting { outputs, queue, compute, reply, .. }) = self.queue.advance(slot, rows) {
                let _ = reply.send(Ok(Computed { rows: outputs, queue: queue.unwrap_or_default(), compute }));
            }
        }
    }

    fn not_computed(&mut self, members: Vec<Member>, error: StepError) {
        for Member { slot, cache, .. } in members {
            self.caches.insert(slot, Ok(cache));
            self.fail(slot, error.clone());
        }
    }

    fn fail(&mut self, slot: Slot, error: StepError) {
        if let Some(waiting) = self.queue.drop_step(slot) {
            // A step that does not follow what is there is its sender's fault.
            if !matches!(error, StepError::Gap { .. }) {
                self.metrics.failed_steps.inc();
            }
            let _ = waiting.reply.send(Err(error));
        }
    }
}

fn failed(error: ModelError) -> StepError {
    StepError::Compute(error.to_string())
}

#[cfg(test)]
mod soak;

#[cfg(test)]
mod tests {
    use swarm_model::{Checkpoint, ModelSpec};
    use swarm_protocol::session::TokenCount;
    use swarm_protocol::wire::{PageKey, RowEncoding, RowsHeader};

    use super::*;

    const HIDDEN: usize = 128;

    const BLOCKS: u32 = 3;

    /// Positions and counts of rows, one step after the other.
    type Steps = &'static [(u32, u32)];

    fn range(start: u32, end: u32) -> BlockRange {
        BlockRange::new(start, end).unwrap()
    }

    fn worker() -> Worker {
        with_room_for(None)
    }

    /// A worker whose KV caches have room for so many pages of all of its blocks.
    fn with_room_for(pages: Option<u64>) -> Worker {
        let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
        let format = checkpoint.native_format();
        let blocks = checkpoint.load_blocks(range(0, BLOCKS), format, &mut |_| {}).unwrap();
        let bytes = |pages| KvArena::new(pages * blocks.page_bytes(blocks.range()));
        let arena = pages.map_or_else(KvArena::unlimited, bytes);
        Worker::new(
            blocks,
            arena,
            Prefixes::new(100),
            watch::channel(SmoothedWait::default()).0,
            ServerMetrics::default(),
        )
    }

    fn open(worker: &mut Worker, slot: u64, blocks: BlockRange) -> oneshot::Receiver<super::super::Opened> {
        let (reply, opened) = oneshot::channel();
        worker.take(Job { slot: Slot(slot), task: Task::Open { blocks, tokens: TokenCount(256), reply } });
        opened
    }

    fn close(worker: &mut Worker, slot: u64) {
        worker.take(Job { slot: Slot(slot), task: Task::Close { done: oneshot::channel().0 } });
    }

    /// Bytes of bf16 rows that nobody else has.
    fn rows(slot: u64, position: u32, count: u32) -> Vec<u8> {
        let element = |index: usize| {
            let value = ((index as u64 * 31 + slot * 7) % 17) as f32 / 8.0 - 1.0;
            ((value.to_bits() >> 16) as u16).to_le_bytes()
        };
        let first = position as usize * HIDDEN;
        (first..first + count as usize * HIDDEN).flat_map(element).collect()
    }

    fn send(worker: &mut Worker, slot: u64, position: u32, count: u32) -> oneshot::Receiver<StepResult> {
        let header = RowsHeader { rows: count, hidden: HIDDEN as u32, element: RowEncoding::Bf16 };
        let step = Step { epoch: 0, position, rows: header, wanted_from: 0 };
        let (reply, answer) = oneshot::channel();
        let rows = rows(slot, position, count);
        worker.take(Job { slot: Slot(slot), task: Task::Step { step, rows, queued: Instant::now(), reply } });
        answer
    }

    impl Worker {
        /// Works until nothing waits.
        pub(super) fn settle(&mut self) {
            while !matches!(self.go_on(), Outcome::Idle) {}
        }
    }

    /// What a sequence's steps give when nobody else is there.
    fn alone(slot: u64, blocks: BlockRange, steps: &[(u32, u32)]) -> Vec<Vec<u8>> {
        let mut worker = worker();
        drop(open(&mut worker, slot, blocks));
        let step = |&(position, count): &(u32, u32)| {
            let mut answer = send(&mut worker, slot, position, count);
            worker.settle();
            answer.try_recv().unwrap().unwrap().rows
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn steps_in_company_have_the_bits_of_steps_alone() {
        // Prompts, tokens, a rewind; one sequence over fewer blocks.
        let sequences: [(u64, BlockRange, Steps); 4] = [
            (1, range(0, 3), &[(0, 50), (50, 1), (51, 1), (52, 1)]),
            (2, range(0, 3), &[(0, 3), (3, 1), (4, 1), (2, 2), (4, 1)]),
            (3, range(1, 3), &[(0, 20), (20, 1), (21, 1)]),
            (4, range(0, 3), &[(0, 100), (100, 1)]),
        ];
        let mut worker = worker();
        let mut answers = Vec::new();
        for (slot, blocks, _) in sequences {
            drop(open(&mut worker, slot, blocks));
        }
        // Everything waits at once, so passes are as mixed as they can be.
        for (slot, _, steps) in sequences {
            let sent: Vec<_> =
                steps.iter().map(|(position, count)| send(&mut worker, slot, *position, *count)).collect();
            answers.push(sent);
        }
        worker.settle();
        for ((slot, blocks, steps), answers) in sequences.into_iter().zip(answers) {
            let together: Vec<Vec<u8>> =
                answers.into_iter().map(|mut answer| answer.try_recv().unwrap().unwrap().rows).collect();
            assert_eq!(together, alone(slot, blocks, steps), "sequence {slot}");
        }
    }

    #[test]
    fn a_step_that_fails_costs_its_company_nothing() {
        let mut worker = worker();
        let mut opened = open(&mut worker, 1, range(5, 6));
        drop(open(&mut worker, 2, range(0, 3)));
        drop(open(&mut worker, 3, range(0, 3)));
        let (mut without_cache, mut gap) = (send(&mut worker, 1, 0, 1), send(&mut worker, 2, 4, 1));
        let (mut fine, mut stranger) = (send(&mut worker, 3, 0, 1), send(&mut worker, 9, 0, 1));
        // Past what its cache has room for: the blocks themselves refuse.
        drop(open(&mut worker, 4, range(0, 3)));
        let mut too_long = send(&mut worker, 4, 0, 257);
        worker.settle();
        let cause = opened.try_recv().unwrap().unwrap_err();
        assert_eq!(without_cache.try_recv().unwrap().unwrap_err(), cause);
        assert_eq!(gap.try_recv().unwrap().unwrap_err(), StepError::Gap { have: 0 });
        assert_eq!(stranger.try_recv().unwrap().unwrap_err(), StepError::Gap { have: 0 });
        assert!(matches!(too_long.try_recv().unwrap(), Err(StepError::Compute(_))));
        assert_eq!(fine.try_recv().unwrap().unwrap().rows, alone(3, range(0, 3), &[(0, 1)])[0]);
        let mut later = send(&mut worker, 3, 1, 1);
        (1..=4).for_each(|slot| close(&mut worker, slot));
        worker.settle();
        assert!(later.try_recv().unwrap().is_ok(), "what was queued before the end is computed");
        assert!(worker.caches.is_empty() && worker.ranges.is_empty());
    }

    fn page_name(key: u8) -> PageName {
        PageName { owner: None, blocks: range(0, 3), key: PageKey([key; 32]) }
    }

    /// Has the first pages of a sequence kept under the names of these keys.
    fn keep(worker: &mut Worker, slot: u64, keys: &[u8]) {
        let chain: Vec<PageName> = keys.iter().copied().map(page_name).collect();
        let new = |(index, name): (usize, &PageName)| NewPage { index, name: *name, outputs: None };
        let pages = chain.iter().enumerate().map(new).collect();
        worker.take(Job { slot: Slot(slot), task: Task::Keep { pages, chain } });
    }

    /// Begins a sequence with the pages of these names; says how many there were.
    fn recall(worker: &mut Worker, slot: u64, keys: &[u8]) -> usize {
        let pages = worker.prefixes.recall(&keys.iter().copied().map(page_name).collect::<Vec<_>>());
        let pages: Vec<_> = pages.into_iter().map(|page| page.kv).collect();
        let count = pages.len();
        worker.take(Job { slot: Slot(slot), task: Task::Attach { pages } });
        worker.settle();
        count
    }

    #[test]
    fn what_follows_a_recalled_beginning_has_the_bits_of_one_computed_anew() {
        let mut worker = worker();
        drop(open(&mut worker, 1, range(0, 3)));
        let _answer = send(&mut worker, 1, 0, 150);
        // The third page is not whole, and the first slot goes on with other rows in what others hold too.
        keep(&mut worker, 1, &[1, 2, 3]);
        let _other = send(&mut worker, 1, 10, 5);
        worker.settle();
        close(&mut worker, 1);
        // The rows depend on the slot's number: slot 1 again, as another session.
        drop(open(&mut worker, 1, range(0, 3)));
        assert_eq!(recall(&mut worker, 1, &[1, 2, 3]), 2);
        let mut answer = send(&mut worker, 1, 128, 30);
        worker.settle();
        assert_eq!(answer.try_recv().unwrap().unwrap().rows, alone(1, range(0, 3), &[(0, 128), (128, 30)])[1]);
        // A rewind into what is shared changes nothing for those who share it.
        let mut again = send(&mut worker, 1, 70, 20);
        worker.settle();
        assert_eq!(again.try_recv().unwrap().unwrap().rows, alone(1, range(0, 3), &[(0, 70), (70, 20)])[1]);
        drop(open(&mut worker, 2, range(0, 3)));
        assert_eq!(recall(&mut worker, 2, &[1, 2]), 2);
        let kept = worker.caches[&Slot(2)].as_ref().unwrap().export(0..128).unwrap();
        drop(open(&mut worker, 3, range(0, 3)));
        let _rows = send(&mut worker, 1, 70, 58);
        worker.settle();
        assert_eq!(worker.caches[&Slot(1)].as_ref().unwrap().export(0..128).unwrap(), kept);
    }

    #[test]
    fn what_is_kept_gives_way_to_sessions_and_never_the_other_way_round() {
        let mut worker = with_room_for(Some(4));
        for slot in [1, 2] {
            drop(open(&mut worker, slot, range(0, 3)));
            let _answer = send(&mut worker, slot, 0, 128);
            keep(&mut worker, slot, &[slot as u8, slot as u8 + 10]);
            worker.settle();
            close(&mut worker, slot);
            worker.settle();
        }
        let page = worker.blocks.page_bytes(range(0, 3));
        assert_eq!(worker.arena.used_bytes(), 4 * page, "all of it is kept");
        // Slot 2 uses the first of its pages, and needs two more: those used longest ago go.
        drop(open(&mut worker, 2, range(0, 3)));
        assert_eq!(recall(&mut worker, 2, &[2]), 1);
        let mut answer = send(&mut worker, 2, 64, 100);
        worker.settle();
        assert!(answer.try_recv().unwrap().is_ok());
        assert_eq!(worker.arena.used_bytes(), 4 * page);
        assert_eq!(worker.prefixes.recall(&[page_name(1), page_name(11)]).len(), 0);
        // Rewound into the page that it shares, it gets one of its own, and the kept one is nobody's any more.
        let mut answer = send(&mut worker, 2, 5, 200);
        worker.settle();
        assert!(answer.try_recv().unwrap().is_ok());
        assert_eq!((worker.arena.used_bytes(), worker.prefixes.recall(&[page_name(2)]).len()), (4 * page, 0));
        // What sessions hold themselves nobody takes from them.
        drop(open(&mut worker, 3, range(0, 3)));
        let mut answer = send(&mut worker, 3, 0, 1);
        worker.settle();
        assert!(matches!(answer.try_recv().unwrap(), Err(StepError::Compute(_))));
    }

    #[test]
    fn what_nobody_waits_for_is_not_computed() {
        let mut worker = worker();
        drop(open(&mut worker, 1, range(0, 3)));
        drop(send(&mut worker, 1, 0, 5));
        let mut answer = send(&mut worker, 1, 0, 1);
        worker.settle();
        assert_eq!(answer.try_recv().unwrap().unwrap().rows, alone(1, range(0, 3), &[(0, 1)])[0]);
        assert_eq!(worker.cache(Slot(1)).unwrap().len(), 1);
    }
}
