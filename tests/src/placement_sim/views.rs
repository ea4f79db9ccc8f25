//! What servers know of each other: announcements, some seconds after they were made.

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use swarm_node::placement::{Claim, Plan, plan};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

/// Everything that had been announced at some moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    from: Duration,
    /// In the order of the peers' ids.
    pub(super) claims: Vec<Claim>,
    plan: OnceCell<Plan>,
}

impl Snapshot {
    /// What all servers that see this agree on; worked out once.
    pub(super) fn plan(&self, model: BlockRange) -> &Plan {
        self.plan.get_or_init(|| plan(model, &self.claims, |_| true))
    }

    pub(super) fn claim(&self, peer: PeerId) -> Option<&Claim> {
        let found = self.claims.binary_search_by_key(&peer, |claim| claim.peer);
        found.ok().and_then(|index| self.claims.get(index))
    }
}

/// The newest word of each server, and the past as far as somebody may still see it.
#[derive(Debug)]
pub(super) struct Views {
    words: BTreeMap<PeerId, (u64, Option<Claim>)>,
    past: VecDeque<Rc<Snapshot>>,
    keep: Duration,
}

impl Views {
    /// Nobody has said anything. Nobody looks further back than `keep`.
    pub(super) fn new(keep: Duration) -> Self {
        Self { words: BTreeMap::new(), past: VecDeque::new(), keep }
    }

    /// A word reaches its holders: a claim, or that there is none any more.
    pub(super) fn reached(&mut self, peer: PeerId, sequence: u64, claim: Option<Claim>, now: Duration) {
        if self.words.get(&peer).is_some_and(|(known, _)| *known > sequence) {
            return;
        }
        self.words.insert(peer, (sequence, claim));
        let claims = self.words.values().filter_map(|(_, claim)| claim.clone()).collect();
        self.past.push_back(Rc::new(Snapshot { from: now, claims, plan: OnceCell::new() }));
        while self.past.get(1).is_some_and(|next| next.from + self.keep < now) {
            self.past.pop_front();
        }
    }

    /// What could be seen at `then`.
    pub(super) fn at(&self, then: Duration) -> Rc<Snapshot> {
        let seen = self.past.iter().rev().find(|snapshot| snapshot.from <= then);
        let nothing = || Rc::new(Snapshot { from: then, claims: Vec::new(), plan: OnceCell::new() });
        seen.cloned().unwrap_or_else(nothing)
    }
}
