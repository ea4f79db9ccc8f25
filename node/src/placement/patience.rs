//! When a server takes its part in a plan: not right after it has settled, and at first only if it is named.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::Rng;
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use super::rebalance::{Move, Plan, plan};
use super::{Claim, Standing};

/// Looks after which a server that has just settled may move again for a higher throughput. Rates are measured anew after
/// each move, and differ a little.
const SETTLING_LOOKS: u32 = 5;

/// The same for a plan in order, which others wait for.
const SETTLING_LOOKS_IN_ORDER: u32 = 1;

/// Looks that a plan is given to be carried out by those it names: each of them looks once in that time, and needs some
/// more until its word is seen.
const PATIENT_LOOKS: u32 = 2;

/// How far the share of servers that one counts on is halved, when the swarm does not do what it should.
const MOST_HALVINGS: u32 = 8;

/// How often a server plans with fewer others for a higher throughput while the same servers are there. A swarm in which
/// many are pinned would never come to rest: plans are carried out in part only, and what is left to do changes.
const MOST_TRIES: u32 = 16;

/// How often a server moves for a higher throughput while the same servers are there: a plan names one twice at most, and
/// a later one may be better. So what follows when somebody joins or leaves has an end, whatever the others do.
const MOST_MOVES: u32 = 3;

/// What one server remembers of its looks at the swarm.
///
/// Servers whose user pinned their blocks never move, and nothing tells them from others. So when a plan is not carried out
/// by those it names, each server plans with a random half of the others, then a quarter, and so on, always counting
/// itself in: sooner or later one that can move finds itself named.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    /// Looks since it settled.
    settled: u32,
    /// Looks in a row at which something should have moved.
    in_vain: u32,
    /// Plans with fewer servers that were made since the swarm last had other members.
    tries: u32,
    /// Moves since then.
    moves: u32,
    /// What it hosted at its last look.
    blocks: Option<BlockRange>,
    members: u64,
    /// Who hosts what, at its last look.
    placement: u64,
    /// Those who did not begin a plan in order when it was their turn, and what they host.
    unwilling: BTreeMap<PeerId, BlockRange>,
    /// The plans of the last look, of all servers and of the willing ones: until something changes they hold.
    of_all: Remembered,
    of_willing: Remembered,
}

/// A plan, and what it was made from.
#[derive(Debug, Clone, Default)]
struct Remembered(Option<(u64, Plan)>);

impl Remembered {
    fn or_plan(&mut self, model: BlockRange, all: &[Claim], may_move: impl Fn(&Claim) -> bool) -> Plan {
        let mut hasher = DefaultHasher::new();
        model.hash(&mut hasher);
        for claim in all {
            let rate = claim.tokens_per_second.to_bits();
            (claim.peer, claim.blocks, rate, claim.standing == Standing::Serving, may_move(claim)).hash(&mut hasher);
        }
        let now = hasher.finish();
        match &self.0 {
            Some((then, plan)) if *then == now => plan.clone(),
            _ => {
                let plan = plan(model, all, may_move);
                self.0 = Some((now, plan.clone()));
                plan
            }
        }
    }
}

impl Patience {
    /// The server has just begun to serve its blocks.
    pub fn settle(&mut self) {
        (self.settled, self.in_vain) = (0, 0);
    }

    /// Takes in a look at the swarm of `model`, and gives what `mine` should do, with the plan that it is a part of.
    pub fn look(
        &mut self,
        model: BlockRange,
        mine: &Claim,
        others: &[Claim],
        rng: &mut impl Rng,
    ) -> Option<(Plan, Move)> {
        let mut all = others.to_vec();
        all.push(mine.clone());
        all.sort_unstable_by_key(|claim| claim.peer);
        let common = self.of_all.or_plan(model, &all, |_| true);
        self.look_at(model, &common, mine.peer, &all, rng)
    }

