//! Who is computed next, and with whom. Pure.
//!
//! Weights are read once for all rows of a pass, so rows of different sequences go together: the single rows of everybody
//! who decodes, and beside them a piece of one prompt. A prompt alone is computed in the chunks it came in; while others
//! decode, in pieces that hold them up no longer than a few tokens. Each pass begins with whoever has waited longest.
//!
//! A hop of a chain works while the others do only if there is something for each of them: so a pass takes no more than its
//! share of those who decode. And sequences that were computed together come back together, but one by one: a pass waits
//! these moments, so that they stay together.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use swarm_protocol::block::BlockRange;

use super::Slot;

/// Steps of up to so many rows are somebody decoding; longer ones are pieces of a prompt.
pub(super) const SHORT_ROWS: usize = 8;

/// The most rows of decoding sequences in one pass: further ones take the next, so that a pass stays a matter of moments.
const MOST_SHORT_ROWS: usize = 64;

/// The rows of a prompt that share a pass with decoding sequences: about as many as cost a processor twice what reading
/// the weights costs it anyway.
const PIECE_ROWS: usize = 16;

/// Rows below which a pass is not made smaller to keep one other hop busy: so many cost hardly more than one does.
const FEW_ROWS: usize = 4;

/// Rows below which a pass is not made smaller to keep more than one other hop busy: so many cost hardly twice what one does.
/// (With as few as for one other, `swarm-bench pipeline`, where 16 texts pass through three hops, lost a tenth.)
const ROWS_FOR_MANY: usize = 8;

/// A sequence that has decoded this recently counts among those that will come again: steps of large models over slow links
/// take less.
const STILL_DECODES: Duration = Duration::from_secs(2);

/// Part of a pass's time that is waited for the next of those who were computed together: little beside the pass that each
/// of them would otherwise take alone. Whoever is not back by then is no longer waited for. (An eighth was too little where
/// servers share cores: `swarm-bench pipeline` got 0.70 of what its cores could, with a third 0.73 to 0.77, with a half no more.)
const COMPANY_SHARE: u32 = 3;

/// The longest wait for the next of them: what steps that leave together are apart when they come, several times over.
const MOST_COMPANY: Duration = Duration::from_millis(10);

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
    /// Nothing before this moment, unless more comes: those who wait were computed together with others, who are about to come.
    Later(Instant),
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

/// When a sequence that decodes was last computed.
#[derive(Debug, Clone, Copy)]
struct Decoder {
    at: Instant,
    /// In which pass.
    pass: u64,
}

/// Waiting work: of each sequence in order, of all of them by turns.
#[derive(Debug)]
pub(super) struct WorkQueue<S, O> {
    waiting: HashMap<Slot, VecDeque<Work<S, O>>>,
    /// The sequences for which anything waits; who was served goes to the back.
    turns: VecDeque<Slot>,
    /// Hops of this one's size that the whole model takes.
    hops: usize,
    /// Those who decode.
    decoders: HashMap<Slot, Decoder>,
    /// Passes with any of them so far.
    passes: u64,
    /// When the last step of somebody who decodes came.
    came: Option<Instant>,
    /// Since when those who are ready have waited for others.
    lingers: Option<Instant>,
    /// What passes of those who decode take.
    pass_time: Duration,
}

