//! A placement that is far from where the servers stand: *threshold accepting*, a plain kind of simulated annealing.
//!
//! A beam goes on from what looks best at each move, and misses placements that look worse for many moves in a row. Here one
//! placement is changed at random, and stays changed if that makes it worse by no more than a limit that falls from change to
//! change. Every server that is not where it stands has a weight, so that few have to move. Of what is found only the
//! placement counts; then an order is sought in which no block ever loses its last replica.
//!
//! All is integers and drawn from a fixed start, so every server finds the same.

use super::Micros;
use super::sequence::{Field, Sequence};

/// Changes tried for each level: together with [`super::sequence`]'s `LEVELS` this bounds the time of a look.
const TRIES: u64 = 24_000;

/// The weight of a server away from where it stands, in parts of a server's mean rate: little, so that few blocks lack
/// anything for its sake.
const WEIGHT_ONE_OF: Micros = 8;

/// How often the heat is halved: it begins with a server's mean rate, and ends at a hundredth of it.
const COOLINGS: u64 = 7;

/// For so many of the placements found for a level an order is sought.
const MOST_ORDERS: u32 = 6;

/// One change of so many takes a server back to where it stands, lets two change places, or shifts one by some blocks.
const RETURNS_ONE_OF: u64 = 5;
const SWAPS_ONE_OF: u64 = 4;
const SHIFTS_ONE_OF: u64 = 3;
const LONGEST_SHIFT: u64 = 3;

/// The moves of at most `longest` servers that bring every block to `level`, in an order in which they are safe.
pub(super) fn reach(field: &Field, level: Micros, longest: usize) -> Option<Sequence> {
    let mut walk = Walk::new(field, level);
    let servers = walk.starts.len() as Micros;
    let mean = (0..walk.starts.len()).map(|number| field.rate(number)).sum::<Micros>() / servers.max(1);
    let weight = (mean / WEIGHT_ONE_OF).max(1);
    let mut dice = Dice(level);
    let mut best: Option<Sequence> = None;
    let (mut fewest, mut orders) = (longest + 1, 0);
    for attempt in 0..TRIES {
        let before = walk.lacks + weight * walk.away as Micros;
        let heat = mean >> (attempt * COOLINGS / TRIES);
        let Some(changes) = walk.draw(&mut dice) else { continue };
        let undo = changes.map(|change| change.map(|(number, _)| (number, walk.starts[number])));
        changes.into_iter().flatten().for_each(|(number, to)| walk.put(number, to));
        if walk.lacks + weight * walk.away as Micros > before + dice.exponential(heat) {
            undo.into_iter().rev().flatten().for_each(|(number, to)| walk.put(number, to));
        } else if walk.lacks == 0 && walk.away < fewest && orders < MOST_ORDERS {
            orders += 1;
            if let Some(found) = order(field, &walk.starts, longest) {
                (fewest, best) = (walk.away, Some(found));
            }
        }
    }
    best
}

/// The moves that lead to `goal`, each as soon as it is safe; of those that are, the one that leaves the worst-served block
/// with most. Where none is, since each server is the last of some block, another one steps in for a while.
fn order(field: &Field, goal: &[u32], longest: usize) -> Option<Sequence> {
    let mut walk = Walk::new(field, Micros::MAX);
    let mut moves = Vec::new();
    while walk.starts != goal {
        let open = (0..goal.len()).filter(|number| walk.starts[*number] != goal[*number] && walk.may_go(*number));
        let (next, to) = match open.max_by_key(|number| walk.worst_after(*number, goal[*number])) {
            Some(next) => (next, goal[next]),
            None => walk.steps_in(goal)?,
        };
        moves.push((next, walk.starts[next], to));
        walk.put(next, to);
        if moves.len() > longest {
            return None;
        }
    }
    Some(field.sequence(&moves, walk.rates.iter().copied().min()?))
}

#[derive(Clone)]
struct Walk<'a> {
    field: &'a Field,
    level: Micros,
    rates: Vec<Micros>,
    replicas: Vec<u32>,
    starts: Vec<u32>,
    lacks: Micros,
    /// Servers that are not where they stand.
    away: usize,
}

/// A server and its first block; two, if two change places.
type Changes = [Option<(usize, u32)>; 2];

