//! Who is computed next, and with whom. Pure.
//!
//! Weights are read once for all rows of a pass, so rows of different sequences go together: the single rows of everybody
//! who decodes, and beside them a piece of one prompt. A prompt alone is computed in the chunks it came in; while others
//! decode, in pieces that hold them up no longer than a few tokens. Each pass begins with whoever has waited longest.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use swarm_protocol::block::BlockRange;

use super::Slot;

/// Steps of up to so many rows are somebody decoding; longer ones are pieces of a prompt.
const SHORT_ROWS: usize = 8;

/// The most rows of decoding sequences in one pass: further ones take the next, so that a pass stays a matter of moments.
const MOST_SHORT_ROWS: usize = 64;

/// The rows of a prompt that share a pass with decoding sequences: about as many as cost a processor twice what reading
/// the weights costs it anyway.
const PIECE_ROWS: usize = 16;

/// A sequence that has decoded this recently will again: its next step is on its way around the chain.
const DECODED_LATELY: Duration = Duration::from_millis(500);

/// What waits for its turn.
#[derive(Debug)]
pub(super) enum Work<S, O> {
    /// Rows for some of the blocks.
    Step {
        /// Which blocks.
        range: BlockRange,
        /// How many rows are still to be computed, at least 1.
        rows: usize,
        /// What the worker needs.
        step: S,
    },
    /// Anything else; it takes no time worth speaking of.
    Other(O),
}

/// What is done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<O> {
    /// Nothing waits.
    Nothing,
    /// This, now.
    Other(O),
    /// These sequences' oldest steps, each as far as it says, in one pass over the blocks.
    Pass {
        /// The blocks.
        range: BlockRange,
        /// Sequences and rows; at least one.
        members: Vec<(Slot, usize)>,
    },
}

/// Waiting work: of each sequence in order, of all of them by turns.
#[derive(Debug)]
pub(super) struct WorkQueue<S, O> {
    waiting: HashMap<Slot, VecDeque<Work<S, O>>>,
    /// The sequences for which anything waits; who was served goes to the back.
    turns: VecDeque<Slot>,
    decoded: Option<Instant>,
}

impl<S, O> Default for WorkQueue<S, O> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new(), decoded: None }
    }
}

impl<S, O> WorkQueue<S, O> {
    /// Work for a sequence, behind all of its own.
    pub(super) fn push(&mut self, slot: Slot, work: Work<S, O>) {
        let own = self.waiting.entry(slot).or_default();
        if own.is_empty() {
            self.turns.push_back(slot);
        }
        own.push_back(work);
    }

    /// What is done next. What is no step is gone from the queue then; steps stay until they are [done](Self::advance).
    pub(super) fn next(&mut self, now: Instant) -> Next<O> {
        if let Some(other) = self.take_other() {
            return Next::Other(other);
        }
        let Some(range) = self.turns.front().and_then(|slot| self.oldest(*slot)).map(|(range, _)| range) else {
            return Next::Nothing;
        };
        let waiting = self.turns.iter().filter_map(|slot| Some((*slot, self.oldest(*slot)?)));
        let waiting: Vec<(Slot, usize)> =
            waiting.filter(|(_, (of, _))| *of == range).map(|(slot, (_, rows))| (slot, rows)).collect();
        let mut members = Vec::new();
        let mut short_rows = 0;
        for &(slot, rows) in waiting.iter().filter(|(_, rows)| *rows <= SHORT_ROWS) {
            if short_rows + rows <= MOST_SHORT_ROWS {
                short_rows += rows;
                members.push((slot, rows));
            }
        }
        if short_rows > 0 {
            self.decoded = Some(now);
        }
        if let Some(&(slot, rows)) = waiting.iter().find(|(_, rows)| *rows > SHORT_ROWS) {
            members.push((slot, if self.somebody_decodes(now) { rows.min(PIECE_ROWS) } else { rows }));
        }
        Next::Pass { range, members }
    }

    /// Something that is no step, and that no step of the same sequence waits before.
    fn take_other(&mut self) -> Option<O> {
        let is_other = |slot: &Slot| matches!(self.waiting.get(slot)?.front()?, Work::Other(_)).then_some(*slot);
        let slot = self.turns.iter().find_map(is_other)?;
        match self.pop(slot) {
            Some(Work::Other(other)) => Some(other),
            _ => None,
        }
    }

    fn oldest(&self, slot: Slot) -> Option<(BlockRange, usize)> {
        match self.waiting.get(&slot)?.front()? {
            Work::Step { range, rows, .. } => Some((*range, *rows)),
            Work::Other(_) => None,
        }
    }

    fn somebody_decodes(&self, now: Instant) -> bool {
        self.decoded.is_some_and(|decoded| now.saturating_duration_since(decoded) < DECODED_LATELY)
    }

    /// A sequence's oldest step.
    pub(super) fn step(&mut self, slot: Slot) -> Option<&mut S> {
        match self.waiting.get_mut(&slot)?.front_mut()? {
            Work::Step { step, .. } => Some(step),
            Work::Other(_) => None,
        }
    }

