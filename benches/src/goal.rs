//! What the numbers are held against.

use std::fmt;

use serde::Serialize;

/// A bound on one number. Missing it is told, and is no failure of the benchmark.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    what: String,
    unit: &'static str,
    #[serde(flatten)]
    bound: Bound,
    measured: f64,
    met: bool,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// A number that should be small.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, at_most: f64, measured: f64) -> Self {
        Self { what: what.into(), unit, bound: Bound::AtMost(at_most), measured, met: measured <= at_most }
    }

    /// A number that should be large.
    pub(crate) fn at_least(what: impl Into<String>, unit: &'static str, at_least: f64, measured: f64) -> Self {
        Self { what: what.into(), unit, bound: Bound::AtLeast(at_least), measured, met: measured >= at_least }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, bound, measured, met } = self;
        let verdict = if *met { "met" } else { "MISSED" };
        let (side, bound) = match bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        // Goals that were measured have decimals that say nothing.
        let bound = (bound * 100.0).round() / 100.0;
        write!(f, "{verdict}: {what} {measured:.2} {unit}, goal {side} {bound} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_on_its_side_of_the_bound() {
        assert_eq!(Goal::new("a", "ms", 2.0, 3.0).to_string(), "MISSED: a 3.00 ms, goal at most 2 ms");
        assert_eq!(Goal::at_least("a", "%", 85.0, 90.0).to_string(), "met: a 90.00 %, goal at least 85 %");
        let json = serde_json::to_value(Goal::new("a", "ms", 2.0, 2.0)).unwrap();
        assert_eq!((json["at_most"].as_f64(), json["met"].as_bool()), (Some(2.0), Some(true)));
    }
}
