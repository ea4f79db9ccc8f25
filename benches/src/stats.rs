//! Medians and quartiles.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What is kept of repeated measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// A quarter of the samples lies below.
    pub(crate) low: f64,
    /// A quarter of the samples lies above.
    pub(crate) high: f64,
    pub(crate) samples: usize,
}

impl Summary {
    /// All zero if there are no samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let sample = |index: f64| sorted.get(index as usize).copied().unwrap_or_default();
        let at = |part: f64| {
            let index = part * sorted.len().saturating_sub(1) as f64;
            // Between two samples, the line that joins them.
            let (below, above) = (sample(index.floor()), sample(index.ceil()));
            below + (above - below) * index.fract()
        };
        Self { median: at(0.5), low: at(0.25), high: at(0.75), samples: sorted.len() }
    }
}

/// The median of some samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    Summary::of(samples.iter().copied()).median
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        write!(f, "{:.decimals$} ({:.decimals$}–{:.decimals$})", self.median, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_samples_lie_between_the_quartiles() {
        let summary = Summary::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(summary, Summary { median: 3.0, low: 2.0, high: 4.0, samples: 5 });
        assert_eq!(format!("{summary:.0}"), "3 (2–4)");
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Summary::of([]).median, 0.0);
    }
}
