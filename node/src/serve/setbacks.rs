//! Blocks that could not be loaded: how long a server then stays with what it has. Pure.

use std::time::{Duration, Instant};

/// How long after the first failure: memory that is short, or a disk that is away, may be back in a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest: each attempt makes the server's sessions move.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    count: u32,
    until: Option<Instant>,
}

impl Setbacks {
    /// Another one; says how long the pause is.
    pub(super) fn note(&mut self, now: Instant) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(self.count)).min(LONGEST_PAUSE);
        self.count = self.count.saturating_add(1);
        self.until = Some(now + pause);
        pause
    }

    /// Whether the pause is over.
    pub(super) fn are_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_one_before_up_to_the_longest() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        assert!(setbacks.are_over(now));
        assert_eq!([setbacks.note(now), setbacks.note(now)], [FIRST_PAUSE, 2 * FIRST_PAUSE]);
        assert!(!setbacks.are_over(now + FIRST_PAUSE) && setbacks.are_over(now + 2 * FIRST_PAUSE));
        let pauses = (0..100).map(|_| setbacks.note(now));
        assert_eq!(pauses.last(), Some(LONGEST_PAUSE));
    }
}
