//! What happens in a simulation, as data.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_client::chain::ChainConfig;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

use super::draw::Draw;

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
    /// Bytes a second to and from it.
    pub rate: u64,
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
        /// Whether its machine lives, which resets its connections; otherwise they fall silent.
        reset: bool,
    },
    /// The process stops, as by SIGSTOP; then it goes on where it was.
    Stall {
        /// Who.
        server: usize,
        /// How long.
        lasting: Duration,
    },
    /// The server computes that many times slower. It answers pings as before.
    Slow {
        /// Who.
        server: usize,
        /// How many times.
        factor: u32,
        /// How long.
        lasting: Duration,
    },
    /// A server and the client cannot reach one another.
    Cut {
        /// Whose.
        server: usize,
        /// How long; until then everything waits.
        lasting: Duration,
    },
    /// Two servers cannot reach one another.
    Part {
        /// The one.
        one: usize,
        /// The other.
        other: usize,
        /// How long: until then everything waits, or for good: everything is lost.
        lasting: Option<Duration>,
        /// Whether connections are refused; otherwise nothing is heard.
        refused: bool,
    },
    /// The server computes, and says so, but passes nothing on.
    Swallow {
        /// Who.
        server: usize,
        /// How long; then everything goes where it should.
        lasting: Duration,
        /// Whether it keeps also what goes to the client; otherwise only what goes to other servers.
        everything: bool,
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
    /// The server says that it leaves, and later does.
    Leave {
        /// Who.
        server: usize,
        /// How long it still serves.
        within: Duration,
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
    /// Feeds that many tokens and waits until every hop holds them.
    Fill(u32),
    /// Feeds that many tokens, but breaks it off after a while, whatever has been computed by then, and goes back.
    Regret {
        /// The tokens fed.
        tokens: u32,
        /// How long until the change of mind.
        after: Duration,
        /// The positions given up, perhaps none.
        back: u32,
    },
    /// Goes back by that many positions, as after drafts that were wrong.
    GoBack(u32),
    /// Does nothing.
    Think(Duration),
}

impl Turn {
    fn tokens(self) -> u32 {
        match self {
            Self::Prompt(tokens)
            | Self::Decode(tokens)
            | Self::Verify(tokens)
            | Self::Fill(tokens)
            | Self::Regret { tokens, .. } => tokens,
            Self::GoBack(_) | Self::Think(_) => 0,
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
    /// Closing a session does not give its room back, nor does silence.
    LeaksReservations,
    /// Rows are taken from whoever fed the session earlier, and of any epoch.
    ListensToOldLinks,
    /// Output rows are sent as if they were of the newest epoch.
    ForgetsEpochs,
    /// Pings wait until nothing is computed.
    DeafWhileComputing,
    /// Outputs are kept twice.
    KeepsTooMuch,
}

/// A whole simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed of what nobody decides.
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
    /// Whether standbys are kept.
    pub standby: bool,
    /// Whether the session's input is rows, not token ids.
    pub of_rows: bool,
    /// How long the client takes to embed a step's tokens.
    pub embedding: Duration,
    /// The bug in every server.
    pub fault: Fault,
}

impl Scenario {
    /// The tokens the session needs room for.
    pub fn capacity(&self) -> TokenCount {
        tokens_of(&self.turns)
    }

    /// A scenario drawn from `seed`.
    pub fn random(seed: u64) -> Self {
        Draw(StdRng::seed_from_u64(seed)).scenario(seed)
    }

    /// How many operations there are.
    pub fn troubles(&self) -> usize {
        self.operations.len()
    }
}

pub(super) fn tokens_of(turns: &[Turn]) -> TokenCount {
    TokenCount(turns.iter().map(|turn| turn.tokens()).sum())
}
