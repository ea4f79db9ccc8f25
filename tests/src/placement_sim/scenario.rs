//! What happens to a swarm, as data drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_protocol::block::BlockRange;

use super::Spec;

/// Small machines and large ones: blocks that a server holds.
const SIZES: [u32; 6] = [2, 4, 6, 8, 12, 24];

/// Slow machines and fast ones, in tokens per second.
const RATES: std::ops::Range<f64> = 5.0..50.0;

/// How long the founders take to come, all of them together.
const FOUNDED_WITHIN: Duration = Duration::from_secs(180);

/// The mean time between two events of churn.
pub const GAP: Duration = Duration::from_secs(120);

/// Something that changes the swarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Churn {
    /// A new server.
    Join(Spec),
    /// One that serves says that it leaves, and does; numbers wrap around.
    Leave(usize),
    /// One that serves dies without a word.
    Die(usize),
}

/// What happens to a swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// For everything that is drawn at random.
    pub seed: u64,
    /// How many blocks the model has.
    pub blocks: u32,
    /// Each event, and how long after the one before it comes.
    pub churn: Vec<(Duration, Churn)>,
    /// How many of these first events make the swarm; the rest is counted as churn.
    pub founding: usize,
}

impl Scenario {
    /// `servers` servers of a model of 80 blocks join within some minutes; then `events` joins, leaves and deaths follow,
    /// one every [`GAP`] on average. Of the servers a share of `pinned` is pinned.
    pub fn random(seed: u64, servers: usize, events: usize, pinned: f64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let blocks = 80;
        let pause = FOUNDED_WITHIN / servers.max(1) as u32;
        let found = |rng: &mut StdRng| (pause.mul_f64(rng.random_range(0.0..2.0)), join(rng, blocks, pinned));
        let mut churn: Vec<_> = (0..servers).map(|_| found(rng)).collect();
        churn.extend((0..events).map(|_| {
            let event = match rng.random_range(0..4) {
                0 | 1 => join(rng, blocks, pinned),
                2 => Churn::Leave(rng.random_range(0..usize::MAX)),
                _ => Churn::Die(rng.random_range(0..usize::MAX)),
            };
            (GAP.mul_f64(rng.random_range(0.0..2.0)), event)
        }));
        Self { seed, blocks, churn, founding: servers }
    }

    /// The same with a wave of leaves at its end: `servers` of them within some minutes.
    pub fn with_exodus(mut self, servers: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(!self.seed);
        let leave = |rng: &mut StdRng| {
            let pause = Duration::from_millis(rng.random_range(0..2000));
            (pause, Churn::Leave(rng.random_range(0..usize::MAX)))
        };
        self.churn.extend((0..servers).map(|_| leave(rng)));
        self
    }
}

fn join(rng: &mut StdRng, blocks: u32, pinned: f64) -> Churn {
    let size = SIZES[rng.random_range(0..SIZES.len())];
    // As many servers are twice as fast as are half as fast.
    let rate = RATES.start * (RATES.end / RATES.start).powf(rng.random());
    let start = rng.random_range(0..=blocks - size);
    let pinned = rng.random_bool(pinned).then(|| BlockRange::new(start, start + size).ok()).flatten();
    Churn::Join(Spec { blocks: size, rate, pinned })
}
