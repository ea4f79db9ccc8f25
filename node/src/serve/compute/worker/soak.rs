//! Many sequences that come, go back, lose interest and go, in an order drawn from a seed: each answer is the one of the
//! sequence alone, and nothing is kept of those that have gone, but the pages that were to be kept, within the budget.
//! Those that begin like others begin with their pages.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_model::{Checkpoint, ModelSpec};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{PAGE_POSITIONS, PageKey, RowEncoding, RowsHeader};

use super::*;

const SEEDS: Range<u64> = 0..4;

/// Things that happen with one seed.
const OPERATIONS: usize = 1200;

/// Sequences at once, at most.
const CROWD: usize = 32;

/// Positions of one sequence: more than a page.
const ROOM: usize = 150;

/// Rows of a piece of a prompt, at most.
const PIECE: usize = 40;

const HIDDEN: usize = 128;

const BLOCKS: u32 = 3;

/// A sequence, and what it would be alone.
struct Sequence {
    slot: Slot,
    cache: KvCache,
    /// The rows that it holds.
    inputs: Vec<u8>,
    answers: Vec<(oneshot::Receiver<StepResult>, Vec<u8>)>,
}

struct Soak {
    rng: StdRng,
    worker: Worker,
    /// The same blocks, for one sequence at a time.
    alone: Blocks,
    open: Vec<Sequence>,
    /// Whose end is queued.
    gone: Vec<Sequence>,
    /// The blocks and rows of pages that were to be kept.
    kept: Vec<(BlockRange, Vec<u8>)>,
    /// How many pages were not computed again.
    recalled: usize,
    slots: u64,
}

const PAGE: usize = PAGE_POSITIONS as usize;
const ROW_BYTES: usize = HIDDEN * 2;
const PAGE_BYTES: usize = PAGE * ROW_BYTES;

/// What the whole pages of these rows are kept under.
fn names(blocks: BlockRange, rows: &[u8]) -> Vec<PageName> {
    let ends = (1..=rows.len() / PAGE_BYTES).map(|pages| pages * PAGE_BYTES);
    ends.map(|end| PageName { owner: None, blocks, key: PageKey::root(&rows[..end]) }).collect()
}

fn blocks() -> Blocks {
    let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
    let range = BlockRange::new(0, BLOCKS).unwrap();
    checkpoint.load_blocks(range, checkpoint.native_format(), &mut |_| {}).unwrap()
}

impl Soak {
    fn new(seed: u64) -> Self {
        let blocks = blocks();
        // What all of them reserve at most, and nothing for what is kept.
        let pages = CROWD * ROOM.div_ceil(PAGE);
        let arena = KvArena::new(pages as u64 * blocks.page_bytes(blocks.range()));
        let worker = Worker::new(
            blocks,
            arena,
            Prefixes::new(pages),
            watch::channel(SmoothedWait::default()).0,
            ServerMetrics::default(),
        );
        let (rng, alone) = (StdRng::seed_from_u64(seed), self::blocks());
        let (open, gone, kept) = (Vec::new(), Vec::new(), Vec::new());
        Self { rng, worker, alone, open, gone, kept, recalled: 0, slots: 0 }
    }

    fn operate(&mut self) {
        match self.rng.random_range(0..20) {
            0..3 if self.open.len() < CROWD => self.open(),
            3..14 => self.step(),
            14 => self.gap(),
            15 => self.close(true),
            16 => self.close(false),
            17 => self.keep(),
            _ => {
                for _ in 0..self.rng.random_range(0..6) {
                    self.worker.go_on();
                }
            }
        }
    }

    fn open(&mut self) {
        let start = self.rng.random_range(0..BLOCKS);
        let range = BlockRange::new(start, self.rng.random_range(start + 1..=BLOCKS)).unwrap();
        let like =
            (!self.kept.is_empty() && self.rng.random_bool(0.5)).then(|| self.rng.random_range(0..self.kept.len()));
        let (range, rows) = like.map_or((range, Vec::new()), |like| self.kept[like].clone());
        let slot = Slot(self.slots);
        self.slots += 1;
        let task = Task::Open { blocks: range, tokens: TokenCount(ROOM as u32), reply: oneshot::channel().0 };
        self.worker.take(Job { slot, task });
        let cache = self.alone.new_cache(range, ROOM).unwrap();
        self.open.push(Sequence { slot, cache, inputs: Vec::new(), answers: Vec::new() });
        let pages = self.worker.prefixes.recall(&names(range, &rows));
        if !pages.is_empty() {
            self.recalled += pages.len();
            let rows = rows[..pages.len() * PAGE_BYTES].to_vec();
            let pages = pages.into_iter().map(|page| page.kv).collect();
            self.worker.take(Job { slot, task: Task::Attach { pages } });
            self.compute_alone(self.open.len() - 1, 0, rows);
        }
    }

