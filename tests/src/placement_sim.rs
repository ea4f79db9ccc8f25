//! A seeded simulation of the placement of a large swarm: servers of all sizes and speeds join, leave, die and move.
//!
//! Real: the placement rules of `node`. Simulated: time, loading, and what servers know of each other: each sees the
//! others as they were some seconds ago, and the dead as if they lived until their announcements expire.

mod scenario;
mod search;
mod swarm;
mod views;

pub use scenario::{Churn, GAP, Scenario};
pub use search::{best_found, best_reachable, most_conceivable};
pub use swarm::{Outcome, Violation, run};

use swarm_protocol::block::BlockRange;

/// What decides how much a server can do for the swarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// How many blocks it holds.
    pub blocks: u32,
    /// How many tokens per second it computes on each.
    pub rate: f64,
    /// The blocks that its user chose, if the choice was not left to it.
    pub pinned: Option<BlockRange>,
}
