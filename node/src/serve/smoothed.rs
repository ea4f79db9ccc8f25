//! How long steps wait, smoothed. Pure.

use std::time::{Duration, Instant};

/// What a new observation counts: about ten steps make the figure.
const WEIGHT: f64 = 0.1;

/// An idle server's figure halves in this time: nobody waits where nobody is served.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// A smoothed waiting time that fades while nothing happens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SmoothedWait {
    micros: f64,
    at: Option<Instant>,
}

impl SmoothedWait {
    /// Takes in one step's wait.
    pub(super) fn observe(&mut self, wait: Duration, now: Instant) {
        let micros = wait.as_secs_f64() * 1e6;
        self.micros = match self.at {
            None => micros,
            Some(_) => (1.0 - WEIGHT) * self.faded(now) + WEIGHT * micros,
        };
        self.at = Some(now);
    }

    /// The figure at `now`, in microseconds.
    pub(super) fn micros(&self, now: Instant) -> u32 {
        self.faded(now) as u32
    }

    fn faded(&self, now: Instant) -> f64 {
        let idle = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.micros * 0.5f64.powf(idle.as_secs_f64() / HALF_LIFE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_load_and_fades_when_idle() {
        let start = Instant::now();
        let mut wait = SmoothedWait::default();
        assert_eq!(wait.micros(start), 0);
        wait.observe(Duration::from_millis(1), start);
        assert_eq!(wait.micros(start), 1000);
        (0..100).for_each(|_| wait.observe(Duration::from_millis(8), start));
        assert!((7990..=8000).contains(&wait.micros(start)));
        assert!((3990..=4000).contains(&wait.micros(start + HALF_LIFE)));
        assert_eq!(wait.micros(start + 100 * HALF_LIFE), 0);
    }
}
