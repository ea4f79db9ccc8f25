//! The cheapest way through the blocks: an exact shortest path over (block boundary, server).
//!
//! One decode step costs
//! `½·RTT(client, first) + Σ(handling + queue + compute of hop) + Σ link(hop, next) + ½·RTT(last, client)`.
//! A server may be used for part of its range, and for two separate parts. The search is exact, reads no clock and
//! knows no chance: the same candidates give the same route, in whatever order they come.

mod explain;
mod search;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;
use thiserror::Error;

/// What a hop costs whoever it is and wherever: frames, encryption, waking whoever waits. `swarm-bench hop` measures 0.3 to
/// 0.5 ms of it; the lower half, since pings, which links are priced by, pay some of it too. Without it the noise of two
/// measurements would make a route of one hop more.
pub const HANDLING: Duration = Duration::from_micros(200);

/// A server that may become a hop, and what its work costs as measured or as it says itself.
///
/// For prefill, put the time per block of a whole chunk into `block_time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who it is. Only the first candidate of a peer counts.
    pub peer: PeerId,
    /// The blocks it hosts.
    pub blocks: BlockRange,
    /// The smoothed round trip between client and server.
    pub rtt: Duration,
    /// How long a step waits there before it is computed.
    pub queue: Duration,
    /// How long one step takes on one block.
    pub block_time: Duration,
}

/// Who hands a hop's output to the next hop, and how long that takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Links {
    /// Every hop answers the client, which feeds the next: half a round trip of each.
    ViaClient,
    /// Servers feed one another; the map holds measured round trips, in either direction. A pair it lacks is estimated
    /// by the way through the client: silence is never taken for nearness.
    Direct(HashMap<(PeerId, PeerId), Duration>),
}

impl Links {
    /// The time one way from `from` to `to`.
    fn one_way(&self, from: &Candidate, to: &Candidate) -> Duration {
        self.measured(from.peer, to.peer).map_or_else(|| (from.rtt / 2).saturating_add(to.rtt / 2), |rtt| rtt / 2)
    }

    fn measured(&self, from: PeerId, to: PeerId) -> Option<Duration> {
        match self {
            Self::ViaClient => None,
            Self::Direct(rtts) => {
                let rtt = rtts.get(&(from, to)).or_else(|| rtts.get(&(to, from)));
                rtt.copied()
            }
        }
    }
}

/// What one hop, or a whole route, adds to the time of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// On the network: for a hop, the way to it; for a route, also the way back to the client.
    pub link: Duration,
    /// Taking a step in and passing it on: [`HANDLING`] of each hop.
    pub handling: Duration,
    /// Waiting for the server.
    pub queue: Duration,
    /// Computing the blocks.
    pub compute: Duration,
}

impl Cost {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.link.saturating_add(self.handling).saturating_add(self.queue).saturating_add(self.compute)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            link: self.link.saturating_add(other.link),
            handling: self.handling.saturating_add(other.handling),
            queue: self.queue.saturating_add(other.queue),
            compute: self.compute.saturating_add(other.compute),
        }
    }
}

/// One server of a route and the blocks it computes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHop {
    /// The server.
    pub peer: PeerId,
    /// The blocks it computes: its whole range or a part.
    pub blocks: BlockRange,
    /// What the hop adds to a step: the way to it, its queue, its blocks.
    pub cost: Cost,
}

/// Hops whose ranges join without a hole over the blocks that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The hops in order; never empty.
    pub hops: Vec<RouteHop>,
    /// The way from the last hop back to the client.
    pub back: Duration,
}

impl Route {
    /// What one step costs on this route.
    pub fn cost(&self) -> Cost {
        let back = Cost { link: self.back, ..Cost::default() };
        self.hops.iter().fold(back, |sum, hop| sum.plus(hop.cost))
    }
}

/// No chain of the candidates covers the blocks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no server serves blocks {}", missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
pub struct NoRoute {
    /// Exactly the blocks that no candidate hosts.
    pub missing: Vec<BlockRange>,
}

/// The cheapest route over `range`. Among equally cheap ones the one with the fewest hops; among those, at the first
/// block where two of them differ, the one that stays on its server, else the one with the smaller peer id.
///
/// The second best route that avoids some peers is the best one among the other candidates. Takes
/// O(blocks · servers²) time, where only the servers of the same block count.
///
/// # Errors
/// [`NoRoute`] names the blocks that nobody hosts.
pub fn find(candidates: &[Candidate], range: BlockRange, links: &Links) -> Result<Route, NoRoute> {
    search::cheapest(candidates, range, links)
}
