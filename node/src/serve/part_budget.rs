//! How many spans a stream's client may have this server send: what is collected may cost its operator, and strangers say how often.

use std::time::{Duration, Instant};

/// Parts that may begin at once: some requests', each with its phases.
const AT_ONCE: u32 = 32;

/// How long it takes until another one may: decoding a short text takes longer.
const EACH: Duration = Duration::from_millis(500);

/// Counts the parts of one stream.
#[derive(Debug)]
pub(super) struct PartBudget {
    left: u32,
    since: Instant,
}

impl PartBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now }
    }

    /// Whether one more may begin.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_nanos() / EACH.as_nanos();
        if let Some(again) = u32::try_from(passed).ok().filter(|again| *again < AT_ONCE) {
            self.left = (self.left + again).min(AT_ONCE);
            self.since += EACH * again;
        } else {
            *self = Self::new(now);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_trickle() {
        let start = Instant::now();
        let mut budget = PartBudget::new(start);
        let taken = |budget: &mut PartBudget, at: Duration| (0..10_000).filter(|_| budget.take(start + at)).count();
        assert_eq!(taken(&mut budget, Duration::ZERO), AT_ONCE as usize);
        assert_eq!(taken(&mut budget, EACH * 5 / 2), 2);
        assert_eq!(taken(&mut budget, EACH * 3), 1, "a half is not lost");
        assert_eq!(taken(&mut budget, EACH * 100_000), AT_ONCE as usize);
    }

    #[test]
    fn a_client_that_goes_on_for_days_is_always_told_of() {
        let start = Instant::now();
        let mut budget = PartBudget::new(start);
        assert!((0..10_000).all(|number| budget.take(start + EACH * number)));
    }
}