    /// Has the whole pages of somebody kept.
    fn keep(&mut self) {
        let Some(place) = self.any_open() else { return };
        let Sequence { slot, cache, inputs, .. } = &self.open[place];
        let chain = names(cache.range(), inputs);
        let new = |(index, name): (usize, &PageName)| NewPage { index, name: *name, outputs: None };
        let task = Task::Keep { pages: chain.iter().enumerate().map(new).collect(), chain };
        self.kept.push((cache.range(), inputs.clone()));
        self.worker.take(Job { slot: *slot, task });
    }

    /// What the rows give if nobody else is there.
    fn compute_alone(&mut self, place: usize, position: usize, rows: Vec<u8>) -> Vec<u8> {
        let count = rows.len() / ROW_BYTES;
        let Sequence { cache, inputs, .. } = &mut self.open[place];
        cache.truncate(position);
        inputs.truncate(position * ROW_BYTES);
        inputs.extend_from_slice(&rows);
        let (input, range) =
            (activations::from_bytes(self.alone.format(), count, HIDDEN, &rows).unwrap(), cache.range());
        let alone = swarm_model::Sequence { cache, rows: count };
        activations::to_bytes(&self.alone.forward(range, &input, &mut [alone]).unwrap()).unwrap()
    }

    fn any_open(&mut self) -> Option<usize> {
        (!self.open.is_empty()).then(|| self.rng.random_range(0..self.open.len()))
    }

    /// The next rows of somebody, or others for some of those before.
    fn step(&mut self) {
        let Some(place) = self.any_open() else { return };
        let held = self.open[place].cache.len();
        let back = held == ROOM || self.rng.random_range(0..8) == 0;
        let position = if back { self.rng.random_range(0..held.max(1)) } else { held };
        let most = if self.rng.random_bool(0.8) { 1 } else { PIECE.min(ROOM - position) };
        let count = self.rng.random_range(1..=most);
        let rows = self.rows(count);
        let answer = self.send(place, position, rows.clone());
        let alone = self.compute_alone(place, position, rows);
        self.open[place].answers.push((answer, alone));
    }

    fn send(&mut self, place: usize, position: usize, rows: Vec<u8>) -> oneshot::Receiver<StepResult> {
        let count = (rows.len() / HIDDEN / 2) as u32;
        let header = RowsHeader { rows: count, hidden: HIDDEN as u32, element: RowEncoding::Bf16 };
        let step = Step { epoch: 0, position: position as u32, rows: header, wanted_from: 0 };
        let (reply, answer) = oneshot::channel();
        let task = Task::Step { step, rows, queued: Instant::now(), reply };
        self.worker.take(Job { slot: self.open[place].slot, task });
        answer
    }

    fn rows(&mut self, count: usize) -> Vec<u8> {
        // The upper half of an f32 is its bf16.
        let mut element = || ((self.rng.random_range(-1.0f32..1.0).to_bits() >> 16) as u16).to_le_bytes();
        (0..count * HIDDEN).flat_map(|_| element()).collect()
    }

    /// A step for a position that nobody has come to costs nobody anything.
    fn gap(&mut self) {
        let Some(place) = self.any_open() else { return };
        let rows = self.rows(1);
        let mut answer = self.send(place, ROOM + 7, rows);
        self.worker.settle();
        assert!(matches!(answer.try_recv().unwrap(), Err(StepError::Gap { .. })));
    }

    /// Somebody goes: what was queued before is still computed, unless nobody waits for it.
    fn close(&mut self, waits: bool) {
        let Some(place) = self.any_open() else { return };
        let mut sequence = self.open.swap_remove(place);
        self.worker.take(Job { slot: sequence.slot, task: Task::Close { done: oneshot::channel().0 } });
        if !waits {
            sequence.answers.clear();
        }
        self.gone.push(sequence);
    }

    fn end(mut self) -> usize {
        while !self.open.is_empty() {
            self.close(true);
        }
        self.worker.settle();
        assert!(self.worker.caches.is_empty() && self.worker.ranges.is_empty());
        assert!(self.recalled > 0, "nothing that was kept was of use");
        while self.worker.prefixes.give_way() {}
        assert_eq!(self.worker.arena.used_bytes(), 0);
        let answers = self.gone.into_iter().flat_map(|sequence| sequence.answers);
        let right = |(mut answer, alone): (oneshot::Receiver<StepResult>, Vec<u8>)| {
            assert!(answer.try_recv().unwrap().unwrap().rows == alone, "a step in company differs");
        };
        answers.map(right).count()
    }
}

#[test]
fn a_crowd_changes_no_bit_and_leaves_nothing_behind() {
    for seed in SEEDS {
        let mut soak = Soak::new(seed);
        (0..OPERATIONS).for_each(|_| soak.operate());
        let answers = soak.end();
        assert!(answers > OPERATIONS / 4, "seed {seed}: {answers} answers");
    }
}
