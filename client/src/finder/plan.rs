//! From what is known of the servers to a route that a session can open. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, NumericClass};
use swarm_protocol::session::TokenCount;
use swarm_protocol::{Multiaddr, PeerId};
use thiserror::Error;

use super::book::PeerBook;
use super::kept::Expected;
use super::presence::Present;
use crate::route::{self, Links, NoRoute, Route};

/// Reasons named in one error.
const MOST_REASONS: usize = 2;

/// What a session needs of the servers it does not have yet.
#[derive(Debug, Clone)]
pub struct Need {
    /// The blocks to be covered.
    pub range: BlockRange,
    /// The room each server must reserve.
    pub tokens: TokenCount,
    /// The arithmetic the session has begun with; any if it has not begun.
    pub class: Option<NumericClass>,
    /// Whether servers of several classes are taken together, if those of one do not cover the blocks.
    pub mixed: bool,
    /// What the session's blocks hold, for those it has had a server of.
    pub digests: BTreeMap<BlockIndex, BlockDigest>,
    /// Servers that are not to be used.
    pub avoid: HashSet<PeerId>,
    /// What it begins with, if some servers may have computed that before.
    pub expected: Option<Expected>,
}

/// A route and what is needed to open it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cheapest route.
    pub route: Route,
    /// The arithmetic of all its servers; none if they are of several classes.
    pub class: Option<NumericClass>,
    /// That of each.
    pub(crate) classes: HashMap<PeerId, NumericClass>,
    /// What its blocks hold.
    pub digests: BTreeMap<BlockIndex, BlockDigest>,
    /// Where its servers can be dialled.
    pub addresses: HashMap<PeerId, Vec<Multiaddr>>,
    /// Servers of which the first could not reach the second a while ago: what goes from the one to the other takes the way
    /// through the client.
    pub apart: HashSet<(PeerId, PeerId)>,
    /// That its servers are about to get a session: other plans count with it as long as there is this one.
    pub(super) present: Vec<Present>,
}

impl Plan {
    /// This plan and one for the blocks behind its own, as one.
    pub(crate) fn followed_by(mut self, next: Self) -> Self {
        self.class = self.class.filter(|class| next.class.as_ref() == Some(class));
        self.route.hops.extend(next.route.hops);
        self.route.back = next.route.back;
        self.classes.extend(next.classes);
        self.digests.extend(next.digests);
        self.addresses.extend(next.addresses);
        self.apart.extend(next.apart);
        self.present.extend(next.present);
        self
    }

    /// One of its hops is opened: other plans count with it as long as there is what is given back.
    pub(crate) fn present(&self, peer: PeerId) -> Option<Present> {
        self.present.iter().find(|present| present.peer() == peer).cloned()
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPlan {
    /// Some blocks have no server.
    #[error("{}", nobody(missing, model.as_deref(), *left_out))]
    NoRoute {
        /// The blocks without one.
        missing: Vec<BlockRange>,
        /// What follows `serve --model`, where that is known.
        model: Option<Arc<str>>,
        /// How many servers of these blocks the client may not use: its [`PeerFilter`](crate::PeerFilter) says so.
        left_out: usize,
    },
    /// Some blocks have servers, but none that can be used now.
    #[error(
        "no server of blocks {} can be used now ({}); try again later, or start another server of them",
        missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        reasons.join("; ")
    )]
    Unusable {
        /// The blocks without a usable server.
        missing: Vec<BlockRange>,
        /// Why each is not used, a few of them.
        reasons: Vec<String>,
    },
    /// The blocks are served, but not with that much room.
    #[error(
        "the servers of blocks {} have no room for {needed} tokens in their KV caches (the most free is {free}); \
         ask for fewer tokens, or try again later",
        missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoRoom {
        /// The blocks without room.
        missing: Vec<BlockRange>,
        /// Tokens asked for.
        needed: TokenCount,
        /// The most that one of their servers has.
        free: TokenCount,
    },
}

impl From<NoRoute> for NoPlan {
    fn from(NoRoute { missing }: NoRoute) -> Self {
        Self::NoRoute { missing, model: None, left_out: 0 }
    }
}

impl NoPlan {
    /// With what the planning does not know: how the model is called, and servers that are there but may not be used.
    pub(super) fn of_model(mut self, name: &Arc<str>, not_admitted: &[BlockRange]) -> Self {
        if let Self::NoRoute { missing, model, left_out } = &mut self {
            let concerns = |blocks: &&BlockRange| missing.iter().any(|range| range.intersection(**blocks).is_some());
            *left_out = not_admitted.iter().filter(concerns).count();
            *model = Some(name.clone());
        }
        self
    }
}

