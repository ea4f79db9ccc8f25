//! The best that a pipeline of chunks can do.

use std::time::Duration;

/// Seconds of computing below which a chunk is done: what additions of fractions leave.
const DONE: f64 = 1e-9;

/// A hop of a pipeline, with the link that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// From the sender's last byte of a chunk to the hop's.
    pub(crate) delay: Duration,
    /// How long the link is busy with each chunk.
    pub(crate) transfer: Vec<Duration>,
    /// How long the hop computes on each chunk if it has a core to itself.
    pub(crate) compute: Vec<Duration>,
}

/// When the last hop is done with the last chunk, if every link and every hop takes the next chunk as soon as it is there:
/// one after the other, in order. All chunks are at the first link from the start. Hops that compute at the same time share
/// `cores` evenly.
pub(crate) fn makespan(stages: &[Stage], cores: usize) -> Duration {
    let chunks = stages.iter().map(|stage| stage.compute.len().min(stage.transfer.len())).min().unwrap_or(0);
    let mut hops: Vec<Hop<'_>> = stages.iter().map(Hop::new).collect();
    if let Some(first) = hops.first_mut() {
        (0..chunks).for_each(|_| first.receive(0.0));
    }
    let mut now = 0.0;
    loop {
        let busy = hops.iter().filter(|hop| hop.is_busy(now)).count();
        let speed = (cores as f64 / busy.max(1) as f64).min(1.0);
        let Some(step) = hops.iter().filter_map(|hop| hop.next_event(now, speed)).min_by(f64::total_cmp) else {
            return Duration::from_secs_f64(now);
        };
        let later = now + step;
        let mut passed_on = false;
        for hop in &mut hops {
            if passed_on {
                hop.receive(later);
            }
            passed_on = hop.is_busy(now) && hop.compute(step * speed);
        }
        now = later;
    }
}

/// A hop at work; times are in seconds.
struct Hop<'a> {
    stage: &'a Stage,
    /// When each chunk sent so far has arrived or will.
    arrivals: Vec<f64>,
    link_free_at: f64,
    /// The chunk that is computed or waited for, and what is left of it.
    chunk: usize,
    left: f64,
}

impl<'a> Hop<'a> {
    fn new(stage: &'a Stage) -> Self {
        let mut hop = Self { stage, arrivals: Vec::new(), link_free_at: 0.0, chunk: 0, left: 0.0 };
        hop.left = hop.work();
        hop
    }

    fn work(&self) -> f64 {
        self.stage.compute.get(self.chunk).map_or(0.0, Duration::as_secs_f64)
    }

    /// The next chunk is at the link at `now`.
    fn receive(&mut self, now: f64) {
        let transfer = self.stage.transfer[self.arrivals.len()].as_secs_f64();
        self.link_free_at = self.link_free_at.max(now) + transfer;
        self.arrivals.push(self.link_free_at + self.stage.delay.as_secs_f64());
    }

    fn is_busy(&self, now: f64) -> bool {
        self.arrivals.get(self.chunk).is_some_and(|arrival| *arrival <= now + DONE)
    }

    /// How long until it is done with its chunk, or has it.
    fn next_event(&self, now: f64, speed: f64) -> Option<f64> {
        let arrival = *self.arrivals.get(self.chunk)?;
        Some(if self.is_busy(now) { self.left / speed } else { arrival - now })
    }

    /// Computes for a while; whether it is done with its chunk.
    fn compute(&mut self, work: f64) -> bool {
        self.left -= work;
        let done = self.left < DONE;
        if done {
            self.chunk += 1;
            self.left = self.work();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than there are hops.
    const ENOUGH_CORES: usize = 8;

    fn stage(delay: u64, transfer: &[u64], compute: &[u64]) -> Stage {
        let times = |counts: &[u64]| counts.iter().copied().map(Duration::from_millis).collect();
        Stage { delay: Duration::from_millis(delay), transfer: times(transfer), compute: times(compute) }
    }

    /// Whole milliseconds.
    fn ms(stages: &[Stage], cores: usize) -> u64 {
        (makespan(stages, cores).as_secs_f64() * 1e3).round() as u64
    }

    #[test]
    fn one_chunk_meets_everything_in_turn() {
        let stages = [stage(25, &[4], &[10]), stage(25, &[6], &[20])];
        assert_eq!(ms(&stages, 1), 25 + 4 + 10 + 25 + 6 + 20);
        assert_eq!(ms(&[], 1), 0);
        assert_eq!(ms(&[stage(25, &[], &[])], 1), 0);
    }

    #[test]
    fn many_chunks_take_what_the_slowest_part_takes() {
        // The computing of the second hop holds everything up: it begins after 1 + 5 + 1 and goes on without a pause.
        let stages = [stage(0, &[1; 10], &[5; 10]), stage(0, &[1; 10], &[9; 10]), stage(0, &[1; 10], &[5; 10])];
        assert_eq!(ms(&stages, ENOUGH_CORES), 1 + 5 + 1 + 10 * 9 + 1 + 5);
        // A slow link does the same, and a delay is met once.
        let stages = [stage(50, &[20; 10], &[5; 10]), stage(50, &[1; 10], &[5; 10])];
        assert_eq!(ms(&stages, ENOUGH_CORES), 10 * 20 + 50 + 5 + 1 + 50 + 5);
    }

    #[test]
    fn a_chunk_that_takes_long_delays_those_behind_it_only() {
        let stages = [stage(0, &[0; 3], &[1; 3]), stage(0, &[0; 3], &[1, 10, 1])];
        assert_eq!(ms(&stages, ENOUGH_CORES), 2 + 10 + 1);
    }

    #[test]
    fn hops_share_the_cores() {
        // One core: all the work there is.
        let alike = [stage(0, &[0; 4], &[10; 4]), stage(0, &[0; 4], &[10; 4]), stage(0, &[0; 4], &[10; 4])];
        assert_eq!(ms(&alike, 1), 4 * 3 * 10);
        assert_eq!(ms(&alike, 3), 4 * 10 + 20);
        // Two: alone, two, then three at two thirds of the speed for two chunks, then two and one again.
        assert_eq!(ms(&alike, 2), 10 + 10 + 15 + 15 + 10 + 10);
    }
}
