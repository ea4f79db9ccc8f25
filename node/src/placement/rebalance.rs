//! Which servers should host other blocks, now that the swarm is not what it was when they chose.
//!
//! Every server works out the same plan from the same announcements, and carries out its own part of it only. So for one
//! hole one server moves, and nobody has to lead. A plan is one of two:
//! - **Mending**: some blocks have no server. As few servers as can move so that they have one again.
//! - **Levelling**: every block has one, but another placement would raise the throughput of the worst-served block by
//!   [`WORTHWHILE_PERCENT`] or more. As few servers as reach the highest level move.
//!
//! Both take one move after another, each time the one that lessens the *deficiency* most: what blocks lack up to the
//! level that is aimed at, all of them together. That is a smooth measure, unlike the worst block alone, which no single
//! move raises when two blocks are equally bad.
//!
//! A server that moves first leaves, and arrives later or never. So the last server of a block waits for those before it in
//! the plan that will serve the block, too; only for blocks that nobody serves it goes at once, and only if it goes on to
//! serve that block there.

use std::cmp::Reverse;

use swarm_protocol::PeerId;
use swarm_protocol::block::{BlockIndex, BlockRange};

use super::sequence::{self, Sequence};
use super::{Claim, Coverage, Micros, Standing, micros};

/// How much higher the swarm's throughput must become for servers to move, in percent. Less is not worth loading weights
/// for, and would let small changes of measured rates move servers.
pub const WORTHWHILE_PERCENT: u64 = 5;

/// What a plan must bring for each percent of the servers that it moves, in hundredths of a percent.
const LEAST_GAIN_PERCENT: u64 = 50;

/// How often the interval of levels that may be reached is halved: what is left to gain is not worth moving for soon.
const HALVINGS: u32 = 3;

/// How many moves in a row may make things worse before better moves must have made up for them.
const LONGEST_DETOUR: u32 = 6;

/// A plan for a higher throughput moves at most one of so many servers at once, or a few; the next plan goes on from there.
const MOVES_ONE_OF: usize = 16;
const FEW_MOVES: usize = 8;

/// In swarms of at most so many servers moves that help only together are looked for: more have blocks enough to choose
/// from, and the time that the search takes grows with each.
const MOST_IN_ORDER: usize = 64;

/// [`WORTHWHILE_PERCENT`] for them: there few servers decide much, and each further move has its price.
const IN_ORDER_PERCENT: u64 = 3;

/// How much of what a plan promised it must still bring when it is carried out, in percent: less than it takes to plan.
const NEARLY_PERCENT: u64 = 98;

/// The level of mending: any server at all.
const SERVED: Micros = 1;

/// A server that is to host other blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Who.
    pub peer: PeerId,
    /// What it hosts.
    pub from: BlockRange,
    /// What it should host; as many blocks.
    pub to: BlockRange,
}

/// Moves that are worth it together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each server, or two in a row of a plan in order; none if the swarm is best left alone.
    pub moves: Vec<Move>,
    level: Micros,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mending,
    Levelling,
    /// The moves help only together, and are safe only in their order.
    InOrder,
    /// The model is of no use as it is: blocks are left without a server until the last of the moves.
    Rebuilding,
}

impl Plan {
    /// Everybody stays.
    pub fn nothing() -> Self {
        Self { moves: Vec::new(), level: 0, kind: Kind::Levelling }
    }

    /// Whether it is about blocks that have no server at all.
    pub fn mends(&self) -> bool {
        matches!(self.kind, Kind::Mending | Kind::Rebuilding)
    }

    /// Whether its moves help only together, so that it is of use only to those who see all servers.
    pub fn is_in_order(&self) -> bool {
        matches!(self.kind, Kind::InOrder | Kind::Rebuilding)
    }

