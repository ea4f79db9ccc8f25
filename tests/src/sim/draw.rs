//! Random scenarios.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use swarm_client::chain::ChainConfig;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

use super::scenario::{Fault, Hosting, Operation, Scenario, ServerSpec, Turn, tokens_of};

/// Rows of the largest chunk.
const MOST_CHUNK: u32 = 8;

/// Steps at full speed take at most some 30 ms: slowed down by the most, the few that may be queued are done within the
/// shortest time that is waited for a step.
const SLOWEST_BLOCK_MICROS: u64 = 1200;

/// The most by which a server is slowed down.
const SLOWEST: u32 = 50;

pub(super) struct Draw(pub(super) StdRng);

impl Draw {
    pub(super) fn scenario(&mut self, seed: u64) -> Scenario {
        let blocks = self.0.random_range(1..=12);
        let turns = self.turns();
        let capacity = tokens_of(&turns).0;
        let servers = self.servers(blocks, capacity);
        let mut operations = Vec::new();
        for _ in 0..self.0.random_range(0..16) {
            self.operation(blocks, servers.len(), capacity, &mut operations);
        }
        operations.sort_by_key(|(at, _)| *at);
        Scenario {
            seed,
            model: part(0, blocks),
            servers,
            turns,
            operations,
            chain: self.chunks(seed),
            standby: self.0.random_bool(0.3),
            of_rows: self.0.random_bool(0.2),
            embedding: if self.0.random_bool(0.3) { self.millis(1, 10) } else { Duration::ZERO },
            fault: Fault::None,
        }
    }

    fn chunks(&mut self, seed: u64) -> ChainConfig {
        let least = TokenCount(1 + (seed % u64::from(MOST_CHUNK)) as u32);
        let chunk = TokenCount(self.0.random_range(1..=MOST_CHUNK));
        ChainConfig { chunk, least, window: self.0.random_range(1..6) }
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..to))
    }

    fn turns(&mut self) -> Vec<Turn> {
        let mut turns = vec![Turn::Prompt(self.0.random_range(1..25))];
        for _ in 0..self.0.random_range(1..9) {
            let tokens = self.0.random_range(1..12);
            turns.push(match self.0.random_range(0..12) {
                0 => Turn::Prompt(tokens),
                1 | 2 => Turn::Verify(tokens),
                3 => Turn::Fill(tokens),
                4 | 5 => Turn::Regret { tokens, after: self.millis(0, 400), back: self.0.random_range(0..20) },
                6 => Turn::GoBack(tokens),
                7 => Turn::Think(self.millis(0, 2500)),
                _ => Turn::Decode(tokens),
            });
        }
        turns
    }

    fn server(&mut self, hosting: Hosting, capacity: u32) -> ServerSpec {
        let room = capacity * self.0.random_range(5..9);
        ServerSpec {
            hosting,
            rtt: self.millis(1, 150),
            rate: 128 << (10 + self.0.random_range(0..8)),
            block_time: Duration::from_micros(self.0.random_range(100..SLOWEST_BLOCK_MICROS)),
            budget: TokenCount(room),
        }
    }

    /// At least one replica of every block, by the placement rule, and some servers wherever they like.
    fn servers(&mut self, blocks: u32, capacity: u32) -> Vec<ServerSpec> {
        let count = self.0.random_range(1..=blocks);
        let replicas = self.0.random_range(1..4);
        let tiles = blocks.div_ceil(count) * replicas;
        let mut servers: Vec<_> = (0..tiles).map(|_| self.server(Hosting::Chosen(count), capacity)).collect();
        for _ in 0..self.0.random_range(0..4) {
            let hosting = self.anywhere(blocks);
            servers.push(self.server(hosting, capacity));
        }
        servers
    }

    fn anywhere(&mut self, blocks: u32) -> Hosting {
        let start = self.0.random_range(0..blocks);
        Hosting::Fixed(part(start, self.0.random_range(start..blocks) + 1))
    }

    fn operation(&mut self, blocks: u32, servers: usize, capacity: u32, drawn: &mut Vec<(Duration, Operation)>) {
        let server = self.0.random_range(0..servers);
        let latest = if self.0.random_bool(0.4) { 500 } else { 5000 };
        let at = self.millis(0, latest);
        let operation = match self.0.random_range(0..25) {
            0..5 => {
                let back_after = self.0.random_bool(0.5).then(|| self.millis(10, 5000));
                Operation::Crash { server, back_after, reset: self.0.random_bool(0.6) }
            }
            5..8 => Operation::Stall { server, lasting: self.millis(50, 6000) },
            8..11 => {
                let factor = self.0.random_range(10..=SLOWEST);
                Operation::Slow { server, factor, lasting: self.millis(100, 5000) }
            }
            11 | 12 => Operation::Cut { server, lasting: self.millis(50, 6000) },
            13..16 => {
                let other = self.0.random_range(0..servers);
                let lasting = self.0.random_bool(0.5).then(|| self.millis(100, 6000));
                Operation::Part { one: server, other, lasting, refused: self.0.random_bool(0.5) }
            }
            16 | 17 => Operation::Forget { server, keep: self.0.random_range(0..20) },
            18 => Operation::Occupy { server, lasting: self.millis(100, 4000) },
            19..22 => Operation::Leave { server, within: self.millis(300, 6000) },
            22 => return self.flapping(server, at, drawn),
            23 => {
                let everything = self.0.random_bool(0.5);
                Operation::Swallow { server, lasting: self.millis(100, 60_000), everything }
            }
            _ => {
                let hosting = self.anywhere(blocks);
                Operation::Join(self.server(hosting, capacity))
            }
        };
        drawn.push((at, operation));
    }

    /// Down and up again, several times.
    fn flapping(&mut self, server: usize, from: Duration, drawn: &mut Vec<(Duration, Operation)>) {
        let mut at = from;
        for _ in 0..self.0.random_range(2..6) {
            let (back_after, reset) = (self.millis(10, 400), self.0.random_bool(0.5));
            drawn.push((at, Operation::Crash { server, back_after: Some(back_after), reset }));
            at += back_after + self.millis(10, 1000);
        }
    }
}

/// `[start, end)`, or one block where that is no range.
fn part(start: u32, end: u32) -> BlockRange {
    let end = end.max(start + 1);
    BlockRange::new(start, end).unwrap_or_else(|_| part(0, 1))
}
