//! What the numbers are held against.

use std::fmt;

use serde::Serialize;

/// A bound on one number. Missing it is told, and is no failure of the benchmark.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    what: String,
    unit: &'static str,
    at_most: f64,
    measured: f64,
    met: bool,
}

impl Goal {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, at_most: f64, measured: f64) -> Self {
        Self { what: what.into(), unit, at_most, measured, met: measured <= at_most }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, at_most, measured, .. } = self;
        let verdict = if self.met { "met" } else { "MISSED" };
        write!(f, "{verdict}: {what} {measured:.2} {unit}, goal at most {at_most} {unit}")
    }
}