    /// Those who can begin now: of a plan in order only as many as may move at once.
    pub(super) fn begins(&self, claims: &[Claim]) -> &[Move] {
        if !self.is_in_order() {
            return &self.moves;
        }
        let joining = claims.iter().filter(|claim| claim.standing == Standing::Joining).count();
        &self.moves[..at_once(claims).saturating_sub(joining).min(self.moves.len())]
    }

    /// What `peer` is to do, if it can do it now: not while it waits for the arrival of another one that moves, since it
    /// is the last that serves a block.
    pub fn move_of(&self, peer: PeerId, claims: &[Claim]) -> Option<Move> {
        let index = self.begins(claims).iter().position(|step| step.peer == peer)?;
        if self.kind == Kind::Rebuilding {
            return self.moves.get(index).copied();
        }
        let (before, step) = (&self.moves[..index], self.moves[index]);
        let mut replicas = vec![0u32; step.from.end().max(step.to.end()) as usize];
        let serving = claims.iter().filter(|claim| claim.standing == Standing::Serving && claim.peer != peer);
        for claim in serving.filter(|claim| !before.iter().any(|step| step.peer == claim.peer)) {
            let own = claim.blocks.intersection(step.from);
            own.into_iter().flat_map(BlockRange::blocks).for_each(|block| replicas[block.as_usize()] += 1);
        }
        let spared = |block: BlockIndex| {
            replicas[block.as_usize()] > 0 || (self.kind == Kind::Mending && step.to.contains(block))
        };
        step.from.blocks().all(spared).then_some(step)
    }

    /// Whether it brings the swarm of `mine` and `others` to where it should, or nearly: once those have moved who have not.
    fn still_reaches<'a>(&self, model: BlockRange, mine: &'a Claim, others: impl Iterator<Item = &'a Claim>) -> bool {
        let mut rates = Coverage::none(model);
        for claim in others.chain([mine]) {
            let own = self.moves.iter().filter(|step| step.peer == claim.peer);
            let blocks = own.fold(claim.blocks, |at, step| if step.from == at { step.to } else { at });
            rates.add(blocks, claim.tokens_per_second);
        }
        rates.worst() >= self.level.saturating_mul(NEARLY_PERCENT).div_ceil(100)
    }
}

/// How many servers of a small swarm move at the same time.
fn at_once(claims: &[Claim]) -> usize {
    (claims.len() / MOVES_ONE_OF).max(1)
}

/// What is worth moving among the servers of `claims` of whom `may_move` is true; those that are joining never are.
///
/// Takes O(moves · servers · blocks) time for each of a handful of levels.
pub fn plan(model: BlockRange, claims: &[Claim], mut may_move: impl FnMut(&Claim) -> bool) -> Plan {
    let draft = Draft::new(model, claims, &mut may_move);
    let worst = draft.rates.worst();
    let is_small = claims.len() <= MOST_IN_ORDER;
    // Nobody would move in order before they have arrived, and then all looks different.
    let waits = claims.iter().filter(|claim| claim.standing == Standing::Joining).count() >= at_once(claims);
    if worst == 0 {
        let mut mended = draft;
        while mended.step(SERVED, 1) {}
        if is_small
            && !waits
            && mended.rates.worst() == 0
            && let Some(Sequence { moves, .. }) = sequence::rebuilding(model, claims, may_move)
        {
            return Plan { moves, level: SERVED, kind: Kind::Rebuilding };
        }
        return Plan { moves: mended.needed(SERVED), level: SERVED, kind: Kind::Mending };
    }
    if is_small && waits {
        return Plan::nothing();
    }
    if is_small {
        let least = |worst: Micros| worst.saturating_mul(100 + IN_ORDER_PERCENT) / 100;
        let found = sequence::levelling(model, claims, may_move, least);
        let in_order = |found: Sequence| Plan { moves: found.moves, level: found.reached, kind: Kind::InOrder };
        return found.map_or_else(Plan::nothing, in_order);
    }
    let servers = claims.len() as u64;
    let reach = |level: Micros| {
        let (moves, reached) = draft.reach(level)?;
        is_worth(reached - worst, worst, moves.len() as u64, servers).then_some(Plan {
            moves,
            level,
            kind: Kind::Levelling,
        })
    };
    let mut low = worst.saturating_mul(100 + WORTHWHILE_PERCENT) / 100;
    let mut high = draft.rates.mean();
    if low > high {
        return Plan::nothing();
    }
    let Some(mut best) = reach(low) else {
        return Plan::nothing();
    };
    for _ in 0..HALVINGS {
        let level = low + (high - low) / 2;
        match reach(level) {
            Some(plan) => (low, best) = (level, plan),
            None => high = level,
        }
    }
    best
}

