//! Random operations against model servers whose output shows every row they were ever fed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const SEEDS: u64 = 3000;
const OPERATIONS: usize = 60;
const BLOCKS: u32 = 6;

impl Rows for Vec<u64> {
    fn rows(&self) -> usize {
        self.len()
    }

    fn slice(&self, from: usize, count: usize) -> Self {
        self[from..from + count].to_vec()
    }

    fn append(&mut self, more: Self) {
        self.extend(more);
    }

    fn truncate(&mut self, rows: usize) {
        Vec::truncate(self, rows);
    }
}

fn mix(one: u64, two: u64) -> u64 {
    let mixed = (one ^ two.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 31)
}

/// A block's output row depends on every input row up to it, as attention's does.
fn block_outputs(block: u32, inputs: &[u64]) -> Vec<u64> {
    let prefix = inputs.iter().scan(u64::from(block), |prefix, &row| {
        *prefix = mix(*prefix, row);
        Some(*prefix)
    });
    prefix.collect()
}

fn outputs(blocks: BlockRange, inputs: &[u64]) -> Vec<u64> {
    blocks.blocks().fold(inputs.to_vec(), |rows, block| block_outputs(block.0, &rows))
}

struct Server {
    blocks: BlockRange,
    /// The rows its KV was made of.
    fed: Vec<u64>,
    queue: VecDeque<(Work<Vec<u64>>, Vec<u64>)>,
    gone: bool,
}

impl Server {
    fn new(blocks: BlockRange) -> Self {
        Self { blocks, fed: Vec::new(), queue: VecDeque::new(), gone: false }
    }

    fn compute(&mut self) -> Option<(WorkId, Option<Vec<u64>>)> {
        let (work, rows) = self.queue.pop_front()?;
        assert!(work.from.as_usize() <= self.fed.len(), "fed beyond its KV: {work:?}");
        assert_eq!(work.rows.as_usize(), rows.len());
        self.fed.truncate(work.from.as_usize());
        self.fed.extend(rows);
        let mut answer = outputs(self.blocks, &self.fed);
        let answer = answer.split_off(answer.len() - work.output.of(work.rows.as_usize()));
        Some((work.id, (!answer.is_empty()).then_some(answer)))
    }
}

