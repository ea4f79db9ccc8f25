//! Which server's embedding and head are used. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use swarm_protocol::model_id::BlockDigest;
use swarm_protocol::wire::EdgesOffer;
use swarm_protocol::{Multiaddr, PeerId};

use super::book::{Known, PeerBook};

/// A server that offers embedding and head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgesPlan {
    /// The server.
    pub peer: PeerId,
    /// Where it can be dialled.
    pub addresses: Vec<Multiaddr>,
    /// What it offers.
    pub offer: EdgesOffer,
    /// What the choice of one token costs: the way there and back, and the head. Measured, if it has been asked before.
    pub cost: Duration,
}

impl PeerBook {
    /// The server whose embedding and head cost least: of those that give the same bits as `bound`, if that is given; otherwise
    /// of those whose weights most of them hold.
    pub fn cheapest_edges(&self, bound: Option<&EdgesOffer>, now: Instant) -> Option<EdgesPlan> {
        let plans: Vec<EdgesPlan> = self.known().filter(|known| known.usable(now)).filter_map(plan).collect();
        let mut holders: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        plans.iter().for_each(|plan| *holders.entry(plan.offer.digest.0).or_default() += 1);
        let held = |digest: BlockDigest| holders.get(&digest.0).copied().unwrap_or_default();
        let most = plans.iter().map(|plan| held(plan.offer.digest)).max()?;
        let fits = |plan: &EdgesPlan| match bound {
            Some(bound) => plan.offer.class == bound.class && plan.offer.digest == bound.digest,
            None => held(plan.offer.digest) == most,
        };
        plans.into_iter().filter(fits).min_by_key(|plan| (plan.cost, plan.peer))
    }
}

fn plan(known: &Known) -> Option<EdgesPlan> {
    let offer = known.edges.clone()?;
    let announced = known.rtt + Duration::from_micros(offer.choose_us.into());
    let cost = known.measured_choice.unwrap_or(announced);
    Some(EdgesPlan { peer: known.announcement.peer, addresses: known.announcement.addresses.clone(), offer, cost })
}