/// Whether a gain in throughput is worth its moves: a share of the servers that moves must bring at least a good part of
/// that share. Of three servers one does not load other weights for what may be noise in measured rates.
fn is_worth(gain: Micros, before: Micros, moves: u64, servers: u64) -> bool {
    u128::from(gain) * u128::from(servers) * 100 >= u128::from(before) * u128::from(moves * LEAST_GAIN_PERCENT)
}

/// Whether a server that has announced its part of a plan should still carry it out. It hosts `mine`, and is to host `to`
/// in order to bring all blocks to the plan's level; `counted` is what others had announced when it decided, `seen` what
/// they announce now that its own word has reached them.
///
/// It should not if a block that it leaves would have no server. Two servers that wait for one another's blocks both see
/// each other's word, whoever spoke first, and stay. Nor should it if others do the same meanwhile; of those who decided
/// at the same moment the one with the smallest peer id goes.
pub fn still_right(
    model: BlockRange,
    mine: &Claim,
    (plan, to): (&Plan, BlockRange),
    counted: &[Claim],
    seen: &[Claim],
) -> bool {
    let known = |other: &Claim| counted.iter().any(|one| one.peer == other.peer && one.blocks == other.blocks);
    let senior = |other: &Claim| other.standing == Standing::Serving || other.peer < mine.peer || known(other);
    let mut others = Coverage::none(model);
    for other in seen.iter().filter(|other| other.peer != mine.peer && senior(other)) {
        others.add(other.blocks, other.tokens_per_second);
    }
    let them = seen.iter().filter(|other| other.peer != mine.peer);
    let claimed = |block| them.clone().any(|other| other.blocks.contains(block));
    let fills_a_hole = to.blocks().any(|block| !claimed(block));
    let serving = them.clone().filter(|other| other.standing == Standing::Serving);
    if plan.is_in_order() {
        let is_useless = model.blocks().any(|block| !mine.blocks.contains(block) && !claimed(block));
        let replaced = |block| serving.clone().any(|other| other.blocks.contains(block));
        let safe = if plan.mends() { is_useless } else { mine.blocks.blocks().all(replaced) };
        return safe && plan.still_reaches(model, mine, them);
    }
    let spared =
        |block| serving.clone().any(|other| other.blocks.contains(block)) || (fills_a_hole && to.contains(block));
    let lacks = |blocks| {
        let mut with_me = others.clone();
        with_me.add(blocks, mine.tokens_per_second);
        with_me.lacks(plan.level)
    };
    mine.blocks.blocks().all(spared) && lacks(to) < lacks(mine.blocks)
}

/// A server that may move.
#[derive(Debug, Clone)]
struct Movable {
    peer: PeerId,
    blocks: BlockRange,
    rate: Micros,
}

impl Movable {
    /// By how much it lessens a deficiency at most.
    fn strength(&self) -> Micros {
        self.rate * Micros::from(self.blocks.len())
    }
}

/// A plan in the making.
#[derive(Debug, Clone)]
struct Draft {
    /// What all deliver, once those that move have arrived.
    rates: Coverage,
    /// How many servers serve each block.
    replicas: Vec<u32>,
    movable: Vec<Movable>,
    moves: Vec<(Move, Micros)>,
}

