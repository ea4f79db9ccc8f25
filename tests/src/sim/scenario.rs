//! What happens in a simulation, as data.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_client::chain::ChainConfig;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

/// Which blocks a server hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosting {
    /// These.
    Fixed(BlockRange),
    /// That many, by the placement rule.
    Chosen(u32),
}

/// One server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its blocks.
    pub hosting: Hosting,
    /// The round trip between it and the client.
    pub rtt: Duration,
    /// How long a decode step takes on one block.
    pub block_time: Duration,
    /// The tokens of its KV caches.
    pub budget: TokenCount,
}

/// Something that goes wrong, or right. Servers are numbered in the order in which they joined; numbers wrap around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// The process dies. It is back after a while, with nothing it knew; or never, unless it is the last replica of a
    /// block, which is always back.
    Crash {
        /// Who.
        server: usize,
        /// How long it is away.
        back_after: Option<Duration>,
        /// Whether connections are reset; otherwise they fall silent.
        reset: bool,
    },
    /// The server answers late, but it does answer.
    Stall {
        /// Who.
        server: usize,
        /// How late.
        lasting: Duration,
    },
    /// The connections of every open session fall silent for good.
    Cut {
        /// Whose.
        server: usize,
    },
    /// The KV caches lose their newer part.
    Forget {
        /// Whose.
        server: usize,
        /// How many positions are kept.
        keep: usize,
    },
    /// Another client takes all the room there is.
    Occupy {
        /// Where.
        server: usize,
        /// How long.
        lasting: Duration,
    },
    /// The server says that it leaves, and soon does.
    Leave {
        /// Who.
        server: usize,
    },
    /// A new server.
    Join(ServerSpec),
}

/// What the client's user does, one thing after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Feeds a prompt of that many tokens and waits for the newest output.
    Prompt(u32),
    /// Generates that many tokens one by one, each from the output before.
    Decode(u32),
    /// Feeds that many draft tokens and waits for every output.
    Verify(u32),
    /// Feeds that many tokens, but goes back by `back` positions after a while, whatever has been computed by then.
    Regret {
        /// The tokens fed.
        tokens: u32,
        /// How long until the change of mind.
        after: Duration,
        /// The positions given up.
        back: u32,
    },
}

impl Turn {
    fn tokens(self) -> u32 {
        match self {
            Self::Prompt(tokens) | Self::Decode(tokens) | Self::Verify(tokens) | Self::Regret { tokens, .. } => tokens,
        }
    }
}

/// A bug put into every server, to see that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No bug.
    None,
    /// A step below the KV's length does not rewind it.
    KeepsStaleRows,
    /// A step beyond the KV's length is computed all the same.
    ComputesOverGaps,
    /// Closing a session does not give its room back, nor does silence: see [`Scenario::fault`].
    LeaksReservations,
}

/// A whole simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed of the client's own choices.
    pub seed: u64,
    /// The model's blocks.
    pub model: BlockRange,
    /// The servers there from the start; they cover the model.
    pub servers: Vec<ServerSpec>,
    /// What the user does.
    pub turns: Vec<Turn>,
    /// What happens meanwhile, and when.
    pub operations: Vec<(Duration, Operation)>,
    /// How the session cuts its work.
    pub chain: ChainConfig,
    /// The bug in every server.
    pub fault: Fault,
}

impl Scenario {
    /// The tokens the session needs room for.
    pub fn capacity(&self) -> TokenCount {
        TokenCount(self.turns.iter().map(|turn| turn.tokens()).sum())
    }

    /// A scenario drawn from `seed`.
    pub fn random(seed: u64) -> Self {
        let mut draw = Draw(StdRng::seed_from_u64(seed));
        let blocks = draw.0.random_range(1..=12);
        let turns = draw.turns();
        let capacity: u32 = turns.iter().map(|turn| turn.tokens()).sum();
        let servers = draw.servers(blocks, capacity);
        let count = draw.0.random_range(0..24);
        let mut operations: Vec<_> = (0..count).map(|_| draw.operation(blocks, servers.len(), capacity)).collect();
        operations.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            model: part(0, blocks),
            servers,
            turns,
            operations,
            chain: ChainConfig { chunk: TokenCount(draw.0.random_range(1..9)), window: draw.0.random_range(1..4) },
            fault: Fault::None,
        }
    }
}

/// `[start, end)`, or one block where that is no range.
fn part(start: u32, end: u32) -> BlockRange {
    let end = end.max(start + 1);
    BlockRange::new(start, end).unwrap_or_else(|_| part(0, 1))
}

struct Draw(StdRng);

impl Draw {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..to))
    }

    fn turns(&mut self) -> Vec<Turn> {
        let mut turns = vec![Turn::Prompt(self.0.random_range(1..25))];
        for _ in 0..self.0.random_range(1..6) {
            let tokens = self.0.random_range(1..12);
            turns.push(match self.0.random_range(0..6) {
                0 => Turn::Prompt(tokens),
                1 => Turn::Verify(tokens),
                2 => Turn::Regret { tokens, after: self.millis(0, 400), back: self.0.random_range(0..20) },
                _ => Turn::Decode(tokens),
            });
        }
        turns
    }

    fn server(&mut self, hosting: Hosting, capacity: u32) -> ServerSpec {
        let room = capacity * self.0.random_range(5..8);
        ServerSpec {
            hosting,
            rtt: self.millis(1, 120),
            block_time: Duration::from_micros(self.0.random_range(100..5000)),
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

    fn operation(&mut self, blocks: u32, servers: usize, capacity: u32) -> (Duration, Operation) {
        let server = self.0.random_range(0..servers);
        let operation = match self.0.random_range(0..16) {
            0..5 => {
                let back_after = self.0.random_bool(0.5).then(|| self.millis(10, 4000));
                Operation::Crash { server, back_after, reset: self.0.random_bool(0.6) }
            }
            5..8 => Operation::Stall { server, lasting: self.millis(50, 4000) },
            8..10 => Operation::Cut { server },
            10..12 => Operation::Forget { server, keep: self.0.random_range(0..20) },
            12 | 13 => Operation::Occupy { server, lasting: self.millis(100, 4000) },
            14 => Operation::Leave { server },
            _ => {
                let hosting = self.anywhere(blocks);
                Operation::Join(self.server(hosting, capacity))
            }
        };
        let latest = if self.0.random_bool(0.3) { 400 } else { 4000 };
        (self.millis(0, latest), operation)
    }
}
