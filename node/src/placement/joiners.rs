//! Servers that join at the same moment, see the same holes and choose the same blocks.

use rand::Rng;
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use super::rank::Rank;
use super::{Coverage, choose};

/// How far a server is with the blocks it announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It will host them, and can still change its mind.
    Joining,
    /// It hosts them.
    Serving,
}

/// The blocks a server announced.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Who it is.
    pub peer: PeerId,
    /// Its blocks.
    pub blocks: BlockRange,
    /// How many tokens per second it computes on each of them.
    pub tokens_per_second: f64,
    /// Whether it can still change its mind.
    pub standing: Standing,
}

/// Other blocks for a joining server that sees what others announced meanwhile; `None` if it keeps its own.
///
/// It gives way if a joining server with a smaller peer id claims some of the same blocks, and other blocks would help
/// the swarm more. What joining servers with larger peer ids claim does not count: they give way to this one. So every
/// round settles at least one more of the joiners, and they end up placed as if they had joined one after another.
pub fn rechoose(model: BlockRange, mine: &Claim, others: &[Claim], rng: &mut impl Rng) -> Option<BlockRange> {
    if !others.iter().any(|other| collides(mine, other)) {
        return None;
    }
    better(model, mine, others, rng)
}

/// Other blocks for a server that has loaded its own, and first then sees that a server with a smaller peer id, which it
/// had not counted on, claims some of them too; `None` if it keeps its own.
///
/// [`rechoose`] counts on every junior to see its senior before it serves. One that looked for the last time just before
/// its senior's word arrived has not: so it looks once more when its own word, that it serves, can be read. Whoever has
/// read before that it was joining had told its own claim before, and is found now.
pub fn concede(
    model: BlockRange,
    mine: &Claim,
    counted: &[Claim],
    others: &[Claim],
    rng: &mut impl Rng,
) -> Option<BlockRange> {
    if !others.iter().any(|other| is_rival(mine, counted, other)) {
        return None;
    }
    better(model, mine, others, rng)
}

/// Whether `other` claims blocks of `mine`, which counted on `counted`, and goes first.
pub fn is_rival(mine: &Claim, counted: &[Claim], other: &Claim) -> bool {
    let counted_on = counted.iter().any(|one| one.peer == other.peer && one.blocks == other.blocks);
    other.peer < mine.peer && !counted_on && mine.blocks.intersection(other.blocks).is_some()
}

/// Where `mine` helps the swarm more than where it is, if those stay that it counts on to stay.
fn better(model: BlockRange, mine: &Claim, others: &[Claim], rng: &mut impl Rng) -> Option<BlockRange> {
    let mut seniors = Coverage::none(model);
    for other in others.iter().filter(|other| is_senior(mine, other)) {
        seniors.add(other.blocks, other.tokens_per_second);
    }
    let rank = |blocks| Rank::of(&seniors, blocks, mine.tokens_per_second);
    let chosen = choose(&seniors, mine.blocks.len(), mine.tokens_per_second, rng);
    rank(chosen).helps_more_than(&rank(mine.blocks)).then_some(chosen)
}

/// Whether `mine` counts on `other` to stay where it is.
pub fn is_senior(mine: &Claim, other: &Claim) -> bool {
    other.peer < mine.peer || (other.standing == Standing::Serving && other.peer != mine.peer)
}

/// Whether `mine` gives way to `other`.
fn collides(mine: &Claim, other: &Claim) -> bool {
    let shared = mine.blocks.intersection(other.blocks).is_some();
    shared && other.standing == Standing::Joining && other.peer < mine.peer
}