/// How good a move is, the best of which is the greatest: by how much the deficiency falls; whether what is left of a hole
/// is in one piece; what the worst-served block has of those left and taken; and, so that all servers agree, who and where.
type Merit = (i64, bool, Micros, Reverse<PeerId>, Reverse<u32>);

impl Draft {
    fn new(model: BlockRange, claims: &[Claim], mut may_move: impl FnMut(&Claim) -> bool) -> Self {
        let mut rates = Coverage::none(model);
        let mut replicas = vec![0; rates.rates.len()];
        let mut movable = Vec::new();
        for claim in claims {
            rates.add(claim.blocks, claim.tokens_per_second);
            if claim.standing != Standing::Serving || !model.covers(claim.blocks) {
                continue;
            }
            claim.blocks.blocks().for_each(|block| replicas[block.as_usize()] += 1);
            if may_move(claim) {
                let rate = micros(claim.tokens_per_second);
                movable.push(Movable { peer: claim.peer, blocks: claim.blocks, rate });
            }
        }
        // Those who can do most come first: once one of them is found to help, others need not be looked at.
        movable.sort_by_key(|server| Reverse(server.strength()));
        Self { rates, replicas, movable, moves: Vec::new() }
    }

    /// The moves that bring every block to `level`, and what the worst-served one then has. Goes on through some moves that
    /// make it worse, as long as others make up for them: two servers that change places help where neither alone would.
    fn reach(&self, level: Micros) -> Option<(Vec<Move>, Micros)> {
        let mut draft = self.clone();
        let mut lacked = draft.rates.lacks(level);
        let mut detour = 0;
        let most = FEW_MOVES.max(self.movable.len() / MOVES_ONE_OF);
        // No move can do more.
        let strongest = self.movable.first()?.strength();
        while lacked > 0 {
            let left = (most - draft.moves.len()) as u64;
            if detour == LONGEST_DETOUR || lacked > left.saturating_mul(strongest) || !draft.step(level, i64::MIN) {
                return None;
            }
            let lacks = draft.rates.lacks(level);
            detour = if lacks < lacked { 0 } else { detour + 1 };
            lacked = lacked.min(lacks);
        }
        let moves = draft.needed(level);
        Some((moves, draft.rates.worst()))
    }

    /// Takes the best move there is; false if none lessens the deficiency by `least`.
    fn step(&mut self, level: Micros, least: i64) -> bool {
        let deficient: Vec<u32> =
            (0..self.rates.model.end()).filter(|block| self.rates.at(BlockIndex(*block)) < level).collect();
        let (Some(&first), Some(&last)) = (deficient.first(), deficient.last()) else {
            return false;
        };
        let deepest = level - self.rates.worst();
        let mut best: Option<(Merit, usize, BlockRange)> = None;
        let mut values = Vec::new();
        for (index, server) in self.movable.iter().enumerate() {
            let least = best.as_ref().map_or(least, |(merit, ..)| merit.0);
            let most = server.rate.min(deepest) * deficient.len().min(server.blocks.len() as usize) as Micros;
            if (most as i64) < least {
                continue;
            }
            let found = self.best_of(server, level, least, (first, last), &mut values);
            if let Some((merit, to)) = found
                && best.as_ref().is_none_or(|(known, ..)| merit > *known)
            {
                best = Some((merit, index, to));
            }
        }
        let Some((_, index, to)) = best else {
            return false;
        };
        self.carry_out(index, to);
        true
    }

    fn carry_out(&mut self, index: usize, to: BlockRange) {
        let Movable { peer, blocks: from, rate } = self.movable.remove(index);
        self.put(from, to, rate);
        self.moves.push((Move { peer, from, to }, rate));
    }