impl<'a> Walk<'a> {
    fn new(field: &'a Field, level: Micros) -> Self {
        let start = field.start();
        let rates = start.rates.rates.clone();
        let lacks = if level == Micros::MAX { 0 } else { start.rates.lacks(level) };
        Self { field, level, rates, replicas: start.replicas.clone(), starts: start.starts.clone(), lacks, away: 0 }
    }

    fn draw(&self, dice: &mut Dice) -> Option<Changes> {
        let any = |dice: &mut Dice| dice.below(self.starts.len() as u64) as usize;
        let last = |number: usize| (self.rates.len() - self.field.len(number)) as u32;
        let number = any(dice);
        if dice.one_of(RETURNS_ONE_OF) {
            let home = self.field.start().starts[number];
            return (home != self.starts[number]).then_some([Some((number, home)), None]);
        }
        if dice.one_of(SWAPS_ONE_OF) {
            let other = any(dice);
            let place = |one: usize, of: usize| Some((one, self.starts[of].min(last(one))));
            return (number != other).then(|| [place(number, other), place(other, number)]);
        }
        let to = if dice.one_of(SHIFTS_ONE_OF) {
            let shifted = u64::from(self.starts[number]) + dice.below(2 * LONGEST_SHIFT + 1);
            (shifted.saturating_sub(LONGEST_SHIFT) as u32).min(last(number))
        } else {
            dice.below(u64::from(last(number)) + 1) as u32
        };
        Some([Some((number, to)), None])
    }

    fn put(&mut self, number: usize, to: u32) {
        let (rate, len, level) = (self.field.rate(number), self.field.len(number), self.level);
        let home = self.field.start().starts[number];
        let from = std::mem::replace(&mut self.starts[number], to);
        self.away = self.away + usize::from(to != home) - usize::from(from != home);
        let lack = |sum: Micros| if level == Micros::MAX { 0 } else { level.saturating_sub(sum) };
        let own = from as usize..from as usize + len;
        for (sum, replicas) in self.rates[own.clone()].iter_mut().zip(&mut self.replicas[own]) {
            self.lacks += lack(*sum - rate) - lack(*sum);
            *sum -= rate;
            *replicas -= 1;
        }
        let new = to as usize..to as usize + len;
        for (sum, replicas) in self.rates[new.clone()].iter_mut().zip(&mut self.replicas[new]) {
            self.lacks -= lack(*sum) - lack(*sum + rate);
            *sum += rate;
            *replicas += 1;
        }
    }

    /// Whether the server leaves no block without its last replica.
    fn may_go(&self, number: usize) -> bool {
        let start = self.starts[number] as usize;
        self.replicas[start..start + self.field.len(number)].iter().all(|replicas| *replicas > 1)
    }

    /// A server that can go, and where it must go so that one that is on its way to `goal` can go then; of all such, what
    /// leaves the worst-served block with most.
    fn steps_in(&self, goal: &[u32]) -> Option<(usize, u32)> {
        let waiting: Vec<usize> = (0..goal.len()).filter(|number| self.starts[*number] != goal[*number]).collect();
        let free = (0..goal.len()).filter(|number| self.starts[*number] == goal[*number] && self.may_go(*number));
        let mut best: Option<(Micros, usize, u32)> = None;
        for number in free {
            for to in 0..=(self.rates.len() - self.field.len(number)) as u32 {
                let mut after = self.clone();
                after.put(number, to);
                let worst = after.rates.iter().copied().min().unwrap_or(0);
                if best.is_none_or(|(known, ..)| worst > known) && waiting.iter().any(|one| after.may_go(*one)) {
                    best = Some((worst, number, to));
                }
            }
        }
        best.map(|(_, number, to)| (number, to))
    }

    fn worst_after(&self, number: usize, to: u32) -> Micros {
        let mut after = self.clone();
        after.put(number, to);
        after.rates.into_iter().min().unwrap_or(0)
    }
}

/// Numbers that look drawn at random (SplitMix64), and are the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((u128::from(bits) * u128::from(end)) >> 64) as u64
    }

    /// About exponentially distributed, of this mean.
    fn exponential(&mut self, mean: u64) -> u64 {
        let halvings = u64::from(self.below(u64::MAX).leading_zeros());
        let rest = self.below(mean + 1);
        (mean * halvings + rest) * 7 / 10
    }

    fn one_of(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}