    /// So many rows of a sequence's oldest step were computed: it waits for its next turn. Gives the step when it is done.
    pub(super) fn advance(&mut self, slot: Slot, computed: usize) -> Option<S> {
        let Work::Step { rows, .. } = self.waiting.get_mut(&slot)?.front_mut()? else {
            return None;
        };
        *rows = rows.saturating_sub(computed);
        if *rows > 0 {
            self.turns.retain(|known| *known != slot);
            self.turns.push_back(slot);
            return None;
        }
        self.drop_step(slot)
    }

    /// A sequence's oldest step will not be computed (any further).
    pub(super) fn drop_step(&mut self, slot: Slot) -> Option<S> {
        self.step(slot)?;
        match self.pop(slot)? {
            Work::Step { step, .. } => Some(step),
            Work::Other(_) => None,
        }
    }

    fn pop(&mut self, slot: Slot) -> Option<Work<S, O>> {
        let own = self.waiting.get_mut(&slot)?;
        let work = own.pop_front();
        let left = !own.is_empty();
        self.turns.retain(|known| *known != slot);
        if left {
            self.turns.push_back(slot);
        } else {
            self.waiting.remove(&slot);
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queue = WorkQueue<&'static str, &'static str>;

    fn range(end: u32) -> BlockRange {
        BlockRange::new(0, end).unwrap()
    }

    fn step(rows: usize, step: &'static str) -> Work<&'static str, &'static str> {
        Work::Step { range: range(4), rows, step }
    }

    fn pass(members: &[(u64, usize)]) -> Next<&'static str> {
        let members = members.iter().map(|(slot, rows)| (Slot(*slot), *rows)).collect();
        Next::Pass { range: range(4), members }
    }

    /// What is done in the passes until nothing waits.
    fn run(queue: &mut Queue, now: Instant) -> Vec<Vec<(u64, usize)>> {
        let mut passes = Vec::new();
        while let Next::Pass { members, .. } = queue.next(now) {
            for (slot, rows) in &members {
                queue.advance(*slot, *rows);
            }
            passes.push(members.into_iter().map(|(slot, rows)| (slot.0, rows)).collect());
        }
        assert!(queue.waiting.is_empty() && queue.turns.is_empty());
        passes
    }

    #[test]
    fn whoever_decodes_shares_a_pass_and_a_prompt_fills_the_gaps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Slot(1), step(40, "prompt"));
        queue.push(Slot(2), step(1, "token"));
        queue.push(Slot(3), step(1, "token"));
        assert_eq!(queue.next(now), pass(&[(2, 1), (3, 1), (1, 16)]));
        assert_eq!((queue.advance(Slot(2), 1), queue.advance(Slot(1), 16)), (Some("token"), None));
        queue.push(Slot(2), step(1, "next"));
        assert_eq!(queue.next(now), pass(&[(3, 1), (2, 1), (1, 16)]), "who was served waits behind the others");
        // Decoders are on their way around the chain: the prompt still goes in pieces, but not for ever.
        run(&mut queue, now);
        queue.push(Slot(1), step(40, "prompt"));
        assert_eq!(queue.next(now + DECODED_LATELY / 2), pass(&[(1, 16)]));
        assert_eq!(queue.next(now + DECODED_LATELY), pass(&[(1, 40)]));
    }

    #[test]
    fn prompts_take_turns() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for slot in [1, 2] {
            queue.push(Slot(slot), step(64, "first"));
            queue.push(Slot(slot), step(64, "second"));
        }
        assert_eq!(run(&mut queue, now), [[(1, 64)], [(2, 64)], [(1, 64)], [(2, 64)]]);
    }

    #[test]
    fn nobody_starves_beside_more_decoders_than_fit() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut served = HashMap::new();
        (0..100).for_each(|slot| queue.push(Slot(slot), step(1, "token")));
        for _ in 0..50 {
            let Next::Pass { members, .. } = queue.next(now) else { panic!("they all have more to say") };
            assert_eq!(members.len(), MOST_SHORT_ROWS);
            for (slot, rows) in members {
                queue.advance(slot, rows);
                queue.push(slot, step(1, "token"));
                *served.entry(slot).or_insert(0) += 1;
            }
        }
        assert!(served.len() == 100 && served.values().all(|times| (31..=33).contains(times)), "{served:?}");
    }

    #[test]
    fn sequences_over_other_blocks_have_passes_of_their_own() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Slot(1), step(1, "all"));
        queue.push(Slot(2), Work::Step { range: range(2), rows: 1, step: "some" });
        queue.push(Slot(3), step(1, "all"));
        assert_eq!(run(&mut queue, now), [vec![(1, 1), (3, 1)], vec![(2, 1)]]);
    }

    #[test]
    fn what_is_no_step_keeps_its_place_among_its_sequences_work_alone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(Slot(1), step(1, "token"));
        queue.push(Slot(1), Work::Other("close"));
        queue.push(Slot(2), Work::Other("open"));
        queue.push(Slot(2), step(1, "token"));
        assert_eq!(queue.next(now), Next::Other("open"));
        assert_eq!(queue.next(now), pass(&[(1, 1), (2, 1)]));
        assert_eq!(queue.drop_step(Slot(1)), Some("token"));
        assert_eq!(queue.next(now), Next::Other("close"));
        assert_eq!(queue.advance(Slot(2), 1), Some("token"));
        assert_eq!(queue.next(now), Next::Nothing);
    }
}