    fn put(&mut self, from: BlockRange, to: BlockRange, rate: Micros) {
        for block in from.blocks().map(BlockIndex::as_usize) {
            self.rates.rates[block] -= rate;
            self.replicas[block] -= 1;
        }
        self.rates.add_micros(to, rate);
        to.blocks().for_each(|block| self.replicas[block.as_usize()] += 1);
    }

    /// The moves without those that others have made needless.
    fn needed(&mut self, level: Micros) -> Vec<Move> {
        let lacks = self.rates.lacks(level);
        let moves = std::mem::take(&mut self.moves);
        let mut needed = Vec::new();
        for (step, rate) in moves.into_iter().rev() {
            self.put(step.to, step.from, rate);
            if self.rates.lacks(level) > lacks {
                self.put(step.from, step.to, rate);
                needed.push(step);
            }
        }
        needed.reverse();
        needed
    }

    /// The best move of one server among those that lessen the deficiency by `least`, to blocks some of which lie between
    /// the first and the last deficient one.
    fn best_of(
        &self,
        server: &Movable,
        level: Micros,
        least: i64,
        (first, last): (u32, u32),
        values: &mut Vec<i64>,
    ) -> Option<(Merit, BlockRange)> {
        // Leaving these for the time of loading is no loss only if the model is of no use anyway.
        let is_sole = |block: &BlockIndex| self.replicas[block.as_usize()] < 2;
        if level != SERVED && server.blocks.blocks().any(|block| is_sole(&block)) {
            return None;
        }
        // What each block adds to the deficiency when the server does not host it.
        values.clear();
        values.extend(self.rates.rates.iter().map(|rate| level.saturating_sub(*rate).min(server.rate) as i64));
        let mut lost = 0;
        for block in server.blocks.blocks() {
            let lacks = level.saturating_sub(self.rates.at(block).saturating_sub(server.rate)).min(server.rate) as i64;
            values[block.as_usize()] = lacks;
            lost += lacks;
        }
        let len = server.blocks.len();
        let starts = (first + 1).saturating_sub(len)..=last.min(self.rates.model.end() - len);
        let mut sum: i64 = values[*starts.start() as usize..(*starts.start() + len) as usize].iter().sum();
        let mut best: Option<(Merit, BlockRange)> = None;
        for start in starts.clone() {
            if start > *starts.start() {
                sum += values[(start + len - 1) as usize] - values[(start - 1) as usize];
            }
            let gain = sum - lost;
            if start == server.blocks.start() || gain < best.as_ref().map_or(least, |(merit, _)| merit.0) {
                continue;
            }
            let Ok(to) = BlockRange::new(start, start + len) else { continue };
            let strands = |block: BlockIndex| is_sole(&block) && !to.contains(block);
            if server.blocks.blocks().any(strands) {
                continue;
            }
            let merit = (gain, self.is_flush(to), self.worst_touched(server, to), Reverse(server.peer), Reverse(start));
            if best.as_ref().is_none_or(|(known, _)| merit > *known) {
                best = Some((merit, to));
            }
        }
        best
    }

    /// Whether what is left of a hole lies on one side of `to` at most: holes in one piece suit servers of every size.
    fn is_flush(&self, to: BlockRange) -> bool {
        let is_hole = |block: Option<u32>| {
            block.is_some_and(|block| block < self.rates.model.end() && self.rates.at(BlockIndex(block)) == 0)
        };
        !(is_hole(to.start().checked_sub(1)) && is_hole(Some(to.end())))
    }

    /// What the worst-served block has of those that `server` leaves or takes.
    fn worst_touched(&self, server: &Movable, to: BlockRange) -> Micros {
        let left = server.blocks.blocks().filter(|block| !to.contains(*block));
        let left = left.map(|block| self.rates.at(block).saturating_sub(server.rate));
        let taken = to.blocks().map(|block| {
            let own = if server.blocks.contains(block) { 0 } else { server.rate };
            self.rates.at(block).saturating_add(own)
        });
        left.chain(taken).min().unwrap_or(0)
    }
}