/// What is said when nobody serves some blocks.
fn nobody(missing: &[BlockRange], model: Option<&str>, left_out: usize) -> String {
    let blocks = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let first = missing.first().map(ToString::to_string).unwrap_or_default();
    let serve = format!("`swarm-node serve --model {} --block-range {first}`", model.unwrap_or("MODEL"));
    let start = format!("start one with {serve} and the same --bootstrap, --swarm and --swarm-key");
    match left_out {
        0 => format!("no server serves blocks {blocks}; {start}, or wait for one to join"),
        _ => format!(
            "no server that --allow-peer and --block-peer admit serves blocks {blocks}, {left_out} that they leave out \
             {}; admit more servers, or {start}",
            if left_out == 1 { "does" } else { "do" }
        ),
    }
}

/// The cheapest plan among all numeric classes that the need allows; one of several classes only if there is no other.
///
/// # Errors
/// [`NoPlan`] names the blocks that nobody serves, or that nobody has room for.
pub(super) fn cheapest(book: &PeerBook, need: &Need, now: Instant) -> Result<Plan, NoPlan> {
    let classes = need.class.clone().map_or_else(|| book.classes(now), |class| vec![class]);
    let mut best: Option<Plan> = None;
    let mut why_not: Option<NoPlan> = None;
    for class in classes {
        match plan_in(book, need, Some(&class), now) {
            Ok(plan) => {
                let cheaper = best.as_ref().is_none_or(|best| plan.route.cost().total() < best.route.cost().total());
                if cheaper {
                    best = Some(plan);
                }
            }
            Err(reason) => why_not = Some(closer(why_not, reason)),
        }
    }
    if best.is_none() && need.mixed {
        return plan_in(book, need, None, now);
    }
    best.ok_or_else(|| why_not.unwrap_or_else(|| no_route(book, NoRoute { missing: vec![need.range] }, None, now)))
}

/// Tells blocks that nobody serves from blocks whose servers cannot be used now.
fn no_route(book: &PeerBook, no_route: NoRoute, class: Option<&NumericClass>, now: Instant) -> NoPlan {
    let reasons = |range: &BlockRange| book.exclusions(*range, class, now);
    let mut reasons: Vec<String> = no_route.missing.iter().flat_map(reasons).collect();
    reasons.sort();
    reasons.dedup();
    reasons.truncate(MOST_REASONS);
    if reasons.is_empty() { no_route.into() } else { NoPlan::Unusable { missing: no_route.missing, reasons } }
}

/// Of two reasons the one that is nearer to success: blocks without room are at least served, and fewer are fewer.
fn closer(one: Option<NoPlan>, other: NoPlan) -> NoPlan {
    let distance = |reason: &NoPlan| match reason {
        NoPlan::NoRoom { missing, .. } => (0, blocks_in(missing)),
        NoPlan::Unusable { missing, .. } => (1, blocks_in(missing)),
        NoPlan::NoRoute { missing, .. } => (2, blocks_in(missing)),
    };
    match one {
        Some(one) if distance(&one) <= distance(&other) => one,
        _ => other,
    }
}

fn blocks_in(ranges: &[BlockRange]) -> u32 {
    ranges.iter().map(|range| range.len()).sum()
}

fn plan_in(book: &PeerBook, need: &Need, class: Option<&NumericClass>, now: Instant) -> Result<Plan, NoPlan> {
    let with_room = book.candidates(need, class, true, now);
    let apart = book.apart.pairs(now);
    let mut measured = book.round_trips_between_servers();
    // The way through the client is then what a pair is estimated by.
    measured.retain(|(from, to), _| !apart.contains(&(*from, *to)) && !apart.contains(&(*to, *from)));
    let links = Links::Direct(measured);
    let route = route::find(&with_room, need.range, &links).or_else(|no_room| {
        let all = book.candidates(need, class, false, now);
        route::find(&all, need.range, &links).map_err(|missing| no_route(book, missing, class, now))?;
        let rooms = no_room.missing.iter().filter_map(|range| book.largest_room(*range, now));
        let free = rooms.min().unwrap_or_default();
        Err(NoPlan::NoRoom { missing: no_room.missing, needed: need.tokens, free })
    })?;
    let mut digests = need.digests.clone();
    let (mut addresses, mut classes) = (HashMap::new(), HashMap::new());
    for hop in &route.hops {
        digests.extend(book.digests(hop.peer, hop.blocks));
        if let Some(known) = book.get(hop.peer) {
            addresses.insert(hop.peer, known.announcement.addresses.clone());
            classes.insert(hop.peer, known.announcement.class.clone());
        }
    }
    let first = route.hops.first().and_then(|hop| classes.get(&hop.peer));
    let class = first.filter(|first| classes.values().all(|class| class == *first)).cloned();
    Ok(Plan { route, class, classes, digests, addresses, apart, present: vec![] })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