impl<S, O> WorkQueue<S, O> {
    /// An empty queue of a hop in a chain of `hops` like it.
    pub(super) fn new(hops: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            hops: hops.max(1),
            decoders: HashMap::new(),
            passes: 0,
            came: None,
            lingers: None,
            pass_time: Duration::ZERO,
        }
    }

    /// Work for a sequence, behind all of its own.
    pub(super) fn push(&mut self, slot: Slot, work: Work<S, O>, now: Instant) {
        let own = self.waiting.entry(slot).or_default();
        // Further steps of those who wait already are nobody's company.
        if own.is_empty() && matches!(work, Work::Step { rows, .. } if rows <= SHORT_ROWS) {
            self.came = Some(now);
        }
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
        self.decoders.retain(|_, last| now.saturating_duration_since(last.at) < STILL_DECODES);
        let short: Vec<(Slot, usize)> = waiting.iter().copied().filter(|(_, rows)| *rows <= SHORT_ROWS).collect();
        let new = short.iter().filter(|(slot, _)| !self.decoders.contains_key(slot)).count();
        let share = share(self.decoders.len() + new, self.hops);
        let mut members = self.together(&short, share);
        if let Some(later) = self.company(&members, share, now) {
            // However many come meanwhile: who is ready waits no longer than this in all.
            let since = *self.lingers.get_or_insert(now);
            let later = later.min(since + MOST_COMPANY * 2);
            if later > now {
                return Next::Later(later);
            }
        }
        self.lingers = None;
        if !members.is_empty() {
            self.passes += 1;
            let last = Decoder { at: now, pass: self.passes };
            self.decoders.extend(members.iter().map(|(slot, _)| (*slot, last)));
        }
        if let Some(&(slot, rows)) = waiting.iter().find(|(_, rows)| *rows > SHORT_ROWS) {
            members.push((slot, if self.somebody_decodes(now) { rows.min(PIECE_ROWS) } else { rows }));
        }
        Next::Pass { range, members }
    }

    /// The next of those who decode: whoever has waited longest with those who were computed with it, then the next, as far as
    /// the share of a pass goes; the first in any case.
    fn together(&self, short: &[(Slot, usize)], share: usize) -> Vec<(Slot, usize)> {
        let first_of_pass = |slot: Slot| {
            let pass = self.pass_of(slot);
            short.iter().position(|(other, _)| *other == slot || (pass.is_some() && self.pass_of(*other) == pass))
        };
        let mut by_pass = short.to_vec();
        by_pass.sort_by_key(|(slot, _)| first_of_pass(*slot));
        let mut taken = 0;
        by_pass.retain(|(_, rows)| {
            let fits = taken == 0 || taken + rows <= share;
            taken += if fits { *rows } else { 0 };
            fits
        });
        by_pass
    }

    /// Until when those who are there wait for others they were computed with; `None` if they need not.
    fn company(&self, members: &[(Slot, usize)], share: usize, now: Instant) -> Option<Instant> {
        if members.iter().map(|(_, rows)| rows).sum::<usize>() >= share {
            return None;
        }
        let is_here = |slot: &Slot| self.waiting.contains_key(slot);
        let were_with = |last: &Decoder| members.iter().any(|(slot, _)| self.pass_of(*slot) == Some(last.pass));
        if !self.decoders.iter().any(|(slot, last)| !is_here(slot) && were_with(last)) {
            return None;
        }
        let later = self.came? + (self.pass_time / COMPANY_SHARE).min(MOST_COMPANY);
        (later > now).then_some(later)
    }

    fn pass_of(&self, slot: Slot) -> Option<u64> {
        Some(self.decoders.get(&slot)?.pass)
    }

    /// A sequence has ended: nobody waits for it.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.decoders.remove(&slot);
    }

    /// A pass took so long; of interest if somebody decoded in it, and no prompt was computed beside.
    pub(super) fn took(&mut self, rows: usize, time: Duration) {
        if rows <= SHORT_ROWS {
            // The average of the last few.
            self.pass_time = (self.pass_time * 3 + time) / 4;
        }
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
        self.decoders.values().any(|last| now.saturating_duration_since(last.at) < DECODED_LATELY)
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

/// The most rows of a pass on one of so many hops, while so many sequences decode: what leaves something for the others.
fn share(decoders: usize, hops: usize) -> usize {
    let of_two = decoders.div_ceil(hops.min(2));
    decoders.div_ceil(hops).max(of_two.min(ROWS_FOR_MANY)).clamp(FEW_ROWS, MOST_SHORT_ROWS)
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
        let (mut queue, now) = (Queue::new(1), Instant::now());
        queue.push(Slot(1), step(40, "prompt"), now);
        queue.push(Slot(2), step(1, "token"), now);
        queue.push(Slot(3), step(1, "token"), now);
        assert_eq!(queue.next(now), pass(&[(2, 1), (3, 1), (1, 16)]));
        assert_eq!((queue.advance(Slot(2), 1), queue.advance(Slot(1), 16)), (Some("token"), None));
        queue.push(Slot(2), step(1, "next"), now);
        assert_eq!(queue.next(now), pass(&[(3, 1), (2, 1), (1, 16)]), "who was served waits behind the others");
        // Decoders are on their way around the chain: the prompt still goes in pieces, but not for ever.
        run(&mut queue, now);
        queue.push(Slot(1), step(40, "prompt"), now);
        assert_eq!(queue.next(now + DECODED_LATELY / 2), pass(&[(1, 16)]));
        assert_eq!(queue.next(now + DECODED_LATELY), pass(&[(1, 40)]));
    }

    #[test]
    fn prompts_take_turns() {
        let (mut queue, now) = (Queue::new(1), Instant::now());
        for slot in [1, 2] {
            queue.push(Slot(slot), step(64, "first"), now);
            queue.push(Slot(slot), step(64, "second"), now);
        }
        assert_eq!(run(&mut queue, now), [[(1, 64)], [(2, 64)], [(1, 64)], [(2, 64)]]);
    }

    #[test]
    fn nobody_starves_beside_more_decoders_than_fit() {
        let (mut queue, now) = (Queue::new(1), Instant::now());
        let mut served = HashMap::new();
        (0..100).for_each(|slot| queue.push(Slot(slot), step(1, "token"), now));
        for _ in 0..50 {
            let Next::Pass { members, .. } = queue.next(now) else { panic!("they all have more to say") };
            assert_eq!(members.len(), MOST_SHORT_ROWS);
            for (slot, rows) in members {
                queue.advance(slot, rows);
                queue.push(slot, step(1, "token"), now);
                *served.entry(slot).or_insert(0) += 1;
            }
        }
        assert!(served.len() == 100 && served.values().all(|times| (31..=33).contains(times)), "{served:?}");
    }

    /// Sequences that have been computed together once, with a pass that takes so long.
    fn travelling(hops: usize, slots: std::ops::Range<u64>, pass: Duration, now: Instant) -> Queue {
        let mut queue = Queue::new(hops);
        // Often enough for the average.
        for _ in 0..40 {
            slots.clone().for_each(|slot| queue.push(Slot(slot), step(1, "token"), now));
            while let Next::Pass { members, .. } = queue.next(now) {
                for (slot, rows) in &members {
                    queue.advance(*slot, *rows);
                }
                queue.took(members.len(), pass);
            }
        }
        queue
    }

    #[test]
    fn whoever_was_computed_together_stays_together_if_the_others_come_soon() {
        let (start, pass_time) = (Instant::now(), Duration::from_millis(24));
        let mut queue = travelling(3, 1..4, pass_time, start);
        let then = start + Duration::from_millis(100);
        queue.push(Slot(1), step(1, "token"), then);
        let Next::Later(until) = queue.next(then) else { panic!("two are about to come") };
        assert!(until > then + pass_time / (COMPANY_SHARE + 1) && until <= then + pass_time / COMPANY_SHARE);
        // One more comes, and then nobody.
        queue.push(Slot(2), step(1, "token"), until);
        assert!(matches!(queue.next(until), Next::Later(later) if later > until));
        let late = until + pass_time;
        assert_eq!(queue.next(late), pass(&[(1, 1), (2, 1)]));
        queue.advance(Slot(1), 1);
        queue.advance(Slot(2), 1);
        // The third travels by itself now, until it meets them.
        queue.push(Slot(3), step(1, "token"), late);
        assert_eq!(queue.next(late), pass(&[(3, 1)]));
        queue.advance(Slot(3), 1);
        queue.push(Slot(1), step(1, "token"), late);
        assert!(matches!(queue.next(late), Next::Later(_)));
        queue.forget(Slot(2));
        assert_eq!(queue.next(late), pass(&[(1, 1)]), "who has ended is not waited for");
    }

    #[test]
    fn a_hop_of_a_chain_leaves_something_for_the_others() {
        let now = Instant::now();
        for (hops, sizes) in [(1, vec![24]), (2, vec![12, 12]), (3, vec![8, 8, 8]), (12, vec![8, 8, 8])] {
            let mut queue = travelling(hops, 0..24, Duration::ZERO, now);
            (0..24).for_each(|slot| queue.push(Slot(slot), step(1, "token"), now));
            let passes: Vec<usize> = run(&mut queue, now).iter().map(Vec::len).collect();
            assert_eq!(passes, sizes, "{hops} hops");
        }
    }

    #[test]
    fn a_pass_leaves_something_for_one_other_hop_and_for_more_if_they_are_many() {
        for (decoders, hops, rows) in [
            (1, 3, 4),
            (8, 1, 8),
            (8, 2, 4),
            (8, 4, 4),
            (6, 2, 4),
            (12, 4, 6),
            (16, 3, 8),
            (64, 3, 22),
            (500, 1, MOST_SHORT_ROWS),
        ] {
            assert_eq!(share(decoders, hops), rows, "{decoders} over {hops} hops");
        }
    }

    #[test]
    fn whoever_has_more_rows_than_a_share_has_a_pass_all_the_same() {
        let (mut queue, now) = (Queue::new(2), Instant::now());
        queue.push(Slot(1), step(SHORT_ROWS, "begins"), now);
        queue.push(Slot(2), step(SHORT_ROWS, "begins"), now);
        assert_eq!(run(&mut queue, now), [vec![(1, SHORT_ROWS)], vec![(2, SHORT_ROWS)]]);
    }

    #[test]
    fn sequences_over_other_blocks_have_passes_of_their_own() {
        let (mut queue, now) = (Queue::new(1), Instant::now());
        queue.push(Slot(1), step(1, "all"), now);
        queue.push(Slot(2), Work::Step { range: range(2), rows: 1, step: "some" }, now);
        queue.push(Slot(3), step(1, "all"), now);
        assert_eq!(run(&mut queue, now), [vec![(1, 1), (3, 1)], vec![(2, 1)]]);
    }

    #[test]
    fn what_is_no_step_keeps_its_place_among_its_sequences_work_alone() {
        let (mut queue, now) = (Queue::new(1), Instant::now());
        queue.push(Slot(1), step(1, "token"), now);
        queue.push(Slot(1), Work::Other("close"), now);
        queue.push(Slot(2), Work::Other("open"), now);
        queue.push(Slot(2), step(1, "token"), now);
        assert_eq!(queue.next(now), Next::Other("open"));
        assert_eq!(queue.next(now), pass(&[(1, 1), (2, 1)]));
        assert_eq!(queue.drop_step(Slot(1)), Some("token"));
        assert_eq!(queue.next(now), Next::Other("close"));
        assert_eq!(queue.advance(Slot(2), 1), Some("token"));
        assert_eq!(queue.next(now), Next::Nothing);
    }
}