struct World {
    rng: StdRng,
    chain: Chain<Vec<u64>>,
    tokens: Vec<u64>,
    servers: BTreeMap<HopId, Server>,
    late: Vec<(WorkId, Option<Vec<u64>>)>,
    awaited: BTreeSet<usize>,
    of_rows: bool,
}

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn tiles(rng: &mut StdRng, whole: BlockRange) -> Vec<BlockRange> {
    let mut cuts = vec![whole.start()];
    cuts.extend((whole.start() + 1..whole.end()).filter(|_| rng.random_bool(0.4)));
    cuts.push(whole.end());
    cuts.windows(2).map(|pair| range(pair[0], pair[1])).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let hops = tiles(&mut rng, range(0, BLOCKS));
        let chunk = TokenCount(rng.random_range(1..6));
        let config = ChainConfig { chunk, window: rng.random_range(1..4) };
        let of_rows = rng.random_bool(0.3);
        let make = if of_rows { Chain::of_rows } else { Chain::of_tokens };
        let chain = make(range(0, BLOCKS), &hops, config).unwrap();
        let servers = chain.hops().map(|(hop, blocks)| (hop, Server::new(blocks))).collect();
        let (tokens, late, awaited) = Default::default();
        Self { rng, chain, tokens, servers, late, awaited, of_rows }
    }

    fn act(&mut self) {
        match self.rng.random_range(0..20) {
            0..3 => self.extend(),
            3..8 => self.pump(),
            8..15 => self.compute(),
            15 => self.fail(),
            16..18 => self.repair(),
            18 => self.truncate(),
            _ => self.deliver_late(),
        }
        let pumped = self.chain.is_idle();
        assert!(!pumped || self.chain.next_work().is_none(), "idle chains have no work");
    }

    fn extend(&mut self) {
        let from = self.tokens.len();
        let more: Vec<u64> = (0..self.rng.random_range(1..8)).map(|_| self.rng.random()).collect();
        let kind = [Outputs::All, Outputs::Last, Outputs::Last, Outputs::None];
        let kind = kind[self.rng.random_range(0..kind.len())];
        self.tokens.extend(&more);
        let last = self.tokens.len() - 1;
        match kind {
            Outputs::All => self.awaited.extend(from..=last),
            Outputs::Last => self.awaited.extend([last]),
            Outputs::None => {}
        }
        let extended = if self.of_rows {
            self.chain.extend_rows(more, kind)
        } else {
            self.chain.extend_tokens(count(more.len()), kind)
        };
        extended.unwrap();
    }

    fn pump(&mut self) {
        while let Some(work) = self.chain.next_work() {
            let from = work.from.as_usize();
            let rows = match &work.input {
                Input::Tokens => self.tokens.slice(from, work.rows.as_usize()),
                Input::Rows(rows) => rows.clone(),
            };
            let server = self.servers.get_mut(&work.hop).unwrap();
            assert!(!server.gone, "work for a lost hop");
            server.queue.push_back((work, rows));
        }
    }

    fn compute(&mut self) {
        let pick = self.rng.random_range(0..self.servers.len());
        let server = self.servers.values_mut().nth(pick).unwrap();
        if let Some(answer) = server.compute() {
            if server.gone { self.late.push(answer) } else { self.answer(answer) }
        }
    }

    fn answer(&mut self, (work, rows): (WorkId, Option<Vec<u64>>)) {
        if let Completed::Output { from, rows } = self.chain.complete(work, rows).unwrap() {
            let right = outputs(range(0, BLOCKS), &self.tokens);
            for (position, row) in (from.as_usize()..).zip(rows) {
                assert_eq!(row, right[position], "output of position {position}");
                assert!(self.awaited.remove(&position), "output of position {position} unasked");
            }
        }
    }

    fn deliver_late(&mut self) {
        if let Some((work, rows)) = self.late.pop() {
            assert_eq!(self.chain.complete(work, rows), Ok(Completed::Stale));
        }
    }

    fn fail(&mut self) {
        let pick = self.rng.random_range(0..self.chain.hops().len());
        let (hop, _) = self.chain.hops().nth(pick).unwrap();
        let server = self.servers.get_mut(&hop).unwrap();
        assert_eq!(self.chain.fail(hop), !server.gone);
        server.gone = true;
    }

    fn repair(&mut self) {
        let Some(span) = self.chain.lost().first().cloned() else {
            return;
        };
        let hops = tiles(&mut self.rng, span.range);
        let ids = self.chain.replace(&span, &hops).unwrap();
        assert!(self.chain.replace(&span, &hops).is_err(), "two repairs of one hop");
        self.servers.extend(ids.into_iter().zip(hops.into_iter().map(Server::new)));
    }

    fn truncate(&mut self) {
        let length = self.rng.random_range(0..=self.tokens.len());
        self.tokens.truncate(length);
        self.awaited.retain(|&position| position < length);
        self.chain.truncate(count(length));
    }

    fn finish(&mut self) {
        while !self.chain.is_idle() {
            self.repair();
            self.pump();
            self.compute();
        }
        assert_eq!(self.awaited, BTreeSet::new(), "every output that was asked for came");
        let mut rows = self.tokens.clone();
        let hops: Vec<_> = self.chain.hops().collect();
        for (hop, blocks) in &hops {
            let fed = &self.servers[hop].fed;
            assert_eq!(fed[..rows.len().min(fed.len())], rows[..], "the KV of blocks {blocks}");
            rows = outputs(*blocks, &rows);
        }
        let kept = hops.len() - usize::from(!self.of_rows);
        assert_eq!(self.chain.history_rows(), kept * self.tokens.len());
    }
}

#[test]
fn whatever_happens_every_hop_ends_with_the_right_history() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..OPERATIONS).for_each(|_| world.act());
            world.finish();
        });
        assert!(outcome.is_ok(), "seed {seed} failed: see above");
    }
}