    /// The same for a server `me`, if the plan of `all` servers is known.
    pub fn look_at(
        &mut self,
        model: BlockRange,
        common: &Plan,
        me: PeerId,
        all: &[Claim],
        rng: &mut impl Rng,
    ) -> Option<(Plan, Move)> {
        self.settled = self.settled.saturating_add(1);
        let members = fingerprint(all);
        if members != self.members {
            (self.members, self.tries, self.moves) = (members, 0, 0);
        }
        let blocks = all.iter().find(|claim| claim.peer == me).map(|claim| claim.blocks);
        // A move that was taken back is none.
        if self.blocks.is_some() && self.blocks != blocks {
            self.moves += 1;
        }
        self.blocks = blocks;
        let (plan, step) = self.wanted(model, common, me, all, rng)?;
        (plan.mends() || self.moves < MOST_MOVES).then_some((plan, step))
    }

    /// What the server should do, however often it has moved.
    fn wanted(
        &mut self,
        model: BlockRange,
        common: &Plan,
        me: PeerId,
        all: &[Claim],
        rng: &mut impl Rng,
    ) -> Option<(Plan, Move)> {
        if common.moves.is_empty() {
            self.in_vain = 0;
            return None;
        }
        if common.is_in_order() {
            return self.look_in_order(model, common, me, all);
        }
        self.in_vain = self.in_vain.saturating_add(1);
        let step = |plan: Plan| plan.move_of(me, all).map(|step| (plan, step));
        let (plan, step) = match self.in_vain.checked_sub(PATIENT_LOOKS + 1) {
            None => step(common.clone()),
            Some(more) => {
                self.tries += 1;
                let share = 0.5_f64.powi((more % MOST_HALVINGS + 1) as i32);
                step(plan(model, all, |claim| claim.peer == me || rng.random_bool(share)))
            }
        }?;
        let patient = self.settled > SETTLING_LOOKS && self.tries <= MOST_TRIES;
        ((plan.mends() || patient) && !plan.is_in_order()).then_some((plan, step))
    }

    /// Where moves help only in their order, all wait for the first one; but not for ever.
    fn look_in_order(&mut self, model: BlockRange, common: &Plan, me: PeerId, all: &[Claim]) -> Option<(Plan, Move)> {
        let placement = placement(all);
        if placement != self.placement {
            (self.placement, self.in_vain) = (placement, 0);
        }
        self.in_vain = self.in_vain.saturating_add(1);
        self.unwilling.retain(|peer, blocks| all.iter().any(|claim| claim.peer == *peer && claim.blocks == *blocks));
        if self.in_vain > PATIENT_LOOKS {
            self.in_vain = 0;
            let plan = self.of_the_willing(model, common, me, all);
            let others = plan.begins(all).iter().filter(|step| step.peer != me);
            self.unwilling.extend(others.map(|step| (step.peer, step.from)));
        }
        // Whoever all count on goes, whatever it thinks of the others.
        let own = common.move_of(me, all).map(|_| common.clone());
        let plan = own.unwrap_or_else(|| self.of_the_willing(model, common, me, all));
        let step = plan.move_of(me, all)?;
        (self.settled > SETTLING_LOOKS_IN_ORDER).then_some((plan, step))
    }

    /// The plan without those who are taken as unwilling.
    fn of_the_willing(&mut self, model: BlockRange, common: &Plan, me: PeerId, all: &[Claim]) -> Plan {
        if self.unwilling.is_empty() {
            return common.clone();
        }
        let is_willing = |claim: &Claim| claim.peer == me || !self.unwilling.contains_key(&claim.peer);
        self.of_willing.or_plan(model, all, is_willing)
    }
}

fn placement(all: &[Claim]) -> u64 {
    let mut hasher = DefaultHasher::new();
    all.iter().for_each(|claim| (claim.peer, claim.blocks, claim.standing == Standing::Serving).hash(&mut hasher));
    hasher.finish()
}

fn fingerprint(all: &[Claim]) -> u64 {
    let mut hasher = DefaultHasher::new();
    all.iter().for_each(|claim| claim.peer.hash(&mut hasher));
    hasher.finish()
}
